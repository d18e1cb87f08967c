package ampauth

import (
	"context"
	crypto "crypto/rand"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// shareToken is a flight of a manager with a store: load, lock, load again, decide, log in,
// save, unlock. The order is nowhere else. A token that is still valid never waits for the
// lock.
func (m *TokenManager) shareToken(f *flight) (Token, error) {
	key, err := NewStoreKey(m.account.baseURL, f.epoch.credentials.Username)
	if err != nil {
		token, _, err := m.getToken(f)
		return token, err
	}
	if token, ok := m.adopt(f, key); ok {
		return token, nil
	}
	if f.noLogin != nil {
		m.unstore(f, key)
		return Token{}, f.noLogin
	}
	current := f.epoch.current.Load()
	served := current != nil && !current.token.IsExpired() && f.purpose == keepFresh
	unlock, lock := m.stored.lock(f.ctx, key, !served)
	defer unlock()
	switch lock {
	case lockBusy:
		m.mu.Lock()
		f.epoch.lookAgain()
		m.mu.Unlock()
		return current.token, nil
	case lockDown:
		if m.stored.forFleet() {
			_ = pace.Sleep(f.ctx, rand.N(spreadTime))
		}
		fallthrough
	case locked, lockKept:
		if token, ok := m.adopt(f, key); ok {
			return token, nil
		}
	}
	m.unstore(f, key)
	if e := m.othersPause(f, key); e != nil {
		return Token{}, e
	}
	// A refresh ends the token of all who share it: not without telling them.
	f.lockFailed = lock == lockKept || lock == lockDown
	token, kept, err := m.getToken(f)
	switch {
	case err == nil && kept && (!f.lockFailed || m.storeHasNone(f, key)):
		return m.saveToken(f, key, token), nil
	case errors.Is(err, ErrCredentialsRefused):
		m.mu.Lock()
		d := f.epoch.renewal.NextPause()
		m.mu.Unlock()
		m.stored.pause(f.ctx, key, d)
	}
	return token, err
}

// othersPause returns an error if those who share the account pause, and the credentials
// of this one were refused as well.
func (m *TokenManager) othersPause(f *flight, key StoreKey) *Error {
	left := m.stored.paused(f.ctx, key)
	if left <= 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !f.epoch.renewal.OthersPause(time.Now(), left) {
		return nil
	}
	f.noLogin = f.epoch.inPause()
	return f.noLogin
}

// storeHasNone reports whether nothing is stored that is worth keeping. Without the lock a
// new token could be older than one that is there.
func (m *TokenManager) storeHasNone(f *flight, key StoreKey) bool {
	loaded, err := m.stored.load(f.ctx, key)
	if err != nil {
		return errors.Is(err, ErrNoToken)
	}
	defer loaded.Value.Destroy()
	// One that has ended, or was refused, helps nobody.
	return loaded.IsExpired() || m.snapshotOfStored(&loaded, time.Now()).token.IsExpired() || f.purpose == replace && loaded.Value.Equal(f.rejected.Value)
}

// unstore has nobody take up a refused token again, unless that is served on.
func (m *TokenManager) unstore(f *flight, key StoreKey) {
	s := f.epoch.current.Load()
	if f.purpose == replace && (s == nil || !s.token.Value.Equal(f.rejected.Value)) {
		_ = m.stored.deleteIf(f.ctx, key, f.rejected.Value)
	}
}

// saveToken stores a new token and returns it, or the one that somebody else has stored
// since the lock was lost. What ends the epoch does not end that: a Save that is
// left alone may still come to pass, after the Clear that should have undone it.
func (m *TokenManager) saveToken(f *flight, key StoreKey, token Token) Token {
	ctx := f.told.In(m.ctx)
	err := m.stored.save(ctx, key, token)
	if f.epoch.over() && ctx.Err() == nil { // not by Close, which undoes nothing
		_ = m.stored.deleteIf(ctx, key, token.Value)
	}
	if f.superseded = errors.Is(err, ErrSuperseded); f.superseded {
		if stored, ok := m.adopt(f, key); ok {
			return stored
		}
	}
	return token
}

// adopt returns the stored token if that is what the flight is for, or what a flight beside
// it has taken from the store meanwhile.
func (m *TokenManager) adopt(f *flight, key StoreKey) (Token, bool) {
	if token, ok := m.fromStore(f, key); ok {
		return token, true
	}
	return f.settledBy(f.epoch.current.Load())
}

// fromStore makes the stored token the current one if it is what the flight is for, which ok
// reports, or what it should go on from.
func (m *TokenManager) fromStore(f *flight, key StoreKey) (token Token, ok bool) {
	if f.purpose == logIn && !f.superseded {
		return Token{}, false
	}
	loaded, err := m.stored.load(f.ctx, key)
	if err != nil || loaded.IsExpired() {
		return Token{}, false
	}
	now := time.Now()
	s := m.snapshotOfStored(&loaded, now)
	m.mu.Lock()
	kept := m.isNews(f, s.token, now)
	if kept {
		token, kept = m.installHeld(f, s) // not if it was refused as well, or the epoch is over
	}
	m.mu.Unlock()
	if !kept {
		return Token{}, false
	}
	m.events.raise(f.ctx, Event{Name: EventAdopt}, nil)
	m.log.InfoContext(f.ctx, "ampauth: took the stored token", "age", token.Age().Round(time.Second))
	return token, f.purpose != refreshFirst || f.superseded
}

// isNews reports whether a stored token is one to go on from; m.mu must be held.
func (m *TokenManager) isNews(f *flight, stored Token, now time.Time) bool {
	current := f.epoch.current.Load()
	switch {
	case stored.IsExpired(), f.epoch.wasRefused(stored, now):
		return false
	case f.superseded:
		// Whoever stored it had the lock after us: the clocks of two machines, and of one that
		// slept, say nothing against that.
		return current == nil || !stored.Value.Equal(current.token.Value)
	case f.purpose == replace:
		// What is older than a refused token was refused before.
		return !stored.Value.Equal(f.rejected.Value) && !later(f.rejected.ObtainedAt, stored.ObtainedAt, now)
	}
	return current == nil || current.token.IsExpired() || later(stored.ObtainedAt, current.token.ObtainedAt, now)
}

// snapshotOfStored sets the times of a token that was stored.
func (m *TokenManager) snapshotOfStored(loaded *Token, now time.Time) *snapshot {
	if loaded.ObtainedAt.IsZero() || loaded.ObtainedAt.After(now) {
		loaded.ObtainedAt = now // by the clock of another machine it is later
	}
	return m.snapshotOf(*loaded)
}

// later reports whether a is a later time than b. Some stores keep whole seconds: if one
// of them is that, they are compared to the second.
// One that the clock has yet to reach, since it was set back, tells nothing.
func later(a, b, now time.Time) bool {
	switch {
	case a.After(now):
		return false
	case b.After(now):
		return true
	case a.Nanosecond() == 0 || b.Nanosecond() == 0:
		return a.Unix() > b.Unix()
	}
	return a.UnixMicro() > b.UnixMicro()
}

// clearStore removes the stored token of a user, also one that Load does not take.
func (m *TokenManager) clearStore(ctx context.Context, user string) error {
	key, err := NewStoreKey(m.account.baseURL, user)
	if err != nil {
		return nil // nothing was ever stored for it
	}
	m.stored.endRest()
	loaded, err := m.stored.load(ctx, key)
	if _, unusable := errors.AsType[miss](err); unusable {
		unlock, _ := m.stored.lock(ctx, key, true) // without it, some stores replace nothing
		defer unlock()
		// Something can be deleted only by its value, so it gets one.
		loaded = Token{Value: SecretFromString(clearedMark + crypto.Text()), ObtainedAt: time.Now()}
		if err = m.stored.save(ctx, key, loaded); errors.Is(err, ErrSuperseded) {
			return faultOf(err) // it may still be there
		}
	}
	if err == nil {
		err = m.stored.deleteIf(ctx, key, loaded.Value)
	}
	if !isFault(err) {
		return nil
	}
	return faultOf(err)
}
