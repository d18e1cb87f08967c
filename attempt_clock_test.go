package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

func TestTimeoutBoundsEachAttempt(t *testing.T) {
	for _, test := range []struct {
		name     string
		op       ampauth.Operation
		config   ampauth.RetryConfig
		limit    time.Duration
		attempts int
	}{
		{"safe by default", ampauth.SafeOperation, ampauth.RetryConfig{}, 10 * time.Second, 3},
		{"idempotent by default", ampauth.IdempotentOperation, ampauth.RetryConfig{}, 10 * time.Second, 3},
		{"mutation by default", ampauth.MutatingOperation, ampauth.RetryConfig{}, 60 * time.Second, 1},
		{"safe", ampauth.SafeOperation, ampauth.RetryConfig{Timeout: 3 * time.Second, MutationTimeout: time.Hour}, 3 * time.Second, 3},
		{"mutation", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: 3 * time.Second, MutationTimeout: 4 * time.Second}, 4 * time.Second, 1},
		{"mutation, never below Timeout by default", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: 2 * time.Minute}, 2 * time.Minute, 1},
		{"mutation, by default even when Timeout is off", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: -1}, time.Minute, 1},
		{"safe, by default even when MutationTimeout is off", ampauth.SafeOperation, ampauth.RetryConfig{MutationTimeout: -1}, 10 * time.Second, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				var began []time.Time
				layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					began = append(began, time.Now())
					return base.RoundTrip(req)
				})
				rt := &ampauth.RetryTransport{Base: layer, Retry: test.config}
				_, err := rt.RoundTrip(stubRequestTo(t.Context(), url, test.op, []byte("x")))
				e := stubError(t, err)
				if len(began) != test.attempts || e.Attempts != test.attempts {
					t.Fatalf("%d attempts, and the error says %d; want %d", len(began), e.Attempts, test.attempts)
				}
				if took := time.Since(began[len(began)-1]); took != test.limit {
					t.Errorf("the last attempt took %v, want %v", took, test.limit)
				}
				if e.Limit != test.limit || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrTimeout) {
					t.Errorf("got %v with the limit %v, want a timeout after %v", err, e.Limit, test.limit)
				}
				if errors.Is(err, ampauth.ErrAmbiguous) != (test.op == ampauth.MutatingOperation) {
					t.Errorf("%v says the wrong thing about being ambiguous", err)
				}
			})
		})
	}
}

func TestNegativeTimeoutIsNone(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(24 * time.Hour)
		}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1}}
			start := time.Now()
			if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, op, []byte("x"))); status != 200 || time.Since(start) != 24*time.Hour {
				t.Errorf("status %d after %v, want 200 after a day", status, time.Since(start))
			}
		})
	}
}

// The caller's deadline is no fault of the attempt's clock, and the other way.
func TestCallersDeadlineIsToldFromTheAttempts(t *testing.T) {
	for _, test := range []struct {
		name     string
		deadline time.Duration
		took     time.Duration
		limit    time.Duration
	}{
		{"the caller's comes first", 3 * time.Second, 3 * time.Second, 0},
		{"the attempt's comes first", 11 * time.Second, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
				defer cancel()
				start := time.Now()
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MutationTimeout: 10 * time.Second}}
				_, err := rt.RoundTrip(stubRequestTo(ctx, url, ampauth.MutatingOperation, []byte("x")))
				e := stubError(t, err)
				if took := time.Since(start); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if alive := ctx.Err() == nil; alive != (test.limit > 0) {
					t.Errorf("the caller's context: %v", ctx.Err())
				}
				if e.Limit != test.limit || e.Kind != ampauth.ErrAmbiguous || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrTimeout) {
					t.Errorf("got %v with the limit %v, want an ambiguous timeout with the limit %v", err, e.Limit, test.limit)
				}
				if !strings.HasPrefix(err.Error(), "ampauth: outcome unknown") {
					t.Errorf("the text is %q", err)
				}
			})
		})
	}
}

func TestTimeoutCoversTheBody(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			stubBubble(t, stubHangs(200), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: 5 * time.Second, MutationTimeout: 5 * time.Second}}
				start := time.Now()
				resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, op, []byte("x")))
				if err != nil || time.Since(start) != 0 {
					t.Fatalf("got %v after %v, want the response at once", err, time.Since(start))
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if took := time.Since(start); took != 5*time.Second || string(text) != "first" {
					t.Errorf("read %q in %v, want the first half in 5 s", text, took)
				}
				e := stubError(t, err)
				if e.Kind != ampauth.ErrTimeout || e.Limit != 5*time.Second || e.Outcome != ampauth.Answered || e.StatusCode != 200 || e.Attempts != 1 || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v (%v), want an answered timeout after 5 s", err, e.Outcome)
				}
				// The response is there: that the operation was performed is not in doubt.
				if errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("%v is ambiguous", err)
				}
			})
		})
	}
}

// A body that was given back must not be cut by a clock that nobody needs any more.
func TestSlowReaderHasTheWholeTimeout(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 9 {
			_, _ = fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		start := time.Now()
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		if text := stubText(t, resp); text != "012345678" || time.Since(start) != 9*time.Second {
			t.Errorf("read %q in %v", text, time.Since(start))
		}
	})
}

// Over HTTP/2 net/http does not look at the context while an upload waits for the
// server to take more, and an answer that came early stalls.
func TestTimeoutCoversTheBodyOfAnEarlyAnswerOverHTTP2(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.IdempotentOperation, ampauth.MutatingOperation} {
		for _, test := range []struct {
			name              string
			timeout, deadline time.Duration // of the attempt, of the caller
			leaves            bool
			is, kind          error
		}{
			{"attempt's time", 50 * time.Millisecond, time.Hour, false, context.DeadlineExceeded, ampauth.ErrTimeout},
			{"caller's deadline", -1, 50 * time.Millisecond, false, context.DeadlineExceeded, ampauth.ErrTimeout},
			{"caller leaves", time.Hour, time.Hour, true, context.Canceled, ampauth.ErrRequestFailed},
		} {
			t.Run(test.name+", "+op.String(), func(t *testing.T) {
				s := hostile.New(hostile.HTTP2, hostile.Sequence(hostile.Step{Do: hostile.StallBody, Upload: hostile.ReadNever}))
				defer s.Close()
				base := stubPooled(t)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
				var resp *http.Response
				var err error
				leave := func() {}
				// On a busy machine the header may take longer than the time.
				for factor := time.Duration(1); factor <= 1000 && (resp == nil || err != nil); factor *= 10 {
					leave()
					var ctx context.Context
					ctx, leave = context.WithTimeout(t.Context(), test.deadline*factor)
					config := ampauth.RetryConfig{Timeout: test.timeout * factor, MutationTimeout: test.timeout * factor, MaxAttempts: 1}
					resp, err = (&ampauth.RetryTransport{Base: base, Retry: config}).RoundTrip(stubRequestTo(ctx, s.URL(), op, make([]byte, 1<<20)))
				}
				defer leave()
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if test.leaves {
					time.AfterFunc(50*time.Millisecond, leave)
				}
				_, err = io.ReadAll(resp.Body)
				if e := stubError(t, err); e.Kind != test.kind || e.Outcome != ampauth.Answered || !errors.Is(err, test.is) {
					t.Errorf("the body ends in %v, want %v that is Answered and Is %v", err, test.kind, test.is)
				}
			})
		}
	}
}

func TestClockIsReleasedWithTheBody(t *testing.T) {
	ends := map[string]func(io.ReadCloser){
		"read to its end": func(b io.ReadCloser) { _, _ = io.ReadAll(b) },
		"closed unread":   func(b io.ReadCloser) { _ = b.Close() },
		"closed half-way": func(b io.ReadCloser) { _, _ = b.Read(make([]byte, 1)); _ = b.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(200))
				resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err != nil {
					t.Fatal(err)
				}
				ctx := base.seen()[0].request.Context()
				if ctx.Err() != nil {
					t.Fatal("the attempt's context ended before its body")
				}
				end(resp.Body)
				if ctx.Err() != context.Canceled {
					t.Errorf("afterwards the attempt's context says %v, want context.Canceled", ctx.Err())
				}
				time.Sleep(time.Hour) // a clock that still ran would fire now
				if cause := context.Cause(ctx); cause != context.Canceled {
					t.Errorf("the attempt's context ended by %v", cause)
				}
				_ = resp.Body.Close()
			})
		})
	}
}

func TestResponseWithoutABodyReleasesTheClockAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
		})
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if base.seen()[0].request.Context().Err() == nil {
			t.Error("the attempt's context lives on")
		}
	})
}

func TestClockOfAnOuterAttemptIsNotTakenForAnInnerOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := stubScript(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: untilDone{req.Context()}}, nil
		})
		inner := &ampauth.RetryTransport{Base: hangs, Retry: ampauth.RetryConfig{Timeout: time.Hour}}
		var innerErr error
		outer := &ampauth.RetryTransport{Retry: ampauth.RetryConfig{Timeout: time.Second, MaxAttempts: 1}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			other := stubRequestTo(req.Context(), "https://other.test/", ampauth.SafeOperation, nil)
			resp, err := inner.RoundTrip(other)
			if err != nil {
				return nil, err
			}
			_, innerErr = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			return nil, innerErr
		})}
		_, err := outer.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if e := stubError(t, innerErr); e.Limit != 0 {
			t.Errorf("the inner error is %v with the limit %v, yet its hour is not over", innerErr, e.Limit)
		}
		if e := stubError(t, err); e.Limit != time.Second {
			t.Errorf("the outer error is %v with the limit %v, want a second", err, e.Limit)
		}
	})
}

func TestWaitForAForeignSourceDoesNotRunTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := sourceFunc(func(context.Context) (ampauth.Token, error) {
			time.Sleep(time.Minute)
			return oneToken("t")
		})
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			if err := req.Context().Err(); err != nil {
				return nil, err
			}
			return stubAnswer(200)(req)
		})
		rt := &ampauth.RetryTransport{
			Base:  &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"},
			Retry: ampauth.RetryConfig{Timeout: time.Second, MutationTimeout: time.Second, MaxAttempts: 1},
		}
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			if status := stubStatus(t, rt, stubRequest(t.Context(), op, nil)); status != 200 {
				t.Errorf("%v: status %d, want 200 after a minute for the token", op, status)
			}
		}
	})
}

func TestClockRunsAgainAfterTheWaitForASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := sourceFunc(func(context.Context) (ampauth.Token, error) { return oneToken("t") })
		rt := &ampauth.RetryTransport{
			Base:  &ampauth.AuthTransport{Base: stubScript(stubStall()), Source: source, Origin: "https://api.test"},
			Retry: ampauth.RetryConfig{Timeout: time.Second, MaxAttempts: 1},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if e := stubError(t, err); e.Limit != time.Second {
			t.Errorf("got %v, want a timeout after a second", err)
		}
	})
}
