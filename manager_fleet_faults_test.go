package ampauth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// What a store for many machines can do wrong.

// oddStore has other methods in place of some of its own.
type oddStore struct {
	*fleetStore
	load  func()
	save  func() error
	lock  func() error
	watch func(changed func()) error
	keep  bool // nothing is deleted
	calls int  // of Watch
}

func (s *oddStore) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	if s.load != nil {
		s.load()
	}
	return s.fleetStore.Load(ctx, k)
}

func (s *oddStore) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	if s.save != nil {
		return s.save()
	}
	return s.fleetStore.Save(ctx, k, t)
}

func (s *oddStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	if s.lock != nil {
		return nil, s.lock()
	}
	return s.fleetStore.Lock(ctx, k)
}

func (s *oddStore) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	if s.keep {
		return nil
	}
	return s.fleetStore.DeleteIf(ctx, k, rejected)
}

func (s *oddStore) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	s.calls++
	if s.watch != nil {
		return s.watch(changed)
	}
	return s.fleetStore.Watch(ctx, k, changed)
}

// Without the lock, a store with a fence replaces nothing.
func TestClearTellsThatWhatCannotBeReadIsStillStored(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		m := w.manager(storedIn(e.handle()))
		w.store(e.handle(), ampauth.Token{Value: ampauth.SecretFromString("no\nheader"), ObtainedAt: time.Now()})
		unlock, err := e.handle().Lock(t.Context(), w.key())
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if err := m.Clear(t.Context()); !errors.Is(err, ampauth.ErrSuperseded) {
			t.Errorf("got %v, want an error that Is ErrSuperseded: it is still stored", err)
		}
	})
}

// What a dial that took too long returns is an error that Is context.DeadlineExceeded, and
// says nothing of a holder.
func TestLockThatFailsByAClockOfItsOwnIsAnOutage(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		managers := make([]*ampauth.TokenManager, 64)
		for i := range managers {
			managers[i] = w.manager(storedIn(&oddStore{fleetStore: e.handle(), lock: func() error { return context.DeadlineExceeded }, keep: true}))
		}
		w.all(managers)
		requests := w.requests(ampObtain)
		n := 0
		for _, r := range requests {
			if r.at.Sub(requests[0].at) < 10*time.Millisecond {
				n++
			}
		}
		if n > 16 {
			t.Errorf("%d of 64 logins at once", n)
		}
	})
}

func TestWatchThatCallsAndReturnsAtOnceRestsLonger(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &oddStore{fleetStore: newMemoryEngine().handle(), watch: func(changed func()) error {
			changed()
			return nil
		}}
		m := w.manager(storedIn(store))
		w.token(m)
		time.Sleep(10 * time.Minute)
		_ = m.Close()
		if n := store.calls; n > 6+600/15 {
			t.Errorf("%d calls in ten minutes", n)
		}
	})
}

func TestRevokedTokenThatTheStoreKeepsIsNotTakenAfterASupersededSave(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		store := &oddStore{fleetStore: e.handle(), keep: true}
		c := w.client(storedIn(store))
		if status := w.assets(c); status != 200 {
			t.Fatal(status)
		}
		store.save = func() error { return ampauth.ErrSuperseded }
		w.Revoke("issuer")
		for range 5 {
			if status := w.assets(c); status != 200 {
				t.Errorf("status %d", status)
			}
		}
		w.wantSent(2, 0)
	})
}

func TestWatchThatCallsOnAfterItsEndDoesNoHarm(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		kept := make(chan func(), 100)
		store := &oddStore{fleetStore: newMemoryEngine().handle(), watch: func(changed func()) error {
			kept <- changed
			return errors.New("gone")
		}}
		m := w.manager(storedIn(store))
		w.token(m)
		time.Sleep(time.Minute)
		_ = m.Close()
		close(kept)
		for changed := range kept {
			for range 10_000 {
				go changed()
			}
		}
		w.wantSent(1, 0)
	})
}
