// Package lease is a lock in an engine that many machines share: a row or key with a name in
// it and an end, which its holder puts off until it unlocks. The stores for fleets use it.
package lease

import (
	"context"
	"crypto/rand"
	random "math/rand/v2"
	"sync"
	"time"
)

// An Engine has locks by keys. Each call is one step in it, and may be repeated.
type Engine interface {
	// Take gives the lock to a name for a while, if nobody has it. The name stays known as
	// that of the last holder for at least [FenceTime], which is the fence: what an earlier
	// one writes can be refused.
	Take(ctx context.Context, key, name string, d time.Duration) (ok bool, err error)
	// Renew puts off the end of a lease to d from now; ok is false if the name has lost it.
	Renew(ctx context.Context, key, name string, d time.Duration) (ok bool, err error)
	// Release ends the lease of a name, and no other's.
	Release(ctx context.Context, key, name string) error
}

const (
	// FenceTime is how long a late write is known to be late: longer than any login takes.
	FenceTime = time.Hour

	// standard is short, since all who need a token wait for a holder that died.
	standard = 3 * time.Second
	shortest = 10 * time.Millisecond
	// longestHold is when the renewals end, for a holder that hangs for ever.
	longestHold = 10 * time.Minute
	// releaseTime bounds the one call of an unlock.
	releaseTime = time.Second
	// leastPoll and mostPoll are about how often somebody who waits for the lock asks for it.
	leastPoll = 10 * time.Millisecond
	mostPoll  = 200 * time.Millisecond
)

// Locks are those that one store has taken. The zero value has none. It is safe for
// concurrent use.
type Locks struct {
	mu    sync.Mutex        // guards names; never held while calling an engine
	names map[string]string // under which a key's lock was taken, until it is unlocked
}

// Name is the name under which the lock of a key was taken, also if it is lost by now; "" if
// it was not, or is unlocked.
func (l *Locks) Name(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[key]
}

// TryLock takes the lock of a key for d at a time, 3 s if that is zero, and renews it each
// third of that until it is unlocked, for ten minutes at most. It outlives ctx. unlock makes
// one call of the engine, for a second at most, and the second time none.
func (l *Locks) TryLock(ctx context.Context, e Engine, key string, d time.Duration) (unlock func(), ok bool, err error) {
	if d <= 0 {
		d = standard
	}
	d = max(d, shortest)
	name := rand.Text()
	if ok, err := e.Take(ctx, key, name, d); err != nil || !ok {
		return nil, false, err
	}
	l.mu.Lock()
	if l.names == nil {
		l.names = make(map[string]string)
	}
	l.names[key] = name
	l.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	keeping, stop := context.WithTimeout(ctx, longestHold)
	go keep(keeping, e, key, name, d)
	return sync.OnceFunc(func() {
		stop()
		l.mu.Lock()
		if l.names[key] == name {
			delete(l.names, key)
		}
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, releaseTime)
		defer cancel()
		_ = e.Release(ctx, key, name) // or it ends by itself
	}), true, nil
}

// keep renews a lease until ctx ends or it is lost.
func keep(ctx context.Context, e Engine, key, name string, d time.Duration) {
	tick := time.NewTicker(d / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		within, cancel := context.WithTimeout(ctx, d/3)
		kept, err := e.Renew(within, key, name, d)
		cancel()
		if err == nil && !kept {
			return
		}
	}
}

// Lock is TryLock until it succeeds or ctx ends. It asks soon at first and each time later,
// in the end about five times a second.
func (l *Locks) Lock(ctx context.Context, e Engine, key string, d time.Duration) (unlock func(), err error) {
	for poll := leastPoll; ; poll = min(2*poll, mostPoll) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		unlock, ok, err := l.TryLock(ctx, e, key, d)
		if ok || err != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(poll/2 + random.N(poll)):
		}
	}
}
