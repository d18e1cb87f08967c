package ampauth_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestFaultOfTheStoreIsAMissAndOneRecord(t *testing.T) {
	boom := errors.New(`disk full: "` + canaryToken + `"`)
	ways := map[string]func(context.Context) error{
		"fails":     func(context.Context) error { return boom },
		"is silent": func(context.Context) error { return errors.New("") },
		"panics":    func(context.Context) error { panic(canaryToken) },
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
					if n := strings.Count(text, "token store does not work"); n != 1 {
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

// A downStore counts its calls, and fails while it is down.
type downStore struct {
	faultyStore
	down  atomic.Bool
	calls atomic.Int32
}

func newDownStore(slow time.Duration, methods ...string) *downStore {
	s := &downStore{faultyStore: faultyStore{memoryStore: newMemoryStore()}}
	s.down.Store(true)
	fail := func(ctx context.Context) error {
		s.calls.Add(1)
		if !s.down.Load() {
			return nil
		}
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
		return errors.New("down")
	}
	for _, method := range methods {
		*map[string]*func(context.Context) error{"Load": &s.load, "Save": &s.save, "DeleteIf": &s.deleteIf, "Lock": &s.lock}[method] = fail
	}
	return s
}

// What fails is left alone for 1, 2, 4, 8, 16 and 30 s, then 30 s again, whatever else works
// of the store; and for 1 s again once it has worked.
func TestStoreThatFailsRestsForASecondAndThenLonger(t *testing.T) {
	for name, test := range map[string]struct {
		slow    time.Duration
		methods []string
	}{
		"all of it": {0, []string{"Load", "Save", "DeleteIf", "Lock"}},
		"slow":      {time.Hour, []string{"Load", "Save", "DeleteIf", "Lock"}},
		"only Load": {0, []string{"Load"}},
		"only Save": {0, []string{"Save"}},
		"slow Save": {time.Hour, []string{"Save"}},
		"only Lock": {0, []string{"Lock"}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				store := newDownStore(test.slow, test.methods...)
				m := w.manager(storedIn(store))
				asked := func() bool {
					before := store.calls.Load()
					if _, err := m.Refresh(t.Context()); err != nil {
						t.Fatal(err)
					}
					return store.calls.Load() > before
				}
				wantRest := func(rest time.Duration) {
					t.Helper()
					time.Sleep(rest - time.Millisecond)
					if asked() {
						t.Errorf("it was asked before %v were over", rest)
					}
					time.Sleep(time.Millisecond)
					if !asked() {
						t.Errorf("it was not asked after %v", rest)
					}
				}
				if w.token(m); store.calls.Load() != 1 {
					t.Errorf("%d calls at the first login, want 1", store.calls.Load())
				}
				for _, seconds := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
					wantRest(seconds * time.Second)
				}
				store.down.Store(false)
				time.Sleep(30 * time.Second)
				for range 2 {
					if !asked() {
						t.Error("it was not asked although it works again")
					}
				}
				store.down.Store(true)
				asked()
				wantRest(time.Second)
				time.Sleep(time.Hour)
			})
		})
	}
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
		if strings.Contains(records.String(), "does not work") {
			t.Errorf("the store is blamed:\n%s", records.String())
		}
	})
}
