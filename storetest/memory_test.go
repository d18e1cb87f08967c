package storetest

import (
	"context"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
)

// An engine is what the handles of a memory share.
type engine struct {
	mu   sync.Mutex // guards of, next
	of   map[ampauth.StoreKey]*row
	next int // holder
}

type row struct {
	token        ampauth.Token
	stored       bool
	lock         chan struct{} // full while somebody has the lock
	holder, last int           // 0: nobody
	pausedUntil  time.Time
	watchers     map[chan struct{}]bool
}

func newEngine() *engine { return &engine{of: make(map[ampauth.StoreKey]*row)} }

// with calls f with the row of a key.
func (e *engine) with(k ampauth.StoreKey, f func(*row)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of[k] == nil {
		e.of[k] = &row{lock: make(chan struct{}, 1), watchers: make(map[chan struct{}]bool)}
	}
	f(e.of[k])
}

// A memory is a handle on a store without faults, which has everything.
type memory struct {
	*engine

	held sync.Map // of StoreKey: as which holder this handle has the lock
}

func newMemory() *memory { return newEngine().handle() }

func (e *engine) handle() *memory { return &memory{engine: e} }

func (m *memory) Load(_ context.Context, k ampauth.StoreKey) (t ampauth.Token, err error) {
	m.with(k, func(r *row) {
		if t = r.token; !r.stored {
			err = ampauth.ErrNoToken
		}
	})
	return t, err
}

func (m *memory) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) (err error) {
	id, _ := m.held.Load(k)
	m.with(k, func(r *row) {
		if id == nil && r.stored || id != nil && id != r.last {
			err = ampauth.ErrSuperseded
			return
		}
		m.put(r, t)
	})
	return err
}

// put stores a token, whoever has the lock.
func (m *memory) put(r *row, t ampauth.Token) {
	r.token, r.stored = t, true
	for w := range r.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// remove removes the token of a key.
func (m *memory) remove(k ampauth.StoreKey) {
	m.with(k, func(r *row) { r.token, r.stored = ampauth.Token{}, false })
}

func (m *memory) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	m.with(k, func(r *row) {
		if r.stored && r.token.Value.Equal(rejected) {
			r.token, r.stored = ampauth.Token{}, false
		}
	})
	return nil
}

func (m *memory) lockOf(k ampauth.StoreKey) (lock chan struct{}) {
	m.with(k, func(r *row) { lock = r.lock })
	return lock
}

// taken takes note of a holder.
func (m *memory) taken(k ampauth.StoreKey) (unlock func()) {
	var id int
	m.with(k, func(r *row) {
		m.next++
		id = m.next
		r.holder, r.last = id, id
	})
	m.held.Store(k, id)
	return func() {
		m.held.CompareAndDelete(k, id)
		m.with(k, func(r *row) { r.free(id) })
	}
}

// free makes the lock free if a holder has it.
func (r *row) free(id int) {
	if id != 0 && r.holder == id {
		r.holder = 0
		<-r.lock
	}
}

func (m *memory) EndLease(k ampauth.StoreKey) { m.with(k, func(r *row) { r.free(r.holder) }) }

func (m *memory) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	select {
	case m.lockOf(k) <- struct{}{}:
		return m.taken(k), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) TryLock(_ context.Context, k ampauth.StoreKey) (func(), bool, error) {
	select {
	case m.lockOf(k) <- struct{}{}:
		return m.taken(k), true, nil
	default:
		return nil, false, nil
	}
}

func (m *memory) Pause(_ context.Context, k ampauth.StoreKey, d time.Duration) error {
	m.with(k, func(r *row) {
		if until := time.Now().Add(d); until.After(r.pausedUntil) {
			r.pausedUntil = until
		}
	})
	return nil
}

func (m *memory) Paused(_ context.Context, k ampauth.StoreKey) (left time.Duration, err error) {
	m.with(k, func(r *row) { left = max(0, time.Until(r.pausedUntil)) })
	return left, nil
}

func (m *memory) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	news := make(chan struct{}, 1)
	m.with(k, func(r *row) { r.watchers[news] = true })
	defer func() { m.with(k, func(r *row) { delete(r.watchers, news) }) }()
	for changed(); ; changed() {
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
