//go:build unix

package fleet

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// Run runs the rows of the table in docs/fleets.md, each of which prints its counts.
func Run(t *testing.T, s Subject) {
	t.Run("wrong password", func(t *testing.T) { // ten seconds, beside the others
		t.Parallel()
		wrongPassword(t, s)
	})
	t.Run("rows", func(t *testing.T) {
		t.Parallel()
		runRows(t, s)
	})
}

func runRows(t *testing.T, s Subject) {
	for _, row := range []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"cold", cold},
		{"token ending", ending},
		{"all refused at once", refused},
		{"holder killed", holderKilled},
		{"holder killed in its login", holderKilledInLogin},
		{"holder stopped past its lease", holderStopped},
		{"woken holder is late", lateHolder},
		{"engine killed, token valid", engineKilled},
		{"engine stopped, token valid", engineStopped},
		{"engine down from the start", engineDown},
		{"engine gone with a revoked token", engineGoneAndRevoked},
		{"engine back, empty", engineBackEmpty},
		{"engine back, a stale replica", staleReplica},
		{"200 clients in 4 processes", crowd},
		{"fresh token", freshToken},
		{"two accounts, two base URLs", accounts},
	} {
		t.Run(row.name, func(t *testing.T) { row.run(t, s) })
	}
}

func cold(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	r := all(w.processes, "get")
	w.row("cold", w.count(), r)
	w.want(w.count(), count{1, 0, 0})
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")
}

func ending(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	left := 2 * time.Minute
	now := time.Now()
	token := ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: now.Add(left - 24*time.Hour), ExpiresAt: now.Add(left)}
	if err := w.store().Save(context.Background(), w.key("issuer"), token); err != nil {
		t.Fatal(err)
	}
	w.start(many, 1)
	old := digestOf(token.Value)
	if r := all(w.processes, "token"); r.Answers["ok"] != many {
		t.Fatalf("got %v", r.Answers)
	}
	// From the next call on one refreshes, and the others are idle until they have heard.
	all(w.processes[:1], "token")
	w.await("all have the new token", func() bool {
		r := all(w.processes, "token")
		return len(r.Tokens) == 1 && r.Tokens[old] == 0
	})
	r := all(w.processes, "get")
	w.row("token ending, idle processes", w.count(), r)
	w.want(w.count(), count{0, 1, 0})
	w.wantAll(r, "200 OK")
}

// await waits until something holds.
func (w *world) await(what string, holds func() bool) {
	w.Helper()
	for began := time.Now(); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			w.Fatalf("not after 30 s: %s", what)
		}
	}
}

// revoke ends the token of the account so that n requests with it are refused at once.
func (w *world) revoke(n int) {
	old := "token " + w.Token("issuer")
	var came atomic.Int64
	there := make(chan struct{})
	hook := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == old {
			if came.Add(1) == int64(n) {
				close(there)
			}
			<-there
		}
		return false
	}
	w.hook.Store(&hook)
	w.Revoke("issuer")
}

func refused(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	before := w.count()
	w.revoke(many)
	r := all(w.processes, "get")
	w.row("all refused at once", w.count().minus(before), r)
	w.want(w.count().minus(before), count{1, 0, many})
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")
}

func wrongPassword(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	w.SetPassword("issuer", "another one entirely")
	r := all(w.processes, "loop 10s")
	w.row("wrong password, 10 s", w.count(), r)
	if n := w.count().logins; n > many+2 {
		t.Errorf("%d logins, want at most %d", n, many+2)
	}
}

func holderKilled(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	w.processes[0].do("lock")
	w.processes[0].kill()
	r := all(w.processes[1:], "get")
	w.row("holder killed", w.count(), r, s.Lease+2*time.Second)
	w.want(w.count(), count{1, 0, 0})
	w.wantAll(r, "200 OK")
	w.wantLockHad(w.processes[1:])
}

func holderKilledInLogin(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	arrived := make(chan struct{})
	w.onFirstLogin(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	})
	go w.processes[0].do("get")
	<-arrived
	time.AfterFunc(300*time.Millisecond, w.processes[0].kill)
	r := all(w.processes[1:], "get")
	w.row("holder killed in its login", w.count(), r, s.Lease+2*time.Second)
	w.want(w.count(), count{2, 0, 0}) // its own, which did not come to its end, is one
	w.wantAll(r, "200 OK")
	w.wantLockHad(w.processes[1:])
}

func holderStopped(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	holder := w.processes[0]
	holder.do("lock")
	holder.signal(syscall.SIGSTOP)
	r := all(w.processes[1:], "get")
	holder.signal(syscall.SIGCONT)
	r.add(all(w.processes, "get"))
	w.row("holder stopped past its lease", w.count(), r, s.Lease+2*time.Second)
	w.want(w.count(), count{1, 0, 0})
	w.wantAll(r, "200 OK")
	w.wantLockHad(w.processes[1:])
	w.wantGood(w.processes, "issuer")
}

// The answer of its login is on its way when a holder stops; while it does, another
// process replaces the token.
func lateHolder(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(3, 1)
	late, other, third := w.processes[0], w.processes[1], w.processes[2]
	arrived, answer := make(chan struct{}), make(chan struct{})
	w.onFirstLogin(func(rw http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		w.ServeHTTP(recorded, r)
		close(arrived)
		<-answer
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write(recorded.Body.Bytes())
	})
	woken := make(chan *Reply)
	go func() { woken <- late.do("get") }()
	<-arrived
	late.signal(syscall.SIGSTOP)
	time.Sleep(s.Lease + 500*time.Millisecond)
	w.Revoke("issuer")
	r := other.do("get")
	close(answer)
	time.Sleep(100 * time.Millisecond) // so that it is there when the holder wakes
	late.signal(syscall.SIGCONT)
	r.add(<-woken)
	if got, want := w.stored("issuer"), w.good("issuer"); got != want {
		t.Errorf("%s is stored, and %s is good: the woken holder has overwritten it", got, want)
	}
	r.add(third.do("get"))
	w.row("woken holder", w.count(), r)
	w.want(w.count(), count{2, 0, 0}) // the late one, and the one that replaced its token
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")
}

func engineKilled(t *testing.T, s Subject) {
	engineAway(t, s, Engine.Kill, "engine killed, token valid")
}
func engineStopped(t *testing.T, s Subject) {
	engineAway(t, s, Engine.Stop, "engine stopped, token valid")
}

func engineAway(t *testing.T, s Subject, away func(Engine), what string) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	before := w.count()
	with := all(w.processes, "loop 500ms")
	away(w.engine)
	time.Sleep(100 * time.Millisecond) // what the first of them caused is over
	calls := all(w.processes, "stats").Store
	r := all(w.processes, "loop 1s")
	calls = all(w.processes, "stats").Store.minus(calls)
	w.row(what, w.count().minus(before), r, with.Slowest+100*time.Millisecond)
	t.Logf("with the engine the slowest took %s; without, %d calls of a store", timed(with.Slowest), calls.sum())
	w.want(w.count().minus(before), count{0, 0, 0})
	w.wantAll(r, "200 OK")
	if calls.sum() != 0 {
		t.Errorf("requests made the calls %+v of stores whose engine is away", calls)
	}
}

// wantSpread fails unless the logins since n have come over a while.
func (w *world) wantSpread(n int) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.logins) < n+many/2 {
		return // too few
	}
	spread := w.logins[len(w.logins)-1].Sub(w.logins[n])
	w.Logf("%d logins over %d ms", len(w.logins)-n, spread.Milliseconds())
	if spread < 300*time.Millisecond {
		w.Errorf("%d logins came within %v", len(w.logins)-n, spread)
	}
}

func engineDown(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.engine.Kill()
	w.start(many, 1)
	r := all(w.processes, "get")
	w.row("engine down from the start", w.count(), r)
	if c := w.count(); c.logins > many || c.refreshes > 0 || c.unauthorized > 0 {
		t.Errorf("got %v", c)
	}
	w.wantSpread(0)
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")
}

func engineGoneAndRevoked(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	w.engine.Kill()
	before := w.count()
	w.revoke(many)
	r := all(w.processes, "get")
	c := w.count().minus(before)
	w.row("engine gone with a revoked token", c, r)
	if c.logins > many || c.unauthorized != many {
		t.Errorf("got %v", c)
	}
	w.wantSpread(before.logins)
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")

	w.engine.Restart()
	time.Sleep(2500 * time.Millisecond)
	before = w.count()
	w.Revoke("issuer")
	r = all(w.processes, "get")
	c = w.count().minus(before)
	w.row("the same engine back 2.5 s later, and a revocation", c, r)
	if c.logins > 2 {
		t.Errorf("got %v, want at most 2 logins", c)
	}
	w.wantAll(r, "200 OK")
	w.wantGood(w.processes, "issuer")
}

// afterReturn is what comes after the engine is back.
func (w *world) afterReturn(what string, before count) {
	r := all(w.processes, "get")
	w.start(1, 1)
	r.add(w.processes[len(w.processes)-1].do("get"))
	w.Revoke("issuer")
	first := time.Now()
	r.add(all(w.processes, "get"))
	w.wantGood(w.processes, "issuer")
	w.Logf("all on one token, by one request each, %s after the first", timed(time.Since(first), 5*time.Second))
	c := w.count().minus(before)
	w.row(what, c, r)
	if c.logins > 2 || c.refreshes > 0 {
		w.Errorf("got %v, want at most 2 logins", c)
	}
	w.wantAll(r, "200 OK")
	if got := w.stored("issuer"); got != w.good("issuer") {
		w.Errorf("the engine has %s, and %s is good", got, w.good("issuer"))
	}
}

func engineBackEmpty(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	before := w.count()
	w.engine.Kill()
	all(w.processes, "get")
	w.engine.Restart()
	w.afterReturn("engine back empty, a new process, a revocation", before)
}

func staleReplica(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	w.engine.Fork()
	w.Revoke("issuer")
	all(w.processes, "get")
	before := w.count()
	w.engine.Promote()
	w.afterReturn("stale replica promoted, a new process, a revocation", before)
}

func crowd(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(4, 50)
	w.crowded("200 clients, cold", 0)
	w.revoke(200)
	w.crowded("200 clients, all refused", 200)
}

// crowded has 200 clients make a request. They make one login, and each takes the lock once:
// how long that takes is the machine's.
func (w *world) crowded(what string, refusals int) {
	w.Helper()
	before, calls := w.count(), all(w.processes, "stats").Store
	r := all(w.processes, "get")
	stats := all(w.processes, "stats")
	calls = stats.Store.minus(calls)
	w.row(what, w.count().minus(before), r, 3*time.Second)
	w.Logf("%d locks, %d loads, %d saves", calls.Locks, calls.Loads, calls.Saves)
	w.want(w.count().minus(before), count{1, 0, refusals})
	w.wantAll(r, "200 OK")
	w.wantLockHad(w.processes)
	if calls.Locks > 200 || calls.Saves != 1 {
		w.Errorf("%d locks and %d saves, want at most one lock each, and one save", calls.Locks, calls.Saves)
	}
}

func freshToken(t *testing.T, s Subject) {
	w := newWorld(t, s, nil)
	w.start(many, 1)
	all(w.processes, "get")
	all(w.processes, "get")
	time.Sleep(500 * time.Millisecond) // the Watch of the last has looked
	before := w.engine.Calls()
	r := all(w.processes, "loop 2s")
	n := 0
	for _, answers := range r.Answers {
		n += answers
	}
	touched := w.engine.Calls() - before
	t.Logf("fresh token: %d requests, %d commands", n, touched)
	if touched != 0 || n < 10*many {
		t.Errorf("%d requests made %d commands", n, touched)
	}
	w.wantAll(r, "200 OK")
}

func accounts(t *testing.T, s Subject) {
	first := newWorld(t, s, nil)
	second := newWorld(t, s, first.engine)
	groups := make(map[*world]map[string][]*process)
	for _, w := range []*world{first, second} {
		groups[w] = make(map[string][]*process)
		for _, user := range []string{"issuer", "other"} {
			groups[w][user] = w.startFor(account{w.url, user}, 4, 1)
		}
	}
	everybody := append(append([]*process(nil), first.processes...), second.processes...)
	r := all(everybody, "get")
	for _, w := range []*world{first, second} {
		w.row("two accounts, at one of two base URLs", w.count(), r)
		w.want(w.count(), count{2, 0, 0})
		for user, processes := range groups[w] {
			w.wantGood(processes, user)
		}
	}
	first.wantAll(r, "200 OK")
}
