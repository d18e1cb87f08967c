package ampauth_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// Managers on machines of their own, whose store has a lease for a lock, and pauses.

// A holder sleeps through its lease with the answer of its login on the way; meanwhile
// another machine has replaced that token.
func TestWokenHolderOverwritesNothingAndTakesWhatIsStored(t *testing.T) {
	for name, call := range map[string]func(*ampauth.TokenManager) (ampauth.Token, error){
		"Token":   func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.Token(context.Background()) },
		"Obtain":  func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.Obtain(context.Background()) },
		"Refresh": func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.Refresh(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				e := newMemoryEngine()
				holder, other := w.manager(storedIn(e.handle())), w.manager(storedIn(e.handle()))
				w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: 5 * time.Second})
				result := ampStart(func() (ampauth.Token, error) { return call(holder) })
				time.Sleep(3 * time.Second)
				e.endLease(w.key())
				w.Revoke("issuer")
				w.token(other)
				if _, err := other.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				r := <-result
				good := w.Token("issuer")
				if r.err != nil || ampReveal(r.token.Value) != good || ampReveal(w.token(holder).Value) != good {
					t.Errorf("the woken holder has another token than the one that is good (error %v)", r.err)
				}
				if stored, _ := w.stored(e.handle()); ampReveal(stored.Value) != good {
					t.Error("the woken holder has overwritten the token of another")
				}
				if s := holder.Stats(); s.Adoptions != 1 || s.StoreFaults != 0 {
					t.Errorf("stats %+v: want an adoption, and no fault of the store", s)
				}
			})
		})
	}
}

// It is no fault of the store, which is not left alone for it.
func TestSupersededSaveDoesNotKeepTheNextOneBack(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		holder, other := w.manager(storedIn(e.handle())), w.manager(storedIn(e.handle()))
		w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: 5 * time.Second})
		result := ampStart(func() (ampauth.Token, error) { return holder.Token(t.Context()) })
		time.Sleep(3 * time.Second)
		e.endLease(w.key())
		w.token(other)
		<-result
		if _, err := holder.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stored, _ := w.stored(e.handle()); ampReveal(stored.Value) != w.Token("issuer") {
			t.Error("the token of the next refresh is not stored")
		}
	})
}

// A lease that ended and that nobody has had since costs nothing.
func TestHolderThatNobodyFollowedSavesItsToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		holder := w.manager(storedIn(e.handle()))
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 5 * time.Second})
		result := ampStart(func() (ampauth.Token, error) { return holder.Token(t.Context()) })
		e.endLease(w.key())
		<-result
		w.token(w.manager(storedIn(e.handle())))
		w.wantSent(1, 0)
	})
}

func TestTokenOfTheSameSecondIsTaken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		time.Sleep(100 * time.Millisecond)
		fleet := w.fleet(2, newMemoryEngine())
		w.token(fleet[0].Tokens)
		w.token(fleet[1].Tokens)
		time.Sleep(100 * time.Millisecond)
		if _, err := fleet[0].Tokens.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if status := w.assets(fleet[1]); status != 200 || fleet[1].Stats().Replays != 0 {
			t.Errorf("status %d, %d replays", status, fleet[1].Stats().Replays)
		}
	})
}

// AMP gives the same token again. That somebody else logged in later takes nothing from
// what the API has accepted before, so that a revocation right after it is one.
func TestSameTokenStoredLaterKeepsWhatItHasProved(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		fleet := w.fleet(16, e)
		for range 8 {
			for _, c := range fleet {
				if status := w.assets(c); status != 200 {
					t.Errorf("status %d", status)
				}
			}
			if _, err := fleet[0].Tokens.Obtain(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			w.Revoke("issuer")
		}
		w.wantSent(1+8+7, 0)
	})
}

// wrongPasswords has all members of a fleet try for 10 s with a password that was changed.
func wrongPasswords(t *testing.T, w *ampWorld, fleet []*ampauth.Client) {
	for range 1000 {
		for _, c := range fleet {
			if _, err := c.Tokens.Token(t.Context()); !errors.Is(err, ampauth.ErrObtainFailed) {
				t.Fatalf("got %v", err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestRefusedLoginPausesTheFleet(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		fleet := w.fleet(16, newMemoryEngine())
		w.SetPassword("issuer", "changed")
		wrongPasswords(t, w, fleet)
		if n := w.obtains(); n > 16+2 {
			t.Errorf("%d logins in 10 s, want at most one for each of 16 machines and 2 more", n)
		}
	})
}

func TestRightPasswordIsTriedInThePauseOfOthers(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		old := w.fleet(4, e)
		w.SetPassword("issuer", "changed")
		for _, c := range old {
			if _, err := c.Tokens.Token(t.Context()); !errors.Is(err, ampauth.ErrCredentialsRefused) {
				t.Fatalf("got %v", err)
			}
		}
		deployed := w.client(storedIn(e.handle()), func(cfg *ampauth.Config) { cfg.Credentials.Password = ampauth.SecretFromString("changed") })
		w.token(deployed.Tokens)
		w.wantSent(5, 0)
		for _, c := range old { // they have the right token by now
			if status := w.assets(c); status != 200 {
				t.Errorf("status %d", status)
			}
		}
		// A password that was changed here too ends the pause for this one.
		w.Revoke("issuer")
		if err := old[0].Tokens.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("changed")}); err != nil {
			t.Fatal(err)
		}
		if status := w.assets(old[0]); status != 200 {
			t.Errorf("status %d", status)
		}
		w.wantSent(6, 0)
	})
}

// The store is down for all who share it, so that all log in, but not at once.
func TestLoginsOfAFleetWithoutItsStoreAreSpreadOverASecond(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		e.stop()
		fleet := w.fleet(64, e)
		managers := make([]*ampauth.TokenManager, len(fleet))
		for i, c := range fleet {
			managers[i] = c.Tokens
		}
		if took := ampElapsed(func() { w.all(managers) }); took > time.Second {
			t.Errorf("somebody waited %v", took)
		}
		w.wantSent(64, 0)
		tenths := make(map[time.Duration]int)
		requests := w.requests(ampObtain)
		for _, r := range requests {
			tenths[r.at.Sub(requests[0].at)/(100*time.Millisecond)]++
		}
		for tenth, n := range tenths {
			if n > 64/3 {
				t.Errorf("%d of 64 logins in the tenth %d of a second", n, tenth)
			}
		}
	})
}

// In a store with a lease nothing is replaced without the lock.
func TestClearTakesTheLockToReplaceWhatCannotBeRead(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		e := newMemoryEngine()
		m := w.manager(storedIn(e.handle()))
		w.store(e.handle(), ampauth.Token{Value: ampauth.SecretFromString("no\nheader"), ObtainedAt: time.Now()})
		if err := m.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if _, ok := w.stored(e.handle()); ok {
			t.Error("it is still stored")
		}
	})
}
