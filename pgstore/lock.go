package pgstore

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

// TryLock implements [ampauth.Locker] with one statement.
func (s *Store) TryLock(ctx context.Context, k ampauth.StoreKey) (unlock func(), ok bool, err error) {
	return s.locks.TryLock(ctx, engine{s}, k.String(), s.Lease)
}

// An engine is the locks in the table of a Store.
type engine struct{ *Store }

func (e engine) Take(ctx context.Context, key, name string, d time.Duration) (ok bool, err error) {
	n, err := e.exec(ctx, take, key, name, d.Milliseconds(), lease.FenceTime.Milliseconds())
	return n == 1, err
}

func (e engine) Renew(ctx context.Context, key, name string, d time.Duration) (ok bool, err error) {
	n, err := e.exec(ctx, renew, key, name, d.Milliseconds())
	return n == 1, err
}

func (e engine) Release(ctx context.Context, key, name string) error {
	_, err := e.exec(ctx, release, key, name)
	return err
}
