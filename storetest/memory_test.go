package storetest

import (
	"context"
	"sync"

	"github.com/ampauth/ampauth"
)

// A memory is a store and a Locker without faults.
type memory struct {
	mu     sync.Mutex // guards tokens and locks
	tokens map[ampauth.StoreKey]ampauth.Token
	locks  map[ampauth.StoreKey]chan struct{} // full while somebody has the lock
}

func newMemory() *memory {
	return &memory{tokens: make(map[ampauth.StoreKey]ampauth.Token), locks: make(map[ampauth.StoreKey]chan struct{})}
}

func (m *memory) Load(_ context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tokens[k]
	if !ok {
		return t, ampauth.ErrNoToken
	}
	return t, nil
}

func (m *memory) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[k] = t
	return nil
}

func (m *memory) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.tokens[k]; ok && t.Value.Equal(rejected) {
		delete(m.tokens, k)
	}
	return nil
}

func (m *memory) lockOf(k ampauth.StoreKey) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[k] == nil {
		m.locks[k] = make(chan struct{}, 1)
	}
	return m.locks[k]
}

func (m *memory) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	lock := m.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) TryLock(_ context.Context, k ampauth.StoreKey) (func(), bool, error) {
	lock := m.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), true, nil
	default:
		return nil, false, nil
	}
}
