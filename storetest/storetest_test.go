package storetest

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestFileStoreKeepsToTheContract(t *testing.T) {
	common := t.TempDir()
	sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	for name, newStore := range map[string]func() ampauth.TokenStore{
		"handles on one directory": func() ampauth.TokenStore { return &ampauth.FileStore{Dir: common + "/tokens"} },
		"directories of their own": func() ampauth.TokenStore { return &ampauth.FileStore{Dir: t.TempDir() + "/tokens"} },
		"sealed":                   func() ampauth.TokenStore { return &ampauth.FileStore{Dir: common + "/sealed", Sealer: sealer} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Run(t, newStore)
		})
	}
}

func TestMemoryStoreKeepsToTheContract(t *testing.T) {
	common := newEngine()
	t.Run("handles on one memory", func(t *testing.T) { Run(t, func() ampauth.TokenStore { return common.handle() }) })
	t.Run("memories of their own", func(t *testing.T) { Run(t, func() ampauth.TokenStore { return newMemory() }) })
	t.Run("whole seconds, and a Watch that tells late", func(t *testing.T) {
		seconds := newEngine()
		Run(t, func() ampauth.TokenStore { return newBroken(seconds.handle(), slowAndCoarse) })
	})
	t.Run("without a lock", func(t *testing.T) {
		Run(t, func() ampauth.TokenStore { return struct{ ampauth.TokenStore }{newBroken(newMemory(), withoutFence)} })
	})
}

func TestBrokenStoresAreFound(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				common := newEngine()
				r := observe(t, f.run, func() ampauth.TokenStore { return newBroken(common.handle(), f.plant) })
				if !r.Failed() {
					t.Error("no fault was found")
				}
				time.Sleep(time.Hour) // calls that nobody waits for any more end
			})
		})
	}
}

func TestEachClaimIsRefutedByABrokenStoreAndTrueOfAGoodOne(t *testing.T) {
	for _, c := range allChecks() {
		t.Run(c.claim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				common := newEngine()
				if r := observe(t, c.run, func() ampauth.TokenStore { return common.handle() }); r.Failed() || r.skipped {
					t.Errorf("a good store: skipped: %t, said: %q", r.skipped, r.said)
				}
			})
			same := func(f fault) bool { return reflect.ValueOf(f.run).Pointer() == reflect.ValueOf(c.run).Pointer() }
			if !slices.ContainsFunc(faults, same) {
				t.Error("no broken store refutes it")
			}
		})
	}
}

// A recorder is a testing.TB whose failures fail nobody.
type recorder struct {
	testing.TB
	ctx context.Context

	mu      sync.Mutex // guards all below
	said    []string
	failed  bool
	skipped bool
}

// observe runs a check and records what it has to say.
func observe(t *testing.T, run func(*subject), newStore func() ampauth.TokenStore) *recorder {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &recorder{TB: t, ctx: ctx}
	done := make(chan struct{})
	go func() { // a FailNow ends the goroutine
		defer close(done)
		run(newSubject(r, newStore))
	}()
	<-done
	return r
}

func (r *recorder) record(failed, skipped bool, said string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.skipped = r.skipped || skipped
	r.said = append(r.said, said)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Context() context.Context          { return r.ctx }
func (r *recorder) Error(args ...any)                 { r.record(true, false, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.Error(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }
func (r *recorder) Skip(args ...any) {
	r.record(false, true, fmt.Sprint(args...))
	runtime.Goexit()
}
