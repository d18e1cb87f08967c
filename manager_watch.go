package ampauth

import (
	"context"
	"errors"
)

// watch has what others store for the user of e taken without anybody asking, if the store
// is a Watcher: from the first token of that user until Close or another user. m.mu must be
// held.
func (m *TokenManager) watch(e *epoch) {
	user := e.credentials.Username
	if m.stored == nil || m.closed || m.watched == user {
		return
	}
	watcher, ok := m.stored.store.(Watcher)
	key, err := NewStoreKey(m.account.baseURL, user)
	if !ok || err != nil {
		return
	}
	if m.endWatch != nil {
		m.endWatch()
	}
	var ctx context.Context
	ctx, m.endWatch = context.WithCancel(m.ctx)
	m.watched = user
	news := make(chan struct{}, 1)
	m.flying.Go(func() {
		m.stored.watch(ctx, watcher, key, func() {
			select {
			case news <- struct{}{}:
			default: // the next look finds it
			}
		})
	})
	m.flying.Go(func() {
		for {
			select {
			case <-news:
				m.look(ctx, user)
			case <-ctx.Done():
				return
			}
		}
	})
}

var errNothingNew = errors.New("nothing newer is stored")

// look takes the stored token of a user, unless there has been none since a Clear: who has
// forgotten a token gets another when somebody asks for it.
func (m *TokenManager) look(ctx context.Context, user string) {
	m.mu.Lock()
	e := m.epoch.Load()
	if m.closed || e.credentials.Username != user || e.renewal.Generation() == 0 {
		m.mu.Unlock()
		return
	}
	f := m.start(e, order{purpose: takeStored, noLogin: m.noToken(errNothingNew)})
	m.mu.Unlock()
	select {
	case <-f.landed:
	case <-ctx.Done():
	}
}
