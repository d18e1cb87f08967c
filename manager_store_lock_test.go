package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// sharing are managers that share a store, as processes would.
func (w *ampWorld) sharing(n int, store ampauth.TokenStore) []*ampauth.TokenManager {
	managers := make([]*ampauth.TokenManager, n)
	for i := range managers {
		managers[i] = w.manager(storedIn(store))
	}
	return managers
}

func TestColdManagersShareOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		managers := w.sharing(16, newMemoryStore())
		w.all(managers)
		w.wantSent(1, 0)
		for _, m := range managers {
			if !w.token(m).Value.Equal(w.token(managers[0]).Value) {
				t.Error("they have different tokens")
			}
		}
	})
}

func TestEndingTokenOfManyManagersIsRefreshedOnce(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		managers := w.sharing(16, newMemoryStore())
		w.all(managers)
		time.Sleep(24*time.Hour - 4*time.Minute)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 2 * time.Second})
		start := time.Now()
		w.all(managers)
		if took := time.Since(start); took != 0 {
			t.Errorf("a valid token was waited for: %v", took)
		}
		time.Sleep(10 * time.Second)
		w.all(managers) // look again
		synctest.Wait()
		w.all(managers)
		w.wantSent(1, 1)
		for _, m := range managers {
			if info, _ := m.Info(); info.Age > time.Minute {
				t.Errorf("a manager still has a token of age %v", info.Age)
			}
		}
	})
}

// Who asks for a refresh waits for the lock, also with a token that is good.
func TestRefreshThatWasAskedForWaitsForTheLock(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		old := w.token(m)
		key, err := ampauth.NewStoreKey(w.url+"/api", "issuer")
		if err != nil {
			t.Fatal(err)
		}
		unlock, err := store.Lock(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Second, unlock)
		var token ampauth.Token
		took := ampElapsed(func() { token, err = m.Refresh(t.Context()) })
		if err != nil || token.Value.Equal(old.Value) || took < 5*time.Second || took > 6*time.Second {
			t.Errorf("after %v: %v, or the old token; want another in 5 s", took, err)
		}
		w.wantSent(1, 1)
	})
}

func TestRefusedTokenOfManyManagersIsReplacedOnce(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		var clients []*ampauth.Client
		for range 16 {
			clients = append(clients, w.client(storedIn(store)))
			w.token(clients[len(clients)-1].Tokens)
		}
		w.Revoke("issuer")
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				if status, _ := get(t, c, w.url+"/api/assets"); status != 200 {
					t.Errorf("status %d", status)
				}
			})
		}
		wg.Wait()
		w.wantSent(2, 0)
	})
}

// AMP's login gives the same token again until somebody replaces it, and the refresh
// may not be there.
func TestCrowdOfManagersReplacesATokenOnce(t *testing.T) {
	for _, cfg := range []fakeamp.Config{{}, {NewTokenEachLogin: true}, {NoRefresh: true}, {NoRefresh: true, NewTokenEachLogin: true}} {
		for _, policy := range []ampauth.RenewalPolicy{ampauth.RefreshThenObtain, ampauth.ObtainOnly} {
			for _, age := range []time.Duration{24*time.Hour - 4*time.Minute, 25 * time.Hour} {
				t.Run(fmt.Sprintf("%+v, policy %v, after %v", cfg, policy, age), func(t *testing.T) {
					ampBubble(t, cfg, func(t *testing.T, w *ampWorld) {
						store := newMemoryStore()
						var managers []*ampauth.TokenManager
						for range 16 {
							managers = append(managers, w.manager(storedIn(store), func(c *ampauth.Config) { c.Renewal = policy }))
						}
						w.all(managers)
						time.Sleep(age)
						w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second}, fakeamp.Fault{Route: ampRefresh, Delay: time.Second})
						for range 4 {
							w.all(managers)
							synctest.Wait()
							time.Sleep(5 * time.Second)
						}
						refreshed := policy == ampauth.RefreshThenObtain && !cfg.NoRefresh && age < 24*time.Hour
						if o, r := w.obtains(), w.refreshes(); refreshed && (o != 1 || r != 1) || !refreshed && o != 2 || r > 1 {
							t.Errorf("%d logins and %d refreshes", o, r)
						}
						for _, m := range managers {
							if info, ok := m.Info(); !ok || info.Age > time.Minute {
								t.Errorf("a manager has a token of age %v", info.Age)
							}
						}
					})
				})
			}
		}
	}
}

func TestValidTokenNeverWaitsForTheLock(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		w.token(m)
		release := w.holdLock(store)
		time.Sleep(24*time.Hour - 4*time.Minute)
		for range 60 {
			start := time.Now()
			w.token(m)
			if took := time.Since(start); took != 0 {
				t.Fatalf("waited %v", took)
			}
			time.Sleep(time.Second)
		}
		w.wantSent(1, 0)
		release()
		time.Sleep(5 * time.Second)
		w.token(m)
		synctest.Wait()
		w.wantSent(1, 1)
	})
}

func TestManagerWithoutATokenWaitsForTheLockSoLongAndNoLonger(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		defer w.holdLock(store)()
		start := time.Now()
		w.token(w.manager(storedIn(store)))
		if took := time.Since(start); took < 7500*time.Millisecond || took > 10*time.Second {
			t.Errorf("waited %v, want 7.5 to 10 s", took)
		}
		w.wantSent(1, 0)
	})
}

// A process may start often, and the holder of the lock may be one that hangs for ever.
func TestLockThatNobodyReleasesCostsOneLoginInAll(t *testing.T) {
	broken := func(context.Context) error { return errors.New("no locks here") }
	for name, spoil := range map[string]func(w *ampWorld, store *faultyStore){
		"held for ever": func(w *ampWorld, store *faultyStore) { w.holdLock(store.memoryStore) },
		"fails at once": func(_ *ampWorld, store *faultyStore) { store.lock, store.tryLock = broken, broken },
		"ignores its time": func(_ *ampWorld, store *faultyStore) {
			store.lock = func(context.Context) error { time.Sleep(time.Hour); return nil }
		},
	} {
		for what, before := range map[string]func(w *ampWorld, store *faultyStore){
			"nothing is stored": func(*ampWorld, *faultyStore) {},
			"a token that has ended is stored": func(w *ampWorld, store *faultyStore) {
				w.store(store, ampauth.Token{Value: ampauth.SecretFromString("ended"), ObtainedAt: time.Now().Add(-25 * time.Hour)})
			},
			"one that ends by its own end": func(w *ampWorld, store *faultyStore) {
				w.store(store, ampauth.Token{Value: ampauth.SecretFromString("ended"), ObtainedAt: time.Now().Add(-2 * time.Hour), ExpiresAt: time.Now().Add(-time.Hour)})
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					store := &faultyStore{memoryStore: newMemoryStore()}
					before(w, store)
					spoil(w, store)
					for n := range 3 {
						m := w.manager(storedIn(store))
						w.token(m)
						if faults := m.Stats().StoreFaults; (faults == 1) != (n == 0) {
							t.Errorf("start %d: %d faults, want one at the first", n+1, faults)
						}
						_ = m.Close()
					}
					w.wantSent(1, 0)
					time.Sleep(2 * time.Hour) // for what ignores its time
				})
			})
		}
	}
}

// The refused token cannot be removed, or only by who has the lock.
func TestRefusedTokenIsReplacedInTheStoreWithoutTheLock(t *testing.T) {
	for name, deleteIf := range map[string]func(context.Context) error{
		"removed":           nil,
		"cannot be removed": func(context.Context) error { return errors.New("read-only") },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				store := &faultyStore{memoryStore: newMemoryStore(), deleteIf: deleteIf}
				client := w.client(storedIn(store))
				w.token(client.Tokens)
				w.holdLock(store.memoryStore)
				w.Revoke("issuer")
				if status := w.assets(client); status != 200 {
					t.Errorf("status %d", status)
				}
				if stored, ok := w.stored(store); !ok || !stored.Value.Equal(w.token(client.Tokens).Value) {
					t.Error("the new token is not stored")
				}
				w.token(w.manager(storedIn(store)))
				w.wantSent(2, 0)
			})
		})
	}
}

// Who has no lock may be late.
func TestTokenThatSomebodyElseStoredIsKept(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		w.holdLock(store)
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		m := w.manager(storedIn(store))
		done := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		time.Sleep(10*time.Second + time.Millisecond) // it waits for the lock no longer
		w.store(store, ampauth.Token{Value: ampauth.SecretFromString("theirs"), ObtainedAt: time.Now()})
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		if stored, _ := w.stored(store); ampReveal(stored.Value) != "theirs" {
			t.Error("the token of somebody else was replaced")
		}
	})
}

// store stores a token for the fake's one user.
func (w *ampWorld) store(store ampauth.TokenStore, token ampauth.Token) {
	w.t.Helper()
	if err := store.Save(w.t.Context(), recordKeyOf(w.t, w.url+"/api", "issuer"), token); err != nil {
		w.t.Fatal(err)
	}
}

// A token that is good is never at the mercy of a lock that is busy for ever, and what
// comes after its end is stored.
func TestBusyLockCostsNothingUntilTheTokenEnds(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		w.token(m)
		w.holdLock(store)
		time.Sleep(24*time.Hour - 4*time.Minute)
		for range 24 {
			if took := ampElapsed(func() { w.token(m) }); took != 0 {
				t.Fatalf("waited %v", took)
			}
			time.Sleep(10 * time.Second)
		}
		w.wantSent(1, 0)
		w.token(m)
		w.token(w.manager(storedIn(store)))
		w.wantSent(2, 0)
	})
}

// The holder has saved its token and then hangs.
func TestTokenIsLookedForAgainWhenTheLockCannotBeHad(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		defer w.holdLock(store)()
		managers := w.sharing(16, store)
		time.AfterFunc(time.Second, func() {
			key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
			_ = store.Save(context.Background(), key, ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: time.Now()})
		})
		w.all(managers)
		w.wantSent(0, 0)
	})
}

// A refresh ends the token of all who share it, so not without the lock.
func TestNothingIsRefreshedWithoutTheLock(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore()}
		m := w.manager(storedIn(store))
		w.token(m)
		store.tryLock = func(context.Context) error { return errors.New("down") }
		time.Sleep(24*time.Hour - 4*time.Minute)
		w.token(m)
		synctest.Wait()
		w.wantSent(2, 0)
	})
}
