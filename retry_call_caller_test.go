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

// A caller who leaves is let go at once, wherever the call stands.
func TestCallerWhoLeavesDuringTheBackoffIsLetGo(t *testing.T) {
	for _, test := range []struct {
		name    string
		step    stubStep
		is      error
		status  int
		outcome ampauth.Outcome
	}{
		{"after an error", stubRefuse(), errStubDial, 0, ampauth.NotSent},
		{"after an ambiguous error", stubBreak(io.EOF), io.EOF, 0, ampauth.Ambiguous},
		{"after a response", stubAnswer(503), nil, 503, ampauth.Answered},
		{"after a 429", stubAnswer(429, "Retry-After", "30"), nil, 429, ampauth.Rejected},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				base := stubScript(test.step)
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: 1 << 62, MaxDelay: 1 << 62}}
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				body := newStubBody("x")
				req := stubRequest(ctx, ampauth.IdempotentOperation, body)
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
				resp, err := rt.RoundTrip(req)
				if took := time.Since(start); took != time.Second {
					t.Errorf("it took %v, want the second until the caller left", took)
				}
				e := stubError(t, err)
				if resp != nil || !errors.Is(err, context.Canceled) || (test.is != nil && !errors.Is(err, test.is)) {
					t.Errorf("%v is not both the cancellation and %v", err, test.is)
				}
				if e.Attempts != 1 || e.StatusCode != test.status || e.Outcome != test.outcome || base.attempts() != 1 {
					t.Errorf("the error says %d attempts, status %d, %v; want 1, %d, %v", e.Attempts, e.StatusCode, e.Outcome, test.status, test.outcome)
				}
				if n := body.closed.Load(); n != 1 {
					t.Errorf("the caller's body was closed %d times, want once", n)
				}
			})
		})
	}
}

func TestCallerWhoLeftBeforeIsNotServed(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancelLate()
	for _, ctx := range []context.Context{gone, late} {
		base := stubScript(stubAnswer(200))
		body := newStubBody("x")
		_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, body))
		e := stubError(t, err)
		if !errors.Is(err, ctx.Err()) || e.Outcome != ampauth.NotSent || e.Attempts != 0 {
			t.Errorf("got %v (%v, %d attempts), want %v, NotSent, 0", err, e.Outcome, e.Attempts, ctx.Err())
		}
		if base.attempts() != 0 || body.closed.Load() != 1 || body.read.Load() != 0 {
			t.Errorf("%d attempts; the body was closed %d times and read %d times", base.attempts(), body.closed.Load(), body.read.Load())
		}
	}
}

func TestCallerWhoLeavesDuringAnAttemptGetsNoOther(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			base := stubScript(stubStall())
			time.AfterFunc(time.Second, cancel)
			_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(ctx, op, []byte("x")))
			if !errors.Is(err, context.Canceled) || base.attempts() != 1 || stubError(t, err).Attempts != 1 {
				t.Errorf("got %v after %d attempts, want context.Canceled after 1", err, base.attempts())
			}
			if errors.Is(err, ampauth.ErrAmbiguous) != (op == ampauth.MutatingOperation) {
				t.Errorf("%v: %v says the wrong thing about being ambiguous", op, err)
			}
			if errors.Is(err, context.DeadlineExceeded) || stubError(t, err).Timeout() {
				t.Errorf("%v says it is a timeout", err)
			}
		})
	}
}

func TestCallerWhoLeavesDuringAnAnswerGetsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		cancel()
		return stubResponse(503, "sorry"), nil
	})
	resp, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
	if err != nil || resp.StatusCode != 503 || base.attempts() != 1 {
		t.Fatalf("got (%v, %v) after %d attempts, want the 503", resp, err, base.attempts())
	}
	_ = resp.Body.Close()
}

func TestCallerWhoLeavesDuringTheRenewalIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		refusal := &stubBody{Reader: strings.NewReader(strings.Repeat("x", 1<<20))}
		source := tokenThatIsRenewed()
		source.renewed = func(context.Context) (ampauth.Token, error) { cancel(); return ampauth.Token{}, ctx.Err() }
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			stubAnswered(req)
			return &http.Response{StatusCode: 401, Header: http.Header{}, ContentLength: -1, Body: refusal}, nil
		})
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, nil))
		if e := stubError(t, err); !errors.Is(err, context.Canceled) || e.Outcome != ampauth.Rejected || e.StatusCode != 401 {
			t.Errorf("got %v (%v), want that the caller left, Rejected", err, e.Outcome)
		}
		if n := refusal.closed.Load(); n != 1 {
			t.Errorf("the refusal was closed %d times, want once", n)
		}
	})
}

func TestCallerWhoLeavesAfterADoubtfulAttemptIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		base := stubScript(stubBreak(errStubReset), func(req *http.Request) (*http.Response, error) {
			time.AfterFunc(time.Millisecond, cancel) // in the wait that follows
			return stubRefuse()(req)
		})
		_, err := (&ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour}}).RoundTrip(stubRequest(ctx, ampauth.IdempotentOperation, []byte("x")))
		if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || !errors.Is(err, context.Canceled) || e.Attempts != 2 {
			t.Errorf("got %v (%v), want that the caller left, in doubt", err, e.Outcome)
		}
	})
}

func TestCallerWhoLeavesAfterTheClockLearnsItOfHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		slow := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			cancel() // while the layer is slow to end
			return nil, context.Cause(req.Context())
		})
		_, err := (&ampauth.RetryTransport{Base: slow, Retry: ampauth.RetryConfig{Timeout: time.Second}}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if e := stubError(t, err); !errors.Is(err, context.Canceled) || e.Limit != 0 {
			t.Errorf("got %v with the limit %v, want that the caller left", err, e.Limit)
		}
	})
}

func TestCallerWhoseTimeWasOverBeforeLearnsThatIsATimeout(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	base := stubScript(stubAnswer(200))
	_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
	if e := stubError(t, err); e.Kind != ampauth.ErrTimeout || e.Outcome != ampauth.NotSent || base.attempts() != 0 {
		t.Errorf("got %v (%v) after %d attempts, want a timeout before the first", err, e.Outcome, base.attempts())
	}
}

func TestCallerWhoLeftIsNamedOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		cancel()
		return nil, req.Context().Err()
	})
	_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
	if n := strings.Count(err.Error(), "context canceled"); n != 1 {
		t.Errorf("%q names the cancellation %d times, want once", err, n)
	}
}

func TestCauseOfACancellationIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		_, err := (&ampauth.RetryTransport{Base: stubScript(stubStall())}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("%v is not both the cancellation and its cause", err)
		}
	})
}

func TestCauseOfACancellationIsKeptWhereverItComes(t *testing.T) {
	shutdown := errors.New("the operator shuts down")
	stuck := sourceFunc(func(ctx context.Context) (ampauth.Token, error) {
		<-ctx.Done()
		return ampauth.Token{}, ctx.Err()
	})
	over := func(steps ...stubStep) http.RoundTripper { return &ampauth.RetryTransport{Base: stubScript(steps...)} }
	for name, test := range map[string]struct {
		rt     http.RoundTripper
		before bool // cancelled before the call
		op     ampauth.Operation
	}{
		"before the first attempt": {over(stubAnswer(200)), true, ampauth.SafeOperation},
		"in an attempt":            {over(stubStall()), false, ampauth.SafeOperation},
		"in an attempt, over HTTP/2": {over(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}), false, ampauth.SafeOperation},
		"in an attempt at a mutation": {over(stubStall()), false, ampauth.MutatingOperation},
		"in a wait":                   {over(stubAnswer(503, "Retry-After", "30")), false, ampauth.SafeOperation},
		"at the limiter": {&ampauth.RetryTransport{Base: stubScript(stubAnswer(200)), Limiter: func() *rate.Limiter {
			l := rate.NewLimiter(rate.Every(time.Hour), 1)
			l.Allow()
			return l
		}()}, false, ampauth.SafeOperation},
		"waiting for a token":       {&ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stuck, Origin: "https://api.test"}}, false, ampauth.MutatingOperation},
		"waiting for a token alone": {&ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stuck, Origin: "https://api.test"}, false, ampauth.SafeOperation},
		"in a body": {over(func(req *http.Request) (*http.Response, error) {
			resp := stubResponse(200, "")
			resp.Body, resp.ContentLength = io.NopCloser(stubReader(func([]byte) (int, error) { <-req.Context().Done(); return 0, req.Context().Err() })), -1
			return resp, nil
		}), false, ampauth.SafeOperation},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if test.before {
					cancel(shutdown)
				} else {
					time.AfterFunc(2*time.Second, func() { cancel(shutdown) })
				}
				resp, err := test.rt.RoundTrip(stubRequest(ctx, test.op, nil))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				if !errors.Is(err, shutdown) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), shutdown.Error()) {
					t.Errorf("%v does not tell why", err)
				}
				if strings.Count(err.Error(), "context canceled") != 1 {
					t.Errorf("%v tells it twice", err)
				}
				stubError(t, err)
			})
		})
	}
	t.Run("in Retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err := ampauth.Retry(ctx, ampauth.RetryConfig{}, func(context.Context) (int, error) {
				cancel(shutdown)
				return 0, stubVerdict(true)
			})
			if err == nil {
				t.Fatal("no error")
			}
			_, err = ampauth.Retry(ctx, ampauth.RetryConfig{}, func(context.Context) (int, error) { return 0, nil })
			if !errors.Is(err, shutdown) || !errors.Is(err, context.Canceled) {
				t.Errorf("%v does not tell why", err)
			}
		})
	})
}
