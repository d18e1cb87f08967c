package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestRestartWithAStoredTokenMakesNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		first := w.manager(storedIn(store))
		before := w.token(first)
		value := w.Token("issuer")
		_ = first.Close() // which wipes its token, and not the stored one
		time.Sleep(time.Hour)
		second := w.client(storedIn(store))
		if status, _ := get(t, second, w.url+"/api/assets"); status != 200 {
			t.Errorf("status %d", status)
		}
		w.wantSent(1, 0)
		after := w.token(second.Tokens)
		if !after.Value.Equal(ampauth.SecretFromString(value)) {
			t.Error("it is another token")
		}
		if after.ObtainedAt.Unix() != before.ObtainedAt.Unix() || after.ExpiresAt.Unix() != before.ExpiresAt.Unix() {
			t.Errorf("the stored token lives from %v to %v, and was obtained at %v until %v", after.ObtainedAt, after.ExpiresAt, before.ObtainedAt, before.ExpiresAt)
		}
		if s := second.Stats(); s.Adoptions != 1 || s.Obtains != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestStoredTokenThatIsRefusedMakesOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		w.token(w.manager(storedIn(store)))
		w.Revoke("issuer")
		client := w.client(storedIn(store))
		for range 3 {
			if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
				t.Errorf("status %d", status)
			}
		}
		w.wantSent(2, 0)
		if token, ok := w.stored(store); !ok || !token.Value.Equal(w.token(client.Tokens).Value) {
			t.Error("the new token is not stored")
		}
	})
}

// A token that was refused must not come back from the store, also when the store
// has missed the change.
func TestTokenThatWasRefusedBeforeIsNotAdopted(t *testing.T) {
	for name, spoil := range map[string]func(w *ampWorld, store *faultyStore) (mend func()){
		"the lock was stuck": func(w *ampWorld, store *faultyStore) func() { return w.holdLock(store.memoryStore) },
		"nothing could be written": func(_ *ampWorld, store *faultyStore) func() {
			down := func(context.Context) error { return errors.New("down") }
			store.save, store.deleteIf = down, down
			return func() { store.save, store.deleteIf = nil, nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				store := &faultyStore{memoryStore: newMemoryStore()}
				client := w.client(storedIn(store))
				get(t, client, w.url+"/api/assets")
				mend := spoil(w, store)
				for i := range 3 {
					time.Sleep(time.Hour)
					w.Revoke("issuer")
					if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
						t.Errorf("round %d: status %d", i+1, status)
					}
					if i == 0 {
						mend()
					}
				}
				w.wantSent(4, 0)
			})
		})
	}
}

// What keeps this process from logging in does not keep it from what another got.
func TestPausedManagerTakesTheTokenOfAnother(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {"1800"}}})
		paused := w.manager(storedIn(store))
		if _, err := paused.Token(t.Context()); !errors.Is(err, ampauth.ErrObtainFailed) {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := paused.Token(t.Context()); !errors.Is(err, ampauth.ErrObtainFailed) || !strings.Contains(err.Error(), "not tried again yet") {
				t.Errorf("got %v", err)
			}
		}
		w.wantSent(1, 0)
		w.token(w.manager(storedIn(store)))
		adopted := w.token(paused)
		w.wantSent(2, 0)
		w.Revoke("issuer")
		if _, err := paused.Renew(t.Context(), adopted); !errors.Is(err, ampauth.ErrObtainFailed) {
			t.Errorf("got %v, and the server has asked to be left alone", err)
		}
		w.wantSent(2, 0)
	})
}

func TestHeldOffRefusalTakesTheTokenOfAnother(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		client := w.client(storedIn(store))
		get(t, client, w.url+"/api/assets")
		w.Revoke("issuer")
		w.Inject(fakeamp.Fault{Route: "GET /assets", Status: 401, Times: 2}) // the new one is refused as well
		if status, _ := get(t, client, w.url+"/api/assets"); status != 401 {
			t.Fatalf("status %d", status)
		}
		time.Sleep(300 * time.Millisecond) // within the time that the refusal is final
		if _, err := w.manager(storedIn(store)).Obtain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
			t.Errorf("status %d, and there is another token", status)
		}
	})
}

func TestObtainAndRefreshDoNotContentThemselvesWithAStoredToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		a, b := w.manager(storedIn(store)), w.manager(storedIn(store))
		w.token(a)
		time.Sleep(time.Hour)
		obtained, err := b.Obtain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.wantSent(2, 0)
		time.Sleep(time.Hour)
		// a still has the old token; the one to exchange is the stored one.
		refreshed, err := a.Refresh(t.Context())
		if err != nil || refreshed.Value.Equal(obtained.Value) {
			t.Errorf("got %v", err)
		}
		w.wantSent(2, 1)
	})
}

func ampStoredValue(t *testing.T, store ampauth.TokenStore, key ampauth.StoreKey) ampauth.Secret {
	t.Helper()
	token, err := store.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return token.Value
}

func TestObtainIsNotServedFromTheStore(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		release := w.holdLock(store)
		m := w.manager(storedIn(store))
		token := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		obtain := ampStart(func() (ampauth.Token, error) { return m.Obtain(t.Context()) })
		refresh := ampStart(func() (ampauth.Token, error) { return m.Refresh(t.Context()) })
		key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
		_ = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: time.Now()})
		stored := ampReveal(ampStoredValue(t, store, key))
		release()
		if r := <-token; r.err != nil || ampReveal(r.token.Value) != stored {
			t.Errorf("Token: %v, or not the stored one", r.err)
		}
		for name, call := range map[string]<-chan ampResult{"Obtain": obtain, "Refresh": refresh} {
			if r := <-call; r.err != nil || ampReveal(r.token.Value) == stored {
				t.Errorf("%s: %v, or the stored token", name, r.err)
			}
		}
		w.wantSent(1, 1)
	})
}

func TestOlderStoredTokenIsNotAdopted(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		m := w.manager(storedIn(store))
		before := w.token(m)
		key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
		_ = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString("older"), ObtainedAt: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(48 * time.Hour)})
		time.Sleep(24*time.Hour - 4*time.Minute)
		if !w.token(m).Value.Equal(before.Value) {
			t.Error("the older token took the place of the newer one")
		}
		synctest.Wait()
		w.wantSent(1, 1)
	})
}

func TestUselessTokenOfAStoreIsAMiss(t *testing.T) {
	now := time.Now()
	destroyed := ampauth.SecretFromString("x")
	destroyed.Destroy()
	for name, token := range map[string]ampauth.Token{
		"empty":             {},
		"destroyed":         {Value: destroyed},
		"header injection":  {Value: ampauth.SecretFromString("a\r\nX-Evil: 1")},
		"ended":             {Value: ampauth.SecretFromString("a"), ObtainedAt: now.Add(-2 * time.Hour), ExpiresAt: now.Add(-time.Hour)},
		"older than a life": {Value: ampauth.SecretFromString("a"), ObtainedAt: now.AddDate(-40, 0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				store := newMemoryStore()
				key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
				_ = store.Save(t.Context(), key, token)
				if status, _ := get(t, w.client(storedIn(store)), w.url+"/api/assets"); status != 200 {
					t.Errorf("status %d", status)
				}
				w.wantSent(1, 0)
			})
		})
	}
}

func TestStoredTokenOfAnotherAccountIsNotUsed(t *testing.T) {
	ampBubble(t, fakeamp.Config{Users: map[string]string{"issuer": ampPassword, "other": ampPassword}}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		w.token(w.manager(storedIn(store)))
		other := w.manager(storedIn(store), func(cfg *ampauth.Config) { cfg.Credentials.Username = "other" })
		if w.token(other).Value.Equal(ampauth.SecretFromString(w.Token("issuer"))) {
			t.Error("it got the token of another account")
		}
		w.wantSent(2, 0)
		_ = other.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)})
		if !w.token(other).Value.Equal(ampauth.SecretFromString(w.Token("issuer"))) {
			t.Error("after a change of user it has not the token of that account")
		}
		w.wantSent(2, 0)
	})
}

func TestTokenRefusedDuringAPauseIsNotServedAfterIt(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(storedIn(newMemoryStore()))
		dead := w.token(m)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {"120"}}})
		if _, err := m.Obtain(t.Context()); err == nil {
			t.Fatal("no pause")
		}
		w.Revoke("issuer")
		if _, err := m.Renew(t.Context(), dead); err == nil {
			t.Error("there was a token")
		}
		time.Sleep(121 * time.Second)
		if w.token(m).Value.Equal(dead.Value) {
			t.Error("the refused token is served again")
		}
	})
}

// What was stored by a machine whose clock is ahead is not stale for that.
func TestStoredTokenOfAClockThatIsAheadIsFresh(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
		_ = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: time.Now().Add(time.Minute), ExpiresAt: time.Now().Add(24 * time.Hour)})
		m := w.manager(storedIn(store))
		w.token(m)
		if info, _ := m.Info(); info.ExpiresSoon || info.Age < 0 {
			t.Errorf("info %+v", info)
		}
		w.wantSent(0, 0)
	})
}
