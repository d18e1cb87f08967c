package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A refresh ends the token of all who share it. Who watches has the new one before it asks.
func TestWatchedTokenIsTakenWithoutACaller(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		fleet := w.fleet(16, newMemoryEngine())
		for _, c := range fleet {
			w.token(c.Tokens)
		}
		for round := range 3 {
			time.Sleep(time.Hour)
			if _, err := fleet[0].Tokens.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for i, c := range fleet {
				if status := w.assets(c); status != 200 {
					t.Errorf("status %d", status)
				}
				if s := c.Stats(); s.Replays != 0 || i > 0 && s.Adoptions < uint64(round+1) {
					t.Errorf("machine %d sent the token that was ended: %+v", i, s)
				}
			}
		}
		w.wantSent(1, 3)
	})
}

// Requests go on while others refresh and log in, and each token is news to all.
func TestWatchersAgreeOnOneTokenUnderLoad(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		fleet := w.fleet(8, newMemoryEngine())
		w.answer(ampRefresh, func(rw http.ResponseWriter, r *http.Request) {
			w.ServeHTTP(rw, r)
			time.Sleep(10 * time.Microsecond) // as over any network: no two tokens come at one moment
		})
		var all sync.WaitGroup
		for i, c := range fleet {
			all.Go(func() {
				for range 20 {
					time.Sleep(time.Duration(i+1) * time.Millisecond)
					if _, err := c.Tokens.Refresh(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		time.Sleep(time.Second)
		for _, c := range fleet {
			if got := ampReveal(w.token(c.Tokens).Value); got != w.Token("issuer") {
				t.Error("a machine has another token than the one that is good")
			}
		}
	})
}

func TestNobodyWatchesBeforeTheFirstTokenOrAfterClose(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		m := w.manager(storedIn(e.handle()))
		time.Sleep(time.Hour)
		if n := e.watching(w.key()); n != 0 {
			t.Errorf("%d watch, and nobody has asked for a token", n)
		}
		for range 3 {
			w.token(m)
			if _, err := m.Obtain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := e.watching(w.key()); n != 1 {
			t.Errorf("%d watch, want 1", n)
		}
		if took := ampElapsed(func() { _ = m.Close() }); took != 0 {
			t.Errorf("Close took %v", took)
		}
		if n := e.watching(w.key()); n != 0 {
			t.Errorf("%d watch after Close", n)
		}
	})
}

// deafStore has a Watch that ignores its context.
type deafStore struct{ *fleetStore }

func (deafStore) Watch(_ context.Context, _ ampauth.StoreKey, changed func()) error {
	time.Sleep(time.Hour)
	changed()
	return nil
}

func TestWatchThatIgnoresItsContextHoldsUpCloseForASecond(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(storedIn(deafStore{newMemoryEngine().handle()}))
		w.token(m)
		if took := ampElapsed(func() { _ = m.Close() }); took != time.Second {
			t.Errorf("Close took %v, want a second", took)
		}
		time.Sleep(time.Hour)
	})
}

func TestWatchFollowsTheUser(t *testing.T) {
	ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		m := w.manager(storedIn(e.handle()))
		other := recordKeyOf(t, w.url+"/api", "other")
		w.token(m)
		if err := m.SetCredentials(ampUser("other")); err != nil {
			t.Fatal(err)
		}
		w.token(m)
		synctest.Wait()
		if issuer, other := e.watching(w.key()), e.watching(other); issuer != 0 || other != 1 {
			t.Errorf("%d watch the user of before, and %d the one of now", issuer, other)
		}
		// What the first one's machines do then is not taken by the second.
		third := w.manager(storedIn(e.handle()))
		w.token(third)
		if _, err := third.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := ampReveal(w.token(m).Value); got != w.Token("other") {
			t.Error("it has the token of another user")
		}
	})
}

func TestWhoHasForgottenATokenTakesNoneUnasked(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		m, other := w.manager(storedIn(e.handle())), w.manager(storedIn(e.handle()))
		w.token(m)
		if err := m.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.token(other)
		synctest.Wait()
		if _, ok := m.Info(); ok {
			t.Error("it has a token again, and nobody asked it for one")
		}
		w.token(m)
		w.wantSent(2, 0)
	})
}

// What is older than the token at hand is no news, as on a replica that was behind.
func TestOlderTokenThatIsWatchedIsNotTaken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		fleet := w.fleet(4, e)
		w.token(fleet[0].Tokens)
		stale, _ := w.stored(e.handle())
		time.Sleep(time.Minute)
		if _, err := fleet[0].Tokens.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range fleet {
			w.token(c.Tokens)
		}
		e.stop()
		e.of[w.key()].token = stale
		e.start()
		time.Sleep(time.Minute)
		for _, c := range fleet {
			if got := ampReveal(w.token(c.Tokens).Value); got != w.Token("issuer") {
				t.Error("the older token took the place of the newer one")
			}
		}
		w.wantSent(1, 1)
	})
}

// The rests are those of the other calls, from half of each on.
func TestWatchThatEndsIsToldAndCalledAgainAfterARest(t *testing.T) {
	for name, end := range map[string]func() error{
		"with an error": func() error { return errors.New("gone") },
		"without":       func() error { return nil },
		"by a panic":    func() error { panic("gone") },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				store := &endingStore{fleetStore: newMemoryEngine().handle(), end: end}
				m := w.manager(storedIn(store))
				w.token(m)
				time.Sleep(10 * time.Minute)
				_ = m.Close()
				// 1, 2, 4, 8, 16 and then 30 s, each between half and whole.
				if n := len(store.began); n < 5+600/30 || n > 6+600/15 {
					t.Errorf("%d calls in ten minutes", n)
				}
				for i, began := range store.began[1:] {
					least := min(time.Second<<i, 30*time.Second) / 2
					if rest := began.Sub(store.began[i]); rest < least || rest > 2*least {
						t.Errorf("rest %d is %v, want %v to %v", i+1, rest, least, 2*least)
					}
				}
				if faults := m.Stats().StoreFaults; faults != uint64(len(store.began)) {
					t.Errorf("%d faults were told of %d", faults, len(store.began))
				}
			})
		})
	}
}

type endingStore struct {
	*fleetStore
	end   func() error
	began []time.Time
}

func (s *endingStore) Watch(context.Context, ampauth.StoreKey, func()) error {
	s.began = append(s.began, time.Now())
	return s.end()
}

func TestWatchBeginsAgainSoonAfterAnOutage(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		fleet := w.fleet(4, e)
		for _, c := range fleet {
			w.token(c.Tokens)
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		e.stop()
		time.Sleep(500 * time.Millisecond)
		e.start()
		if _, err := fleet[0].Tokens.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // from here on all listen again, and have looked
		for _, c := range fleet {
			if status := w.assets(c); status != 200 || c.Stats().Replays != 0 {
				t.Errorf("status %d, %d replays", status, c.Stats().Replays)
			}
		}
	})
}

// Another machine refreshes while this one is about to, and Watch takes that token before this
// one looks at the store: a refresh more would end it for all.
func TestTokenThatWatchTakesBesideARefreshIsNotRefreshed(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		s := &oddStore{fleetStore: e.handle()}
		slow, other := w.manager(storedIn(s)), w.manager(storedIn(e.handle()))
		w.token(slow)
		w.token(other)
		time.Sleep(24*time.Hour - time.Minute) // it ends soon
		var refreshed atomic.Bool
		s.load = func() {
			if refreshed.Swap(true) {
				return
			}
			if _, err := other.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond) // Watch has taken it
		}
		w.token(slow)
		time.Sleep(time.Second)
		w.wantSent(1, 1)
		if got := ampReveal(w.token(slow).Value); got != w.Token("issuer") {
			t.Error("it has another token than the one that is good")
		}
	})
}
