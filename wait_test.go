package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
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

// stubSchedule answers by path: "/429/30" with that status and Retry-After,
// once, after an optional delay; anything else with 200. It notes when what
// arrived.
type stubSchedule struct {
	delay time.Duration // of the answers that are not 200
	start time.Time

	mu       sync.Mutex // guards all below
	served   map[string]bool
	arrivals map[string][]time.Duration
}

func newStubSchedule() *stubSchedule {
	return &stubSchedule{start: time.Now(), served: make(map[string]bool), arrivals: make(map[string][]time.Duration)}
}

func (s *stubSchedule) RoundTrip(req *http.Request) (*http.Response, error) {
	stubUse(req)
	path := req.URL.Path
	s.mu.Lock()
	first := !s.served[path]
	s.served[path] = true
	s.arrivals[path] = append(s.arrivals[path], time.Since(s.start))
	s.mu.Unlock()
	parts := strings.Split(path, "/")
	if !first || len(parts) != 3 {
		return stubResponse(200, ""), nil
	}
	time.Sleep(s.delay)
	switch parts[1] {
	case "429":
		return stubResponse(429, "", "Retry-After", parts[2]), nil
	case "503":
		return stubResponse(503, "", "Retry-After", parts[2]), nil
	}
	return nil, errStubDial
}

// at are the times at which requests for a path arrived, in order.
func (s *stubSchedule) at(path string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrivals[path])
}

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
				rt := &ampauth.RetryTransport{Base: stubLayer(func(req *http.Request) (*http.Response, error) {
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
		rt := &ampauth.RetryTransport{Base: stubLayer(func(req *http.Request) (*http.Response, error) {
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

// stubHeld are the two places where a call waits before its first attempt.
func stubHeld(t *testing.T) map[string]*ampauth.RetryTransport {
	limited := rate.NewLimiter(rate.Every(time.Hour), 1)
	limited.Allow()
	gated := &ampauth.RetryTransport{Base: newStubSchedule()}
	stubStatus(t, gated, stubRequestTo(ampauth.WithoutRetry(t.Context()), "https://api.test/429/60", ampauth.SafeOperation, nil))
	return map[string]*ampauth.RetryTransport{
		"the gate":    gated,
		"the limiter": {Base: newStubSchedule(), Limiter: limited},
	}
}

func TestCallerWhoLeavesBeforeTheFirstAttemptIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for where, rt := range stubHeld(t) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			body := newStubBody("x")
			_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, body))
			e := stubError(t, err)
			if took := time.Since(start); took != time.Second || !errors.Is(err, context.Canceled) || e.Outcome != ampauth.NotSent || e.Attempts != 0 {
				t.Errorf("at %s: got %v (%v, %d attempts) after %v, want context.Canceled, NotSent, 0, 1 s", where, err, e.Outcome, e.Attempts, took)
			}
			if len(rt.Base.(*stubSchedule).at("/thing")) != 0 || body.closed.Load() != 1 || body.read.Load() != 0 {
				t.Errorf("at %s: the body was closed %d times and read %d times", where, body.closed.Load(), body.read.Load())
			}
		}
	})
}

func TestWaitThatCannotFitTheDeadlineFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for where, rt := range stubHeld(t) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			start := time.Now()
			body := newStubBody("x")
			_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, body))
			e := stubError(t, err)
			if took := time.Since(start); took != 0 || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrRateLimited) || e.Outcome != ampauth.NotSent || !e.Timeout() || e.RetryAfter < 10*time.Second {
				t.Errorf("at %s: got %v (%v, retry after %v) after %v", where, err, e.Outcome, e.RetryAfter, took)
			}
			if ctx.Err() != nil || body.closed.Load() != 1 {
				t.Errorf("at %s: the context says %v, the body was closed %d times", where, ctx.Err(), body.closed.Load())
			}
			cancel()
		}
	})
}

func TestReservationOfACallerWhoLeavesIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := rate.NewLimiter(rate.Every(10*time.Second), 1)
		limiter.Allow()
		rt := &ampauth.RetryTransport{Base: newStubSchedule(), Limiter: limiter}
		for _, patience := range []time.Duration{time.Second, 9 * time.Second} { // one that is cancelled, one that does not fit
			ctx, cancel := context.WithCancel(t.Context())
			if patience > time.Second {
				ctx, cancel = context.WithTimeout(ctx, time.Second)
			}
			time.AfterFunc(time.Second, cancel)
			_, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
			if err == nil {
				t.Error("there was a token after all")
			}
			cancel()
		}
		start := time.Now()
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if took := time.Since(start); took != 9*time.Second {
			t.Errorf("the next request waited %v, want 9 s: those who left hold a place in the queue", took)
		}
	})
}

func TestCallerWhoLeftBeforeTakesNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
		rt := &ampauth.RetryTransport{Base: newStubSchedule(), Limiter: limiter}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if tokens := limiter.Tokens(); tokens != 1 {
			t.Errorf("%v tokens are left, want 1", tokens)
		}
	})
}

func TestEachAttemptTakesOneToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = 100
		limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
		base := stubScript(stubAnswer(429, "Retry-After", "3"), stubAnswer(503), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Limiter: limiter}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if used := burst - limiter.Tokens(); used < 2.9 || used > 3.1 {
			t.Errorf("three attempts took %v tokens", used)
		}
	})
}

// On a clock that moves a reservation that is cancelled keeps its token.
func TestEachAttemptTakesOneTokenWhileTimePasses(t *testing.T) {
	const burst = 100
	limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
	base := stubScript(stubAnswer(503), stubAnswer(503), stubAnswer(200))
	rt := &ampauth.RetryTransport{Base: base, Limiter: limiter, Retry: stubQuick}
	stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if used := burst - limiter.Tokens(); used < 2.9 || used > 3.1 {
		t.Errorf("three attempts took %v tokens", used)
	}
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

func TestRefusalIsNotLostToALimiterThatBlocksTheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(401), stubAnswer(200))
		auth := &ampauth.AuthTransport{Base: base, Source: &stubRenewing{}, Origin: "https://api.test"}
		rt := &ampauth.RetryTransport{Base: auth, Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, []byte("x")))
		if err != nil {
			t.Fatalf("the refusal is lost: %v", err)
		}
		if text := stubText(t, resp); resp.StatusCode != 401 || text != "body of the answer" || base.attempts() != 1 || time.Since(start) != 0 {
			t.Errorf("status %d with %q after %d attempts and %v, want the 401 whole, at once", resp.StatusCode, text, base.attempts(), time.Since(start))
		}
	})
}

func TestRetriesWaitForTheLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base, Limiter: rate.NewLimiter(rate.Every(20*time.Second), 1), Retry: ampauth.RetryConfig{MaxAttempts: 4}}
		start := time.Now()
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		for i, c := range base.seen() {
			if at, want := c.at.Sub(start).Round(time.Microsecond), time.Duration(i)*20*time.Second; at != want {
				t.Errorf("attempt %d began at %v, want %v", i+1, at, want)
			}
		}
	})
}

func TestQueueingForTheLimiterDoesNotRunTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
		limiter.Allow()
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			select {
			case <-time.After(9 * time.Second):
				return stubAnswer(200)(req)
			case <-req.Context().Done():
				return nil, context.Cause(req.Context())
			}
		})
		rt := &ampauth.RetryTransport{Base: base, Limiter: limiter} // 10 s for an attempt
		start := time.Now()
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 || time.Since(start) != time.Hour+9*time.Second {
			t.Errorf("status %d after %v", status, time.Since(start))
		}
	})
}

// What is known of the last attempt is not lost when the limiter ends the call.
func TestLimiterThatEndsARetryKeepsTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rt := &ampauth.RetryTransport{Base: stubScript(stubBreak(io.EOF)), Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}
		start := time.Now()
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.IdempotentOperation, []byte("x")))
		e := stubError(t, err)
		if !errors.Is(err, context.DeadlineExceeded) || e.Attempts != 1 || time.Since(start) >= time.Second {
			t.Errorf("got %v after %v, want a deadline that cannot be met, after one attempt and its backoff", err, time.Since(start))
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%v is not the last error, %v, as well", err, io.EOF)
		}
		if e.Outcome != ampauth.Ambiguous {
			t.Errorf("the outcome is %v, and yet the first attempt was sent", e.Outcome)
		}
	})
}

func TestLimiterWithoutABurstIsAConfigurationFault(t *testing.T) {
	body := newStubBody("x")
	base := stubScript(stubAnswer(200))
	rt := &ampauth.RetryTransport{Base: base, Limiter: rate.NewLimiter(1, 0)}
	_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, body))
	if !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), "Limiter") || base.attempts() != 0 || body.closed.Load() != 1 {
		t.Errorf("got %v, %d attempts, body closed %d times; want ErrConfig that names the Limiter", err, base.attempts(), body.closed.Load())
	}
}

// stubOutage spends the whole budget of a transport that meets only failures.
func stubOutage(t *testing.T, rt *ampauth.RetryTransport, base *stubBase, size int) {
	t.Helper()
	for range size {
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	}
	if n := base.attempts(); n != 2*size {
		t.Fatalf("%d calls made %d attempts, want %d: the budget is not %d", size, n, 2*size, size)
	}
}

// stubPair is two attempts a call, with waits too short to refill a budget.
func stubPair(budget int) ampauth.RetryConfig {
	return ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, Budget: budget}
}

func TestBudgetBoundsRetries(t *testing.T) {
	for _, test := range []struct {
		name         string
		budget, size int
	}{
		{"by default", 0, 100},
		{"as set", 7, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(503))
				rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(test.budget)}
				stubOutage(t, rt, base, test.size)
				for range 50 {
					if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 503 {
						t.Errorf("status %d, want the last response", status)
					}
				}
				if n := base.attempts() - 2*test.size; n != 50 {
					t.Errorf("50 calls without a budget made %d attempts, want 50", n)
				}
			})
		})
	}
}

func TestBudgetEndsInTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		base := stubScript(stubRefuse())
		config := stubPair(2)
		config.MaxAttempts = 10
		rt := &ampauth.RetryTransport{Base: base, Retry: config, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		body := newStubBody("x")
		_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, body))
		if e := stubError(t, err); !errors.Is(err, errStubDial) || e.Attempts != 3 || e.Outcome != ampauth.NotSent || base.attempts() != 3 {
			t.Errorf("got %v after %d attempts, want the dial error after 3", err, base.attempts())
		}
		if body.closed.Load() != 1 {
			t.Errorf("the caller's body was closed %d times, want once", body.closed.Load())
		}
		if !strings.Contains(log.String(), "budget") {
			t.Errorf("no warning of the budget:\n%s", log.String())
		}
	})
}

func TestNegativeBudgetIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(-1)}
		for range 500 {
			stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		}
		if n := base.attempts(); n != 1000 {
			t.Errorf("500 calls made %d attempts, want 1000", n)
		}
	})
}

func TestBudgetComesBackBySuccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := true
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			if failing {
				return stubAnswer(503)(req)
			}
			return stubAnswer(200)(req)
		})
		rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(10)}
		stubOutage(t, rt, base, 10)
		attemptsAfter := func(successes int) int {
			failing = false
			for range successes {
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
			}
			failing = true
			before := base.attempts()
			stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
			return base.attempts() - before
		}
		if n := attemptsAfter(9); n != 1 {
			t.Errorf("after 9 successes there were %d attempts, want 1", n)
		}
		if n := attemptsAfter(1); n != 2 {
			t.Errorf("after the tenth there were %d attempts, want 2", n)
		}
		if n := attemptsAfter(9); n != 1 {
			t.Errorf("after 9 more there were %d attempts, want 1", n)
		}
	})
}

func TestBudgetComesBackByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(10)}
		start := time.Now()
		stubOutage(t, rt, base, 10)
		attempts := func() int {
			before := base.attempts()
			stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
			return base.attempts() - before
		}
		time.Sleep(time.Until(start.Add(10*time.Second - time.Millisecond)))
		if n := attempts(); n != 1 {
			t.Errorf("just before 10 s there were %d attempts, want 1", n)
		}
		time.Sleep(time.Until(start.Add(10 * time.Second)))
		if first, second := attempts(), attempts(); first != 2 || second != 1 {
			t.Errorf("after 10 s there were %d and %d attempts, want 2 and 1", first, second)
		}
		// Three come back in 30 s, even though nobody asked in between.
		time.Sleep(time.Until(start.Add(40 * time.Second)))
		if n := attempts() + attempts() + attempts() + attempts(); n != 7 {
			t.Errorf("after 30 s more four calls made %d attempts, want 7", n)
		}
		// What is left of ten seconds counts for the next one.
		time.Sleep(time.Until(start.Add(55 * time.Second)))
		if n := attempts(); n != 2 {
			t.Errorf("after 15 s more there were %d attempts, want 2", n)
		}
		time.Sleep(time.Until(start.Add(60*time.Second + time.Millisecond)))
		if n := attempts(); n != 2 {
			t.Errorf("after another 5 s there were %d attempts, want 2", n)
		}
		// And never more than there were.
		time.Sleep(24 * time.Hour)
		before := base.attempts()
		for range 20 {
			attempts()
		}
		if n := base.attempts() - before; n != 30 {
			t.Errorf("after a day 20 calls made %d attempts, want 30", n)
		}
	})
}

// stubRenewing is a source whose n-th token is "token-n".
type stubRenewing struct {
	mu   sync.Mutex // guards n
	n    int
	wait time.Duration // that a renewal takes
}

func (s *stubRenewing) Token(context.Context) (ampauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ampauth.Token{Value: ampauth.SecretFromString("token-" + string(rune('a'+s.n)))}, nil
}

func (s *stubRenewing) Renew(ctx context.Context, rejected ampauth.Token) (ampauth.Token, error) {
	select {
	case <-time.After(s.wait):
	case <-ctx.Done():
		return ampauth.Token{}, ctx.Err()
	}
	current, err := s.Token(ctx)
	if err == nil && current.Value.Equal(rejected.Value) {
		s.mu.Lock()
		s.n++
		s.mu.Unlock()
		return s.Token(ctx)
	}
	return current, err
}

func TestReplayAfterARefusedTokenIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := true
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			switch {
			case outage:
				return stubAnswer(503)(req)
			case req.Header.Get("Authorization") == "token token-a":
				return stubAnswer(401)(req)
			}
			return stubAnswer(200)(req)
		})
		config := stubPair(1)
		config.MaxAttempts = 1 // a replay counts for nothing here either
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: new(stubRenewing), Origin: "https://api.test"}, Retry: config}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		outage = false
		start := time.Now()
		ctx := ampauth.WithoutRetry(t.Context())
		if status := stubStatus(t, rt, stubRequest(ctx, ampauth.MutatingOperation, []byte("x"))); status != 200 || time.Since(start) != 0 {
			t.Errorf("status %d after %v, want 200 at once", status, time.Since(start))
		}
	})
}

func TestLastingOutageIsNotMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, calls = 200, 50
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base}
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range calls {
					stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		if ratio := float64(base.attempts()) / (clients * calls); ratio > 1.1 {
			t.Errorf("%.3f attempts per call, want at most 1.1", ratio)
		}
	})
}

func TestNothingIsSpreadBehindTheGateWithALimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(429, "Retry-After", "30"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Limiter: rate.NewLimiter(rate.Inf, 1)}
		stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.SafeOperation, nil))
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if wait := base.waits()[0]; wait != 30*time.Second {
			t.Errorf("waited %v, want 30 s", wait)
		}
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
