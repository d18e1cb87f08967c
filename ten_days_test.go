package ampauth_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
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

	began, ended, healed time.Time // the latter two far away at first
	failed               int       // calls, meanwhile
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
			begin: func() { d.set(func() { d.rotations = rotations }); rotate() },
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
	days := 10
	if testing.Short() || raceEnabled {
		days = 1
	}
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		d := &tenDays{w: w, seed: seed, began: time.Now(), mutations: make(map[string]bool)}
		d.over = d.began.Add(time.Duration(days) * 24 * time.Hour)
		d.run()
	})
}

// tenDays is a run, and what is written down of it.
type tenDays struct {
	w           *ampWorld
	seed        uint64
	client      *ampauth.Client
	probe       *http.Client // has the client's tokens and no limiter
	began, over time.Time

	mu sync.Mutex // guards all below
	// What the server does.
	rotations     int // after the next logins
	anew, refuses bool
	retryAfter    http.Header // while every second request is throttled
	refresh       fakeamp.Fault
	// What came to pass.
	happened            []*trouble
	healed              int // so many of them have healed for all calls
	logins              []time.Time
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
	return time.Now().Before(d.over) && d.failures < 3
}

func (d *tenDays) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// happens makes a trouble last, and returns when it has healed.
func (d *tenDays) happens(length time.Duration, t *trouble) {
	far, multiplied := d.over.Add(48*time.Hour), t.outage && t.spares == nobody
	d.set(func() {
		t.began, t.ended, t.healed = time.Now(), far, far
		d.happened = append(d.happened, t)
		d.note("begins: %s", t.name)
	})
	t.begin()
	d.set(d.meet)
	if t.end != nil {
		time.Sleep(length)
		t.end()
	}
	d.set(func() { t.ended = time.Now(); d.note("has ended: %s", t.name) })
	time.Sleep(t.heals)
	d.set(func() {
		t.healed = time.Now()
		if n := d.loginsIn(t.began, t.ended); multiplied && float64(n) > 3+loginsForFailed*float64(t.failed) {
			d.fail("%d logins for %d calls that failed, while %s", n, t.failed, t.name)
		}
	})
	d.w.mu.Lock()
	d.w.seen = nil // it would grow for ten days
	d.w.mu.Unlock()
}

// call makes a call and says so if it failed, or waited, and no trouble excuses it.
func (d *tenDays) call(client *http.Client, method, path, id string) {
	req, err := http.NewRequest(method, d.w.url+"/api"+path, nil)
	if id != "" {
		req, err = http.NewRequest(method, d.w.url+"/api"+path, strings.NewReader(`{"name":"Bonds"}`))
		req.Header = http.Header{"Content-Type": {"application/json"}, "X-Operation-Id": {id}}
	}
	if err != nil {
		d.w.t.Error(err)
		return
	}
	if client == d.probe {
		req.Header.Set("X-Probe", "1")
	}
	began, sent := time.Now(), 0
	d.set(func() { sent = d.sent })
	end := ""
	resp, err := client.Do(req)
	if err != nil {
		end = err.Error()
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		end = resp.Status
	}
	took, good := time.Since(began), err == nil && resp.StatusCode == 200

	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if id != "" {
		d.mutations[id] = good
	}
	excused := d.excuse(path, began, !good)
	if !excused && good {
		d.healed = len(d.happened)
	}
	// The limiter lets others pass all the time that this one waits.
	limited := time.Duration(float64(d.sent-sent+limiterSlack) / tenDaysRate * float64(time.Second))
	switch {
	case excused:
	case !good && d.late():
	case !good:
		d.fail("%s %s failed after %v: %s", method, path, took, end)
	case client == d.probe && took > 0:
		d.fail("%s %s, beside the limiter, took %v", method, path, took)
	case took > limited:
		d.fail("%s %s took %v, and the limiter wanted at most %v", method, path, took, limited)
	}
}

// limiterSlack is for those who ask the limiter twice, since they waited for a login.
const limiterSlack = 4

// excuse reports whether a trouble that has been since then may have done harm to a call;
// d.mu must be held.
func (d *tenDays) excuse(path string, began time.Time, failed bool) (excused bool) {
	for _, t := range d.happened {
		if began.Before(t.healed) && (t.spares == nobody || t.spares == others && path == refuserPath) {
			excused = true
			if failed {
				t.failed++
			}
		}
	}
	return excused
}

// late reports whether one more call may fail after a trouble that has healed; d.mu must
// be held.
func (d *tenDays) late() bool {
	for _, t := range d.happened[d.healed:] {
		if t.late > 0 && !time.Now().Before(t.healed) {
			t.late--
			return true
		}
	}
	return false
}

// meet takes note that a resource refuses a good token while there is no login: a refusal
// looks like the end of the token, so nobody has one any more. d.mu must be held.
func (d *tenDays) meet() {
	for _, t := range d.happened {
		if t.outage && d.refuses && time.Now().Before(t.ended) {
			t.spares = nobody
		}
	}
}

// check holds what came to pass in all against what may.
func (d *tenDays) check() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, login := range d.logins {
		to := login.Add(time.Hour)
		most := 1 // for a token that ends
		var on []string
		for _, t := range d.happened {
			if t.healed.Before(login) || !t.began.Before(to) {
				continue
			}
			most += t.logins
			if t.every > 0 {
				most += int(minTime(t.healed, to).Sub(maxTime(t.began, login)) / t.every)
			}
			on = append(on, t.name)
		}
		if n := d.loginsIn(login, to); n > most {
			d.fail("%d logins in the hour from %s on, at most %d for %q", n, d.clock(login), most, on)
			break
		}
	}
	performed := make(map[string]int)
	for _, effect := range d.w.Effects() {
		performed[effect.ID]++
	}
	for id, good := range d.mutations { // none is in doubt: what failed did so before it was done
		if n := performed[id]; n > 1 || (n == 1) != good {
			d.fail("mutation %s was performed %d times, and succeeded: %v", id, n, good)
		}
	}
	stats := d.client.Stats()
	if stats.Obtains != d.obtained || stats.Refreshes != d.refreshed {
		d.fail("Stats say %d logins and %d refreshes, the server %d and %d", stats.Obtains, stats.Refreshes, d.obtained, d.refreshed)
	}
	d.w.t.Logf("seed %d: %d calls, %d mutations, %d troubles, %d login requests, %d logins, %d refreshes",
		d.seed, d.calls, len(d.mutations), len(d.happened), len(d.logins), d.obtained, d.refreshed)
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// loginsIn counts login requests; d.mu must be held.
func (d *tenDays) loginsIn(from, to time.Time) (n int) {
	for _, at := range d.logins {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// note writes an event down; d.mu must be held.
func (d *tenDays) note(format string, args ...any) {
	d.events = append(d.events, d.clock(time.Now())+": "+fmt.Sprintf(format, args...))
	d.events = d.events[max(0, len(d.events)-10):]
}

// clock is a time as the reader of a failure counts it.
func (d *tenDays) clock(at time.Time) string {
	since := at.Sub(d.began)
	return fmt.Sprintf("day %d, %v", 1+since/(24*time.Hour), since%(24*time.Hour))
}

// fail reports what went wrong and what was before it; d.mu must be held. After the third
// time the run ends.
func (d *tenDays) fail(format string, args ...any) {
	if d.failures++; d.failures > 3 {
		return
	}
	var on []string
	for _, t := range d.happened {
		if time.Now().Before(t.healed) {
			on = append(on, t.name)
		}
	}
	d.w.t.Errorf("%s: %s\ntroubles: %q\nbefore:\n\t%s\nto replay: go test -run TestTenDays -seed %d .",
		d.clock(time.Now()), fmt.Sprintf(format, args...), on, strings.Join(d.events, "\n\t"), d.seed)
}

// A statusNoted is a ResponseWriter that knows the status; 0 if there was none.
type statusNoted struct {
	http.ResponseWriter
	status int
}

func (n *statusNoted) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (n *statusNoted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func (d *tenDays) serveObtain(rw http.ResponseWriter, r *http.Request) {
	noted := &statusNoted{ResponseWriter: rw}
	anew := false
	d.set(func() {
		d.logins = append(d.logins, time.Now())
		anew = d.anew && !slices.ContainsFunc(d.happened, func(t *trouble) bool { return t.outage && time.Now().Before(t.ended) })
	})
	if anew {
		d.w.Rotate("issuer")
	}
	defer func() { d.set(func() { d.note("login answered %d", noted.status) }) }()
	d.w.ServeHTTP(noted, r)
	d.set(func() {
		if noted.status != 200 {
			return
		}
		d.obtained++
		if d.rotations > 0 {
			d.rotations--
			d.w.Rotate("issuer")
			d.note("somebody else rotates the token")
		}
	})
}

func (d *tenDays) serveRefresh(rw http.ResponseWriter, r *http.Request) {
	noted := &statusNoted{ResponseWriter: rw}
	var fault fakeamp.Fault
	d.set(func() { fault = d.refresh })
	select {
	case <-time.After(fault.Delay):
	case <-r.Context().Done():
	}
	if fault.Status != 0 {
		noted.Header().Set("Content-Type", "application/json")
		noted.WriteHeader(fault.Status)
		_, _ = io.WriteString(noted, `{"detail":"No."}`)
	} else {
		d.w.ServeHTTP(noted, r)
	}
	d.set(func() {
		d.note("refresh answered %d", noted.status)
		if noted.status == 200 {
			d.refreshed++
		}
	})
}

// serve answers all but what is about tokens.
func (d *tenDays) serve(rw http.ResponseWriter, r *http.Request) {
	var retryAfter http.Header
	refuses := false
	d.set(func() {
		if r.Header.Get("X-Probe") == "" {
			d.sent++
		}
		if d.sent%2 == 0 {
			retryAfter = d.retryAfter
		}
		refuses = d.refuses && r.URL.Path == "/api"+refuserPath
	})
	rw.Header().Set("Content-Type", "application/json")
	switch {
	case retryAfter != nil:
		rw.Header().Set("Retry-After", retryAfter.Get("Retry-After"))
		rw.WriteHeader(429)
		_, _ = io.WriteString(rw, `{"detail":"Request was throttled."}`)
	case refuses:
		rw.WriteHeader(401)
		_, _ = io.WriteString(rw, `{"detail":"Invalid token."}`)
	default:
		d.w.ServeHTTP(rw, r)
	}
}
