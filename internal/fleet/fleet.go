//go:build unix

// Package fleet runs many processes that share an account over a real engine, for the
// tests of stores: it kills and stops both, and counts what AMP is asked.
package fleet

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An Engine is a server that a fleet shares its token over, on loopback, for one test.
type Engine interface {
	Address() string // what a process makes its store of; it stays the same

	Kill()     // at once
	Restart()  // empty, after Kill
	Stop()     // it answers nobody, and its connections stay
	Continue() // after Stop

	// Fork makes a replica that hears of nothing any more; Promote puts it in place of
	// the engine, which it kills.
	Fork()
	Promote()

	// Calls is how many commands of stores it has had since its start.
	Calls() int
}

// A Subject is a store and its engine.
type Subject struct {
	NewEngine func(t testing.TB) Engine // that ends with the test
	NewStore  func(address string) ampauth.TokenStore
	Lease     time.Duration // of NewStore
}

const (
	many     = 16
	password = "correct horse battery"

	obtainRoute  = "POST /user/obtain_token"
	refreshRoute = "GET /user/refresh-token"
)

// A world is an engine, a fake AMP, and the processes of a fleet.
type world struct {
	testing.TB
	*fakeamp.Server
	subject Subject
	engine  Engine
	url     string

	unauthorized atomic.Int64
	refreshes    atomic.Int64
	hook         atomic.Pointer[func(http.ResponseWriter, *http.Request) bool] // true: it has answered

	mu     sync.Mutex  // guards logins
	logins []time.Time // when they arrived

	processes []*process
}

// A statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// newWorld makes one without processes. If engine is nil there is a new one.
func newWorld(t testing.TB, subject Subject, engine Engine) *world {
	t.Helper()
	w := &world{TB: t, subject: subject, engine: engine}
	if engine == nil {
		w.engine = subject.NewEngine(t)
	}
	w.Server = fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": password, "other": password}})
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	w.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		w.Close()
		server.Close()
	})
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api") {
	case obtainRoute:
		w.mu.Lock()
		w.logins = append(w.logins, time.Now())
		w.mu.Unlock()
	case refreshRoute:
		w.refreshes.Add(1)
	}
	if hook := w.hook.Load(); hook != nil && (*hook)(rw, r) {
		return
	}
	s := &statusWriter{rw, 200}
	w.ServeHTTP(s, r)
	if s.status == http.StatusUnauthorized {
		w.unauthorized.Add(1)
	}
}

// start adds processes of clients each, and waits until they are ready.
func (w *world) start(n, clients int) []*process {
	w.Helper()
	return w.startFor(account{w.url, "issuer"}, n, clients)
}

func (w *world) startFor(a account, n, clients int) []*process {
	w.Helper()
	var started []*process
	for range n {
		started = append(started, startProcess(w, a, w.engine.Address(), clients))
	}
	for _, p := range started {
		p.do("")
	}
	w.processes = append(w.processes, started...)
	return started
}

// all has processes do something at once.
func all(processes []*process, command string) *Reply {
	total := newReply()
	var wg sync.WaitGroup
	for _, p := range processes {
		wg.Go(func() { total.add(p.do(command)) })
	}
	wg.Wait()
	return total
}

// A count is what AMP has been asked.
type count struct{ logins, refreshes, unauthorized int }

func (w *world) count() count {
	w.mu.Lock()
	defer w.mu.Unlock()
	return count{len(w.logins), int(w.refreshes.Load()), int(w.unauthorized.Load())}
}

func (c count) minus(before count) count {
	return count{c.logins - before.logins, c.refreshes - before.refreshes, c.unauthorized - before.unauthorized}
}

func (c count) String() string {
	return fmt.Sprintf("%d logins, %d refreshes, %d answers 401", c.logins, c.refreshes, c.unauthorized)
}

// row prints a row of the table. If a reach is given, it says whether the slowest call keeps
// to it: what makes it do so is for the caller to enforce, by counts, since no time holds on
// every machine.
func (w *world) row(what string, c count, r *Reply, reach ...time.Duration) {
	w.Helper()
	w.Logf("%s: %v, slowest %s", what, c, timed(r.Slowest, reach...))
}

// timed is a time, and whether it keeps to its reach.
func timed(took time.Duration, reach ...time.Duration) string {
	text := fmt.Sprintf("%d ms", took.Milliseconds())
	switch {
	case len(reach) == 0:
	case took > reach[0]:
		text += fmt.Sprintf(" ABOVE THE REACH of %d ms", reach[0].Milliseconds())
	default:
		text += fmt.Sprintf(" (reach %d ms)", reach[0].Milliseconds())
	}
	return text
}

// want fails unless the counts are these.
func (w *world) want(got, want count) {
	w.Helper()
	if got != want {
		w.Errorf("got %v, want %v", got, want)
	}
}

// wantAll fails unless everybody had this answer.
func (w *world) wantAll(r *Reply, answer string) {
	w.Helper()
	if len(r.Answers) != 1 || r.Answers[answer] == 0 {
		w.Errorf("got the answers %v, want %q only", r.Answers, answer)
	}
}

// wantLockHad fails if somebody who waited for the lock gave up, rather than get it within
// the lease of a holder that died.
func (w *world) wantLockHad(processes []*process) {
	w.Helper()
	if n := all(processes, "stats").Faults["lock"]; n > 0 {
		w.Errorf("%d waited for the lock in vain", n)
	}
}

// wantGood fails unless the processes, and new ones, have the token that is good.
func (w *world) wantGood(processes []*process, user string) {
	w.Helper()
	r := all(processes, "token")
	if good := digestOf(ampauth.SecretFromString(w.Token(user))); len(r.Tokens) != 1 || r.Tokens[good] == 0 {
		w.Errorf("the processes have the tokens %v, and AMP's is %s", slices.Collect(maps.Keys(r.Tokens)), good)
	}
}

// stored is the token that the engine has.
func (w *world) stored(user string) string {
	w.Helper()
	token, err := w.store().Load(context.Background(), w.key(user))
	if err != nil {
		return err.Error()
	}
	return digestOf(token.Value)
}

func (w *world) good(user string) string { return digestOf(ampauth.SecretFromString(w.Token(user))) }

func (w *world) store() ampauth.TokenStore { return w.subject.NewStore(w.engine.Address()) }

func (w *world) key(user string) ampauth.StoreKey {
	w.Helper()
	k, err := ampauth.NewStoreKey(w.url+"/api", user)
	if err != nil {
		w.Fatal(err)
	}
	return k
}

// onFirstLogin has the first login answered by hand.
func (w *world) onFirstLogin(answer func(http.ResponseWriter, *http.Request)) {
	var once atomic.Bool
	hook := func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "obtain_token") || once.Swap(true) {
			return false
		}
		answer(rw, r)
		return true
	}
	w.hook.Store(&hook)
}
