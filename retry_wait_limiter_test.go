package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"golang.org/x/time/rate"
)

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

func TestLimiterBeyondTheDeadlineGivesTheResponseAfterItsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503)), Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}
		start := time.Now()
		status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 503 || took >= time.Second {
			t.Errorf("status %d after %v, want the 503 after a backoff of less than 1 s", status, took)
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
