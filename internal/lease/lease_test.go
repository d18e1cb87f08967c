package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An engine is one key's lock in memory.
type engine struct {
	mu sync.Mutex // guards state
	state
}

type state struct {
	holder   string
	until    time.Time
	takes    []time.Time
	renewals []time.Time
	releases int
	err      error // of every call
	hangs    bool  // until the context of a call ends
}

// now returns the state once nobody changes it.
func (e *engine) now() state {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

func (e *engine) call(ctx context.Context, note func()) error {
	e.mu.Lock()
	note()
	hangs, err := e.hangs, e.err
	e.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (e *engine) Take(ctx context.Context, _, name string, d time.Duration) (ok bool, err error) {
	if err := e.call(ctx, func() { e.takes = append(e.takes, time.Now()) }); err != nil {
		return false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder != "" && time.Now().Before(e.until) {
		return false, nil
	}
	e.holder, e.until = name, time.Now().Add(d)
	return true, nil
}

func (e *engine) Renew(ctx context.Context, _, name string, d time.Duration) (ok bool, err error) {
	if err := e.call(ctx, func() { e.renewals = append(e.renewals, time.Now()) }); err != nil {
		return false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder != name {
		return false, nil
	}
	e.until = time.Now().Add(d)
	return true, nil
}

func (e *engine) Release(ctx context.Context, _, name string) error {
	if err := e.call(ctx, func() { e.releases++ }); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder == name {
		e.holder = ""
	}
	return nil
}

// set changes what the engine does from now on.
func (e *engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

const second = time.Second

// take is a TryLock that must succeed.
func take(t *testing.T, l *Locks, e *engine, d time.Duration) (unlock func()) {
	t.Helper()
	unlock, ok, err := l.TryLock(t.Context(), e, "k", d)
	if !ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	return unlock
}

func TestLeaseIsRenewedEachThirdOfItUntilItIsUnlocked(t *testing.T) {
	for _, test := range []struct{ lease, third time.Duration }{{0, second}, {-1, second}, {6 * second, 2 * second}, {1, 10 * time.Millisecond / 3}} {
		synctest.Test(t, func(t *testing.T) {
			var l Locks
			e := new(engine)
			began := time.Now()
			unlock := take(t, &l, e, test.lease)
			time.Sleep(4*test.third + test.third/2)
			for i, at := range e.now().renewals {
				if got, want := at.Sub(began), time.Duration(i+1)*test.third; got != want {
					t.Errorf("lease %v: renewal %d after %v, want %v", test.lease, i+1, got, want)
				}
			}
			unlock()
			unlock()
			time.Sleep(time.Hour)
			if len(e.now().renewals) != 4 || e.now().releases != 1 || e.now().holder != "" {
				t.Errorf("lease %v: %d renewals, %d releases, want 4 and 1", test.lease, len(e.now().renewals), e.now().releases)
			}
		})
	}
}

func TestLeaseOutlivesTheContextOfItsLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		e := new(engine)
		ctx, cancel := context.WithCancel(t.Context())
		unlock, err := l.Lock(ctx, e, "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(time.Minute)
		if len(e.now().renewals) < 59 {
			t.Errorf("%d renewals in a minute", len(e.now().renewals))
		}
		unlock()
		if e.now().holder != "" {
			t.Error("it is not released")
		}
	})
}

func TestHolderThatHangsLosesItsLeaseAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		e := new(engine)
		unlock := take(t, &l, e, 0)
		time.Sleep(10*time.Minute + 4*second)
		next := take(t, &l, e, 0) // with a name of its own
		if unlock(); e.holder == "" {
			t.Error("the late unlock has released the lock of another")
		}
		if l.Name("k") == "" {
			t.Error("the late unlock has made the next holder forget its name")
		}
		next()
	})
}

func TestLostLeaseIsNotRenewedAndItsNameStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l, others Locks
		e := new(engine)
		unlock := take(t, &l, e, 0)
		name := l.Name("k")
		e.set(func() { e.holder = "" })
		next := take(t, &others, e, 0)
		time.Sleep(time.Minute)
		if n := len(e.now().renewals); n > 61 {
			t.Errorf("%d renewals: the lost lease is still renewed", n)
		}
		if l.Name("k") != name {
			t.Error("a holder that has lost the lock does not know under which name it had it, so that its writes are not refused")
		}
		unlock()
		if l.Name("k") != "" {
			t.Error("it has a name after unlock")
		}
		if e.now().holder != others.Name("k") {
			t.Error("unlocking has released another's lock")
		}
		next()
	})
}

// An engine that is away for less than the lease costs nothing.
func TestRenewalGoesOnAfterAnError(t *testing.T) {
	for name, trouble := range map[string]func(*engine){
		"fails": func(e *engine) { e.err = errors.New("away") },
		"hangs": func(e *engine) { e.hangs = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l Locks
				e := new(engine)
				unlock := take(t, &l, e, 0)
				e.set(func() { trouble(e) })
				time.Sleep(1500 * time.Millisecond)
				e.set(func() { e.err, e.hangs = nil, false })
				time.Sleep(2 * second)
				if !time.Now().Before(e.now().until) {
					t.Error("the lease has ended")
				}
				unlock()
			})
		})
	}
}

func TestUnlockOfAnEngineThatHangsTakesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		e := new(engine)
		unlock := take(t, &l, e, 0)
		e.set(func() { e.hangs = true })
		began := time.Now()
		unlock()
		if took := time.Since(began); took != second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestLockWaitsUntilTheLeaseOfADeadHolderHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		e := &engine{state: state{holder: "dead", until: time.Now().Add(3 * second)}}
		began := time.Now()
		unlock, err := l.Lock(t.Context(), e, "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 3*second || took > 3*second+300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if n := len(e.now().takes); n < 10 || n > 40 {
			t.Errorf("it asked %d times in 3 s", n)
		}
		unlock()
	})
}

func TestLockEndsWithItsContextAndWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		e := &engine{state: state{holder: "other", until: time.Now().Add(time.Hour)}}
		ctx, cancel := context.WithTimeout(t.Context(), second)
		defer cancel()
		began := time.Now()
		if _, err := l.Lock(ctx, e, "k", 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		asked := len(e.now().takes)
		if _, err := l.Lock(ctx, e, "k", 0); !errors.Is(err, context.DeadlineExceeded) || len(e.now().takes) != asked {
			t.Errorf("with an ended context: got %v, and it asked %d times", err, len(e.now().takes)-asked)
		}
		e.set(func() { e.err = errors.New("away") })
		if _, err := l.Lock(t.Context(), e, "k", 0); !errors.Is(err, e.err) {
			t.Errorf("got %v", err)
		}
		if l.Name("k") != "" {
			t.Error("it has a name without the lock")
		}
	})
}
