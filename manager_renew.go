package ampauth

import (
	"time"

	"github.com/ampauth/ampauth/internal/renewal"
)

// replaceToken is the flight itself.
func (m *TokenManager) replaceToken(f *flight) (Token, error) {
	if token, ok := f.settledBy(f.epoch.current.Load()); ok {
		return token, nil
	}
	if m.stored == nil {
		token, _, err := m.getToken(f)
		return token, err
	}
	return m.shareToken(f)
}

// getToken refreshes, or logs in if that fails or is in doubt, and makes the token the
// current one. kept is false if that would undo what happened meanwhile, or the API refuses
// it anyway.
func (m *TokenManager) getToken(f *flight) (token Token, kept bool, err error) {
	var refreshErr error
	if s := f.epoch.current.Load(); s != nil && !s.token.IsExpired() && m.refreshes(f) && !f.lockFailed {
		value, err := m.refresh(f, s.token)
		if err == nil {
			token, kept = m.install(f, m.newSnapshot(value))
			return token, kept, nil
		}
		refreshErr, f.refreshAfter = err, err.RetryAfter
	}
	value, obtainErr := m.obtain(f)
	if obtainErr != nil {
		if refreshErr != nil {
			obtainErr.Err = beforeThat(obtainErr.Err, refreshErr)
		}
		return Token{}, false, obtainErr
	}
	s := m.newSnapshot(value)
	s.loggedIn = true
	token, kept = m.install(f, s)
	return token, kept, nil
}

// settledBy reports whether an earlier flight has done what this one is for:
// between the caller's look and this one there may have been another.
func (f *flight) settledBy(s *snapshot) (Token, bool) {
	if s == nil || s.token.IsExpired() {
		return Token{}, false
	}
	now := time.Now().UnixNano()
	switch f.purpose {
	case keepFresh:
		return s.token, s.fresh(now)
	case replace:
		return s.token, !s.token.Value.Equal(f.rejected.Value)
	}
	return Token{}, false
}

// refreshes reports whether a flight tries a refresh before it logs in.
func (m *TokenManager) refreshes(f *flight) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f.purpose == refreshFirst ||
		f.purpose == keepFresh && m.account.renewal == RefreshThenObtain && f.epoch.renewal.Refreshes(time.Now())
}

// install makes a new token the current one, unless that would undo what
// happened since the flight began: its epoch or its time is over, and nobody gets
// it, or just this token was refused; then only the waiters get it.
func (m *TokenManager) install(f *flight, s *snapshot) (token Token, kept bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.installHeld(f, s)
}

// installHeld is install; m.mu must be held.
func (m *TokenManager) installHeld(f *flight, s *snapshot) (token Token, kept bool) {
	e, value := f.epoch, s.token.Value
	value.ref().user, value.ref().number = e.credentials.Username, e.number
	if f.done || e.over() {
		value.Destroy()
		return s.token, false
	}
	s.id = m.known.note(value)
	if s.loggedIn {
		e.renewal.LoggedIn()
	}
	var inPlaceOf renewal.ID
	if f.purpose == replace {
		inPlaceOf = m.known.idOf(f.rejected.Value)
	}
	kept = e.renewal.Obtained(s.id, s.life, inPlaceOf)
	if kept {
		s.generation = e.renewal.Generation()
		e.current.Store(s)
		m.watch(e)
	}
	return s.token, kept && s.id != inPlaceOf
}
