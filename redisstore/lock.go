package redisstore

import (
	"context"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/lease"
)

// Lock implements [ampauth.Locker]: TryLock, in the end about five times a second.
func (s *Store) Lock(ctx context.Context, k ampauth.StoreKey) (unlock func(), err error) {
	return s.locks.Lock(ctx, engine{s}, k.String(), s.Lease)
}

// TryLock implements [ampauth.Locker] with one script.
func (s *Store) TryLock(ctx context.Context, k ampauth.StoreKey) (unlock func(), ok bool, err error) {
	return s.locks.TryLock(ctx, engine{s}, k.String(), s.Lease)
}

// An engine is the locks in the Redis of a Store.
type engine struct{ *Store }

func (e engine) Take(ctx context.Context, key, name string, d time.Duration) (ok bool, err error) {
	n, err := e.run(ctx, take, key, []string{lockKey, holderKey}, name, d.Milliseconds(), lease.FenceTime.Milliseconds())
	return n == 1, err
}

func (e engine) Renew(ctx context.Context, key, name string, d time.Duration) (ok bool, err error) {
	n, err := e.run(ctx, renew, key, []string{lockKey}, name, d.Milliseconds())
	return n == 1, err
}

func (e engine) Release(ctx context.Context, key, name string) error {
	_, err := e.run(ctx, deleteEqual, key, []string{lockKey}, name)
	return err
}
