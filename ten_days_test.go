package ampauth_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"golang.org/x/time/rate"
)

const (
	tenDaysCallers = 100
	tenDaysThink   = 15 * time.Minute // between two calls of a caller, on average
	// tenDaysRate is what the limiter lets pass in a second: hardly more than they need.
	tenDaysRate = 1.15 * tenDaysCallers / float64(tenDaysThink/time.Second)
)

// How long after its end a trouble may still be felt, and why.
const (
	// longestPause is that between two logins of an outage; a shorter one is half of it.
	longestPause = 30 * time.Second
	// longestRefusal is the pause after refused credentials. What a proxy answers in HTML
	// may be such a refusal.
	longestRefusal = time.Minute
	// longestObeyed is the longest Retry-After that stops logins for everybody.
	longestObeyed = time.Minute
	// longestAttempt at a login may have begun just before the end.
	longestAttempt = 10 * time.Second
	// spread is over how long those leave whom a Retry-After held back.
	spread = time.Second
	// refuserForgotten is when a login is worth a try for a resource that refused everything.
	refuserForgotten = 20 * time.Minute
)

// How many logins a trouble may cost.
const (
	// loginsByRefusers are for places that refuse whatever token, in any hour.
	loginsByRefusers = 5
	// loginsOfOutage are three attempts, those after pauses that grow from a second to the
	// longest, by half or more, and the one that heals. Then there is one for each pause.
	loginsOfOutage = 3 + 10 + 1
	// rotationsBesideRefuser are healed by a login each, although loginsByRefusers are counted.
	rotationsBesideRefuser = 2
	// An outage is not multiplied: so many logins for each call that fails.
	loginsForFailed = 1.2
)

const (
	refuserPath  = "/categories/7"
	mutationPath = "/categories/add"
)

var tenDaysReads = []string{"/categories", "/managers", "/managers/me", "/registered_users", "/gaids/GA1/balance", refuserPath}

// A trouble is something that goes wrong for a while.
type trouble struct {
	name   string
	spares spares
	heals  time.Duration // after its end: then calls succeed, and wait for nothing
	logins int           // that it costs at most in any hour
	every  time.Duration // and one more for each of these
	late   int           // calls after it has healed that may still fail, until one succeeds
	outage bool          // of the login
	begin  func()
	end    func() // nil: it is over at once

	began, ended, healed time.Duration // since the run began; the latter two far away at first
	failed               int           // calls, meanwhile
}

// spares are those whose calls succeed at once all the while.
type spares int

const (
	nobody spares = iota
	others        // who do not call refuserPath
	everybody
)

// troubles are what may come next and last so long. Steps of the wall clock are not among
// them, since a bubble cannot make them: see manager_internal_test.go.
func (d *tenDays) troubles(r *rand.Rand, length time.Duration) []trouble {
	half := min(length/2, longestPause)
	seconds := 1 + r.IntN(8)
	retryAfter := http.Header{"Retry-After": {fmt.Sprint(seconds)}}
	told := time.Duration(seconds)*time.Second + spread
	page := []int{400, 401, 403}[r.IntN(3)]
	rotations := 1 + r.IntN(3)
	password := fmt.Sprintf("correct horse %08x", r.Uint32())
	rotate := func() { d.w.Rotate("issuer") }
	ends := r.IntN(3) > 0
	outage := func(name string, heals, every time.Duration, f fakeamp.Fault) trouble {
		return *d.outage(name, ends, heals, every, f)
	}
	return []trouble{
		outage("login answers 503", half, longestPause, fakeamp.Fault{Status: 503}),
		outage("login answers 503 with a Retry-After", max(half, told), longestPause, fakeamp.Fault{Status: 503, Header: retryAfter}),
		outage("login answers 503 with a Retry-After of an hour", longestObeyed, longestPause,
			fakeamp.Fault{Status: 503, Header: http.Header{"Retry-After": {"3600"}}}),
		outage("login is reset", half, longestPause, fakeamp.Fault{Do: fakeamp.Reset}),
		outage("login stalls", longestAttempt+half, longestPause, fakeamp.Fault{Do: fakeamp.StallHeaders}),
		outage(fmt.Sprintf("a proxy answers the login %d in HTML", page), longestRefusal, longestRefusal, fakeamp.Fault{Status: page, HTML: true}),
		{name: "the token is revoked", spares: everybody, logins: 1, begin: func() { d.w.Revoke("issuer") }},
		{name: "somebody else rotates the token", spares: everybody, logins: 1, begin: rotate},
		{
			name: fmt.Sprintf("%d more rotations, each right after our login", rotations), logins: rotations + 1, late: 1,
			begin: func() { d.set(func() { d.rotations, d.rotated = rotations, 0 }); rotate() },
			end:   func() { d.set(func() { d.rotations = 0 }) },
		},
		{
			name: "the password is changed", logins: loginsOfOutage, every: longestRefusal,
			begin: func() { d.w.SetPassword("issuer", password) },
			end: func() {
				_ = d.client.Tokens.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(password)})
			},
		},
		{
			name: "every second request is answered 429", heals: told,
			begin: func() { d.set(func() { d.retryAfter = retryAfter }) },
			end:   func() { d.set(func() { d.retryAfter = nil }) },
		},
	}
}

// outage is one of the login. If the token does not end as well, nobody notices.
func (d *tenDays) outage(name string, ends bool, heals, every time.Duration, f fakeamp.Fault) *trouble {
	t := &trouble{name: name, spares: everybody, heals: heals, logins: loginsOfOutage, every: every, outage: true, end: d.w.ClearFaults}
	if ends {
		t.name, t.spares = name+", and the token is revoked", nobody
	}
	f.Times = -1
	t.begin = func() {
		for _, f.Route = range []string{ampObtain, ampRefresh} {
			d.w.Inject(f)
		}
		if ends {
			d.w.Revoke("issuer")
		}
	}
	return t
}

// lasting are the troubles of hours, which go on beside the others.
func (d *tenDays) lasting(r *rand.Rand) []trouble {
	status, anew := []int{404, 500}[r.IntN(2)], r.IntN(2) == 0
	return []trouble{
		{
			name:   fmt.Sprintf("a resource refuses whatever token, each login brings another: %v", anew),
			spares: others, heals: refuserForgotten, logins: loginsByRefusers,
			begin: func() { d.set(func() { d.refuses, d.anew = true, anew }) },
			end:   func() { d.set(func() { d.refuses, d.anew = false, false }) },
		},
		{
			name: fmt.Sprintf("refresh answers %d", status), spares: everybody, logins: 1,
			begin: func() { d.set(func() { d.refresh.Status = status }) },
			end:   func() { d.set(func() { d.refresh.Status = 0 }) },
		},
		{
			name: "refresh is slow", spares: everybody,
			begin: func() { d.set(func() { d.refresh.Delay = 5 * time.Second }) },
			end:   func() { d.set(func() { d.refresh.Delay = 0 }) },
		},
	}
}

// TestTenDays is the promise over time: a hundred callers, troubles of the login, the
// token and the account one after the other, on virtual time. Once a trouble has healed,
// within the time that is named for it, calls succeed and wait for nothing but the
// limiter; logins stay under a bound; no mutation has two effects. The troubles and the
// times of calls follow from the seed, the jitter within the package does not:
//
//	go test -run TestTenDays -seed 17 .
func TestTenDays(t *testing.T) {
	t.Parallel()
	days := 10
	if testing.Short() || raceEnabled {
		days = 1
	}
	seed := max(*stormSeed, 1) // other days are those of another -seed
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		d := &tenDays{w: w, seed: seed, began: time.Now(), over: time.Duration(days) * 24 * time.Hour, mutations: make(map[string]bool)}
		d.run()
	})
}

// tenDays is a run, and what is written down of it.
type tenDays struct {
	w      *ampWorld
	seed   uint64
	client *ampauth.Client
	probe  *http.Client // has the client's tokens and no limiter
	began  time.Time    // what follows is counted from then
	over   time.Duration

	mu sync.Mutex // guards all below
	// What the server does.
	rotations     int // after the next logins
	rotated       int // of them, so far
	anew, refuses bool
	retryAfter    http.Header // while every second request is throttled
	refresh       fakeamp.Fault
	// What came to pass.
	happened            []*trouble
	healed              int // so many of them have healed for all calls
	logins              []time.Duration
	obtained, refreshed uint64 // answers with a token
	sent                int    // requests of the client
	calls               int
	mutations           map[string]bool // by their ids, whether they succeeded
	events              []string        // the last ten
	failures            int
}

func (d *tenDays) run() {
	d.w.transport.MaxIdleConnsPerHost = tenDaysCallers
	d.w.answer(ampObtain, d.serveObtain)
	d.w.answer(ampRefresh, d.serveRefresh)
	d.w.answer("POST "+mutationPath, d.serve)
	for _, path := range tenDaysReads {
		d.w.answer("GET "+path, d.serve)
	}
	d.client = d.w.client(func(c *ampauth.Config) { c.Limiter = rate.NewLimiter(rate.Limit(tenDaysRate), 2) })
	d.probe = &http.Client{Transport: &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: d.w.transport, Source: d.client.Tokens}}}

	var group sync.WaitGroup
	for caller := range tenDaysCallers {
		group.Go(func() {
			r := d.random(caller)
			for n := 0; d.sleep(r, 0, 2*tenDaysThink); n++ {
				if r.IntN(20) == 0 {
					d.call(d.client.Client, "POST", mutationPath, fmt.Sprintf("%d-%d", caller, n))
				} else {
					d.call(d.client.Client, "GET", tenDaysReads[r.IntN(len(tenDaysReads))], "")
				}
			}
		})
	}
	group.Go(func() {
		for r := d.random(tenDaysCallers); d.sleep(r, 0, time.Minute); {
			d.call(d.probe, "GET", tenDaysReads[r.IntN(len(tenDaysReads))], "")
		}
	})
	group.Go(func() {
		for r := d.random(tenDaysCallers + 1); d.sleep(r, time.Minute, 2*time.Hour); {
			length := 10*time.Second + time.Duration(r.Int64N(int64([]time.Duration{time.Minute, time.Hour}[r.IntN(2)])))
			switch r.IntN(24) {
			case 0: // a quiet day, so that a token gets old
				d.sleep(r, 24*time.Hour, 28*time.Hour)
			case 1:
				length += 25 * time.Hour
				d.happens(length, d.outage("login is down beyond the assumed end", false, longestPause, longestPause, fakeamp.Fault{Status: 502}))
			default:
				d.happens(length, pick(r, d.troubles(r, length)))
			}
			if r.IntN(2) == 0 { // it has healed without anybody's call
				d.call(d.probe, "GET", "/managers", "")
			}
		}
	})
	group.Go(func() {
		for r := d.random(tenDaysCallers + 2); d.sleep(r, time.Minute, 10*time.Hour); {
			d.happens(time.Hour+time.Duration(r.Int64N(int64(8*time.Hour))), pick(r, d.lasting(r)))
		}
	})
	group.Wait()
	time.Sleep(time.Minute) // a refresh that is under way ends
	d.check()
}

func (d *tenDays) random(n int) *rand.Rand { return rand.New(rand.NewPCG(d.seed, uint64(n))) }

func pick[T any](r *rand.Rand, from []T) *T { return &from[r.IntN(len(from))] }

// sleep reports whether the run goes on.
func (d *tenDays) sleep(r *rand.Rand, from, to time.Duration) bool {
	time.Sleep(from + time.Duration(r.Int64N(int64(to-from))))
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now() < d.over && d.failures < 3
}

func (d *tenDays) now() time.Duration { return time.Since(d.began) }

func (d *tenDays) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// happens makes a trouble last, and returns when it has healed.
func (d *tenDays) happens(length time.Duration, t *trouble) {
	far, multiplied := d.over+48*time.Hour, t.outage && t.spares == nobody
	d.set(func() {
		t.began, t.ended, t.healed = d.now(), far, far
		d.happened = append(d.happened, t)
		d.note("begins: %s", t.name)
	})
	t.begin()
	if t.end != nil {
		time.Sleep(length)
		t.end()
	}
	d.set(func() { t.ended = d.now(); d.note("has ended: %s", t.name) })
	time.Sleep(t.heals)
	d.set(func() {
		t.healed = d.now()
		if n := d.loginsIn(t.began, t.ended); multiplied && float64(n) > 3+loginsForFailed*float64(t.failed) {
			d.fail("%d logins for %d calls that failed, while %s", n, t.failed, t.name)
		}
	})
	d.w.mu.Lock()
	d.w.seen = nil // it would grow for ten days
	d.w.mu.Unlock()
}
