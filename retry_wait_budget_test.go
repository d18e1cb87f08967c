package ampauth_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

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

// What says that it may go better in a moment is no success, and what does not say so is.
func TestAnswersThatAreNotTransientGiveTheBudgetBack(t *testing.T) {
	for status, back := range map[int]bool{
		200: true, 404: true, 501: true, 505: true, 511: true,
		408: false, 500: false, 507: false, 520: false,
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := 503
				base := stubScript(func(req *http.Request) (*http.Response, error) { return stubAnswer(answer)(req) })
				rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(1)}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)) // spends it
				answer = status
				for range 10 {
					stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.SafeOperation, nil))
				}
				answer = 503
				before := base.attempts()
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if n := base.attempts() - before; (n == 2) != back {
					t.Errorf("after 10 answers of %d there were %d attempts, want a retry: %t", status, n, back)
				}
			})
		})
	}
}

func TestRateLimitIsNoSuccessForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 503
		base := stubScript(func(req *http.Request) (*http.Response, error) { return stubAnswer(status)(req) })
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, Budget: 1}}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)) // spends it
		status = 429
		for range 20 {
			stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.SafeOperation, nil))
		}
		status = 503
		before := base.attempts()
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if n := base.attempts() - before; n != 1 {
			t.Errorf("%d attempts after 20 answers of 429, want 1: the budget is spent", n)
		}
	})
}

// A server that says when to come back has been waited for, not run over.
func TestRetryThatWaitedAsToldIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pages = 10_000
		limited := false
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			if limited = !limited; limited {
				return stubAnswer(429, "Retry-After", "1")(req)
			}
			return stubAnswer(200)(req)
		})
		rt := &ampauth.RetryTransport{Base: base}
		for page := range pages {
			if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 {
				t.Fatalf("page %d ended in status %d", page+1, status)
			}
		}
		if n := base.attempts(); n != 2*pages {
			t.Errorf("%d pages took %d attempts, want two each", pages, n)
		}
	})
}

// The budget that such retries leave alone still bounds all others.
func TestRetriesThatWaitedAsToldLeaveTheBudgetAlone(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit stubStep
		left  int // of a budget of 10, after 4 retries
	}{
		{"with Retry-After", stubAnswer(429, "Retry-After", "1"), 10},
		{"without", stubAnswer(429), 6},
		{"with one of 0", stubAnswer(429, "Retry-After", "0"), 6},
		{"503 with Retry-After", stubAnswer(503, "Retry-After", "1"), 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := test.limit
				base := stubScript(func(req *http.Request) (*http.Response, error) { return step(req) })
				rt := &ampauth.RetryTransport{Base: base, Retry: stubPair(10)}
				for range 4 { // in less than the 10 s after which one comes back
					stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				}
				time.Sleep(time.Second) // until the gate is open
				step = stubAnswer(500)
				before := base.attempts()
				for range 20 {
					stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				}
				if n := base.attempts() - before - 20; n != test.left {
					t.Errorf("then an outage had %d retries, want %d", n, test.left)
				}
			})
		})
	}
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
