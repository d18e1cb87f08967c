package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ampauth/ampauth"
)

// A broken is a memory with other methods in place of some of its own.
type broken struct {
	*memory
	load     func(context.Context, ampauth.StoreKey) (ampauth.Token, error)
	save     func(context.Context, ampauth.StoreKey, ampauth.Token) error
	deleteIf func(context.Context, ampauth.StoreKey, ampauth.Secret) error
	lock     func(context.Context, ampauth.StoreKey) (func(), error)
	tryLock  func(context.Context, ampauth.StoreKey) (func(), bool, error)
	pause    func(context.Context, ampauth.StoreKey, time.Duration) error
	paused   func(context.Context, ampauth.StoreKey) (time.Duration, error)
	watch    func(context.Context, ampauth.StoreKey, func()) error
}

func newBroken(m *memory, plant func(b *broken)) *broken {
	b := &broken{m, m.Load, m.Save, m.DeleteIf, m.Lock, m.TryLock, m.Pause, m.Paused, m.Watch}
	plant(b)
	return b
}

func (b *broken) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	return b.load(ctx, k)
}

func (b *broken) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	return b.save(ctx, k, t)
}

func (b *broken) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	return b.deleteIf(ctx, k, rejected)
}

func (b *broken) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	return b.lock(ctx, k)
}

func (b *broken) TryLock(ctx context.Context, k ampauth.StoreKey) (func(), bool, error) {
	return b.tryLock(ctx, k)
}

func (b *broken) Pause(ctx context.Context, k ampauth.StoreKey, d time.Duration) error {
	return b.pause(ctx, k, d)
}

func (b *broken) Paused(ctx context.Context, k ampauth.StoreKey) (time.Duration, error) {
	return b.paused(ctx, k)
}

func (b *broken) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	return b.watch(ctx, k, changed)
}

// gap makes Save wait in its middle until somebody has loaded what is there then.
func gap(b *broken) (wait func()) {
	loaded := make(chan struct{})
	b.load = func(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
		t, err := b.memory.Load(ctx, k)
		select {
		case loaded <- struct{}{}:
		default:
		}
		return t, err
	}
	return func() {
		select {
		case <-loaded:
		case <-time.After(time.Millisecond): // by the clock of the bubble: when nobody does anything
		}
	}
}

func cut(t ampauth.Token) ampauth.Token {
	_ = t.Value.Expose(func(b []byte) error {
		t.Value = ampauth.NewSecret(bytes.Clone(b[:len(b)/2]))
		return nil
	})
	return t
}

// withoutFence makes a Save that asks for no lock.
func withoutFence(b *broken) {
	b.save = func(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
		b.with(k, func(r *row) { b.put(r, t) })
		return nil
	}
}

// slowAndCoarse plants no fault: times of whole seconds, and a Watch that tells
// of several Saves at once.
func slowAndCoarse(b *broken) {
	b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
		t.ObtainedAt, t.ExpiresAt = t.ObtainedAt.Truncate(time.Second), t.ExpiresAt.Truncate(time.Second)
		return b.memory.Save(ctx, k, t)
	}
	b.paused = func(ctx context.Context, k ampauth.StoreKey) (time.Duration, error) {
		left, err := b.memory.Paused(ctx, k)
		return left.Truncate(time.Second), err
	}
	b.watch = func(ctx context.Context, k ampauth.StoreKey, changed func()) error {
		return b.memory.Watch(ctx, k, func() {
			time.Sleep(10 * time.Millisecond)
			if ctx.Err() == nil {
				changed()
			}
		})
	}
}

// A fault is what a store can get wrong, with the check that must find it.
type fault struct {
	name  string
	run   func(*subject)
	plant func(*broken)
}

var faults = []fault{
	{"no error without a token", missOnEmpty, func(b *broken) {
		b.load = func(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
			t, _ := b.memory.Load(ctx, k)
			return t, nil
		}
	}},
	{"a miss of its own", missOnEmpty, func(b *broken) {
		b.load = func(context.Context, ampauth.StoreKey) (ampauth.Token, error) {
			return ampauth.Token{}, errors.New("nothing there")
		}
	}},
	{"the end gets lost", roundTrip, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			t.ExpiresAt = time.Time{}
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"no end becomes one", roundTrip, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			t.ExpiresAt = time.Unix(max(t.ExpiresAt.Unix(), 0), 0)
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"a long value is cut", roundTrip, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			_ = t.Value.Expose(func(value []byte) error {
				t.Value = ampauth.NewSecret(bytes.Clone(value[:min(len(value), 255)]))
				return nil
			})
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"the first token stays", overwrite, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if _, err := b.memory.Load(ctx, k); err == nil {
				return nil
			}
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"one token for all keys", isolation, func(b *broken) {
		var all ampauth.StoreKey
		b.save = func(ctx context.Context, _ ampauth.StoreKey, t ampauth.Token) error {
			return b.memory.Save(ctx, all, t)
		}
		b.load = func(ctx context.Context, _ ampauth.StoreKey) (ampauth.Token, error) { return b.memory.Load(ctx, all) }
	}},
	{"nothing is deleted", deleteEqual, func(b *broken) {
		b.deleteIf = func(context.Context, ampauth.StoreKey, ampauth.Secret) error { return nil }
	}},
	{"anything is deleted", deleteOther, func(b *broken) {
		b.deleteIf = func(_ context.Context, k ampauth.StoreKey, _ ampauth.Secret) error {
			b.remove(k)
			return nil
		}
	}},
	{"an error when there is nothing to delete", deleteNone, func(b *broken) {
		b.deleteIf = func(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
			if _, err := b.memory.Load(ctx, k); err != nil {
				return err
			}
			return b.memory.DeleteIf(ctx, k, rejected)
		}
	}},
	{"a look, then a deletion", deleteBesideSave, func(b *broken) {
		b.deleteIf = func(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
			if t, err := b.memory.Load(ctx, k); err != nil || !t.Value.Equal(rejected) {
				return err
			}
			time.Sleep(time.Millisecond)
			b.remove(k)
			return nil
		}
	}},
	{"a deletion, then a Save", loadBesideSaves, func(b *broken) {
		wait := gap(b)
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			b.remove(k)
			wait()
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"a Save in two parts", loadBesideSaves, func(b *broken) {
		wait := gap(b)
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			_ = b.memory.Save(ctx, k, cut(t))
			wait()
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"no error, and nothing saved", endedContext, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if ctx.Err() != nil {
				return nil
			}
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"Load goes on for a minute", endedContext, func(b *broken) {
		b.load = func(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
			time.Sleep(time.Minute)
			return b.memory.Load(ctx, k)
		}
	}},
	{"an error with the token", endedContext, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if ctx.Err() == nil {
				return b.memory.Save(ctx, k, t)
			}
			return t.Value.Expose(func(value []byte) error { return fmt.Errorf("SET %s: %w", value, ctx.Err()) })
		}
	}},
	{"a lock that is none", exclusion, func(b *broken) {
		b.lock = func(context.Context, ampauth.StoreKey) (func(), error) { return func() {}, nil }
	}},
	{"a handle with a lock of its own", exclusionOfHandles, func(b *broken) {
		own := newMemory()
		b.lock, b.tryLock = own.Lock, own.TryLock
	}},
	{"TryLock waits", tryWhileHeld, func(b *broken) {
		b.tryLock = func(ctx context.Context, k ampauth.StoreKey) (func(), bool, error) {
			unlock, err := b.memory.Lock(ctx, k)
			return unlock, err == nil, err
		}
	}},
	{"Lock does not give up", lockGivesUp, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			return b.memory.Lock(context.WithoutCancel(ctx), k)
		}
	}},
	{"Lock gives up, and takes it later all the same", lockGivesUp, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			taken := make(chan func(), 1)
			go func() {
				later, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
				defer cancel()
				unlock, _ := b.memory.Lock(later, k)
				taken <- unlock
			}()
			select {
			case unlock := <-taken:
				return unlock, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}},
	{"Lock is not woken", lockGoesOn, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			if unlock, ok, err := b.memory.TryLock(ctx, k); ok || err != nil {
				return unlock, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}},
	{"anybody can unlock", unlockTwice, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			if _, err := b.memory.Lock(ctx, k); err != nil {
				return nil, err
			}
			return func() {
				select {
				case <-b.lockOf(k):
				default:
				}
			}, nil
		}
	}},
	{"one lock for all keys", independentLocks, func(b *broken) {
		var all ampauth.StoreKey
		b.lock = func(ctx context.Context, _ ampauth.StoreKey) (func(), error) { return b.memory.Lock(ctx, all) }
		b.tryLock = func(ctx context.Context, _ ampauth.StoreKey) (func(), bool, error) { return b.memory.TryLock(ctx, all) }
	}},
	{"Save waits for the lock", lockIsForLogins, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			unlock, err := b.memory.Lock(ctx, k)
			if err != nil {
				return err
			}
			defer unlock()
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"a lease never ends", lostLease, func(b *broken) {
		unlocked := make(map[ampauth.StoreKey]chan struct{})
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			if held := unlocked[k]; held != nil {
				select {
				case <-held:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			unlocked[k] = make(chan struct{})
			unlock, err := b.memory.Lock(ctx, k)
			return func() { unlock(); close(unlocked[k]) }, err
		}
	}},
	{"who has lost the lock frees that of the next", unlockAfterLease, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			_, err := b.memory.Lock(ctx, k)
			return func() { b.EndLease(k) }, err
		}
	}},
	{"no fence", supersededSave, withoutFence},
	{"a fence while the lock is another's only", supersededSave, func(b *broken) {
		b.save = func(_ context.Context, k ampauth.StoreKey, t ampauth.Token) (err error) {
			id, _ := b.held.Load(k)
			b.with(k, func(r *row) {
				if r.holder != 0 && id != r.holder {
					err = ampauth.ErrSuperseded
					return
				}
				b.put(r, t)
			})
			return err
		}
	}},
	{"a fence that counts anew after each unlock", supersededSave, func(b *broken) {
		b.lock = func(ctx context.Context, k ampauth.StoreKey) (func(), error) {
			unlock, err := b.memory.Lock(ctx, k)
			return func() {
				unlock()
				b.with(k, func(r *row) { b.next, r.last = 0, 0 })
			}, err
		}
	}},
	{"an error of its own", supersededSave, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if b.memory.Save(ctx, k, t) != nil {
				return errors.New("too late")
			}
			return nil
		}
	}},
	{"a Save needs a lock that goes on", unfollowedSave, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			held := false
			id, _ := b.held.Load(k)
			b.with(k, func(r *row) { held = id == r.holder })
			if !held {
				return ampauth.ErrSuperseded
			}
			return b.memory.Save(ctx, k, t)
		}
	}},
	{"who has no lock saves over a token", saveWithoutLock, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if _, held := b.held.Load(k); held {
				return b.memory.Save(ctx, k, t)
			}
			b.with(k, func(r *row) { b.put(r, t) })
			return nil
		}
	}},
	{"who has no lock saves nothing", saveWithoutLock, func(b *broken) {
		b.save = func(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
			if _, held := b.held.Load(k); held {
				return b.memory.Save(ctx, k, t)
			}
			return ampauth.ErrSuperseded
		}
	}},
	{"a pause without end", pauseEnds, func(b *broken) {
		b.paused = func(ctx context.Context, k ampauth.StoreKey) (time.Duration, error) {
			left, err := b.memory.Paused(ctx, k)
			b.with(k, func(r *row) {
				if !r.pausedUntil.IsZero() {
					left = max(left, time.Hour)
				}
			})
			return left, err
		}
	}},
	{"a pause that has ended goes on below zero", pauseEnds, func(b *broken) {
		b.paused = func(_ context.Context, k ampauth.StoreKey) (left time.Duration, err error) {
			b.with(k, func(r *row) {
				if !r.pausedUntil.IsZero() {
					left = time.Until(r.pausedUntil)
				}
			})
			return left, nil
		}
	}},
	{"a handle with a pause of its own", sharedPause, func(b *broken) {
		own := newMemory()
		b.pause, b.paused = own.Pause, own.Paused
	}},
	{"no pause is kept", pauseEnds, func(b *broken) {
		b.pause = func(context.Context, ampauth.StoreKey, time.Duration) error { return nil }
	}},
	{"the last pause counts", longerPause, func(b *broken) {
		b.pause = func(_ context.Context, k ampauth.StoreKey, d time.Duration) error {
			b.with(k, func(r *row) { r.pausedUntil = time.Now().Add(d) })
			return nil
		}
	}},
	{"one pause for all keys", isolatedPause, func(b *broken) {
		var all ampauth.StoreKey
		b.pause = func(ctx context.Context, _ ampauth.StoreKey, d time.Duration) error {
			return b.memory.Pause(ctx, all, d)
		}
		b.paused = func(ctx context.Context, _ ampauth.StoreKey) (time.Duration, error) { return b.memory.Paused(ctx, all) }
	}},
	{"Watch calls once", watchCalls, func(b *broken) {
		b.watch = func(ctx context.Context, _ ampauth.StoreKey, changed func()) error {
			changed()
			<-ctx.Done()
			return ctx.Err()
		}
	}},
	{"Watch does not say that it listens", watchCalls, func(b *broken) {
		b.watch = func(ctx context.Context, k ampauth.StoreKey, changed func()) error {
			first := true
			return b.memory.Watch(ctx, k, func() {
				if !first {
					changed()
				}
				first = false
			})
		}
	}},
	{"Watch calls for any key", isolatedWatch, func(b *broken) {
		b.watch = func(ctx context.Context, _ ampauth.StoreKey, changed func()) error {
			for changed(); ctx.Err() == nil; changed() {
				time.Sleep(30 * time.Millisecond)
			}
			return ctx.Err()
		}
	}},
	{"Watch goes on", watchEnds, func(b *broken) {
		b.watch = func(ctx context.Context, k ampauth.StoreKey, changed func()) error {
			later, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			return b.memory.Watch(later, k, changed)
		}
	}},
}
