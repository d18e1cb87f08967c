package ampauth_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
)

// A memoryEngine is what the machines of a fleet share, in memory: tokens, leases with a
// fence, pauses, and those who watch. Each machine has a handle on it.
type memoryEngine struct {
	mu      sync.Mutex // guards all below
	down    bool
	of      map[ampauth.StoreKey]*memoryRow
	holders int
	watches int // that were ever begun
}

type memoryRow struct {
	token       ampauth.Token
	holder      int // 0: nobody
	last        int // the holder before, if there is none
	pausedUntil time.Time
	watchers    map[chan struct{}]bool
}

func newMemoryEngine() *memoryEngine {
	return &memoryEngine{of: make(map[ampauth.StoreKey]*memoryRow)}
}

func (e *memoryEngine) handle() *fleetStore {
	return &fleetStore{engine: e, held: make(map[ampauth.StoreKey]int)}
}

var errEngineDown = errors.New("the engine is down")

// with calls f with the row of a key, unless the engine is down.
func (e *memoryEngine) with(k ampauth.StoreKey, f func(*memoryRow) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return errEngineDown
	}
	if e.of[k] == nil {
		e.of[k] = &memoryRow{watchers: make(map[chan struct{}]bool)}
	}
	return f(e.of[k])
}

// endLease makes the lock free, as when its holder sleeps.
func (e *memoryEngine) endLease(k ampauth.StoreKey) {
	_ = e.with(k, func(r *memoryRow) error { r.holder = 0; return nil })
}

// stop and start are an outage.
func (e *memoryEngine) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = true
	for _, r := range e.of {
		for w := range r.watchers {
			close(w)
		}
		clear(r.watchers)
	}
}

func (e *memoryEngine) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

// watching is how many watch now.
func (e *memoryEngine) watching(k ampauth.StoreKey) (n int) {
	_ = e.with(k, func(r *memoryRow) error { n = len(r.watchers); return nil })
	return n
}

// A fleetStore is a store, Locker, Pauser and Watcher.
type fleetStore struct {
	engine *memoryEngine

	mu   sync.Mutex               // guards held
	held map[ampauth.StoreKey]int // as which holder this machine has the lock
}

func (s *fleetStore) holder(k ampauth.StoreKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[k]
}

func (s *fleetStore) Load(_ context.Context, k ampauth.StoreKey) (t ampauth.Token, err error) {
	err = s.engine.with(k, func(r *memoryRow) error {
		if t = r.token; t.Value.IsZero() {
			return ampauth.ErrNoToken
		}
		return nil
	})
	return t, err
}

func (s *fleetStore) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	id := s.holder(k)
	return s.engine.with(k, func(r *memoryRow) error {
		if id == 0 && !r.token.Value.IsZero() || id != 0 && r.last != id {
			return ampauth.ErrSuperseded
		}
		r.token = t
		for w := range r.watchers {
			select {
			case w <- struct{}{}:
			default:
			}
		}
		return nil
	})
}

func (s *fleetStore) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	return s.engine.with(k, func(r *memoryRow) error {
		if r.token.Value.Equal(rejected) {
			r.token = ampauth.Token{}
		}
		return nil
	})
}

func (s *fleetStore) TryLock(_ context.Context, k ampauth.StoreKey) (unlock func(), ok bool, err error) {
	id := 0
	err = s.engine.with(k, func(r *memoryRow) error {
		if r.holder == 0 {
			s.engine.holders++
			id = s.engine.holders
			r.holder, r.last = id, id
		}
		return nil
	})
	if err != nil || id == 0 {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[k] = id
	return sync.OnceFunc(func() {
		s.mu.Lock()
		if s.held[k] == id {
			delete(s.held, k)
		}
		s.mu.Unlock()
		_ = s.engine.with(k, func(r *memoryRow) error {
			if r.holder == id {
				r.holder = 0
			}
			return nil
		})
	}), true, nil
}

func (s *fleetStore) Lock(ctx context.Context, k ampauth.StoreKey) (unlock func(), err error) {
	for {
		if unlock, ok, err := s.TryLock(ctx, k); ok || err != nil {
			return unlock, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *fleetStore) Pause(_ context.Context, k ampauth.StoreKey, d time.Duration) error {
	return s.engine.with(k, func(r *memoryRow) error {
		if until := time.Now().Add(d); until.After(r.pausedUntil) {
			r.pausedUntil = until
		}
		return nil
	})
}

func (s *fleetStore) Paused(_ context.Context, k ampauth.StoreKey) (left time.Duration, err error) {
	err = s.engine.with(k, func(r *memoryRow) error { left = max(0, time.Until(r.pausedUntil)); return nil })
	return left, err
}

func (s *fleetStore) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	news := make(chan struct{}, 1)
	err := s.engine.with(k, func(r *memoryRow) error {
		r.watchers[news] = true
		s.engine.watches++
		return nil
	})
	if err != nil {
		return err
	}
	defer func() {
		_ = s.engine.with(k, func(r *memoryRow) error { delete(r.watchers, news); return nil })
	}()
	for changed(); ; changed() {
		select {
		case _, ok := <-news:
			if !ok {
				return errEngineDown
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fleet are clients on machines of their own, which share an engine.
func (w *ampWorld) fleet(n int, e *memoryEngine) []*ampauth.Client {
	clients := make([]*ampauth.Client, n)
	for i := range clients {
		clients[i] = w.client(storedIn(e.handle()))
	}
	return clients
}

// key is the key of the fake's one user.
func (w *ampWorld) key() ampauth.StoreKey {
	w.t.Helper()
	return recordKeyOf(w.t, w.url+"/api", "issuer")
}
