package ampauth

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/kept"
	"github.com/ampauth/ampauth/internal/pace"
)

// An order is what a caller wants of a flight.
type order struct {
	purpose  purpose
	rejected Token  // the token to replace, if that is the purpose
	noLogin  *Error // why there is no login now: then the store is looked at, and no more
}

type purpose int

const (
	keepFresh    purpose = iota // there is no token or it ends soon
	replace                     // the API refused it
	logIn                       // the caller wants a login
	refreshFirst                // the caller wants a refresh
	takeStored                  // somebody else has stored another
)

// A flight is one login or refresh that any number of callers wait for. It belongs to
// one epoch and one purpose, and to none of its callers: it has a context of its own,
// with nothing of theirs in it, and a deadline of its own.
//
// It waits for its turn, is at work, and lands: once, when its goroutine ends or its
// time is over, whichever is first. Then its waiters have their result, Close does
// not wait for it any more, and only then is told what it has to log, and its events.
type flight struct {
	order
	key      flightKey
	epoch    *epoch
	ctx      context.Context // ends with the epoch, and when the time is over
	cancel   context.CancelFunc
	began    time.Time
	timer    *time.Timer  // lands it when its time is over
	attempts atomic.Int32 // at a login
	told     kept.Calls   // to the Logger and OnEvent, until it has landed

	// The manager's mu guards what follows.
	waiters int  // callers who have not left; who has it made in the background never does
	working bool // it has had its turn
	done    bool // it has its result

	landed chan struct{} // closed once token and err are set
	token  Token
	err    error

	// Only its goroutine uses what follows, until it ends.
	lockFailed   bool          // the lock of the store could not be taken
	superseded   bool          // somebody else has had it since, and stored a token
	refreshAfter time.Duration // how long the refresh endpoint asked to be left alone
}

// Among the flights of an epoch, orders of one key share one.
type flightKey struct {
	purpose purpose
	noLogin bool
}

const (
	// leastFlightTime is what a flight has at least.
	leastFlightTime = 30 * time.Second
	// endlessAttempt is what an attempt without a Timeout counts for.
	endlessAttempt = time.Minute
	// turnTime is how long the next flight waits for one that was ended, and does not
	// obey its context.
	turnTime = time.Second
)

// flightTime is how long a flight may take: a refresh, and all attempts at a login
// with the longest waits between them.
func flightTime(c RetryConfig, stored bool) time.Duration {
	attempt, retryAfter := c.Timeout, c.MaxRetryAfter
	if attempt < 0 {
		attempt = endlessAttempt
	}
	if retryAfter < 0 {
		retryAfter = DefaultRetryConfig().MaxRetryAfter
	}
	wait := max(c.MaxDelay, pace.Add(retryAfter, c.BaseDelay))
	d := pace.Add(attempt, attempt) // the refresh, and the first attempt
	if stored {
		d = pace.Add(d, storeTimes)
	}
	each, retries := pace.Add(attempt, wait), time.Duration(c.MaxAttempts-1)
	if retries > 0 && each > math.MaxInt64/retries {
		return math.MaxInt64
	}
	return max(pace.Add(d, each*retries), leastFlightTime)
}

// A flightTimeout says that a flight had no time left.
type flightTimeout struct{ limit time.Duration }

func (e flightTimeout) Error() string { return "the login took longer than " + e.limit.String() }
func (flightTimeout) ownClock()       {}
func (flightTimeout) Timeout() bool   { return true }
func (flightTimeout) Is(target error) bool {
	return target == context.DeadlineExceeded || target == ErrTimeout
}

var (
	errWaiting    = errors.New("waiting for the login")
	errFlightDied = errors.New("a layer below ended the login's goroutine")
)

// await has a flight do what o asks for, and waits as long as ctx allows. If the
// epoch ends meanwhile, what comes next is decided anew.
func (m *TokenManager) await(ctx context.Context, o order) (Token, error) {
	if err := m.made(); err != nil {
		return Token{}, err
	}
	for {
		if err := ended(ctx); err != nil {
			return Token{}, m.noToken(err)
		}
		f, err := m.join(o)
		if err != nil {
			return Token{}, err
		}
		select {
		case <-f.landed:
		case <-f.epoch.ctx.Done():
		case <-ctx.Done():
			m.leave(f)
			return Token{}, m.noToken(&sequence{errWaiting, ": ", ended(ctx)})
		}
		if f.epoch.over() {
			continue
		}
		if f.err != nil && o.purpose == keepFresh {
			if token, ok := m.ready(); ok { // past its assumed end
				return token, nil
			}
		}
		return f.token, f.err
	}
}

// join returns the flight that does what o asks for, perhaps a new one. The caller
// counts as one who waits for it until leave.
func (m *TokenManager) join(o order) (*flight, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joinIn(m.epoch.Load(), o)
}

// joinIn is join in an epoch; m.mu must be held.
func (m *TokenManager) joinIn(e *epoch, o order) (*flight, error) {
	if m.closed {
		return nil, errManagerClosed()
	}
	if err := e.checkUser(o.rejected); err != nil {
		return nil, err
	}
	if o.noLogin == nil {
		if o.noLogin = e.inPause(); o.noLogin != nil && !m.looksInStore(o.purpose) {
			return nil, o.noLogin
		}
	}
	f := e.flightFor(flightKey{o.purpose, o.noLogin != nil})
	if f == nil {
		f = m.start(e, o)
	}
	f.waiters++
	return f, nil
}

// noToken is the error of a caller who gets no token, for a reason other than the server's.
func (m *TokenManager) noToken(cause error) *Error {
	e := noToken(cause)
	e.where = m.account.obtainCall()
	return e
}

var errCloseCalled = errors.New("Close was called on the Client or its TokenManager")

func errManagerClosed() *Error {
	return &Error{Op: "obtain", Kind: ErrClosed, Outcome: NotSent, Err: errCloseCalled}
}

// looksInStore reports whether a stored token is all that the purpose needs.
func (m *TokenManager) looksInStore(p purpose) bool {
	return m.stored != nil && (p == keepFresh || p == replace)
}

// flightFor returns the flight to join, or nil; the manager's mu must be held. Who
// only needs a token is content with what any flight at work brings.
func (e *epoch) flightFor(k flightKey) *flight {
	if f := e.flights[k]; f != nil || k.purpose != keepFresh || k.noLogin {
		return f
	}
	for _, f := range e.flights {
		if f.working && f.noLogin == nil {
			return f
		}
	}
	return nil
}

// start begins a flight; m.mu must be held.
func (m *TokenManager) start(e *epoch, o order) *flight {
	f := &flight{order: o, key: flightKey{o.purpose, o.noLogin != nil}, epoch: e, began: time.Now(), landed: make(chan struct{})}
	f.ctx, f.cancel = context.WithTimeoutCause(f.told.In(e.ctx), m.flightTime, flightTimeout{m.flightTime})
	f.timer = time.AfterFunc(m.flightTime, func() {
		m.land(f, Token{}, flightTimeout{m.flightTime})
		f.told.Make()
	})
	e.flights[f.key] = f
	m.flying.Add(1)
	go m.fly(f)
	return f
}

// leave takes note of a caller who waits no longer. A flight that has not begun by
// then is not made if nobody else waits for it.
func (m *TokenManager) leave(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.waiters--; f.waiters == 0 && !f.working && !f.done {
		delete(f.epoch.flights, f.key)
		f.cancel()
	}
}

// fly makes a flight. It has a goroutine of its own, so that neither a panic nor a
// Goexit in a layer below takes the process down or leaves the waiters for ever.
func (m *TokenManager) fly(f *flight) {
	var token Token
	err, release := error(errFlightDied), func() {}
	// In the end, the last of these first: the next flight sees what this one has
	// found out, and does not wait for a Logger.
	defer f.told.Make()
	defer f.cancel()
	defer func() { release() }()
	defer func() { m.land(f, token, err) }()
	defer recovered("layer below", &err)
	if f.noLogin == nil {
		release = m.takeTurn(f)
	}
	if err = m.beginWork(f); err == nil {
		err = errFlightDied // until it returns
		token, err = m.replaceToken(f)
	}
}

// takeTurn waits until no other flight is at work, or f ends. So there is one login
// at a time, unless one that was ended does not obey its context.
func (m *TokenManager) takeTurn(f *flight) (release func()) {
	select {
	case m.turn <- struct{}{}:
	case <-f.ctx.Done():
		return func() {}
	}
	free := sync.OnceFunc(func() { <-m.turn })
	stop := context.AfterFunc(f.ctx, func() { time.AfterFunc(turnTime, free) })
	return func() {
		stop()
		free()
	}
}

// beginWork returns an error if f has ended, or the flights before it have shown
// that there is no login now.
func (m *TokenManager) beginWork(f *flight) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(f.ctx); err != nil {
		return err
	}
	f.working = true
	if f.noLogin != nil {
		return nil
	}
	if f.noLogin = f.epoch.inPause(); f.noLogin != nil {
		if !m.looksInStore(f.purpose) {
			return f.noLogin
		}
		return nil
	}
	f.epoch.renewal.Began()
	return nil
}

// land gives a flight its result, once. What comes later counts for nothing.
func (m *TokenManager) land(f *flight, token Token, err error) {
	m.mu.Lock()
	if f.done {
		m.mu.Unlock()
		return
	}
	f.done, f.token = true, token
	unreported := false
	if err != nil {
		f.token = Token{}
		f.err, unreported = m.failed(f, err)
	}
	if f.epoch.flights[f.key] == f {
		delete(f.epoch.flights, f.key)
	}
	m.mu.Unlock()
	f.timer.Stop()
	close(f.landed)
	m.flying.Done()
	if unreported {
		e, _ := f.err.(*Error)
		took := time.Since(f.began)
		m.raiseEnd(f, EventObtain, took, e)
		m.log.WarnContext(f.ctx, "ampauth: login failed", m.account.logged(e, took)...)
	}
}

// failed takes note of a flight that failed and returns the error for its waiters,
// and whether nothing has been logged of it; m.mu must be held.
func (m *TokenManager) failed(f *flight, err error) (forWaiters error, unreported bool) {
	late := flightTimeout{m.flightTime}
	ended := context.Cause(f.ctx)
	e, ok := err.(*Error)
	switch {
	case ended == context.Canceled: // by the end of its epoch, or everybody left before it began
		return m.noToken(err), false
	case ok && e == f.noLogin: // nothing was tried
		if f.purpose == keepFresh {
			f.epoch.lookAgain()
		}
		return e, false
	case !ok:
		e = m.noToken(clean(err))
		e.Attempts = int(f.attempts.Load())
	}
	asked := e.RetryAfter
	if ok { // what its goroutine says, which has ended
		asked = max(asked, f.refreshAfter)
	}
	if err == error(late) || ended == error(late) {
		e.Limit = late.limit
		if !errors.Is(e, late) {
			e.Err = beforeThat(late, e.Err)
		}
	}
	f.epoch.failed(e, asked)
	return e, !ok
}

// raiseEnd tells how a login or a refresh ended.
func (m *TokenManager) raiseEnd(f *flight, name EventName, elapsed time.Duration, err *Error) {
	e := Event{Name: name, Attempt: 1, Elapsed: elapsed}
	if name == EventObtain {
		e.Attempt = int(f.attempts.Load())
		if f.purpose == replace {
			e.Reason = reasonRefused
		}
	}
	if err != nil {
		said := *err // the flight goes on to write to its own
		e.Attempt, e.Err = said.Attempts, &said
	}
	m.events.raise(f.ctx, e, nil)
}
