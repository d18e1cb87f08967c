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
	"golang.org/x/time/rate"
)

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
			if took := time.Since(start); took != 0 || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrRateLimited) || e.Outcome != ampauth.NotSent || !e.Timeout() {
				t.Errorf("at %s: got %v (%v, retry after %v) after %v", where, err, e.Outcome, e.RetryAfter, took)
			}
			// Only the gate is shut by a server, and only it knows until when.
			if asked := e.RetryAfter >= 10*time.Second; asked != (where == "the gate") || !asked && e.RetryAfter != 0 {
				t.Errorf("at %s: retry after %v", where, e.RetryAfter)
			}
			if ctx.Err() != nil || body.closed.Load() != 1 {
				t.Errorf("at %s: the context says %v, the body was closed %d times", where, ctx.Err(), body.closed.Load())
			}
			cancel()
		}
	})
}

// Never sleep into a deadline: whatever there is, is returned at once, whole.
func TestWaitBeyondTheDeadlineGivesTheResponseAtOnce(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		header []string
		config ampauth.RetryConfig
	}{
		{"a 429 that asks for 2 s", 429, []string{"Retry-After", "2"}, ampauth.RetryConfig{}},
		{"a 503 that asks for 2 s", 503, []string{"Retry-After", "2"}, ampauth.RetryConfig{}},
		{"a 503 above the cap", 503, []string{"Retry-After", "3600"}, ampauth.RetryConfig{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				body := newStubBody("slow down")
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					stubUse(req)
					resp := stubResponse(test.status, "", test.header...)
					resp.Body = body
					return resp, nil
				})
				start := time.Now()
				rt := &ampauth.RetryTransport{Base: base, Retry: test.config}
				resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
				if err != nil || resp.StatusCode != test.status {
					t.Fatalf("got (%v, %v), want the %d", resp, err, test.status)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("it took %v, want no time at all", took)
				}
				if body.read.Load() != 0 || body.closed.Load() != 0 {
					t.Error("the body was touched")
				}
				if text := stubText(t, resp); text != "slow down" {
					t.Errorf("the body is %q", text)
				}
			})
		})
	}
}

func TestBackoffBeyondTheDeadlineGivesTheErrorAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		base := stubScript(stubRefuse())
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour}}
		start := time.Now()
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if time.Since(start) != 0 || base.attempts() != 1 || !errors.Is(err, errStubDial) || stubError(t, err).Attempts != 1 {
			t.Errorf("got %v after %d attempts and %v, want the dial error at once", err, base.attempts(), time.Since(start))
		}
	})
}

func TestDrainingIsPartOfTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"2"}}, ContentLength: -1, Body: untilDone{req.Context()}}, nil
		}, stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if wait := base.waits()[0]; wait < 2*time.Second || wait > 2*time.Second+10*time.Millisecond {
			t.Errorf("waited %v, want the 2 s of the Retry-After, of which the draining is a part", wait)
		}
	})
}

// A wait that is not begun is not blamed on a context that is alive.
func TestWaitThatDoesNotFitIsToldAsThat(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
	limiter.Allow()
	rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(200)), Limiter: limiter}
	_, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
	e := stubError(t, err)
	if !errors.Is(err, context.DeadlineExceeded) || e.Kind != ampauth.ErrRateLimited || !e.Timeout() || e.Outcome != ampauth.NotSent {
		t.Errorf("got %v", err)
	}
	if text := err.Error(); strings.Contains(text, "context deadline exceeded") || !strings.Contains(text, "would end after the deadline") {
		t.Errorf("%q is said of a context that is alive", text)
	}
}
