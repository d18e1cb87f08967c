package ampauth

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// lookAgain is when a token that ends soon is looked at again after somebody else
// was found to be replacing it.
const lookAgain = 2 * time.Second

// shareToken is a flight of a manager with a store: load, lock, load again, decide,
// log in, save, unlock. A token that is still valid never waits for the lock.
func (m *TokenManager) shareToken(ctx context.Context, f *flight, credentials Credentials) (Token, error) {
	key, err := NewStoreKey(m.config.BaseURL, credentials.Username)
	if err != nil {
		token, _, err := m.getToken(ctx, f, credentials)
		return token, err
	}
	if token, ok := m.adopt(ctx, f, key); ok {
		return token, nil
	}
	if f.held != nil {
		if f.purpose == replace {
			_ = m.stored.deleteIf(ctx, key, f.rejected)
		}
		return Token{}, f.held
	}
	current := m.current.Load()
	served := current != nil && !current.token.IsExpired() && f.purpose == keepFresh
	unlock, lock := m.stored.lock(ctx, key, !served)
	defer unlock()
	switch lock {
	case lockTaken:
		m.retryAhead.Store(time.Now().Add(lookAgain + jitter(lookAgain)).UnixNano())
		return current.token, nil
	case locked, lockLost:
		if token, ok := m.adopt(ctx, f, key); ok {
			return token, nil
		}
	}
	if f.purpose == replace {
		_ = m.stored.deleteIf(ctx, key, f.rejected) // lest anybody take it up again
	}
	// A refresh ends the token of all who share it: not without telling them.
	f.unlocked = lock == lockLost
	token, kept, err := m.getToken(ctx, f, credentials)
	if err == nil && kept && !f.unlocked { // without the lock it could be older than what is there
		_ = m.stored.save(ctx, key, token)
		if m.overtaken(f) { // by a Clear, which may not have seen it, or other credentials
			_ = m.stored.deleteIf(ctx, key, token.Value)
		}
	}
	return token, err
}

// overtaken reports whether what happened since the flight began must not be undone
// by it.
func (m *TokenManager) overtaken(f *flight) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f.epoch != m.epoch && !m.closed
}

// adopt takes the stored token if that is what the flight is for, or what it should
// go on from.
func (m *TokenManager) adopt(ctx context.Context, f *flight, key StoreKey) (Token, bool) {
	if f.purpose == logIn {
		return Token{}, false
	}
	loaded, err := m.stored.load(ctx, key)
	if err != nil || loaded.IsExpired() {
		return Token{}, false
	}
	now := time.Now()
	if loaded.ObtainedAt.IsZero() || loaded.ObtainedAt.After(now) {
		loaded.ObtainedAt = now // by the clock of another machine it is later
	}
	s := m.snapshotOf(loaded)
	current := m.current.Load()
	switch {
	case s.token.IsExpired():
		return Token{}, false
	case f.purpose == replace:
		// What is older than a refused token was refused before.
		if loaded.Value.Equal(f.rejected) || later(f.rejectedAt, loaded.ObtainedAt, now) {
			return Token{}, false
		}
	case current != nil && !current.token.IsExpired() && !later(loaded.ObtainedAt, current.token.ObtainedAt, now):
		return Token{}, false
	}
	f.adopting = true
	token, kept := m.install(f, s)
	f.adopting = false
	if !kept { // it was refused as well, or is another user's by now
		return Token{}, false
	}
	m.counters.adoptions.Add(1)
	m.logger().Info("ampauth: took the stored token", "age", s.token.Age().Round(time.Second))
	return token, f.purpose != refreshFirst
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

// clearStore removes the stored token of the current account, also one that Load
// does not take.
func (m *TokenManager) clearStore(ctx context.Context) error {
	m.mu.Lock()
	username := m.credentials.Username
	m.mu.Unlock()
	key, err := NewStoreKey(m.config.BaseURL, username)
	if err != nil {
		return nil // nothing was ever stored for it
	}
	m.stored.wake()
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
	if ours, ok := err.(*Error); ok {
		return ours
	}
	return storeFault(clean(err))
}
