package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"golang.org/x/time/rate"
)

var errFleet = errors.New("the limiter of the fleet is away")

func TestTypedNilLimiterIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none *rate.Limiter
		base := stubScript(stubAnswer(503), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Limiter: none, Retry: stubNoWait}
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 {
			t.Errorf("status %d", status)
		}
	})
}

func TestLimiterIsAskedOnceBeforeEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		base := stubScript(stubAnswer(503), stubRefuse(), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: stubNoWait, Limiter: limiterFunc(func(ctx context.Context) error {
			if asked != base.attempts() {
				t.Errorf("asked %d times before attempt %d", asked+1, base.attempts()+1)
			}
			if _, ok := ampauth.AttemptFromContext(ctx); ok {
				t.Error("the wait is part of an attempt")
			}
			asked++
			return passingAfter(time.Hour)(ctx)
		})}
		start := time.Now()
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 || asked != 3 {
			t.Errorf("status %d after %d waits, want 200 after 3", status, asked)
		}
		if took := time.Since(start).Truncate(time.Millisecond); took != 3*time.Hour {
			t.Errorf("took %v, want three hours", took)
		}
	})
}

// The token that is at hand was waited for by nobody, wherever it comes from.
func TestLimiterIsAskedOnceMoreOnlyAfterAWaitForAToken(t *testing.T) {
	for name, test := range map[string]struct {
		source ampauth.TokenSource
		asked  int
	}{
		"a static token": {static("token"), 1},
		"somebody else's source, at once": {
			sourceFunc(func(context.Context) (ampauth.Token, error) { return oneToken("token") }), 1,
		},
		"somebody else's source, after a second": {
			sourceFunc(func(context.Context) (ampauth.Token, error) { time.Sleep(time.Second); return oneToken("token") }), 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				rt := &ampauth.RetryTransport{
					Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: test.source, Origin: "https://api.test"},
					Limiter: limiterFunc(func(ctx context.Context) error {
						if _, ok := ampauth.AttemptFromContext(ctx); ok {
							t.Error("the wait is part of an attempt")
						}
						asked++
						return nil
					}),
				}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if asked != test.asked {
					t.Errorf("asked %d times, want %d", asked, test.asked)
				}
			})
		})
	}
}

func TestLimiterThatFailsIsToldWithItsError(t *testing.T) {
	slow := sourceFunc(func(context.Context) (ampauth.Token, error) { time.Sleep(time.Second); return oneToken("token") })
	secret := errors.New(`redis: "AUTH canary" failed`)
	for name, test := range map[string]struct {
		limiter ampauth.Limiter
		cause   error
		text    string
		timeout bool
	}{
		"any error":                 {failing(errFleet), errFleet, errFleet.Error(), false},
		"an error that quotes":      {failing(secret), secret, "redis:", false},
		"behind a login":            {limiterScript(passing, failing(errFleet)), errFleet, errFleet.Error(), false},
		"a wait that does not fit":  {failing(context.DeadlineExceeded), context.DeadlineExceeded, "deadline", true},
		"a wait that the rate says": {rate.NewLimiter(rate.Every(time.Hour), 1), context.DeadlineExceeded, "after the deadline", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				base := stubScript(stubAnswer(200))
				rt := &ampauth.RetryTransport{
					Base:    &ampauth.AuthTransport{Base: base, Source: slow, Origin: "https://api.test"},
					Limiter: test.limiter,
				}
				body := newStubBody("x")
				_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, body))
				e := stubError(t, err, ampauth.ErrRateLimited, test.cause)
				if e.Kind != ampauth.ErrRateLimited || e.Outcome != ampauth.NotSent || e.Attempts != 0 || e.RetryAfter != 0 || e.Timeout() != test.timeout {
					t.Errorf("error is %+v", e)
				}
				if text := err.Error(); !strings.Contains(text, test.text) || strings.Contains(text, "canary") {
					t.Errorf("the text is %q", text)
				}
				if base.attempts() != 0 || body.closed.Load() != 1 {
					t.Errorf("%d attempts, and the body was closed %d times", base.attempts(), body.closed.Load())
				}
			})
		})
	}
}

// A limiter that comes back after its context ended has let nothing pass.
func TestLimiterThatIgnoresItsContextSendsNothingLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		base := stubScript(stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Limiter: limiterFunc(func(context.Context) error { time.Sleep(2 * time.Second); return nil })}
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, []byte("x")))
		if e := stubError(t, err, context.DeadlineExceeded, ampauth.ErrTimeout); e.Outcome != ampauth.NotSent || e.Attempts != 0 || base.attempts() != 0 {
			t.Errorf("got %v (%v) after %d attempts", err, e.Outcome, base.attempts())
		}
	})
}

func TestPanicOfALimiterLeavesNothingBehind(t *testing.T) {
	boom := limiterFunc(func(context.Context) error { panic("boom") })
	for name, test := range map[string]struct {
		limiter ampauth.Limiter
		config  ampauth.RetryConfig
	}{
		"before the first attempt": {limiter: boom},
		"behind a login":           {limiter: limiterScript(passing, boom)},
		"before another attempt":   {limiter: limiterScript(passing, passing, boom)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := newStubBody(strings.Repeat("a", 100<<10))
				var attempt context.Context
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					stubUse(req)
					stubAnswered(req)
					resp := stubResponse(429, "")
					resp.Body = answer
					return resp, nil
				})
				slow := sourceFunc(func(context.Context) (ampauth.Token, error) { time.Sleep(time.Second); return oneToken("token") })
				auth := &ampauth.AuthTransport{Base: base, Source: slow, Origin: "https://api.test"}
				rt := &ampauth.RetryTransport{Retry: stubNoWait, Limiter: test.limiter, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					attempt = req.Context()
					return auth.RoundTrip(req)
				})}
				var bodies []*stubBody
				newBody := func() *stubBody {
					bodies = append(bodies, newStubBody("x"))
					return bodies[len(bodies)-1]
				}
				req := stubRequest(t.Context(), ampauth.MutatingOperation, newBody())
				if name == "before another attempt" {
					req.GetBody = func() (io.ReadCloser, error) { return newBody(), nil }
				}
				func() {
					defer func() {
						if v := recover(); v != "boom" {
							t.Errorf("recovered %v, want the panic as it was", v)
						}
					}()
					_, _ = rt.RoundTrip(req)
				}()
				for i, body := range bodies {
					if n := body.closed.Load(); n != 1 {
						t.Errorf("body %d of %d was closed %d times, want once", i+1, len(bodies), n)
					}
				}
				if attempt != nil && attempt.Err() == nil {
					t.Error("the attempt's context lives on")
				}
				if n := answer.closed.Load(); int(n) != base.attempts() {
					t.Errorf("the answer was closed %d times, want %d", n, base.attempts())
				}
			})
		})
	}
}

// By then the answer before is gone, but not what it says of the request.
func TestLimiterThatFailsBehindALaterLoginTellsOfTheAttemptBefore(t *testing.T) {
	for _, test := range []struct {
		op      ampauth.Operation
		status  int
		outcome ampauth.Outcome
	}{
		{ampauth.IdempotentOperation, 503, ampauth.Ambiguous},
		{ampauth.MutatingOperation, 429, ampauth.Rejected},
	} {
		synctest.Test(t, func(t *testing.T) {
			slow := sourceFunc(func(context.Context) (ampauth.Token, error) { time.Sleep(time.Second); return oneToken("token") })
			base := stubScript(stubAnswer(test.status))
			rt := &ampauth.RetryTransport{
				Base: &ampauth.AuthTransport{Base: base, Source: slow, Origin: "https://api.test"}, Retry: stubNoWait,
				Limiter: limiterScript(passing, passing, passing, failing(errFleet)),
			}
			_, err := rt.RoundTrip(stubRequest(t.Context(), test.op, []byte("x")))
			e := stubError(t, err, ampauth.ErrRateLimited, errFleet)
			if e.Outcome != test.outcome || e.Attempts != 2 || errors.Is(err, ampauth.ErrAmbiguous) || base.attempts() != 1 {
				t.Errorf("%v after a %d: error is %+v", test.op, test.status, e)
			}
		})
	}
}
