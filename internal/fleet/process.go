//go:build unix

package fleet

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// The environment of a process, besides that of ConfigFromEnv.
const (
	childEnv   = "AMPAUTH_FLEET_PROCESS"
	engineEnv  = "AMPAUTH_FLEET_ENGINE"
	clientsEnv = "AMPAUTH_FLEET_CLIENTS"
)

// userHeader says whose request it is, beside its token.
const userHeader = "Fleet-User"

// A Reply is what the clients of a process, or of many, have met.
type Reply struct {
	Answers map[string]int // statuses and errors
	Tokens  map[string]int // digests
	Slowest time.Duration
	Stats   ampauth.Stats
	Store   StoreCalls
	Faults  map[string]int // of stores, by the reason of the event
	mu      sync.Mutex
}

func newReply() *Reply {
	return &Reply{Answers: make(map[string]int), Tokens: make(map[string]int), Faults: make(map[string]int)}
}

// add adds what another has met.
func (r *Reply) add(other *Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range []struct{ to, from map[string]int }{{r.Answers, other.Answers}, {r.Tokens, other.Tokens}, {r.Faults, other.Faults}} {
		for name, n := range m.from {
			m.to[name] += n
		}
	}
	r.Slowest = max(r.Slowest, other.Slowest)
	r.Stats.Obtains += other.Stats.Obtains
	r.Stats.Adoptions += other.Stats.Adoptions
	r.Stats.StoreFaults += other.Stats.StoreFaults
	r.Store = StoreCalls{r.Store.Loads + other.Store.Loads, r.Store.Saves + other.Store.Saves, r.Store.Locks + other.Store.Locks, r.Store.Others + other.Store.Others}
}

// took takes note of a call.
func (r *Reply) took(began time.Time, answer string, token ampauth.Token) {
	one := newReply()
	one.Slowest = time.Since(began)
	one.Answers[answer]++
	if !token.Value.IsZero() {
		one.Tokens[digestOf(token.Value)]++
	}
	r.add(one)
}

// digestOf says which token it is, without showing it.
func digestOf(value ampauth.Secret) (text string) {
	_ = value.Expose(func(b []byte) error { text = fmt.Sprintf("%x", sha256.Sum256(b))[:8]; return nil })
	return text
}

// Main is the main function of a process, if this is one: call it first in TestMain.
func Main(newStore func(address string) ampauth.TokenStore) {
	if os.Getenv(childEnv) == "" {
		return
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(os.Getenv(clientsEnv))
	if err != nil {
		panic(err)
	}
	clients := make([]*ampauth.Client, n)
	book := &ledger{faults: make(map[string]int)}
	cfg.OnEvent = book.onEvent
	for i := range clients {
		cfg.Store = &countedStore{newStore(os.Getenv(engineEnv)).(fleetStore), book}
		if clients[i], err = ampauth.NewClient(cfg); err != nil {
			panic(err)
		}
	}
	key, err := ampauth.NewStoreKey(cfg.BaseURL, cfg.Credentials.Username)
	if err != nil {
		panic(err)
	}
	answers := json.NewEncoder(os.Stdout)
	_ = answers.Encode(newReply())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		verb, argument, _ := strings.Cut(commands.Text(), " ")
		reply := newReply()
		var all sync.WaitGroup
		each := func(do func(*ampauth.Client)) {
			for _, c := range clients {
				all.Go(func() { do(c) })
			}
			all.Wait()
		}
		switch verb {
		case "token":
			each(func(c *ampauth.Client) {
				began := time.Now()
				token, err := c.Tokens.Token(context.Background())
				reply.took(began, errorText(err), token)
			})
		case "get":
			each(func(c *ampauth.Client) { get(c, &cfg, reply) })
		case "loop": // a request each 10 ms, for so long
			d, _ := time.ParseDuration(argument)
			each(func(c *ampauth.Client) {
				for began := time.Now(); time.Since(began) < d; time.Sleep(10 * time.Millisecond) {
					get(c, &cfg, reply)
				}
			})
		case "refresh":
			began := time.Now()
			token, err := clients[0].Tokens.Refresh(context.Background())
			reply.took(began, errorText(err), token)
		case "lock": // and hold it
			began := time.Now()
			_, err := cfg.Store.(ampauth.Locker).Lock(context.Background(), key)
			reply.took(began, errorText(err), ampauth.Token{})
		case "stats":
			reply.add(book.reply())
			for _, c := range clients {
				reply.add(&Reply{Stats: c.Stats()})
			}
		}
		_ = answers.Encode(reply)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	os.Exit(0)
}

func errorText(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func get(c *ampauth.Client, cfg *ampauth.Config, reply *Reply) {
	began := time.Now()
	req, err := http.NewRequest(http.MethodGet, cfg.URL("/assets"), nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set(userHeader, cfg.Credentials.Username)
	resp, err := c.Do(req)
	if err != nil {
		reply.took(began, err.Error(), ampauth.Token{})
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	reply.took(began, resp.Status, ampauth.Token{})
}

// A process is this test binary once more, which does what it is told line by line.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
	killed  bool
}

// An account is whose processes they are.
type account struct{ url, user string }

func startProcess(t testing.TB, a account, engine string, clients int) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1", engineEnv+"="+engine, clientsEnv+"="+strconv.Itoa(clients), "GOMAXPROCS=1",
		"GORACE=atexit_sleep_ms=0", // a second for each of them otherwise
		"AMP_API_BASE_URL="+a.url+"/api", "AMP_USERNAME="+a.user, "AMP_PASSWORD="+password, "AMP_PASSWORD_FILE=", "AMP_TOKEN_DIR=", "AMP_TOKEN_PERSISTENCE=")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, in: in, answers: json.NewDecoder(out)}
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		_ = in.Close()
		if err := cmd.Wait(); err != nil && !p.killed {
			t.Errorf("a process ended in %v", err)
		}
	})
	return p
}

// do has a process do something. The reply of one that was killed is empty.
func (p *process) do(command string) *Reply {
	if command != "" { // it says by itself that it is ready
		_, _ = io.WriteString(p.in, command+"\n")
	}
	reply := newReply()
	_ = p.answers.Decode(reply)
	return reply
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) kill() {
	p.killed = true
	_ = p.cmd.Process.Kill()
}
