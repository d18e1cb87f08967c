package ampauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/singleflight"
)

// A flight is one login or refresh that any number of callers wait for. It
// belongs to none of them: it has a context of its own, with nothing of theirs in
// it, and a deadline of its own.
type flight struct {
	purpose    purpose
	rejected   Secret    // the token to replace, if that is the purpose
	rejectedAt time.Time // when that was obtained, if it is known
	held       *Error    // why there is no login now: then the store is looked at, and no more
	unlocked   bool      // the lock of the store could not be had
	adopting   bool      // a token is taken from the store

	epoch uint64 // when it began; see install

	// How long the refresh endpoint asked to be left alone, if it did.
	refreshAfter time.Duration
}

type purpose int

const (
	keepFresh    purpose = iota // there is no token or it ends soon
	replace                     // the API refused it
	logIn                       // the caller wants a login
	refreshFirst                // the caller wants a refresh
)

// flightTime bounds a flight with all its attempts and waits.
const flightTime = 30 * time.Second

var errWaiting = errors.New("waiting for the login")

var errFlightDied = errors.New("a layer below ended the login's goroutine")

// await joins a flight and waits for it, as long as ctx allows.
func (m *TokenManager) await(ctx context.Context, f flight) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, noToken(err)
	}
	landed, err := m.join(f)
	if err != nil {
		return Token{}, err
	}
	select {
	case result := <-landed:
		token, _ := result.Val.(Token)
		return token, result.Err
	case <-ctx.Done():
		return Token{}, noToken(&sequence{errWaiting, ": ", ctx.Err()})
	}
}

// join starts f, or joins the flight that is under way, whatever its purpose.
func (m *TokenManager) join(f flight) (<-chan singleflight.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errManagerClosed()
	}
	if err := m.inPause(); err != nil && f.held == nil {
		if m.stored == nil || f.purpose == logIn || f.purpose == refreshFirst {
			return nil, err
		}
		f.held = err
	}
	f.epoch = m.epoch
	// A flight of an earlier epoch is not joined: its result does not count.
	key := strconv.FormatUint(m.epoch, 10)
	if f.held != nil {
		key += " held"
	}
	return m.logins.DoChan(key, func() (any, error) {
		token, err := m.fly(&f)
		if err != nil {
			return nil, err // not the *Error, lest nil become an error
		}
		return token, nil
	}), nil
}

func errManagerClosed() *Error {
	return &Error{Op: "obtain", Kind: ErrClosed, Outcome: NotSent}
}

// fly makes the flight on a goroutine of its own, so that neither a panic nor a
// Goexit in a layer below takes the process down or leaves the waiters for ever.
func (m *TokenManager) fly(f *flight) (Token, *Error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return Token{}, errManagerClosed()
	}
	m.flights.Add(1)
	if f.held == nil {
		m.refused = nil
	}
	credentials := m.credentials
	m.mu.Unlock()
	defer m.flights.Done()

	type landing struct {
		token Token
		err   *Error
	}
	landed := make(chan landing, 1)
	go func() {
		l := landing{err: noToken(errFlightDied)}
		defer func() { landed <- l }()
		defer func() { _ = recover() }() // a log handler may panic as well
		var token Token
		err := error(errFlightDied)
		defer func() {
			if err != nil {
				l.err = m.failed(f, err)
				return
			}
			l = landing{token: token}
		}()
		defer recovered("layer below", &err)
		ctx, cancel := context.WithTimeout(m.ctx, flightTime)
		defer cancel()
		token, err = m.replaceToken(ctx, f, credentials)
	}()
	l := <-landed
	return l.token, l.err
}

// replaceToken is the flight itself.
func (m *TokenManager) replaceToken(ctx context.Context, f *flight, credentials Credentials) (Token, error) {
	s := m.current.Load()
	if token, ok := f.settledBy(s); ok {
		m.retryAhead.Store(0)
		return token, nil
	}
	if m.stored == nil {
		token, _, err := m.getToken(ctx, f, credentials)
		return token, err
	}
	return m.shareToken(ctx, f, credentials)
}

// getToken refreshes, or logs in, and makes the token the current one. kept is
// false if that would undo what happened meanwhile, or the API refuses it anyway.
func (m *TokenManager) getToken(ctx context.Context, f *flight, credentials Credentials) (token Token, kept bool, err error) {
	var refreshErr error
	if s := m.current.Load(); s != nil && !s.token.IsExpired() && m.refreshes(f.purpose) && !f.unlocked {
		value, err := m.refresh(ctx, s.token)
		if err == nil {
			token, kept = m.install(f, m.newSnapshot(value))
			return token, kept, nil
		}
		refreshErr, f.refreshAfter = err, err.RetryAfter
	}
	value, obtainErr := m.obtain(ctx, credentials)
	if obtainErr != nil {
		if refreshErr != nil {
			obtainErr.Err = beforeThat(obtainErr.Err, refreshErr)
		}
		return Token{}, false, obtainErr
	}
	if f.purpose == replace {
		m.counters.renewals.Add(1)
	}
	token, kept = m.install(f, m.newSnapshot(value))
	return token, kept, nil
}

// settledBy reports whether an earlier flight has done what this one is for:
// between the caller's look and this one there may have been another.
func (f flight) settledBy(s *snapshot) (Token, bool) {
	if s == nil || s.token.IsExpired() {
		return Token{}, false
	}
	now := time.Now().UnixNano()
	switch f.purpose {
	case keepFresh:
		return s.token, s.fresh(now)
	case replace:
		return s.token, !s.token.Value.Equal(f.rejected)
	}
	return Token{}, false
}

// refreshes reports whether a flight tries a refresh before it logs in.
func (m *TokenManager) refreshes(p purpose) bool {
	if m.noRefresh.Load() {
		return false
	}
	return p == refreshFirst || p == keepFresh && m.config.Renewal == RefreshThenObtain
}

// install makes a new token the current one, unless that would undo what
// happened since the flight began: a Clear, other credentials, or the refusal of
// just this token; then it is not kept. The waiters get it in any case.
func (m *TokenManager) install(f *flight, s *snapshot) (token Token, kept bool) {
	value := s.token.Value
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.epoch != m.epoch {
		return s.token, false
	}
	if !f.adopting { // what another process got says nothing of our logins
		m.pause = pause{}
	}
	m.failures = 0
	m.retryAhead.Store(0)
	// A replacement that is the refused token once more is kept all the same: that
	// is what the next refusal is judged by.
	s.repeated = f.purpose == replace && value.Equal(f.rejected)
	kept = !slices.ContainsFunc(m.refused, value.Equal)
	if s.repeated || kept {
		m.current.Store(s)
	}
	return s.token, kept && !s.repeated
}

// failed takes note of a flight that failed and returns the error for its waiters.
func (m *TokenManager) failed(f *flight, err error) *Error {
	e, ok := err.(*Error)
	if ok && e == f.held { // nothing was tried
		m.retryAhead.Store(time.Now().Add(lookAgain + jitter(lookAgain)).UnixNano())
		return e
	}
	if !ok {
		e = noToken(clean(err))
		m.counters.obtainFailures.Add(1)
		m.logger().Error("ampauth: login failed", "outcome", e.Outcome.String(), "error", e.Error())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errManagerClosed()
	}
	if f.epoch == m.epoch {
		m.hold(e)
		m.failures++
		wait := m.config.Retry.resolved().backoff(m.failures, max(e.RetryAfter, f.refreshAfter))
		m.retryAhead.Store(time.Now().Add(min(wait, maxAskedPause)).UnixNano())
	}
	return e
}

// obtain logs in.
func (m *TokenManager) obtain(ctx context.Context, credentials Credentials) (Secret, *Error) {
	began := time.Now()
	value, err := Retry(ctx, m.attempts(m.config.Retry.MaxAttempts), func(ctx context.Context) (Secret, error) {
		req, err := m.obtainRequest(ctx, credentials)
		return m.exchange(req, err, errCredentialsRefused)
	})
	if err != nil {
		e := tokenError("obtain", ErrObtainFailed, err)
		m.counters.obtainFailures.Add(1)
		m.report(e, "ampauth: login failed", time.Since(began))
		return Secret{}, e
	}
	m.counters.obtains.Add(1)
	m.logger().Info("ampauth: logged in", "outcome", "ok", "elapsed", time.Since(began))
	return value, nil
}

// refresh exchanges the token. It ends the old one, so it is sent once: any
// doubtful end goes on to obtain.
func (m *TokenManager) refresh(ctx context.Context, token Token) (Secret, *Error) {
	began := time.Now()
	value, err := Retry(WithOperation(ctx, MutatingOperation), m.attempts(1), func(ctx context.Context) (Secret, error) {
		req, err := m.refreshRequest(ctx, token)
		return m.exchange(req, err, errTokenRefused)
	})
	if err != nil {
		e := tokenError("refresh", ErrRefreshFailed, err)
		if e.StatusCode == http.StatusNotFound || e.StatusCode == http.StatusMethodNotAllowed {
			m.noRefresh.Store(true)
		}
		m.counters.refreshFailures.Add(1)
		m.report(e, "ampauth: refresh failed, logging in instead", time.Since(began))
		return Secret{}, e
	}
	m.counters.refreshes.Add(1)
	m.logger().Info("ampauth: token refreshed", "outcome", "ok", "elapsed", time.Since(began))
	return value, nil
}

// attempts is the configuration for at most n attempts, each of which has its
// clock below, where it starts behind the limiter.
func (m *TokenManager) attempts(n int) RetryConfig {
	c := m.config.Retry.WithTimeout(-1)
	c.MaxAttempts = n
	return c
}

// tokenError names the call whose last attempt failed.
func tokenError(op string, kind, err error) *Error {
	if t, ok := err.(transient); ok {
		err = t.error
	}
	e := &Error{Op: op, Kind: kind, Err: err}
	if last, ok := errors.AsType[*Error](err); ok {
		e.Outcome, e.StatusCode, e.RetryAfter = last.Outcome, last.StatusCode, last.RetryAfter
		e.Attempts, e.Limit = max(last.Attempts, 1), last.Limit
		if direct, ok := err.(*Error); ok {
			said := *direct // once is enough in one message
			said.Attempts = 0
			e.Err = &said
		}
	}
	return e
}

func (m *TokenManager) report(e *Error, message string, elapsed time.Duration) {
	attributes := []any{"outcome", e.Outcome.String(), "attempts", e.Attempts, "elapsed", elapsed, "error", e.Error()}
	if errors.Is(e, errCredentialsRefused) {
		m.logger().Warn("ampauth: the credentials were refused", attributes...)
		return
	}
	level := slog.LevelInfo
	if e.Attempts > 1 {
		level = slog.LevelWarn // the attempts are exhausted
	}
	m.logger().Log(context.Background(), level, message, attributes...)
}
