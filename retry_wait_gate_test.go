package ampauth_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"golang.org/x/time/rate"
)

func stubSafe(t *testing.T, path string) *http.Request {
	return stubRequestTo(t.Context(), "https://api.test"+path, ampauth.SafeOperation, nil)
}

func TestOneRateLimitHoldsBackAllRequestsToTheHost(t *testing.T) {
	for _, test := range []struct {
		name    string
		limiter *rate.Limiter
	}{
		{"spread over BaseDelay", nil},
		{"through the limiter", rate.NewLimiter(10, 1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := newStubSchedule()
				rt := &ampauth.RetryTransport{Base: base, Limiter: test.limiter}
				var wg sync.WaitGroup
				wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/429/2")) })
				for range 20 {
					time.Sleep(50 * time.Millisecond)
					wg.Go(func() { stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))) })
				}
				wg.Wait()
				others, retry := base.at("/thing"), base.at("/429/2")
				if len(others) != 20 || len(retry) != 2 {
					t.Fatalf("%d others and %d attempts at the first arrived, want 20 and 2", len(others), len(retry))
				}
				all := append(others, retry[1])
				slices.Sort(all)
				if all[0] < 2*time.Second {
					t.Errorf("the first arrived after %v, want 2 s or more", all[0])
				}
				if test.limiter == nil {
					if spread := all[len(all)-1] - all[0]; all[len(all)-1] > 3*time.Second || spread < 400*time.Millisecond {
						t.Errorf("they arrived from %v to %v, want a spread over one second", all[0], all[len(all)-1])
					}
					return
				}
				for i := 1; i < len(all); i++ {
					if gap := all[i] - all[i-1]; gap < 99*time.Millisecond {
						t.Errorf("requests %d and %d are %v apart, want the 100 ms of the limiter", i, i+1, gap)
					}
				}
			})
		})
	}
}

func TestUnavailableHoldsBackRetriesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := newStubSchedule()
		rt := &ampauth.RetryTransport{Base: base}
		var wg sync.WaitGroup
		wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/503/20")) })
		time.Sleep(time.Second)
		wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/first")) })
		wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/dial/0")) })
		wg.Wait()
		if at := base.at("/first"); at[0] != time.Second {
			t.Errorf("a first attempt arrived at %v, want 1 s", at)
		}
		if at := base.at("/dial/0"); at[0] != time.Second || at[1] < 20*time.Second || at[1] > 21*time.Second {
			t.Errorf("first attempt and retry arrived at %v, want 1 s and 20 s to 21 s", at)
		}
	})
}

func TestOtherHostsAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := newStubSchedule()
		rt := &ampauth.RetryTransport{Base: base}
		var wg sync.WaitGroup
		wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/429/30")) })
		synctest.Wait()
		start := time.Now()
		stubStatus(t, rt, stubRequestTo(t.Context(), "https://other.test/thing", ampauth.SafeOperation, nil))
		if took := time.Since(start); took != 0 {
			t.Errorf("a request to another host waited %v", took)
		}
		wg.Wait()
	})
}

// One host in two spellings is one host (RFC 3986 6.2.2.1 and 6.2.3).
func TestHostIsHeldBackHoweverItIsWritten(t *testing.T) {
	for _, url := range []string{"https://API.test/thing", "https://api.test:443/thing"} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := newStubSchedule()
				rt := &ampauth.RetryTransport{Base: base}
				var wg sync.WaitGroup
				wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/429/30")) })
				synctest.Wait()
				stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
				if at := base.at("/thing"); at[0] < 30*time.Second {
					t.Errorf("a request to the same host arrived at %v, want 30 s or later", at[0])
				}
				wg.Wait()
			})
		})
	}
}

func TestRateLimitAboveTheCapHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := newStubSchedule()
		rt := &ampauth.RetryTransport{Base: base}
		if status := stubStatus(t, rt, stubSafe(t, "/429/61")); status != 429 {
			t.Errorf("status %d, want the 429", status)
		}
		stubStatus(t, rt, stubSafe(t, "/thing"))
		if at := base.at("/thing"); at[0] != 0 {
			t.Errorf("the next request arrived at %v, want at once", at[0])
		}
	})
}

// The 429 of a request that is not repeated holds the others back all the same.
func TestRateLimitHoldsBackEvenIfItIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := newStubSchedule()
		rt := &ampauth.RetryTransport{Base: base}
		req := stubRequestTo(ampauth.WithoutRetry(t.Context()), "https://api.test/429/5", ampauth.SafeOperation, nil)
		if status := stubStatus(t, rt, req); status != 429 {
			t.Errorf("status %d, want the 429", status)
		}
		stubStatus(t, rt, stubSafe(t, "/thing"))
		if at := base.at("/thing"); at[0] < 5*time.Second || at[0] > 6*time.Second {
			t.Errorf("the next request arrived at %v, want 5 s to 6 s", at[0])
		}
	})
}

func TestGateIsOnlyEverExtended(t *testing.T) {
	for _, test := range []struct {
		name         string
		early, late  string // answered at 0 s and at 1 s
		first, retry time.Duration
	}{
		{"a longer 429 extends it", "/429/2", "/429/10", 11 * time.Second, 11 * time.Second},
		{"a shorter 429 does not open it", "/429/10", "/429/2", 10 * time.Second, 10 * time.Second},
		{"a shorter 503 does not open it", "/429/10", "/503/2", 10 * time.Second, 10 * time.Second},
		{"a longer 503 extends it for retries", "/429/4", "/503/10", 4 * time.Second, 11 * time.Second},
		{"a shorter 429 does not open it for retries", "/503/10", "/429/2", 3 * time.Second, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := newStubSchedule()
				rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					switch path := req.URL.Path; {
					case path == test.late && len(base.at(path)) == 0:
						time.Sleep(time.Second) // under way while the gate shuts
					case path == "/dial/0" && len(base.at(path)) == 0:
						time.Sleep(1500 * time.Millisecond)
					}
					return base.RoundTrip(req)
				})}
				var wg sync.WaitGroup
				start := func(path string) { wg.Go(func() { stubStatus(t, rt, stubSafe(t, path)) }) }
				start(test.late)
				start("/dial/0")
				synctest.Wait()
				start(test.early)
				synctest.Wait()
				start("/before")
				time.Sleep(1500 * time.Millisecond)
				start("/after")
				wg.Wait()
				// Twice a jitter of up to 1 s, if the gate shut again during the first.
				for path, low := range map[string]time.Duration{"/after": test.first, "/dial/0": test.retry} {
					at := base.at(path)
					if last := at[len(at)-1]; last < low || last > low+2*time.Second {
						t.Errorf("%s arrived at %v, want %v or a little later", path, last, low)
					}
				}
				if at := base.at("/before")[0]; strings.HasPrefix(test.early, "/429") && at < test.first {
					t.Errorf("a request that waited from the start arrived at %v, want %v or later", at, test.first)
				}
			})
		})
	}
}

// A response is not thrown away for a retry that the gate would not let pass in time.
func TestGateBeyondTheDeadlineGivesTheResponseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/shut" {
				return stubAnswer(503, "Retry-After", "20")(req)
			}
			return stubAnswer(502)(req)
		})}
		stubStatus(t, rt, stubRequestTo(ampauth.WithoutRetry(t.Context()), "https://api.test/shut", ampauth.SafeOperation, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil)); status != 502 || time.Since(start) != 0 {
			t.Errorf("status %d after %v, want the 502 at once", status, time.Since(start))
		}
	})
}

func TestGateIsLookedAtAgainAfterTheLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := newStubSchedule()
		base.delay = 500 * time.Millisecond
		rt := &ampauth.RetryTransport{Base: base, Limiter: rate.NewLimiter(1, 1)}
		var wg sync.WaitGroup
		wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/429/5")) })
		synctest.Wait()
		for range 3 { // in the queue of the limiter when the gate shuts
			wg.Go(func() { stubStatus(t, rt, stubSafe(t, "/thing")) })
		}
		wg.Wait()
		at := base.at("/thing")
		if at[0] < 5500*time.Millisecond {
			t.Errorf("requests in the limiter's queue arrived at %v, while the gate was shut until 5.5 s", at)
		}
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < 999*time.Millisecond {
				t.Errorf("afterwards they arrived at %v, not one a second", at)
			}
		}
	})
}

// The spread behind a gate must not push a call over its deadline that fits it.
func TestSpreadBehindTheGateKeepsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(429, "Retry-After", "1"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: 10 * time.Second}}
		stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.SafeOperation, nil)) // shuts the gate
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil)); status != 200 {
					t.Errorf("status %d", status)
				}
			})
		}
		wg.Wait()
	})
}

func TestRetryWaitsForAGateThatShutsDuringItsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503), stubAnswer(503, "Retry-After", "7200"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour, MaxRetryAfter: -1}}
		time.AfterFunc(time.Millisecond, func() {
			stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.SafeOperation, nil))
		})
		status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if waits := base.waits(); status != 200 || len(waits) != 2 || waits[1] < 2*time.Hour {
			t.Errorf("status %d after waits of %v, want the retry two hours after the other answer", status, waits)
		}
	})
}
