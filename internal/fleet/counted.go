//go:build unix

package fleet

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
)

// A fleetStore is what a store for many machines is.
type fleetStore interface {
	ampauth.TokenStore
	ampauth.Locker
	ampauth.Pauser
	ampauth.Watcher
}

// StoreCalls are how often a store was called, by all but Watch, which nobody waits for.
type StoreCalls struct{ Loads, Saves, Locks, Others int }

func (c StoreCalls) sum() int { return c.Loads + c.Saves + c.Locks + c.Others }

func (c StoreCalls) minus(before StoreCalls) StoreCalls {
	return StoreCalls{c.Loads - before.Loads, c.Saves - before.Saves, c.Locks - before.Locks, c.Others - before.Others}
}

// A ledger is what the clients of a process have asked of their stores, and what went wrong.
type ledger struct {
	mu     sync.Mutex // guards all below
	calls  StoreCalls
	faults map[string]int // by the reason of the event
}

// torn is the reason of a record that is there and cannot be trusted.
const torn = "torn record"

func (l *ledger) onEvent(_ context.Context, e ampauth.Event) {
	if e.Name != ampauth.EventStore {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults[e.Reason]++
	if errors.Is(e.Err, ampauth.ErrNoToken) {
		l.faults[torn]++
	}
}

func (l *ledger) reply() *Reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Reply{Store: l.calls, Faults: maps.Clone(l.faults)}
}

// A countedStore writes to a ledger what it is asked.
type countedStore struct {
	fleetStore
	ledger *ledger
}

func (s *countedStore) count(of func(*StoreCalls) *int) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	*of(&s.ledger.calls)++
}

func loads(c *StoreCalls) *int  { return &c.Loads }
func saves(c *StoreCalls) *int  { return &c.Saves }
func locks(c *StoreCalls) *int  { return &c.Locks }
func others(c *StoreCalls) *int { return &c.Others }

func (s *countedStore) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	s.count(loads)
	return s.fleetStore.Load(ctx, k)
}

func (s *countedStore) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	s.count(saves)
	return s.fleetStore.Save(ctx, k, t)
}

func (s *countedStore) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	s.count(others)
	return s.fleetStore.DeleteIf(ctx, k, rejected)
}

func (s *countedStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	s.count(locks)
	return s.fleetStore.Lock(ctx, k)
}

func (s *countedStore) TryLock(ctx context.Context, k ampauth.StoreKey) (func(), bool, error) {
	s.count(locks)
	return s.fleetStore.TryLock(ctx, k)
}

func (s *countedStore) Pause(ctx context.Context, k ampauth.StoreKey, d time.Duration) error {
	s.count(others)
	return s.fleetStore.Pause(ctx, k, d)
}

func (s *countedStore) Paused(ctx context.Context, k ampauth.StoreKey) (time.Duration, error) {
	s.count(others)
	return s.fleetStore.Paused(ctx, k)
}
