package ampauth

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
	"github.com/ampauth/ampauth/internal/renewal"
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

	current atomic.Pointer[snapshot] // nil: none is served; written under the manager's mu
	seen    [64]atomic.Uint64        // where current was accepted lately, by a hash; spares the lock

	// The manager's mu guards what follows.
	flights map[flightKey]*flight // that have not landed
	renewal renewal.Machine       // what is done about the token
	cause   *Error                // of the pause, if there is one
	dropped []*snapshot           // that the API refused, for Close to wipe
}

// newEpoch makes an epoch that has not begun; m.mu must be held once m is in use.
func (m *TokenManager) newEpoch(credentials Credentials) *epoch {
	if m.users[credentials.Username] == 0 {
		m.users[credentials.Username] = uint32(len(m.users)) + 1
	}
	e := &epoch{
		credentials: credentials, number: m.users[credentials.Username], flights: make(map[flightKey]*flight),
		renewal: renewal.Machine{
			Backoff:  func(n int) time.Duration { return m.account.retry.backoff(n, 0) },
			Ahead:    m.flightTime,
			MaxAsked: m.account.retry.MaxRetryAfter,
		},
	}
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

// maxDropped bounds the list of refused tokens that are kept to be wiped.
const maxDropped = 8

// drop takes the current token out of use, unless the machine has one; the manager's mu
// must be held.
func (e *epoch) drop() {
	if s := e.current.Load(); s != nil && e.renewal.Current() == 0 {
		e.current.Store(nil)
		e.dropped = append(e.dropped[max(len(e.dropped)-maxDropped+1, 0):], s)
	}
}

// wasRefused reports whether a stored token is one that was refused in this epoch, and that
// the store keeps since it could not be told; the manager's mu must be held.
func (e *epoch) wasRefused(stored Token, now time.Time) bool {
	return slices.ContainsFunc(e.dropped, func(s *snapshot) bool {
		return stored.Value.Equal(s.token.Value) && !later(stored.ObtainedAt, s.token.ObtainedAt, now)
	})
}

// slot is where it is noted that s was accepted at a place, and what is noted.
func (e *epoch) slot(s *snapshot, at renewal.Place) (slot *atomic.Uint64, note uint64) {
	return &e.seen[at%renewal.Place(len(e.seen))], uint64(at) ^ uint64(s.generation)<<32
}

// A loginPause is why no login is tried for a while.
type loginPause time.Duration

func (p loginPause) Error() string {
	return "not tried again yet, retry after " + time.Duration(p).String() + ", since the last login failed"
}

// inPause returns the error of a login that is not tried, or nil; the manager's mu
// must be held.
func (e *epoch) inPause() *Error {
	now := time.Now()
	until, paused := e.renewal.Paused(now)
	if !paused {
		return nil
	}
	err := *e.cause
	err.Outcome, err.Attempts, err.RetryAfter = NotSent, 0, roundUp(until.Sub(now))
	why := e.cause.Err
	if last, ok := why.(*Error); ok { // how long the server wanted then says nothing now
		copied := *last
		copied.RetryAfter = 0
		why = &copied
	}
	err.Err = &sequence{loginPause(err.RetryAfter), ": ", why}
	return &err
}

// failed takes note of a login that failed; the manager's mu must be held.
func (e *epoch) failed(err *Error, asked time.Duration) {
	why := renewal.Unavailable
	switch {
	case errors.Is(err, errLoginProxied):
		why = renewal.RefusedByProxy
	case errors.Is(err, ErrCredentialsRefused):
		why = renewal.RefusedCredentials
	}
	e.renewal.Failed(why, asked, time.Now())
	e.cause = err
}

// lookAgainTime is when a token that ends soon is looked at again after somebody else was
// found to be replacing it.
const lookAgainTime = 2 * time.Second

// lookAgain takes note that somebody else is replacing the token; the manager's mu must be
// held.
func (e *epoch) lookAgain() {
	e.renewal.LookAgain(time.Now().Add(lookAgainTime + pace.Jitter(lookAgainTime)))
}

// Clocks in errors are rounded, so that they read well.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}
