//go:build unix

package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ampauth/ampauth"
)

// TestFileStoreChild does in a child process what the environment says.
func TestFileStoreChild(t *testing.T) {
	what, ok := strings.CutPrefix(os.Getenv(childEnv), "filestore ")
	if !ok {
		t.Skip("runs in a child process of the tests below")
	}
	s, k := &ampauth.FileStore{Dir: os.Getenv(directoryEnv)}, recordKey(t)
	begun := sync.OnceFunc(func() { fmt.Println("begun") })
	switch what {
	case "saves":
		for i := 0; ; i++ {
			if err := s.Save(t.Context(), k, killedToken(i)); err != nil {
				t.Fatal(err)
			}
			begun()
		}
	case "holds":
		if _, err := s.Lock(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		begun()
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "counts":
		for range countsEach {
			countUnderTheLock(t, s)
		}
	case "umask 0", "umask 077", "umask 0777":
		mask, _ := strconv.ParseInt(strings.Fields(what)[1], 8, 0)
		defer syscall.Umask(syscall.Umask(int(mask))) // a coverage report may follow
		dropRoot(t)
		unlock, err := s.Lock(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		saveCanary(t, s)
		wantCanary(t, s)
		saveCanary(t, s)
		wantModes(t, &ampauth.FileStore{Dir: filepath.Dir(s.Dir)})
	case "read-only":
		dropRoot(t)
		saveCanary(t, s)
		if err := os.Chmod(s.Dir, 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(s.Dir, 0o700) // for the cleanup
		wantStoreError(t, s, s.Save(t.Context(), k, renewedToken()), "the temporary file DIR/KEY.tmp cannot be made: permission denied")
		wantCanary(t, s)
		_, err := s.Lock(t.Context(), k)
		wantStoreError(t, s, err, "the lock file DIR/KEY.lock cannot be made: permission denied")
		below := &ampauth.FileStore{Dir: filepath.Join(s.Dir, "below")}
		wantStoreError(t, below, below.Save(t.Context(), k, renewedToken()), "the directory DIR cannot be made: permission denied")
		if err := os.Chmod(s.Dir, 0); err != nil {
			t.Fatal(err)
		}
		wantNoToken(t, s, "the directory DIR cannot be opened: permission denied")
	case "small files":
		saveCanary(t, s)
		signal.Ignore(syscall.SIGXFSZ)
		limit(t, syscall.RLIMIT_FSIZE, func(l *syscall.Rlimit) { l.Cur = 50 })
		wantStoreError(t, s, s.Save(t.Context(), k, renewedToken()), "the file DIR/KEY.token cannot be written: file too large")
		wantCanary(t, s)
		wantNoLeftovers(t, s)
	case "few files":
		saveCanary(t, s)
		limit(t, syscall.RLIMIT_NOFILE, func(l *syscall.Rlimit) { l.Cur = 64 })
		var open []*os.File
		defer func() {
			for _, f := range open {
				_ = f.Close()
			}
		}()
		for {
			f, err := os.Open("/dev/null")
			if err != nil {
				break
			}
			open = append(open, f)
		}
		for left := range 8 { // as few as a Save needs, and fewer
			err := s.Save(t.Context(), k, canaryTokenValue())
			if err == nil && left > 0 {
				break
			}
			if !errors.Is(err, ampauth.ErrStore) || !strings.HasSuffix(err.Error(), ": too many open files") {
				t.Errorf("with %d files left: got the error %v", left, err)
			}
			last := len(open) - 1
			_ = open[last].Close()
			open = open[:last]
		}
		wantCanary(t, s)
		wantNoLeftovers(t, s)
	case "plants links", "plants FIFOs", "plants directories":
		dropRoot(t)
		plant(strings.Fields(what)[1], s.Dir, begun)
	case "volume":
		saveInVolume(t, s.Dir)
	case "unreadable parent":
		dropRoot(t)
		wantHealed(t, s)
	default:
		t.Fatalf("what is %q?", what)
	}
}

func limit(t *testing.T, resource int, change func(*syscall.Rlimit)) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		t.Fatal(err)
	}
	before := l
	t.Cleanup(func() { _ = syscall.Setrlimit(resource, &before) }) // a coverage report may follow
	change(&l)
	if err := syscall.Setrlimit(resource, &l); err != nil {
		t.Fatal(err)
	}
}
