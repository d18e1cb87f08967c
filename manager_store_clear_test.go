package ampauth_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestClearForgetsTheStoredToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		w.token(m)
		for range 2 {
			if err := m.Clear(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, ok := w.stored(store); ok {
			t.Error("the token is still stored")
		}
		w.token(m)
		w.wantSent(2, 0)
	})
}

func TestClearDuringTheSaveStoresNothing(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore(), save: func(context.Context) error { time.Sleep(500 * time.Millisecond); return nil }}
		m := w.manager(storedIn(store))
		_, _ = m.Token(ampWithin(t, 50*time.Millisecond))
		time.Sleep(50 * time.Millisecond)
		if err := m.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if _, ok := w.stored(store); ok {
			t.Error("the Save brought the token back")
		}
	})
}

func TestClearDuringALoginStoresNothing(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 10 * time.Second})
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		_, _ = m.Token(ampWithin(t, 500*time.Millisecond))
		time.Sleep(500 * time.Millisecond)
		if err := m.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * time.Second)
		if _, ok := w.stored(store); ok {
			t.Error("the login brought the token back")
		}
	})
}

// A token that is asked for while the store is being cleared is another one.
func TestClearUnderLoadForgetsTheToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore(), deleteIf: func(context.Context) error { time.Sleep(50 * time.Millisecond); return nil }}
		m := w.manager(storedIn(store))
		before := w.token(m)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(10 * time.Millisecond)
			w.token(m)
		})
		if err := m.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if w.token(m).Value.Equal(before.Value) {
			t.Error("the token that was cleared is served again")
		}
	})
}

// What Clear puts in place of a record that nobody can read is nobody's token.
func TestClearedStoreGivesNobodyAToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore(), deleteIf: func(context.Context) error { time.Sleep(500 * time.Millisecond); return nil }}
		key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
		_ = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString("a\r\nX-Evil: 1")})
		a, b := w.manager(storedIn(store)), w.manager(storedIn(store))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Clear(t.Context()); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(100 * time.Millisecond)
		w.token(b)
		wg.Wait()
		w.wantSent(1, 0)
	})
}

func TestClearSaysThatTheStoreMayStillHaveTheToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		down := errors.New(`down: "` + canaryToken + `"`)
		store := &faultyStore{memoryStore: newMemoryStore(), deleteIf: func(context.Context) error { return down }}
		m := w.manager(storedIn(store))
		w.token(m)
		if err := m.Clear(t.Context()); !errors.Is(err, down) || !errors.Is(err, ampauth.ErrStore) || strings.Contains(err.Error(), canaryToken) {
			t.Errorf("got %v", err)
		}
	})
}
