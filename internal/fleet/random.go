//go:build unix

package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

const (
	// perAccount is how many processes share each of two accounts in a random run.
	perAccount = 4
	// calmTime and troubleTime are how long a phase of a random run lasts.
	calmTime    = 20 * time.Second
	troubleTime = 20 * time.Second
	// recovery is longer than any store is left alone after a fault.
	recovery = 32 * time.Second
)

var users = []string{"issuer", "other"}

// A random run is two accounts over one engine, whose processes make requests all the time
// while all that can die does. In a calm phase tokens are revoked and refreshed, and
// processes killed and stopped; in a phase of trouble the engine as well.
type random struct {
	*world
	dice   *rand.Rand
	slots  []*slot
	quit   atomic.Bool
	wrong  atomic.Int64 // tokens of another account, sent or stored
	torn   atomic.Int64 // records that could not be trusted
	loaded int          // records that were read, in all

	mu    sync.Mutex        // guards owner, and that no token is lost between AMP and it
	owner map[string]string // whose token it is

	trouble    bool
	counted    [2]tally // in calm, in trouble
	empty      int      // how often the engine came back empty
	calmLogins int
}

// A tally is what may cost a login.
type tally struct{ revoked, refreshed, started, killed, stopped int }

// A slot is where one process after another runs.
type slot struct {
	user    string
	process *process
	refresh atomic.Bool // it is to refresh next
	done    chan struct{}
	met     *Reply
}

// Random kills, stops and restarts processes and the engine at random for d. A seed of 0 is
// any. It ends with: no request and no record had a token of another account, no record was
// torn, no caller had an error, everybody has the token that is good, and there were no more
// logins than what has happened accounts for.
func Random(t *testing.T, s Subject, d time.Duration, seed uint64) {
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-for %v -seed %d", d, seed)
	r := &random{world: newWorld(t, s, nil), dice: rand.New(rand.NewPCG(seed, seed)), owner: make(map[string]string)}
	hook := r.answer
	r.hook.Store(&hook)
	for i := range len(users) * perAccount {
		r.slots = append(r.slots, &slot{user: users[i%len(users)], met: newReply()})
		r.begin(r.slots[i])
	}
	reader := make(chan struct{})
	go func() { defer close(reader); r.read() }()
	r.phases(d)
	r.finish(reader)
}

// phases alternates calm and trouble, which a recovery follows if there is time for it.
func (r *random) phases(d time.Duration) {
	end := time.Now().Add(d)
	calm, trouble := min(calmTime, d/2), min(troubleTime, d/2)
	for time.Now().Before(end) {
		r.phase(end, calm, false)
		r.phase(end, trouble, true)
		time.Sleep(min(recovery, max(0, time.Until(end))))
	}
}

func (r *random) phase(end time.Time, d time.Duration, trouble bool) {
	r.trouble = trouble
	before := r.count().logins
	if last := time.Now().Add(d); last.Before(end) {
		end = last
	}
	for time.Now().Before(end) {
		if trouble {
			r.outage()
		}
		r.act()
	}
	if !trouble {
		r.calmLogins += r.count().logins - before
	}
}

// outage is the engine away for a while in which something happens.
func (r *random) outage() {
	back := r.engine.Continue
	if r.dice.IntN(2) == 0 {
		r.engine.Kill()
		r.empty++
		back = r.engine.Restart
	} else {
		r.engine.Stop()
	}
	for range 1 + r.dice.IntN(2) {
		r.act()
	}
	back()
}

// act does something to a process or a token, after a while.
func (r *random) act() {
	time.Sleep(time.Duration(100+r.dice.IntN(400)) * time.Millisecond)
	n := &r.counted[0]
	if r.trouble {
		n = &r.counted[1]
	}
	s := r.slots[r.dice.IntN(len(r.slots))]
	switch r.dice.IntN(5) {
	case 0, 1:
		n.revoked++
		r.mu.Lock()
		r.Revoke(s.user)
		r.mu.Unlock()
	case 2:
		n.refreshed++
		s.refresh.Store(true)
	case 3:
		n.killed++
		time.Sleep(time.Duration(r.dice.IntN(50)) * time.Millisecond)
		s.process.kill()
		<-s.done
		r.begin(s)
		n.started++
	case 4:
		n.stopped++
		s.process.signal(syscall.SIGSTOP)
		time.Sleep(r.subject.Lease/2 + time.Duration(r.dice.Int64N(int64(r.subject.Lease))))
		s.process.signal(syscall.SIGCONT)
	}
}

// begin starts the process of a slot, and has it make requests until it dies.
func (r *random) begin(s *slot) {
	r.Helper()
	s.process, s.done = r.startFor(account{r.url, s.user}, 1, 1)[0], make(chan struct{})
	go func(p *process) {
		defer close(s.done)
		for !r.quit.Load() {
			command := "loop 200ms"
			if s.refresh.Swap(false) {
				command = "refresh"
			}
			reply := p.do(command)
			if len(reply.Answers) == 0 {
				return
			}
			s.met.add(reply)
		}
	}(s.process)
}

// answer takes note of whose token it is, and of requests with a token of another's. A login
// takes a while, so that one dies in it now and then.
func (r *random) answer(rw http.ResponseWriter, req *http.Request) bool {
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "token ")
	if user := req.Header.Get(userHeader); user != "" {
		r.check(user, token)
		return false
	}
	body, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(body))
	time.Sleep(rand.N(200 * time.Millisecond))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ServeHTTP(rw, req)
	for _, user := range users {
		if token := r.Token(user); token != "" {
			r.owner[token] = user
		}
	}
	return true
}

func (r *random) check(user, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owner[token] != user {
		r.wrong.Add(1)
	}
}

// read reads the records all the time.
func (r *random) read() {
	store := r.store()
	for ; !r.quit.Load(); time.Sleep(5 * time.Millisecond) {
		for _, user := range users {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			token, err := store.Load(ctx, r.key(user))
			cancel()
			switch {
			case err == nil:
				r.loaded++
				_ = token.Value.Expose(func(b []byte) error { r.check(user, string(b)); return nil })
			case errors.Is(err, ampauth.ErrNoToken) && err.Error() != ampauth.ErrNoToken.Error():
				r.torn.Add(1)
			}
		}
	}
}

// finish has everybody come to rest and looks at what was met.
func (r *random) finish(reader chan struct{}) {
	r.quit.Store(true)
	<-reader
	met, stats := newReply(), newReply()
	for _, s := range r.slots {
		<-s.done
		met.add(s.met)
		last := s.process.do("get")
		r.wantAll(last, "200 OK")
		stats.add(s.process.do("stats"))
	}
	for _, user := range users {
		var of []*process
		for _, s := range r.slots {
			if s.user == user {
				of = append(of, s.process)
			}
		}
		r.wantGood(of, user)
	}
	broken := int(r.torn.Load()) + stats.Faults[torn]
	r.Logf("%d records read; of another account %d, torn %d", r.loaded, r.wrong.Load(), broken)
	if r.wrong.Load() > 0 || broken > 0 || r.loaded == 0 {
		r.Error("a wrong account, a torn record, or nothing was read")
	}
	for answer := range met.Answers {
		switch answer {
		case "200 OK", "ok", "401 Unauthorized": // that if the next token was revoked as well
		default:
			r.Errorf("a caller got %q", answer)
		}
	}
	c := r.count()
	r.row(fmt.Sprintf("random, answers %v", met.Answers), c, met)
	calm, all := r.mostLogins()
	r.Logf("in calm %+v: %d logins, at most %d", r.counted[0], r.calmLogins, calm)
	r.Logf("in trouble %+v, engine back empty %d times: %d logins, at most %d in all", r.counted[1], r.empty, c.logins-r.calmLogins, all)
	if r.calmLogins > calm || c.logins > all {
		r.Error("more logins than that")
	}
}

// mostLogins is what the counts account for: in calm, and in all.
//
// While the engine is there a token that has ended costs a login for its whole account, and a
// process that starts costs none, unless the engine came back empty. Who asks for a refresh
// gets a login if that fails. Who dies in its login, or sleeps beyond its lease, has made one
// that nobody has had; who sleeps in a call of its store leaves that alone for a while, and may
// log in beside the others.
//
// While it is away, and until the stores have noticed that it is back, each process of the
// account is on its own, and so is one that starts.
func (r *random) mostLogins() (calm, all int) {
	c, t := r.counted[0], r.counted[1]
	calm = len(users)*(1+r.empty) + c.revoked + c.refreshed + c.killed + 2*c.stopped
	all = calm + perAccount*(t.revoked+t.refreshed) + t.refreshed + t.started + t.killed + 2*t.stopped
	return calm, all
}
