//go:build unix

package ampauth_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// directoryEnv names the directory of the store of a child process.
const directoryEnv = "AMPAUTH_TEST_DIRECTORY"

// fileStoreChild returns the command of a child of the tests below: this test binary once more,
// in TestFileStoreChild, for what concerns a whole process.
func fileStoreChild(t *testing.T, what, dir string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, "-test.run=^TestFileStoreChild$")
	cmd.Env = append(os.Environ(), childEnv+"=filestore "+what, directoryEnv+"="+dir)
	return cmd
}

// runFileStoreChild runs a child to its end, which must be a good one.
func runFileStoreChild(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, output)
	}
}

// startFileStoreChild starts a child, waits until it says that it has begun, and
// returns a function that kills it.
func startFileStoreChild(t *testing.T, cmd *exec.Cmd) (kill func()) {
	t.Helper()
	stdin, err := cmd.StdinPipe() // the child waits for its end
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = stdin.Close()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "begun\n" {
		kill()
		t.Fatalf("the child said %q, %v", line, err)
	}
	return kill
}

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
		wantStoreError(t, s, s.Save(t.Context(), k, renewedToken()), "the temporary file cannot be made: permission denied")
		wantCanary(t, s)
		_, err := s.Lock(t.Context(), k)
		wantStoreError(t, s, err, "the lock file cannot be made: permission denied")
		below := &ampauth.FileStore{Dir: filepath.Join(s.Dir, "below")}
		wantStoreError(t, below, below.Save(t.Context(), k, renewedToken()), "the directory cannot be made: permission denied")
		if err := os.Chmod(s.Dir, 0); err != nil {
			t.Fatal(err)
		}
		wantNoToken(t, s, "the directory cannot be opened: permission denied")
	case "small files":
		saveCanary(t, s)
		signal.Ignore(syscall.SIGXFSZ)
		limit(t, syscall.RLIMIT_FSIZE, func(l *syscall.Rlimit) { l.Cur = 50 })
		wantStoreError(t, s, s.Save(t.Context(), k, renewedToken()), "the file cannot be written: file too large")
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

func renewedToken() ampauth.Token {
	return ampauth.Token{Value: ampauth.SecretFromString(canaryRenewedToken), ObtainedAt: time.Now()}
}

// dropRoot makes the process an ordinary user's, so that modes mean something.
func dropRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			t.Fatal(err)
		}
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
