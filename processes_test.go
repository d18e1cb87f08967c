//go:build unix

package ampauth_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// Processes that share an account through a FileStore. Each is this test binary
// once more, and does what it is told line by line.

// TestProcess is such a process. It answers each line on stdin by one on stdout.
func TestProcess(t *testing.T) {
	if os.Getenv(childEnv) != "process" {
		t.Skip("runs in a child process of the tests below")
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	var records ampLog
	records.into(&cfg)
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	key, err := ampauth.NewStoreKey(cfg.BaseURL, cfg.Credentials.Username)
	if err != nil {
		t.Fatal(err)
	}
	// Which token it is, without showing it.
	digest := func(token ampauth.Token) (text string) {
		_ = token.Value.Expose(func(b []byte) error { text = fmt.Sprintf("%x", sha256.Sum256(b))[:8]; return nil })
		return text
	}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		answer := ""
		switch commands.Text() {
		case "token":
			token, err := client.Tokens.Token(t.Context())
			answer = fmt.Sprint(digest(token), " ", err)
		case "get":
			resp, err := client.Get(cfg.BaseURL + "/assets")
			if err != nil {
				answer = err.Error()
				break
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			answer = resp.Status
		case "lock":
			_, err := cfg.Store.(ampauth.Locker).Lock(t.Context(), key)
			answer = fmt.Sprint("locked ", err)
		case "events":
			answer = fmt.Sprint(strings.Count(records.String(), "the token store does not work"))
		case "ordinary user":
			dropRoot(t)
		case "small files": // as on a full disk, no file can grow beyond this
			signal.Ignore(syscall.SIGXFSZ)
			limit(t, syscall.RLIMIT_FSIZE, func(l *syscall.Rlimit) { l.Cur = 50 })
		case "read-only":
			answer = fmt.Sprint(os.Chmod(cfg.Store.(*ampauth.FileStore).Dir, 0o500))
		}
		fmt.Println("process:", answer)
	}
}

// startProcess starts a process for the fake's one user.
func startProcess(t *testing.T, server *httptest.Server, dir string) *process {
	t.Helper()
	cmd := childCommand(context.Background(), t, "process", "-test.run=^TestProcess$") // its end is awaited when t's context is over
	cmd.Env = append(cmd.Env,
		"AMP_API_BASE_URL="+server.URL+"/api", "AMP_USERNAME=issuer", "AMP_PASSWORD="+canaryPassword, "AMP_PASSWORD_FILE=",
		"AMP_TOKEN_DIR="+dir, "AMP_TOKEN_PERSISTENCE=")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = in.Close()
		for p.lines.Scan() {
			// until it has ended
		}
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() >= 0 {
			t.Errorf("a process ended in %v", err)
		}
	})
	return p
}

const manyProcesses = 16

func startProcesses(t *testing.T, n int, server *httptest.Server, dir string) []*process {
	t.Helper()
	processes := make([]*process, n)
	for i := range processes {
		processes[i] = startProcess(t, server, dir)
	}
	return processes
}

// wantNoSecretBut looks for secrets in every file below dir but those of a suffix.
func wantNoSecretBut(t *testing.T, dir, suffix string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(entry.Name(), suffix) {
			content = tokenShape.ReplaceAll(content, nil)
		}
		text := strings.ReplaceAll(string(content), "binding ", "")
		if len(leaks(text)) > 0 || !strings.HasSuffix(entry.Name(), suffix) && len(text) > 0 {
			t.Errorf("%s holds what it should not", entry.Name())
		}
	}
}

func TestColdProcessesMakeOneLogin(t *testing.T) {
	t.Parallel()
	fake, server, dir := startShared(t, asItIs)
	processes := startProcesses(t, manyProcesses, server, dir)
	if tokens := all(processes, "token"); len(tokens) != 1 {
		t.Errorf("the processes have the tokens %v, want one for all", tokens)
	}
	wantLogins(t, fake, 1, 0)
	for range 2 { // and those that come later make none
		if answer := startProcess(t, server, dir).do("get"); answer != "200 OK" {
			t.Error(answer)
		}
	}
	wantLogins(t, fake, 1, 0)
	wantNoSecretBut(t, dir, ".token")
}

// storeToken puts a token of the fake's user into the store.
func storeToken(t *testing.T, server *httptest.Server, dir, value string, left time.Duration) {
	t.Helper()
	key, err := ampauth.NewStoreKey(server.URL+"/api", "issuer")
	if err != nil {
		t.Fatal(err)
	}
	token := ampauth.Token{Value: ampauth.SecretFromString(value), ObtainedAt: time.Now().Add(left - 24*time.Hour), ExpiresAt: time.Now().Add(left)}
	if err := (&ampauth.FileStore{Dir: dir}).Save(t.Context(), key, token); err != nil {
		t.Fatal(err)
	}
}

// The refresh is answered only when all have been served the token that ends soon.
func TestProcessesWithAnEndingTokenMakeOneRefreshAndWaitForNothing(t *testing.T) {
	t.Parallel()
	served := make(chan struct{})
	fake, server, dir := startShared(t, func(fake *fakeamp.Server) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/refresh-token") {
				<-served
			}
			fake.ServeHTTP(w, r)
		})
	})
	storeToken(t, server, dir, fake.Rotate("issuer"), 2*time.Minute)
	processes := startProcesses(t, manyProcesses, server, dir)
	all(processes, "token") // taken from the store
	before := all(processes, "token")
	if len(before) != 1 {
		t.Errorf("the processes have the tokens %v, want one for all", before)
	}
	close(served)
	for fake.Count(ampRefresh) == 0 || fake.Token("issuer") == "" {
		time.Sleep(time.Millisecond) // it is under way in a process
	}
	if answers := all(processes, "get"); answers["200 OK"] != manyProcesses {
		t.Errorf("the processes got %v", answers)
	}
	after := all(processes, "token")
	if len(after) != 1 {
		t.Errorf("the processes have the tokens %v, want one for all", after)
	}
	wantLogins(t, fake, 0, 1)
}

func TestRefusedProcessesMakeOneLogin(t *testing.T) {
	t.Parallel()
	var fake *fakeamp.Server
	var mu sync.Mutex
	came := 0
	allCame := make(chan struct{})
	old := ""
	fake, server, dir := startShared(t, func(fake *fakeamp.Server) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			held := old != "" && r.Header.Get("Authorization") == "token "+old
			if held {
				if came++; came == manyProcesses {
					close(allCame)
				}
			}
			mu.Unlock()
			if held {
				<-allCame // all are refused at once
			}
			fake.ServeHTTP(w, r)
		})
	})
	processes := startProcesses(t, manyProcesses, server, dir)
	all(processes, "token")
	mu.Lock()
	old = fake.Token("issuer")
	mu.Unlock()
	fake.Revoke("issuer")
	if answers := all(processes, "get"); answers["200 OK"] != manyProcesses {
		t.Errorf("the processes got %v", answers)
	}
	wantLogins(t, fake, 2, 0)
}

// A process that was stopped holds the lock for as long as it likes.
func TestStoppedHolderOfTheLockDelaysNobodyWithAToken(t *testing.T) {
	takesLong(t, 10)
	t.Parallel()
	fake, server, dir := startShared(t, asItIs)
	holder := startProcess(t, server, dir)
	if answer := holder.do("lock"); answer != "locked <nil>" {
		t.Fatal(answer)
	}
	if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	storeToken(t, server, dir, fake.Rotate("issuer"), 2*time.Minute) // it ends soon, so somebody wants the lock
	with := startProcess(t, server, dir)
	for range 3 {
		if answer := with.do("get"); answer != "200 OK" {
			t.Error(answer)
		}
	}
	wantLogins(t, fake, 0, 0) // had it waited for the lock, it would have logged in by then

	if err := os.RemoveAll(filepath.Join(dir, tokenFile(t, dir))); err != nil {
		t.Fatal(err)
	}
	if answer := startProcess(t, server, dir).do("get"); answer != "200 OK" {
		t.Error(answer)
	}
	wantLogins(t, fake, 1, 0)
}

func TestKilledHolderOfTheLockIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	fake, server, dir := startShared(t, asItIs)
	holder := startProcess(t, server, dir)
	if answer := holder.do("lock"); answer != "locked <nil>" {
		t.Fatal(answer)
	}
	next := startProcess(t, server, dir)
	got := make(chan string)
	go func() { got <- next.do("get") }()
	if err := holder.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if answer := <-got; answer != "200 OK" {
		t.Error(answer)
	}
	wantLogins(t, fake, 1, 0)
	tokenFile(t, dir) // and stored it, which only the holder of the lock does
}

// A token file of another account, put in the place of one's own.
func TestTokenFileOfAnotherAccountIsNotSent(t *testing.T) {
	fake, server, dir := startShared(t, asItIs)
	store := &ampauth.FileStore{Dir: dir}
	for _, other := range []struct{ base, user string }{{server.URL + "/api", "mallory"}, {server.URL + "/v2", "issuer"}, {"https://amp.test/api", "issuer"}} {
		t.Run(other.base[len("http"):]+" "+other.user, func(t *testing.T) {
			theirs, _ := ampauth.NewStoreKey(other.base, other.user)
			ours, _ := ampauth.NewStoreKey(server.URL+"/api", "issuer")
			token := ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
			if err := store.Save(t.Context(), theirs, token); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, theirs.String()+".token"), filepath.Join(dir, ours.String()+".token")); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Load(t.Context(), ours); !errors.Is(err, ampauth.ErrNoToken) {
				t.Errorf("Load: %v", err)
			}
			before := fake.Count(ampObtain)
			client := newTestClient(t, sharedConfig(server, store))
			if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 || fake.Count(ampObtain) != before+1 || client.Stats().Replays != 0 {
				t.Errorf("status %d after %d logins and %d replays, want 200 after one and none", status, fake.Count(ampObtain)-before, client.Stats().Replays)
			}
		})
	}
}

// A disk that takes nothing more is told of once, and costs no request. Where nothing can be
// changed, neither can a refused token be removed, nor a new one be saved.
func TestProcessGoesOnWithoutItsStore(t *testing.T) {
	for _, spoil := range []string{"small files", "read-only", "deleted"} {
		t.Run(spoil, func(t *testing.T) {
			t.Parallel()
			fake, server, _ := startShared(t, asItIs)
			dir := filepath.Join(openDirectory(t), "tokens")
			p := startProcess(t, server, dir)
			p.do("ordinary user")
			if answer := p.do("get"); answer != "200 OK" {
				t.Fatal(answer)
			}
			if spoil != "deleted" {
				p.do(spoil)
			} else if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				fake.Revoke("issuer")
				if answer := p.do("get"); answer != "200 OK" {
					t.Error(answer)
				}
			}
			if answer := p.do("get"); answer != "200 OK" {
				t.Error(answer)
			}
			wantLogins(t, fake, 4, 0) // memory goes on
			want := map[string]string{"read-only": "2"}[spoil]
			if events := p.do("events"); events != cmp.Or(want, "1") {
				t.Errorf("%s records of it, want %s", events, cmp.Or(want, "1"))
			}
			_ = os.Chmod(dir, 0o700) // for the cleanup
		})
	}
}

func TestDirectoryThatGoesAwayIsMissedOnce(t *testing.T) {
	fake, server, dir := startShared(t, asItIs)
	var records ampLog
	cfg := sharedConfig(server, &ampauth.FileStore{Dir: dir})
	records.into(&cfg)
	client := newTestClient(t, cfg)
	get(t, client, server.URL+"/api/assets")
	// Gone, and nothing can take its place.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fake.Revoke("issuer")
		if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := strings.Count(records.String(), "token store does not work"); n != 1 {
		t.Errorf("%d records of it, want 1:\n%s", n, records.String())
	}
	if text := records.String(); !strings.Contains(text, "the directory "+dir+" is") || len(leaks(text)) > 0 {
		t.Errorf("the log does not name the directory, or shows a secret:\n%s", text)
	}
}

// A process is a TestProcess and the way to it.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// do gives the process a command and returns its answer.
func (p *process) do(command string) string {
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Errorf("%s: %v", command, err)
		return ""
	}
	for p.lines.Scan() {
		if answer, ok := strings.CutPrefix(p.lines.Text(), "process: "); ok {
			return answer
		}
	}
	p.t.Errorf("%s: the process ended without an answer", command)
	return ""
}

// all gives a command to all processes at once, and returns their answers.
func all(processes []*process, command string) map[string]int {
	var mu sync.Mutex
	answers := make(map[string]int)
	var wg sync.WaitGroup
	for _, p := range processes {
		wg.Go(func() {
			answer := p.do(command)
			mu.Lock()
			defer mu.Unlock()
			answers[answer]++
		})
	}
	wg.Wait()
	return answers
}
