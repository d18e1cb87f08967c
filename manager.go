package ampauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// A TokenManager keeps one account logged in. It is the [TokenSource] behind an
// [AuthTransport], and can be used alone; most callers only need [TokenManager.Token].
//
// A fresh token is read without a lock. One that ends soon is still served while
// one refresh runs in the background. Only when there is none, or it has ended,
// do callers wait, all of them for the same login, and each leaves when its own
// context ends; the login goes on for the others, for at most 30 s.
//
// Make one with [NewTokenManager]. It is safe for concurrent use. It starts no
// goroutine but that of a login under way; Close ends it.
type TokenManager struct {
	config Config
	origin origin
	scheme string
	wire   *RetryTransport // one attempt: limiter, connection split, clean errors
	owned  *http.Transport // closed with the manager; nil if the user brought it
	stored *storage        // nil if there is no store

	current    atomic.Pointer[snapshot] // nil: no token; written under mu
	retryAhead atomic.Int64             // no refresh ahead of time before this wall clock, in Unix ns
	noRefresh  atomic.Bool              // the refresh endpoint is not there

	logins  singleflight.Group
	flights sync.WaitGroup
	ctx     context.Context // of all logins; ends with Close
	stop    context.CancelFunc

	mu          sync.Mutex // guards all below; never held while talking to the network
	credentials Credentials
	epoch       uint64 // rises when a login under way must not count any more
	closed      bool
	pause       pause
	failures    int      // of refreshes ahead of time, in a row
	refused     []Secret // tokens that the API refused since the last flight began
	strikes     int      // renewals since the API last accepted a token

	counters tokenCounters
}

// A pause keeps the next login away after one was refused, so that an account is
// not locked by a hot loop, or after the server asked for it.
type pause struct {
	until time.Time
	count int // refusals in a row
	cause *Error
}

const (
	firstPause = time.Second
	maxPause   = time.Minute
	// maxAskedPause bounds what a Retry-After of the login endpoint can do.
	maxAskedPause = time.Hour
	// firstHoldOff is how long a token that came by a renewal must have lived,
	// without ever being accepted, before its refusal is worth another login.
	firstHoldOff = 5 * time.Second
	maxHoldOff   = time.Minute
)

// NewTokenManager returns a manager for the account of cfg. It sends nothing yet.
// A faulty configuration is an error that Is [ErrConfig] and names every fault.
func NewTokenManager(cfg Config) (*TokenManager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	base, owned := lowerLayers(cfg)
	return newTokenManager(cfg, base, owned), nil
}

func newTokenManager(cfg Config, base http.RoundTripper, owned *http.Transport) *TokenManager {
	timeout := cfg.Retry.resolved().Timeout
	m := &TokenManager{
		config:      cfg,
		scheme:      schemeOrDefault(cfg.Scheme),
		credentials: cfg.Credentials,
		owned:       owned,
		wire: &RetryTransport{
			Base: base,
			// More attempts and the pauses are the flight's. A refresh is a mutation.
			Retry:   RetryConfig{MaxAttempts: 1, Timeout: timeout, MutationTimeout: timeout, MaxRetryAfter: 1},
			Limiter: cfg.Limiter,
			Logger:  cfg.Logger,
			login:   true,
		},
	}
	m.origin, _ = parseOrigin(cfg.BaseURL, cfg.AllowHTTP)
	if cfg.Store != nil {
		m.stored = &storage{store: cfg.Store, logger: m.logger()}
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Token returns a token that is worth sending. It waits only if there is none or
// it has ended. The error Is [ErrObtainFailed], or [ErrClosed], and Is the
// context's when ctx ended first. The token's Value is the manager's own: do not
// destroy it.
func (m *TokenManager) Token(ctx context.Context) (Token, error) {
	if s := m.usable(); s != nil {
		return s.token, nil
	}
	return m.await(ctx, flight{purpose: keepFresh})
}

// usable returns the current token if it has not ended, or nil.
func (m *TokenManager) usable() *snapshot {
	s := m.current.Load()
	if s == nil {
		return nil
	}
	now := time.Now().UnixNano()
	if s.fresh(now) {
		return s
	}
	return m.stale(s, now)
}

// stale has a token replaced that ends soon, or that comes from the future
// because the clock was set back, and returns it unless it has ended.
func (m *TokenManager) stale(s *snapshot, now int64) *snapshot {
	if now >= s.expireAt {
		return nil
	}
	next := m.retryAhead.Load()
	due := now >= next || next-now > int64(maxAskedPause) // the clock was set back
	if due && m.retryAhead.CompareAndSwap(next, now+int64(flightTime)) {
		if _, err := m.join(flight{purpose: keepFresh}); err != nil {
			m.retryAhead.Store(now + int64(time.Second))
		}
	}
	return s
}

// Obtain logs in now, or joins what is under way. It never takes a stored token.
func (m *TokenManager) Obtain(ctx context.Context) (Token, error) {
	return m.await(ctx, flight{purpose: logIn})
}

// Refresh refreshes the token now, whatever the policy, or joins what is under
// way. If that fails, there is no token, or the lock of the store cannot be had (a
// refresh ends the token of all who share it), it logs in.
func (m *TokenManager) Refresh(ctx context.Context) (Token, error) {
	return m.await(ctx, flight{purpose: refreshFirst})
}

// ForceRefresh is Refresh that also ends the pause after a refused login.
func (m *TokenManager) ForceRefresh(ctx context.Context) (Token, error) {
	m.mu.Lock()
	m.forgive()
	m.mu.Unlock()
	return m.Refresh(ctx)
}

// Renew replaces a token that the API refused. If there is a newer one already
// it is returned without a login. If logging in again gives the same token, or
// the new one is refused at once as well, the refusal is final for a while, and
// the error, without another login, is one whose Outcome is Rejected.
func (m *TokenManager) Renew(ctx context.Context, rejected Token) (Token, error) {
	// Twice, since the first may join a login that began before the refusal.
	for range 2 {
		token, settled, err := m.reject(rejected)
		f := flight{purpose: replace, rejected: rejected.Value, rejectedAt: rejected.ObtainedAt}
		if held, ok := err.(*Error); ok && m.stored != nil {
			f.held = held // no login, but somebody else may have made one
		} else if settled {
			return token, err
		}
		token, err = m.await(ctx, f)
		if err != nil {
			return Token{}, err
		}
		if !token.Value.Equal(rejected.Value) {
			return token, nil
		}
	}
	return Token{}, stillRefused(firstHoldOff)
}

// renewSoon is Renew that nobody waits for.
func (m *TokenManager) renewSoon(rejected Token) {
	if _, settled, _ := m.reject(rejected); !settled {
		_, _ = m.join(flight{purpose: replace, rejected: rejected.Value, rejectedAt: rejected.ObtainedAt})
	}
}

// reject takes note of a refusal. It is settled when no login is needed: there
// is another token by now, or another login would be pointless.
func (m *TokenManager) reject(rejected Token) (token Token, settled bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.current.Load()
	switch {
	case s == nil:
		m.noteRefused(rejected.Value)
		return Token{}, false, nil
	case !s.token.Value.Equal(rejected.Value):
		return s.token, !s.token.IsExpired(), nil
	}
	if d := m.holdOff(s); d > 0 {
		return Token{}, true, stillRefused(d)
	}
	if m.vindicated(s) {
		m.strikes = 0
	}
	m.strikes++
	m.noteRefused(rejected.Value)
	m.current.Store(nil)
	return Token{}, false, nil
}

// maxRefused bounds the list of refused tokens; a flight meets one or two.
const maxRefused = 8

// noteRefused keeps a flight under way from bringing the token back; m.mu must be
// held.
func (m *TokenManager) noteRefused(value Secret) {
	if slices.ContainsFunc(m.refused, value.Equal) {
		return
	}
	if len(m.refused) == maxRefused {
		m.refused = m.refused[1:]
	}
	m.refused = append(m.refused, value)
}

// holdOff is how long a refusal of s is taken for a matter that no login changes:
// s is what was refused before, or came by a renewal and was never accepted. m.mu
// must be held.
func (m *TokenManager) holdOff(s *snapshot) time.Duration {
	age := s.token.Age()
	if m.strikes == 0 || m.vindicated(s) || age < 0 { // a negative age: the clock was set back
		return 0
	}
	return min(firstHoldOff<<min(m.strikes-1, 8), maxHoldOff) - age
}

// vindicated reports whether the API has shown that s is worth something. What
// was refused before proves nothing by being accepted elsewhere.
func (m *TokenManager) vindicated(s *snapshot) bool {
	return s.accepted.Load() && !s.repeated
}

var errPaused = errors.New("not tried again yet")

var errStillRefused = errors.New("the API refuses the token and a new login does not change that: check the account")

func stillRefused(d time.Duration) *Error {
	return &Error{Op: "obtain", Kind: ErrObtainFailed, Outcome: Rejected, RetryAfter: d, Err: errStillRefused}
}

// accepted takes note of a token that the API accepted.
func (m *TokenManager) accepted(token Token) {
	s := m.current.Load()
	if s != nil && !s.accepted.Load() && s.token.Value.Equal(token.Value) {
		s.accepted.Store(true)
	}
}

// SetCredentials replaces the credentials, as after a change of password, and
// ends the pause after a refused login. The token is kept, unless the user name
// is another.
func (m *TokenManager) SetCredentials(credentials Credentials) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if credentials.Username != m.credentials.Username {
		m.current.Store(nil)
	}
	m.credentials = credentials
	m.epoch++
	m.forgive()
}

// Info describes the token; ok is false if there is none. It does no I/O.
func (m *TokenManager) Info() (info TokenInfo, ok bool) {
	s := m.current.Load()
	if s == nil {
		return TokenInfo{}, false
	}
	info = TokenInfo{
		ExpiresAt:   s.token.ExpiresAt,
		ObtainedAt:  s.token.ObtainedAt,
		Age:         s.token.Age(),
		IsExpired:   s.token.IsExpired(),
		ExpiresSoon: !s.fresh(time.Now().UnixNano()),
	}
	if !info.ExpiresAt.IsZero() {
		info.ExpiresIn = time.Until(info.ExpiresAt)
	}
	return info, true
}

// Clear forgets the token, in the store as well, and the pause after a refused
// login. A login that is under way does not bring it back. The error, if any, says
// that the store may still have it.
func (m *TokenManager) Clear(ctx context.Context) error {
	m.mu.Lock()
	m.current.Store(nil)
	m.epoch++
	m.forgive()
	m.mu.Unlock()
	if m.stored == nil {
		return nil
	}
	err := m.clearStore(ctx)
	// Meanwhile a login may have begun, and taken what was still stored.
	m.mu.Lock()
	m.current.Store(nil)
	m.epoch++
	m.mu.Unlock()
	return err
}

// forgive ends every reason not to log in; m.mu must be held.
func (m *TokenManager) forgive() {
	m.pause = pause{}
	m.strikes, m.failures = 0, 0
	m.retryAhead.Store(0)
}

// Close ends a login that is under way and waits for it, and wipes the token.
// From then on there is none: the error Is [ErrClosed].
func (m *TokenManager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.epoch++
	s := m.current.Swap(nil)
	refused := m.refused
	m.refused = nil
	m.mu.Unlock()
	m.stop()
	m.flights.Wait()
	if s != nil {
		s.token.Value.Destroy()
	}
	for _, value := range refused {
		value.Destroy()
	}
	if m.owned != nil {
		m.wire.CloseIdleConnections()
	}
	return nil
}

// clocks in errors are rounded, so that they read well.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// inPause returns the error of a login that is not tried, or nil; m.mu must be held.
func (m *TokenManager) inPause() *Error {
	left := time.Until(m.pause.until)
	if left <= 0 {
		return nil
	}
	e := *m.pause.cause
	e.Outcome, e.Attempts, e.RetryAfter = NotSent, 0, roundUp(left)
	e.Err = &sequence{errPaused, ": ", m.pause.cause.Err}
	return &e
}

// hold starts or extends the pause that err calls for; m.mu must be held.
func (m *TokenManager) hold(err *Error) {
	switch {
	case errors.Is(err, errCredentialsRefused):
		m.pause.count++
		d := min(firstPause<<min(m.pause.count-1, 8), maxPause)
		m.pause.until, m.pause.cause = time.Now().Add(d), err
	case err.RetryAfter > 0:
		m.pause.until, m.pause.cause = time.Now().Add(min(err.RetryAfter, maxAskedPause)), err
	}
}

func (m *TokenManager) logger() *slog.Logger {
	if m.config.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.config.Logger
}
