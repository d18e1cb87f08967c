package ampauth

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"
)

// shareToken is a flight of a manager with a store: load, lock, load again, decide,
// log in, save, unlock. A token that is still valid never waits for the lock.
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
	case locked, lockFailed:
		if token, ok := m.adopt(f, key); ok {
			return token, nil
		}
	}
	m.unstore(f, key)
	// A refresh ends the token of all who share it: not without telling them.
	f.lockFailed = lock == lockFailed
	token, kept, err := m.getToken(f)
	if err == nil && kept && (!f.lockFailed || m.storeHasNone(f, key)) {
		m.saveToken(f, key, token)
	}
	return token, err
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

// saveToken stores a new token. What ends the epoch does not end that: a Save that is
// left alone may still come to pass, after the Clear that should have undone it.
func (m *TokenManager) saveToken(f *flight, key StoreKey, token Token) {
	ctx := f.told.In(m.ctx)
	_ = m.stored.save(ctx, key, token)
	if f.epoch.over() && ctx.Err() == nil { // not by Close, which undoes nothing
		_ = m.stored.deleteIf(ctx, key, token.Value)
	}
}

// adopt takes the stored token if that is what the flight is for, or what it should
// go on from.
func (m *TokenManager) adopt(f *flight, key StoreKey) (Token, bool) {
	if f.purpose == logIn {
		return Token{}, false
	}
	loaded, err := m.stored.load(f.ctx, key)
	if err != nil || loaded.IsExpired() {
		return Token{}, false
	}
	now := time.Now()
	s := m.snapshotOfStored(&loaded, now)
	current := f.epoch.current.Load()
	switch {
	case s.token.IsExpired(), m.wasRefused(f.epoch, s.token, now):
		return Token{}, false
	case f.purpose == replace:
		// What is older than a refused token was refused before.
		if loaded.Value.Equal(f.rejected.Value) || later(f.rejected.ObtainedAt, loaded.ObtainedAt, now) {
			return Token{}, false
		}
	case current != nil && !current.token.IsExpired() && !later(loaded.ObtainedAt, current.token.ObtainedAt, now):
		return Token{}, false
	}
	token, kept := m.install(f, s)
	if !kept { // it was refused as well, or the epoch is over
		return Token{}, false
	}
	m.events.raise(f.ctx, Event{Name: EventAdopt}, nil)
	m.log.InfoContext(f.ctx, "ampauth: took the stored token", "age", s.token.Age().Round(time.Second))
	return token, f.purpose != refreshFirst
}

// wasRefused reports whether a stored token is one that was refused in this epoch, and that
// the store keeps since it could not be told.
func (m *TokenManager) wasRefused(e *epoch, stored Token, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(e.dropped, func(s *snapshot) bool {
		return stored.Value.Equal(s.token.Value) && !later(stored.ObtainedAt, s.token.ObtainedAt, now)
	})
}

// snapshotOfStored sets the times of a token that was stored.
func (m *TokenManager) snapshotOfStored(loaded *Token, now time.Time) *snapshot {
	if loaded.ObtainedAt.IsZero() || loaded.ObtainedAt.After(now) {
		loaded.ObtainedAt = now // by the clock of another machine it is later
	}
	return m.snapshotOf(*loaded)
}

// later reports whether a is a later time than b, to the second, as stores keep it.
// One that the clock has yet to reach, since it was set back, tells nothing.
func later(a, b, now time.Time) bool {
	switch {
	case a.After(now):
		return false
	case b.After(now):
		return true
	}
	return a.Unix() > b.Unix()
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
		// Something can be deleted only by its value, so it gets one.
		loaded = Token{Value: SecretFromString(clearedMark + rand.Text()), ObtainedAt: time.Now()}
		err = m.stored.save(ctx, key, loaded)
	}
	if err == nil {
		err = m.stored.deleteIf(ctx, key, loaded.Value)
	}
	if !isFault(err) {
		return nil
	}
	return faultOf(err)
}
