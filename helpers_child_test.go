//go:build unix

package ampauth_test

import (
	"bufio"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// killedToken returns the tokens that a child saves by turns, of different lengths.
func killedToken(turn int) ampauth.Token {
	return ampauth.Token{Value: ampauth.SecretFromString(strings.Repeat("killed", 1+turn%2*600))}
}

const countsEach = 25

// countUnderTheLock adds one to a number in a file, as nobody else may do at once.
func countUnderTheLock(t *testing.T, s *ampauth.FileStore) {
	unlock, err := s.Lock(t.Context(), recordKey(t))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	path := s.Dir + ".count"
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(string(text))
	if err := os.WriteFile(path, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// directoryEnv names the directory of the store of a child process.
const directoryEnv = "AMPAUTH_TEST_DIRECTORY"

// fileStoreChild returns the command of a child of the tests of FileStore: this test
// binary once more, in TestFileStoreChild, for what concerns a whole process.
func fileStoreChild(t *testing.T, what, dir string) *exec.Cmd {
	t.Helper()
	cmd := childCommand(t.Context(), t, "filestore "+what, "-test.run=^TestFileStoreChild$")
	cmd.Env = append(cmd.Env, directoryEnv+"="+dir)
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

// openDirectory returns a directory that every user can write to.
func openDirectory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "open")
	err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711), os.Chmod(filepath.Dir(dir), 0o711), os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantModes fails unless the directory and the files in it are for the user alone.
func wantModes(t *testing.T, s *ampauth.FileStore) {
	t.Helper()
	err := filepath.WalkDir(s.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if want := map[bool]fs.FileMode{true: fs.ModeDir | 0o700, false: 0o600}[entry.IsDir()]; err == nil && info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Ext(path), info.Mode(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// within fails if call takes as long as if it waited for somebody.
func within(t *testing.T, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// startShared is a fake whose user has the canary for a password, and a directory
// for tokens that is not there yet.
func startShared(t *testing.T, handler func(*fakeamp.Server) http.Handler) (*fakeamp.Server, *httptest.Server, string) {
	t.Helper()
	fake := fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": canaryPassword}})
	server := httptest.NewServer(handler(fake))
	t.Cleanup(server.Close)
	t.Cleanup(fake.Close)
	return fake, server, filepath.Join(t.TempDir(), "tokens")
}

func sharedConfig(server *httptest.Server, store ampauth.TokenStore) ampauth.Config {
	return ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(canaryPassword)},
		Store:       store,
	}
}

func wantLogins(t *testing.T, fake *fakeamp.Server, obtains, refreshes int) {
	t.Helper()
	if o, r := fake.Count(ampObtain), fake.Count(ampRefresh); o != obtains || r != refreshes {
		t.Errorf("%d logins and %d refreshes, want %d and %d", o, r, obtains, refreshes)
	}
}

func asItIs(fake *fakeamp.Server) http.Handler { return fake }

func tokenFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.token"))
	if err != nil || len(files) != 1 {
		t.Fatalf("token files: %v, %v", files, err)
	}
	return filepath.Base(files[0])
}
