package ampauth

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// An epoch is the time between two events that end what was before them: other
// credentials, a Clear, Close. It has the credentials, the token and the flights of
// that time. A flight sees those of its own epoch and no others, so it cannot
// refresh, replace or hand out what belongs to another user.
type epoch struct {
	credentials Credentials
	number      uint32          // of the user, from 1; see userNumber
	ctx         context.Context // of its flights; ends with it
	end         context.CancelFunc

	current    atomic.Pointer[snapshot] // nil: no token; written under the manager's mu
	retryAhead atomic.Int64             // no refresh ahead of time before this wall clock, in Unix ns

	// The manager's mu guards what follows.
	flights  map[flightKey]*flight // that have not landed
	pause    pause
	failures int      // of refreshes ahead of time, in a row
	refused  []Secret // tokens that the API refused since the last flight began
	renewals int      // renewals since the API last accepted a token
}

// newEpoch makes an epoch that has not begun; m.mu must be held once m is in use.
func (m *TokenManager) newEpoch(credentials Credentials) *epoch {
	if m.users[credentials.Username] == 0 {
		m.users[credentials.Username] = uint32(len(m.users)) + 1
	}
	e := &epoch{credentials: credentials, number: m.users[credentials.Username], flights: make(map[flightKey]*flight)}
	e.ctx, e.end = context.WithCancel(m.ctx)
	return e
}

// begin ends the epoch and begins e; m.mu must be held.
func (m *TokenManager) begin(e *epoch) {
	if before := m.epoch.Swap(e); before != nil {
		before.end()
	}
}

// over reports whether another epoch has begun.
func (e *epoch) over() bool { return e.ctx.Err() != nil }

// checkUser returns an error for a token of another user. Of a token that does not
// come from a manager nobody knows whose it is.
func (e *epoch) checkUser(token Token) error {
	if user, _ := userOf(token); user == "" || user == e.credentials.Username {
		return nil
	}
	return &Error{Op: "obtain", Kind: ErrObtainFailed, Outcome: Rejected, Err: errOtherUser}
}

// allowLogins ends every reason not to log in; the manager's mu must be held.
func (e *epoch) allowLogins() {
	e.pause = pause{}
	e.renewals, e.failures = 0, 0
	e.retryAhead.Store(0)
}

// maxRefused bounds the list of refused tokens; a flight meets one or two.
const maxRefused = 8

// noteRefused keeps a flight under way from bringing the token back; the manager's
// mu must be held.
func (e *epoch) noteRefused(value Secret) {
	if slices.ContainsFunc(e.refused, value.Equal) {
		return
	}
	if len(e.refused) == maxRefused {
		e.refused = e.refused[1:]
	}
	e.refused = append(e.refused, value)
}

// refusalLeft is how long a refusal of s is taken for a matter that no login changes:
// s is what was refused before, or came by a renewal and was never accepted. The
// manager's mu must be held.
func (e *epoch) refusalLeft(s *snapshot) time.Duration {
	age := s.token.Age()
	if e.renewals == 0 || s.proven() || age < 0 { // a negative age: the clock was set back
		return 0
	}
	return min(minRefusalTime<<min(e.renewals-1, 8), maxRefusalTime) - age
}

// A pause keeps the next login away after one was refused, so that an account is
// not locked by a hot loop, or after the server asked for it.
type pause struct {
	until time.Time
	count int // refusals in a row, those of a proxy included
	cause *Error
}

const (
	firstPause = time.Second
	maxPause   = time.Minute
	// maxAskedPause bounds what a Retry-After of the login endpoint can do.
	maxAskedPause = time.Hour
	// minRefusalTime is how long a token that came by a renewal must have lived,
	// without ever being accepted, before its refusal is worth another login.
	minRefusalTime = 5 * time.Second
	maxRefusalTime = time.Minute
)

var errPaused = errors.New("not tried again yet")

// inPause returns the error of a login that is not tried, or nil; the manager's mu
// must be held.
func (e *epoch) inPause() *Error {
	left := time.Until(e.pause.until)
	if left <= 0 {
		return nil
	}
	err := *e.pause.cause
	err.Outcome, err.Attempts, err.RetryAfter = NotSent, 0, roundUp(left)
	err.Err = &sequence{errPaused, ": ", e.pause.cause.Err}
	return &err
}

// pauseAfter starts or extends the pause that err calls for; the manager's mu must be
// held. A refusal that a proxy sent is nobody's word on the credentials, so the
// first costs nothing; but what comes again is no accident.
func (e *epoch) pauseAfter(err *Error) {
	proxied := errors.Is(err, errLoginProxied)
	switch n := e.pause.count; {
	case proxied || errors.Is(err, ErrCredentialsRefused):
		e.pause.count++
		if proxied {
			n--
		}
		if n >= 0 {
			e.pause.until, e.pause.cause = time.Now().Add(min(firstPause<<min(n, 8), maxPause)), err
		}
	case err.RetryAfter > 0:
		e.pause.until, e.pause.cause = time.Now().Add(min(err.RetryAfter, maxAskedPause)), err
	}
}

// Clocks in errors are rounded, so that they read well.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}
