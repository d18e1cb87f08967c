package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// The kinds of fault, which are also the fake's names for them.
const (
	revocation        = "revocation"
	rotation          = "rotation by somebody else"
	slowLogin         = "slow login"
	slowRefresh       = "slow refresh"
	throttling        = "429 with Retry-After"
	outage            = "burst of 503"
	gatewayFault      = "502 after the effect"
	mutationCutBefore = "mutation reset before its effect"
	mutationCutAfter  = "mutation reset after its effect"
	onceGatewayFault  = "by Once: 502 after the effect"
	onceCutBefore     = "by Once: reset before its effect"
	onceCutAfter      = "by Once: reset after its effect"
	readCutBefore     = "repeatable reset before its effect"
	readCutAfter      = "repeatable reset after its effect"
)

var faultKinds = []string{
	revocation, rotation, slowLogin, slowRefresh, throttling, outage, gatewayFault,
	mutationCutBefore, mutationCutAfter, onceGatewayFault, onceCutBefore, onceCutAfter,
	readCutBefore, readCutAfter,
}

const (
	obtainRoute  = "POST /user/obtain_token"
	refreshRoute = "GET /user/refresh-token"
)

const (
	// leastTimes is how often each kind of fault must have happened.
	leastTimes = 3
	// roundTime is what a round is given in a long run. It takes about two
	// seconds, half of them for the Retry-After.
	roundTime = 3 * time.Second
	// maxAttempts is more than the requests that one burst takes on a route, and
	// a call meets one burst at most: the client has no reason to give up.
	maxAttempts = 6
	longestRun  = maxAttempts - 1
)

// A director makes the faults happen, one after the other: each only begins when
// no call is left that has met the one before. So every fault is survivable, and
// what follows it is its own doing.
type director struct {
	fake     *fakeamp.Server
	tokens   *ampauth.TokenManager
	load     *load
	dice     *rand.Rand
	duration time.Duration
	lifetime time.Duration
	slow     time.Duration // how long a slow login takes

	mu        sync.Mutex // guards all below
	incidents []incident
	latest    string
}

// An incident is a fault that happened.
type incident struct {
	kind     string
	requests int  // that met it
	ended    bool // it ended the token,
	logins   int  // and so many login requests followed
}

func newDirector(d *demo) *director {
	return &director{
		fake:     d.fake,
		tokens:   d.client.Tokens,
		load:     d.load,
		dice:     rand.New(rand.NewPCG(d.options.seed, 0)),
		duration: d.options.duration,
		lifetime: d.options.lifetime,
		slow:     min(max(d.options.duration/40, 100*time.Millisecond), 500*time.Millisecond),
	}
}

// direct goes through the rounds, spread over the duration, until all are done
// and the duration is over, or ctx ends.
func (d *director) direct(ctx context.Context, began time.Time) {
	rounds := max(int(d.duration/roundTime), leastTimes)
	for n := range rounds {
		if ctx.Err() != nil {
			break
		}
		d.round(ctx)
		end := began.Add(d.duration * time.Duration(n+1) / time.Duration(rounds))
		sleep(ctx, time.Until(end))
	}
	d.load.settle()
}

// round makes each kind of fault happen once.
func (d *director) round(ctx context.Context) {
	d.inAnyOrder(ctx,
		func() { d.endToken(ctx, revocation) },
		func() { d.endToken(ctx, rotation) },
		func() { d.endToken(ctx, revocation, fakeamp.Fault{Name: slowLogin, Route: obtainRoute, Delay: d.slow}) },
	)
	// A 429 stops all requests for a second. A token that is young survives that;
	// after it, the next request finds that it is time for a refresh (of a token
	// that lives two seconds; others take longer).
	if !d.awaitYoungToken(ctx) {
		return
	}
	refresh := d.arm(fakeamp.Fault{Name: slowRefresh, Route: refreshRoute, Delay: d.slow})
	d.strike(ctx, throttling, fakeamp.Fault{
		Route:  d.oneOf(issueRoute, balanceRoute, managerRoute, lockRoute),
		Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}},
	})
	d.inAnyOrder(ctx,
		func() { d.strike(ctx, outage, d.burst()...) },
		func() { d.strikeIssuance(ctx, plainly, mutationCutBefore, fakeamp.Fault{Do: fakeamp.Reset}) },
		func() { d.strikeIssuance(ctx, throughOnce, onceCutBefore, fakeamp.Fault{Do: fakeamp.Reset}) },
		func() {
			d.strike(ctx, readCutBefore,
				fakeamp.Fault{Route: lockRoute, Do: fakeamp.Reset},
				fakeamp.Fault{Route: d.oneOf(balanceRoute, managerRoute), Do: fakeamp.Reset})
		},
		func() {
			d.strike(ctx, readCutAfter,
				fakeamp.Fault{Route: lockRoute, When: fakeamp.After, Do: fakeamp.Reset},
				fakeamp.Fault{Route: d.oneOf(balanceRoute, managerRoute), When: fakeamp.After, Do: fakeamp.Reset})
		},
	)
	d.await(ctx, refresh)
	d.inAnyOrder(ctx,
		func() {
			d.strikeIssuance(ctx, plainly, mutationCutAfter, fakeamp.Fault{When: fakeamp.After, Do: fakeamp.Reset})
		},
		func() {
			d.strikeIssuance(ctx, plainly, gatewayFault, fakeamp.Fault{When: fakeamp.After, Status: http.StatusBadGateway, HTML: true})
		},
		func() {
			d.strikeIssuance(ctx, throughOnce, onceCutAfter, fakeamp.Fault{When: fakeamp.After, Do: fakeamp.Reset})
		},
		func() {
			d.strikeIssuance(ctx, throughOnce, onceGatewayFault, fakeamp.Fault{When: fakeamp.After, Status: http.StatusBadGateway, HTML: true})
		},
	)
}

// strikeIssuance makes a fault happen to an issuance of one way: for as long as it
// takes, nobody issues in the other. A fault after the effect wants one. A mutation
// that arrives just when a refresh ends the token it carries has none, so it waits
// until no refresh is near.
func (d *director) strikeIssuance(ctx context.Context, w way, kind string, fault fakeamp.Fault) {
	d.load.issueBy(w)
	defer d.load.issueBy(eitherWay)
	d.load.settle()
	if fault.When == fakeamp.After && !d.awaitYoungToken(ctx) {
		return
	}
	fault.Route = issueRoute
	d.strike(ctx, kind, fault)
}

func (d *director) inAnyOrder(ctx context.Context, steps ...func()) {
	for _, n := range d.dice.Perm(len(steps)) {
		if ctx.Err() == nil {
			steps[n]()
		}
	}
}

func (d *director) oneOf(routes ...string) string { return routes[d.dice.IntN(len(routes))] }

// burst is a 503 for several requests in a row on each of several routes. None
// of them is a mutation's, since a mutation is not repeated after a 503.
func (d *director) burst() []fakeamp.Fault {
	var faults []fakeamp.Fault
	for _, route := range []string{balanceRoute, managerRoute, lockRoute} {
		faults = append(faults, fakeamp.Fault{Route: route, Status: http.StatusServiceUnavailable, Times: 1 + d.dice.IntN(longestRun)})
	}
	return faults
}

// endToken ends the token behind the client's back, perhaps while a fault waits
// for the login that follows, and counts the logins until everybody has a token
// again.
//
// That count is the verdict's "logins per revocation", and it is the fake's, of
// login requests that arrived. It belongs to this revocation alone: the token
// was young, so it does not expire and is not refreshed meanwhile; no fault is under
// way that could make a login fail; and before the next thing happens each
// worker has ended a call that began after the revocation, so all who met the
// dead token have been through their renewal.
func (d *director) endToken(ctx context.Context, kind string, faults ...fakeamp.Fault) {
	const tries = 3
	for range tries {
		if !d.awaitYoungToken(ctx) {
			return
		}
		before, began := d.fake.Count(obtainRoute), time.Now()
		armed := d.arm(faults...)
		if kind == rotation {
			d.fake.Rotate(demoUser)
		} else {
			d.fake.Revoke(demoUser)
		}
		d.load.settle()
		logins, took := d.fake.Count(obtainRoute)-before, time.Since(began)
		d.await(ctx, armed)
		// On a machine that was held up for so long, a token may have expired on
		// top of that. The count says nothing then, and the revocation is repeated.
		if took < d.lifetime/2 {
			d.note(incident{kind: kind, ended: true, logins: logins})
			return
		}
	}
}

// awaitYoungToken waits for a token that the API has accepted and that is far
// from its refresh. It reports false if ctx ended first, or there is none.
func (d *director) awaitYoungToken(ctx context.Context) bool {
	return d.until(ctx, func() bool {
		first, ok := d.tokens.Info()
		if !ok {
			return false
		}
		d.load.settle()
		now, ok := d.tokens.Info()
		// The client refreshes a short-lived token in the second half of its life.
		return ok && now.ObtainedAt.Equal(first.ObtainedAt) && now.ExpiresIn > d.lifetime*6/10
	})
}

// strike makes a fault happen and waits until it is over.
func (d *director) strike(ctx context.Context, kind string, faults ...fakeamp.Fault) {
	for i := range faults {
		faults[i].Name = kind
	}
	if ctx.Err() == nil {
		d.await(ctx, d.arm(faults...))
	}
}

// armed is faults of one kind that wait for their requests.
type armed struct {
	kind             string
	before, requests int
}

func (d *director) arm(faults ...fakeamp.Fault) (a armed) {
	for _, f := range faults {
		a.kind = f.Name
		a.requests += max(f.Times, 1)
	}
	a.before = d.fake.Injected()[a.kind]
	d.fake.Inject(faults...)
	return a
}

// await waits until requests have met all that was armed, and no call is left
// that has. Faults that nobody meets in time are withdrawn and do not count.
func (d *director) await(ctx context.Context, a armed) {
	if a.requests == 0 {
		return
	}
	met := func() bool { return d.fake.Injected()[a.kind] >= a.before+a.requests }
	happened := d.until(ctx, met)
	if !happened {
		d.fake.ClearFaults()
	}
	d.load.settle()
	if happened {
		d.note(incident{kind: a.kind, requests: a.requests})
	}
}

// until waits for a condition. It reports false if ctx ended first, or if it
// took so long that it will never come true.
func (d *director) until(ctx context.Context, condition func() bool) bool {
	patience := time.Now().Add(d.lifetime + 10*time.Second)
	for !condition() {
		if ctx.Err() != nil || time.Now().After(patience) {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
	return true
}

func (d *director) note(i incident) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.incidents = append(d.incidents, i)
	d.latest = i.kind
}
