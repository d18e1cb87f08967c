package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A memoryStore is a store with a lock, as somebody would write it.
type memoryStore struct {
	mu     sync.Mutex // guards tokens, locks
	tokens map[ampauth.StoreKey]ampauth.Token
	locks  map[ampauth.StoreKey]chan struct{}
}

func newMemoryStore() *memoryStore {
	return &memoryStore{tokens: make(map[ampauth.StoreKey]ampauth.Token), locks: make(map[ampauth.StoreKey]chan struct{})}
}

func (s *memoryStore) Load(_ context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[k]
	if !ok {
		return ampauth.Token{}, fmt.Errorf("memory: %w", ampauth.ErrNoToken)
	}
	return t, nil
}

func (s *memoryStore) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[k] = t
	return nil
}

func (s *memoryStore) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens[k].Value.Equal(rejected) {
		delete(s.tokens, k)
	}
	return nil
}

func (s *memoryStore) lockOf(k ampauth.StoreKey) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[k] == nil {
		s.locks[k] = make(chan struct{}, 1)
	}
	return s.locks[k]
}

func (s *memoryStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	lock := s.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *memoryStore) TryLock(_ context.Context, k ampauth.StoreKey) (func(), bool, error) {
	lock := s.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), true, nil
	default:
		return nil, false, nil
	}
}

// stored is the token that the store has for the fake's one user.
func (w *ampWorld) stored(store ampauth.TokenStore) (ampauth.Token, bool) {
	w.t.Helper()
	key, err := ampauth.NewStoreKey(w.url+"/api", "issuer")
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := store.Load(w.t.Context(), key)
	return token, err == nil
}

func storedIn(store ampauth.TokenStore) func(*ampauth.Config) {
	return func(cfg *ampauth.Config) { cfg.Store = store }
}

// all asks many managers for a token at once.
func (w *ampWorld) all(managers []*ampauth.TokenManager) {
	w.t.Helper()
	var wg sync.WaitGroup
	for _, m := range managers {
		wg.Go(func() { w.token(m) })
	}
	wg.Wait()
}

// sharing are managers that share a store, as processes would.
func (w *ampWorld) sharing(n int, store ampauth.TokenStore) []*ampauth.TokenManager {
	managers := make([]*ampauth.TokenManager, n)
	for i := range managers {
		managers[i] = w.manager(storedIn(store))
	}
	return managers
}

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

// holdLock takes the lock of the fake's one user, as a process that hangs.
func (w *ampWorld) holdLock(store *memoryStore) (release func()) {
	w.t.Helper()
	key, err := ampauth.NewStoreKey(w.url+"/api", "issuer")
	if err != nil {
		w.t.Fatal(err)
	}
	release, err = store.Lock(w.t.Context(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return release
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
		if _, ok := w.stored(store); ok {
			t.Error("a token was stored without the lock")
		}
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

// A strangeLocker does something odd with its lock.
type strangeLocker struct {
	*memoryStore
	unlock func(unlock func()) func()
}

func (s *strangeLocker) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	unlock, err := s.memoryStore.Lock(ctx, k)
	return s.unlock(unlock), err
}

func TestOddUnlockHoldsUpNobody(t *testing.T) {
	for name, odd := range map[string]func(func()) func(){
		"none":   func(unlock func()) func() { unlock(); return nil },
		"panics": func(unlock func()) func() { return func() { unlock(); panic("odd") } },
		"exits":  func(unlock func()) func() { return func() { unlock(); runtime.Goexit() } },
		"blocks": func(unlock func()) func() { return func() { unlock(); time.Sleep(time.Hour) } },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(storedIn(&strangeLocker{newMemoryStore(), odd}))
				start := time.Now()
				w.token(m)
				_ = m.Close()
				if took := time.Since(start); took > time.Second {
					t.Errorf("it took %v", took)
				}
				w.wantSent(1, 0)
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestLockThatComesTooLateIsGivenBack(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore(), lock: func(context.Context) error { time.Sleep(time.Minute); return nil }}
		w.token(w.manager(storedIn(store)))
		time.Sleep(2 * time.Minute)
		w.holdLock(store.memoryStore)()
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

// An outage that alternates is told of once for each sort of call.
func TestFaultsOfTheStoreAreToldOnce(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		readOnly := func(context.Context) error { return errors.New("read-only") }
		store := &faultyStore{memoryStore: newMemoryStore(), save: readOnly, deleteIf: readOnly}
		var records ampLog
		client := w.client(storedIn(store), records.into)
		for range 5 {
			if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
				t.Errorf("status %d", status)
			}
			w.Revoke("issuer")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := strings.Count(records.String(), "token store"); n != 1 {
			t.Errorf("%d records, want 1:\n%s", n, records.String())
		}
	})
}

// A faultyStore does one thing wrong.
type faultyStore struct {
	*memoryStore
	load, save, deleteIf, lock, tryLock func(context.Context) error
}

func (s *faultyStore) TryLock(ctx context.Context, k ampauth.StoreKey) (func(), bool, error) {
	if err := fault(s.tryLock, ctx); err != nil {
		return nil, false, err
	}
	return s.memoryStore.TryLock(ctx, k)
}

func fault(f func(context.Context) error, ctx context.Context) error {
	if f == nil {
		return nil
	}
	return f(ctx)
}

func (s *faultyStore) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	if err := fault(s.load, ctx); err != nil {
		return ampauth.Token{}, err
	}
	return s.memoryStore.Load(ctx, k)
}

func (s *faultyStore) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	if err := fault(s.save, ctx); err != nil {
		return err
	}
	return s.memoryStore.Save(ctx, k, t)
}

func (s *faultyStore) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	if err := fault(s.deleteIf, ctx); err != nil {
		return err
	}
	return s.memoryStore.DeleteIf(ctx, k, rejected)
}

func (s *faultyStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	if err := fault(s.lock, ctx); err != nil {
		return nil, err
	}
	return s.memoryStore.Lock(ctx, k)
}

func TestFaultOfTheStoreIsAMissAndOneRecord(t *testing.T) {
	boom := errors.New(`disk full: "` + canaryToken + `"`)
	ways := map[string]func(context.Context) error{
		"fails":  func(context.Context) error { return boom },
		"panics": func(context.Context) error { panic(canaryToken) },
		"waits for its context": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"ignores its context": func(context.Context) error {
			time.Sleep(time.Minute)
			return nil
		},
	}
	for name, way := range ways {
		for method, set := range map[string]func(*faultyStore){
			"Load":     func(s *faultyStore) { s.load = way },
			"Save":     func(s *faultyStore) { s.save = way },
			"DeleteIf": func(s *faultyStore) { s.deleteIf = way },
			"Lock":     func(s *faultyStore) { s.lock = way },
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					store := &faultyStore{memoryStore: newMemoryStore()}
					set(store)
					var records ampLog
					client := w.client(storedIn(store), records.into)
					start := time.Now()
					for range 3 {
						if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
							t.Fatalf("status %d", status)
						}
						w.Revoke("issuer")
					}
					limit := 2 * time.Second // a second for the call that is cut off
					if method == "Lock" {
						limit = 30 * time.Second // the lock has more
					}
					if took := time.Since(start); took > limit {
						t.Errorf("three requests took %v", took)
					}
					w.wantSent(3, 0)
					synctest.Wait()
					text := records.String()
					if n := strings.Count(text, "token store is of no use"); n != 1 {
						t.Errorf("%d records tell of the fault, want 1:\n%s", n, text)
					}
					if found := leaks(text); len(found) > 0 {
						t.Errorf("the log shows %v", found)
					}
					time.Sleep(2 * time.Minute) // those that ignore their context end
				})
			})
		}
	}
}

func TestStoreIsUsedAgainAfterAFault(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := &faultyStore{memoryStore: newMemoryStore(), load: func(context.Context) error { return errors.New("down") }}
		m := w.manager(storedIn(store))
		w.token(m)
		store.load = nil
		for _, pause := range []time.Duration{29 * time.Second, 2 * time.Second} {
			time.Sleep(pause)
			if _, err := m.Obtain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, ok := w.stored(store); ok != (pause == 2*time.Second) {
				t.Errorf("after another %v the token is stored: %v", pause, ok)
			}
		}
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

func TestCallerWhoLeavesIsNoFaultOfTheStore(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		var records ampLog
		m := w.manager(storedIn(store), records.into)
		w.token(m)
		ctx, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		if err := m.Clear(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.token(m)
		w.wantSent(1, 0)
		if strings.Contains(records.String(), "of no use") {
			t.Errorf("the store is blamed:\n%s", records.String())
		}
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
			t.Error("there was a token to be had")
		}
		time.Sleep(121 * time.Second)
		if w.token(m).Value.Equal(dead.Value) {
			t.Error("the refused token is served again")
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
