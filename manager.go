package ampauth

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/pace"
	"github.com/ampauth/ampauth/internal/renewal"
)

// A TokenManager keeps one account logged in. It is the [TokenSource] behind an
// [AuthTransport], and can be used alone; most callers only need [TokenManager.Token].
//
// A fresh token is read without a lock. One that ends soon is still served while
// one refresh runs in the background. Only when there is none, or it has ended,
// do callers wait, all of them for the same login, and each leaves when its own
// context ends; the login goes on for the others. There is one login at a time.
//
// Nobody waits for one longer than Config.Retry lets it take: a refresh, then all
// attempts at a login with the longest waits between them (an attempt without a
// Timeout counts as a minute, a wait without a MaxRetryAfter as the default one),
// and what a Store may take; at least 30 s, by default just under three minutes.
// That holds whatever the layers below, the Store and the Logger do. What a login
// has to log, or to tell OnEvent, is told after its waiters have the token.
//
// While logins fail there is a pause between two, and who needs one in it gets the error
// of the last at once: half of the time that this lasts, at most 30 s; after refused
// credentials 1 s, doubled with each refusal, at most a minute; as long as the server
// asks, at most Config.Retry.MaxRetryAfter. In the first failing login all attempts are
// made, in those that follow one each, until one succeeds.
//
// A refused token is replaced at once where the API accepted this very token before. A
// resource, by method and path, that refuses one token after the other while others are
// accepted costs two logins in any hour, and all refusals of which nothing shows that a
// login helps cost five; then the next may be 20 minutes away, or what is left of the hour.
// (A resource that takes and refuses the same token by turns has it replaced each time.)
//
// Make one with [NewTokenManager]: any other gives an error that Is [ErrConfig]. It is safe
// for concurrent use. It starts no goroutine but that of a login under way and, from its
// first token, those that listen to a Store that is a [Watcher]; Close ends them.
type TokenManager struct {
	account    account
	wire       hiddenTransport // one attempt: its clock, clean errors
	end        func()          // closes the idle connections below that the user did not bring
	stored     *guardedStore   // nil if there is no store
	log        *slog.Logger    // keeps what a flight says until it has landed
	flightTime time.Duration   // bounds a flight with all its attempts and waits

	epoch atomic.Pointer[epoch] // never nil; replaced under mu

	turn   chan struct{}   // full while a flight is at work: one after the other
	flying sync.WaitGroup  // flights that have not landed, and who listens to the store
	ctx    context.Context // of all epochs; ends with Close
	stop   context.CancelFunc

	mu     sync.Mutex // guards all below but counters and events, and what an epoch says; never held while talking to the network, a store or a logger
	closed bool
	users  map[string]uint32 // the numbers of all users that there were
	known  issuedTokens

	watched  string // the user whose stored token is watched
	endWatch context.CancelFunc

	counters counters
	events   listener
}

// An account is what a manager keeps logged in, and how: the Config with its defaults.
type account struct {
	baseURL                                string
	origin                                 origin.Origin
	scheme                                 string
	obtainPath, refreshPath, refreshMethod string
	renewal                                RenewalPolicy
	lifetime, window                       time.Duration
	assumed                                bool        // the lifetime is our guess
	retry                                  RetryConfig // resolved
}

// obtainCall and refreshCall are the calls for a token, as errors name them.
func (a *account) obtainCall() string { return "POST " + a.obtainPath + " at " + a.origin.HostPort() }

func (a *account) refreshCall() string {
	return a.refreshMethod + " " + a.refreshPath + " at " + a.origin.HostPort()
}

// A RenewalPolicy says how a token that ends soon is replaced.
type RenewalPolicy int

const (
	// RefreshThenObtain refreshes first and logs in if that fails. A refresh ends
	// the old token for everyone who shares the account.
	RefreshThenObtain RenewalPolicy = iota
	// ObtainOnly logs in again, which leaves the token of others alone. Choose it
	// for processes that share an account and do not share a token.
	ObtainOnly
)

// open readies a manager whose entrance has set what it is made of, and begins its first
// epoch.
func (m *TokenManager) open(credentials Credentials) *TokenManager {
	m.flightTime = flightTime(m.account.retry, m.stored != nil)
	if m.stored != nil && m.stored.forFleet() {
		m.flightTime = pace.Add(m.flightTime, fleetTimes)
	}
	m.turn = make(chan struct{}, 1)
	m.users = make(map[string]uint32)
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.epoch.Store(m.newEpoch(credentials))
	return m
}

// Token returns a token that is worth sending. It waits only if there is none or
// it has ended. The error Is [ErrObtainFailed], or [ErrClosed], and Is the
// context's when ctx ended first. The token's Value is the manager's own: do not
// destroy it.
func (m *TokenManager) Token(ctx context.Context) (Token, error) {
	if token, ok := m.ready(); ok {
		return token, nil
	}
	return m.await(ctx, order{purpose: keepFresh})
}

// ready implements source: it returns the current token if there is one to serve.
func (m *TokenManager) ready() (Token, bool) {
	s := m.current()
	if s == nil {
		return Token{}, false
	}
	if s.fresh(time.Now().UnixNano()) {
		return s.token, true
	}
	return m.served()
}

// current returns the token that is served, nil if there is none.
func (m *TokenManager) current() *snapshot {
	if m == nil {
		return nil
	}
	e := m.epoch.Load()
	if e == nil {
		return nil
	}
	return e.current.Load()
}

// made returns an error unless m came of NewTokenManager or NewClient.
func (m *TokenManager) made() error {
	if m == nil || m.epoch.Load() == nil {
		return notMade("TokenManager", "NewTokenManager or NewClient")
	}
	return nil
}

// served returns the token that is served although it is due, and has it replaced if it is
// time for that. Nobody waits.
func (m *TokenManager) served() (Token, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.epoch.Load()
	s := e.current.Load()
	if s == nil {
		return Token{}, false
	}
	switch e.renewal.Asked(time.Now()).Action {
	case renewal.Serve:
		return s.token, true
	case renewal.ReplaceAhead:
		_, _ = m.joinIn(e, order{purpose: keepFresh})
		return s.token, true
	}
	return Token{}, false
}

// Obtain logs in now, or joins another Obtain that is under way. It never takes a
// stored token, and does not join what is under way for another purpose.
func (m *TokenManager) Obtain(ctx context.Context) (Token, error) {
	return m.await(ctx, order{purpose: logIn})
}

// Refresh refreshes the token now, whatever the policy, or joins another Refresh
// that is under way. If that fails, there is no token, or somebody else keeps the lock
// of the store (a refresh ends the token of all who share it), it logs in.
func (m *TokenManager) Refresh(ctx context.Context) (Token, error) {
	return m.await(ctx, order{purpose: refreshFirst})
}

// ForceRefresh is Refresh that also ends the pause after a refused login.
func (m *TokenManager) ForceRefresh(ctx context.Context) (Token, error) {
	if err := m.made(); err != nil {
		return Token{}, err
	}
	m.mu.Lock()
	m.epoch.Load().renewal.Allow()
	m.mu.Unlock()
	return m.Refresh(ctx)
}

// Renew replaces a token that the API refused. If there is a newer one already
// it is returned without a login. If logging in again gives the same token, or
// the new one is refused at once as well, the refusal is final for a while, and
// the error, without another login, is one whose Outcome is Rejected. So it is if
// the token is that of a user whom SetCredentials has replaced since: what left as
// one user is not sent again as another.
func (m *TokenManager) Renew(ctx context.Context, rejected Token) (Token, error) {
	return m.renewAt(ctx, rejected, 0)
}

// renewFor implements source.
func (m *TokenManager) renewFor(ctx context.Context, rejected Token, with *http.Request) (Token, error) {
	return m.renewAt(ctx, rejected, placeOf(with))
}

func (m *TokenManager) renewAt(ctx context.Context, rejected Token, at renewal.Place) (Token, error) {
	if err := m.made(); err != nil {
		return Token{}, err
	}
	// Twice, since the first may join a login that began before the refusal.
	for range 2 {
		s, noLogin, err := m.reject(rejected, at)
		switch {
		case err != nil:
			return Token{}, err
		case s != nil:
			return s.token, nil
		case noLogin != nil && m.stored == nil:
			return Token{}, noLogin
		}
		// With a store somebody else may have made a login.
		token, err := m.await(ctx, order{purpose: replace, rejected: rejected, noLogin: noLogin})
		if err != nil {
			return Token{}, err
		}
		if !token.Value.Equal(rejected.Value) {
			return token, nil
		}
		if s := m.epoch.Load().current.Load(); s != nil && s.token.Value.Equal(rejected.Value) {
			break // that is what a login gives
		}
	}
	return Token{}, stillRefused(0) // another login might help, or not
}

// itself and home implement source.
func (m *TokenManager) itself() TokenSource {
	if m == nil {
		return nil
	}
	return m
}

func (m *TokenManager) home() (*origin.Origin, string) {
	if m.made() != nil {
		return nil, ""
	}
	return &m.account.origin, m.account.scheme
}

// renewSoon implements source: it is a renewFor that nobody waits for.
func (m *TokenManager) renewSoon(rejected Token, with *http.Request) {
	if s, noLogin, err := m.reject(rejected, placeOf(with)); s == nil && noLogin == nil && err == nil {
		_, _ = m.join(order{purpose: replace, rejected: rejected})
	}
}

// placeOf is where a token was sent.
func placeOf(req *http.Request) renewal.Place {
	h := maphash.String(placeSeed, req.URL.Path) + maphash.String(placeSeed, methodOf(req))
	return renewal.Place(h | 1) // 0 is none
}

var placeSeed = maphash.MakeSeed()

// reject takes note of a refusal. It returns the newer token if there is one, or the
// error of a login that would be pointless.
func (m *TokenManager) reject(rejected Token, at renewal.Place) (newer *snapshot, noLogin *Error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.epoch.Load()
	if err := e.checkUser(rejected); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	switch v := e.renewal.Refused(m.known.idOf(rejected.Value), at, now); v.Action {
	case renewal.Serve:
		return e.current.Load(), nil, nil
	case renewal.Wait:
		return nil, stillRefused(roundUp(v.Until.Sub(now))), nil
	}
	e.drop()
	return nil, nil, nil
}

var errStillRefused = errors.New("the API refuses every token that a login gives: check that the account is active, and that nothing on the way changes the Authorization header")

func stillRefused(d time.Duration) *Error {
	return &Error{Op: "obtain", Kind: ErrObtainFailed, Outcome: Rejected, RetryAfter: d, Err: errStillRefused}
}

// accepted implements source: it takes note of a token that the API accepted.
func (m *TokenManager) accepted(token Token, with *http.Request) {
	e := m.epoch.Load()
	s := e.current.Load()
	if s == nil || token.Value.ref() != s.token.Value.ref() {
		return
	}
	at := placeOf(with)
	slot, note := e.slot(s, at)
	if slot.Load() == note {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.current.Load() == s {
		e.renewal.Accepted(s.id, at)
		slot.Store(note)
	}
}

// SetCredentials replaces the credentials, as after a change of password, and
// ends the pause after a refused login. The token is kept, unless the user name
// is another. A login that is under way ends; who waits for it gets what the new
// credentials give. Credentials that [Config.Validate] would not take change
// nothing: the error Is [ErrConfig]. After Close it Is [ErrClosed].
func (m *TokenManager) SetCredentials(credentials Credentials) error {
	if err := m.made(); err != nil {
		return err
	}
	if faults := credentials.faults(nil); faults != nil {
		return errors.Join(faults...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errManagerClosed()
	}
	before, e := m.epoch.Load(), m.newEpoch(credentials)
	if before.credentials.Username == credentials.Username {
		e.current.Store(before.current.Load())
		e.renewal.Inherit(&before.renewal)
	}
	m.begin(e)
	return nil
}

// Stats returns what happened so far, but for what a [RetryTransport] above did.
func (m *TokenManager) Stats() Stats {
	var s Stats
	if m != nil {
		m.counters.addTo(&s)
	}
	return s
}

// Info describes the token; ok is false if there is none. It does no I/O.
func (m *TokenManager) Info() (info TokenInfo, ok bool) {
	s := m.current()
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
// login. A login that is under way ends, and who waits for it gets the token of a new
// one. The error, if any, says that the store may still have the token.
func (m *TokenManager) Clear(ctx context.Context) error {
	if err := m.made(); err != nil {
		return err
	}
	user := m.epoch.Load().credentials.Username
	m.forget(user)
	if m.stored == nil {
		return nil
	}
	err := m.clearStore(ctx, user)
	m.forget(user) // meanwhile a login may have begun, and taken what was still stored
	return err
}

// forget begins an epoch without a token, unless the user is another by now.
func (m *TokenManager) forget(user string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	credentials := m.epoch.Load().credentials
	if !m.closed && credentials.Username == user {
		m.begin(m.newEpoch(credentials))
	}
}

// Close ends a login that is under way and waits for it, no longer than the time
// that a login may take, and wipes the token. From the moment it is called there is
// none: the error Is [ErrClosed].
func (m *TokenManager) Close() error {
	if err := m.made(); err != nil {
		return err
	}
	m.mu.Lock()
	last := m.epoch.Load()
	if !m.closed {
		m.closed = true
		m.begin(m.newEpoch(last.credentials))
		m.stop()
	}
	m.mu.Unlock()
	m.flying.Wait()
	if s := last.current.Swap(nil); s != nil {
		s.token.Value.Destroy()
	}
	m.mu.Lock()
	dropped := last.dropped
	last.dropped = nil
	m.mu.Unlock()
	for _, s := range dropped {
		s.token.Value.Destroy()
	}
	m.end()
	return nil
}
