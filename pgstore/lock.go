package pgstore

import (
	"context"
	"crypto/rand"
	random "math/rand/v2"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
)

const (
	// defaultLease is short, since all who need a token wait for a holder that died.
	defaultLease = 3 * time.Second
	// longestHold is when the renewals end, for a holder that hangs for ever.
	longestHold = 10 * time.Minute
	// fenceTime is how long a late Save is known to be late: longer than any login takes.
	fenceTime = time.Hour
	// unlockTime bounds the one statement of an unlock.
	unlockTime = time.Second
	// leastPoll and mostPoll are how often somebody who waits for the lock asks for it.
	leastPoll = 10 * time.Millisecond
	mostPoll  = 200 * time.Millisecond
)

func (s *Store) lease() time.Duration {
	if s.Lease <= 0 {
		return defaultLease
	}
	return max(s.Lease, 10*time.Millisecond)
}

// TryLock implements [ampauth.Locker] with one statement.
func (s *Store) TryLock(ctx context.Context, k ampauth.StoreKey) (unlock func(), ok bool, err error) {
	id := rand.Text()
	taken, err := s.exec(ctx, take, k.String(), id, s.lease().Milliseconds(), fenceTime.Milliseconds())
	if err != nil || taken == 0 {
		return nil, false, err
	}
	s.mu.Lock()
	if s.held == nil {
		s.held = make(map[ampauth.StoreKey]string)
	}
	s.held[k] = id
	s.mu.Unlock()
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), longestHold)
	go s.keepLease(ctx, k, id)
	return sync.OnceFunc(func() {
		stop()
		s.mu.Lock()
		if s.held[k] == id {
			delete(s.held, k)
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTime)
		defer cancel()
		_, _ = s.exec(ctx, release, k.String(), id) // or it ends by itself
	}), true, nil
}

// keepLease renews a lease until ctx ends or it is lost.
func (s *Store) keepLease(ctx context.Context, k ampauth.StoreKey, id string) {
	tick := time.NewTicker(s.lease() / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		within, cancel := context.WithTimeout(ctx, s.lease()/3)
		kept, err := s.exec(within, renew, k.String(), id, s.lease().Milliseconds())
		cancel()
		if err == nil && kept == 0 {
			return
		}
	}
}

// Lock implements [ampauth.Locker]. It asks again, soon at first and each time later, in
// the end about five times a second.
func (s *Store) Lock(ctx context.Context, k ampauth.StoreKey) (unlock func(), err error) {
	for poll := leastPoll; ; poll = min(2*poll, mostPoll) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		unlock, ok, err := s.TryLock(ctx, k)
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
