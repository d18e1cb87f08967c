package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"golang.org/x/time/rate"
)

func TestBackoffIsExponentialWithFullJitterAndCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const draws = 1000
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{
			MaxAttempts: draws + 6, BaseDelay: time.Second, MaxDelay: 20 * time.Second, Budget: -1,
		}}
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 503 {
			t.Errorf("status %d", status)
		}
		waits := base.waits()
		if len(waits) != draws+5 {
			t.Fatalf("%d waits, want %d", len(waits), draws+5)
		}
		ceilings := []time.Duration{1, 2, 4, 8, 16}
		var quarters [4]int
		for i, wait := range waits {
			ceiling := 20 * time.Second
			if i < len(ceilings) {
				ceiling = ceilings[i] * time.Second
			} else {
				quarters[min(max(int(4*wait/ceiling), 0), 3)]++
			}
			if wait < 0 || wait >= ceiling {
				t.Errorf("wait %d is %v, want one of [0, %v)", i+1, wait, ceiling)
			}
		}
		for i, n := range quarters { // 250 each, with a deviation of 14
			if n < 150 || n > 350 {
				t.Errorf("%d of %d waits are in quarter %d of the range: not full jitter (%v)", n, draws, i+1, quarters)
			}
		}
	})
}

func TestFirstWaitsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sums [3]time.Duration
		for range 400 {
			base := stubScript(stubRefuse())
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: 4, BaseDelay: time.Second}}
			_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
			for i, wait := range base.waits() {
				if ceiling := time.Second << i; wait >= ceiling {
					t.Errorf("wait %d is %v, want less than %v", i+1, wait, ceiling)
				}
				sums[i] += wait
			}
		}
		for i, sum := range sums {
			mean, want := sum/400, time.Second<<i/2
			if mean < want*8/10 || mean > want*12/10 {
				t.Errorf("the mean of wait %d is %v, want about %v", i+1, mean, want)
			}
		}
	})
}

func TestRetryAfterIsAFloorThatIsJitteredUpwards(t *testing.T) {
	for _, status := range []int{429, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const draws, base = 1000, 500 * time.Millisecond
				script := stubScript(stubAnswer(status, "Retry-After", "7"))
				rt := &ampauth.RetryTransport{Base: script, Retry: ampauth.RetryConfig{MaxAttempts: draws + 1, BaseDelay: base, Budget: -1}}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				low, high := time.Duration(math.MaxInt64), time.Duration(0)
				for _, wait := range script.waits() {
					low, high = min(low, wait), max(high, wait)
				}
				if low < 7*time.Second || high > 7*time.Second+base {
					t.Errorf("waits of %v to %v, want 7 s and at most %v more", low, high, base)
				}
				if high-low < base/2 {
					t.Errorf("waits of %v to %v are not spread", low, high)
				}
			})
		})
	}
}

func TestRetryAfterForms(t *testing.T) {
	const start = "Sat, 01 Jan 2000 00:00:00 GMT" // where a bubble's clock starts
	const atOnce = time.Duration(-1)
	backoff := time.Duration(0) // no floor
	tests := []struct {
		name   string
		header []string
		floor  time.Duration
	}{
		{"seconds", []string{"Retry-After", "2"}, 2 * time.Second},
		{"seconds within white space", []string{"Retry-After", " \t2 "}, 2 * time.Second},
		{"zero", []string{"Retry-After", "0"}, backoff},
		{"empty", []string{"Retry-After", ""}, backoff},
		{"fraction", []string{"Retry-After", "1.5"}, backoff},
		{"negative", []string{"Retry-After", "-5"}, backoff},
		{"words", []string{"Retry-After", "soon"}, backoff},
		{"as long as the cap", []string{"Retry-After", "60"}, time.Minute},
		{"above the cap", []string{"Retry-After", "61"}, atOnce},
		{"overflow of nanoseconds", []string{"Retry-After", "9223372037"}, atOnce},
		{"twenty nines", []string{"Retry-After", strings.Repeat("9", 20)}, atOnce},
		{"a date", []string{"Retry-After", "Sat, 01 Jan 2000 00:00:09 GMT"}, 9 * time.Second},
		{"a date of RFC 850", []string{"Retry-After", "Saturday, 01-Jan-00 00:00:09 GMT"}, 9 * time.Second},
		{"a date of asctime", []string{"Retry-After", "Sat Jan  1 00:00:09 2000"}, 9 * time.Second},
		{"a date in the past", []string{"Retry-After", "Fri, 31 Dec 1999 23:59:00 GMT"}, backoff},
		{"a date by a clock that is fast", []string{"Retry-After", "Sat, 01 Jan 2000 01:00:05 GMT", "Date", "Sat, 01 Jan 2000 01:00:00 GMT"}, 5 * time.Second},
		{"a date by a clock that is slow", []string{"Retry-After", start, "Date", "Fri, 31 Dec 1999 23:59:53 GMT"}, 7 * time.Second},
		{"a date far away", []string{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}, atOnce},
		{"two fields", []string{"Retry-After", "2", "Retry-After", "3"}, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(429, test.header...), stubAnswer(200))
				rt := &ampauth.RetryTransport{Base: base}
				status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
				waits := base.waits()
				switch {
				case test.floor == atOnce:
					if status != 429 || len(waits) != 0 || time.Since(base.seen()[0].at) != 0 {
						t.Errorf("status %d after the waits %v, want the 429 at once", status, waits)
					}
				case status != 200 || len(waits) != 1:
					t.Errorf("status %d after the waits %v, want 200 after one", status, waits)
				case waits[0] < test.floor || waits[0] >= test.floor+time.Second:
					t.Errorf("waited %v, want at least %v and less than 1 s more", waits[0], test.floor)
				case test.floor == backoff && waits[0] == 0:
					t.Error("no wait at all: this loops hot")
				}
			})
		})
	}
}

func TestRetryAfterOfOtherAnswersIsNoFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(500, "Retry-After", "50"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if w := base.waits(); len(w) != 1 || w[0] >= time.Second {
			t.Errorf("waits %v, want one below 1 s", w)
		}
	})
}

func TestRetryAfterCapIsSettable(t *testing.T) {
	for _, test := range []struct {
		name   string
		cap    time.Duration
		after  string
		waited bool
	}{
		{"below", 5 * time.Second, "5", true},
		{"above", 5 * time.Second, "6", false},
		{"none", -1, "86400", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(503, "Retry-After", test.after), stubAnswer(200))
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxRetryAfter: test.cap}}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if waited := base.attempts() == 2; waited != test.waited {
					t.Errorf("a Retry-After of %s s with a cap of %v: waited is %v", test.after, test.cap, waited)
				}
			})
		})
	}
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

func TestMaxAttemptsIsExact(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7} {
		synctest.Test(t, func(t *testing.T) {
			want := n
			if n == 0 {
				want = 3 // the default
			}
			for _, step := range []stubStep{stubAnswer(502), stubRefuse()} {
				base := stubScript(step)
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: n}}
				resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err == nil {
					stubText(t, resp)
				} else if got := stubError(t, err).Attempts; got != want {
					t.Errorf("the error says %d attempts, want %d", got, want)
				}
				if got := base.attempts(); got != want {
					t.Errorf("MaxAttempts %d: %d attempts, want %d", n, got, want)
				}
				for i, c := range base.seen() {
					if c.number != i+1 {
						t.Errorf("attempt %d says it is number %d", i+1, c.number)
					}
				}
			}
		})
	}
}

func TestExhaustionReturnsTheLastResponseWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var earlier []*stubBody
		n := 0
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			n++
			resp := stubResponse(503, "")
			body := newStubBody(strings.Repeat("x", n))
			earlier = append(earlier, body)
			resp.Body = body
			return resp, nil
		})
		rt := &ampauth.RetryTransport{Base: base}
		req := stubRequest(t.Context(), ampauth.SafeOperation, nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		last := earlier[2]
		if last.read.Load() != 0 || last.closed.Load() != 0 {
			t.Error("the last body was touched")
		}
		if text := stubText(t, resp); text != "xxx" {
			t.Errorf("the body is %q, want that of the third answer", text)
		}
		if resp.Request != req {
			t.Error("the response's request is not the caller's")
		}
		for i, body := range earlier {
			if n := body.closed.Load(); n != 1 {
				t.Errorf("body %d was closed %d times, want once", i+1, n)
			}
		}
	})
}

func TestExhaustionByErrorsReturnsTheLastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(502), stubBreak(io.EOF), stubBreak(errStubReset))}
		resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		e := stubError(t, err)
		if resp != nil || !errors.Is(err, errStubReset) || errors.Is(err, io.EOF) || e.Attempts != 3 || e.Op != "request" {
			t.Errorf("got (%v, %v), want the last error after 3 attempts", resp, err)
		}
	})
}

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

func TestWithoutRetryThereIsOneAttempt(t *testing.T) {
	for _, step := range []stubStep{stubAnswer(503), stubAnswer(429), stubRefuse()} {
		base := stubScript(step)
		ctx := ampauth.WithoutRetry(t.Context())
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if err == nil {
			stubText(t, resp)
		}
		if base.attempts() != 1 {
			t.Errorf("%d attempts, want 1", base.attempts())
		}
	}
}

// stubHeaderLayer is a layer of somebody else's: it copies the request.
func stubHeaderLayer(base http.RoundTripper) http.RoundTripper {
	return stubLayer(func(req *http.Request) (*http.Response, error) {
		copied := req.Clone(req.Context())
		copied.Header.Set("X-Layer", "1")
		return base.RoundTrip(copied)
	})
}

type stubLayer func(*http.Request) (*http.Response, error)

func (f stubLayer) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestStackedRetryTransportsDoNotMultiply(t *testing.T) {
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
	auth := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
	}
	retry := func(base http.RoundTripper) http.RoundTripper { return &ampauth.RetryTransport{Base: base} }
	stacks := map[string]func(http.RoundTripper) http.RoundTripper{
		"retry over retry": func(b http.RoundTripper) http.RoundTripper { return retry(retry(b)) },
		"three":            func(b http.RoundTripper) http.RoundTripper { return retry(retry(retry(b))) },
		"retry over auth over retry": func(b http.RoundTripper) http.RoundTripper {
			return retry(auth(retry(b)))
		},
		"auth over retry over retry": func(b http.RoundTripper) http.RoundTripper { return auth(retry(retry(b))) },
		"retry over auth":            func(b http.RoundTripper) http.RoundTripper { return retry(auth(b)) },
		"auth over retry":            func(b http.RoundTripper) http.RoundTripper { return auth(retry(b)) },
		"with a layer between": func(b http.RoundTripper) http.RoundTripper {
			return retry(stubHeaderLayer(auth(stubHeaderLayer(retry(b)))))
		},
	}
	for name, stack := range stacks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, step := range []stubStep{stubAnswer(503), stubRefuse()} {
					base := stubScript(step)
					resp, err := stack(base).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
					if err == nil {
						stubText(t, resp)
					} else if n := stubError(t, err).Attempts; n != 3 || !errors.Is(err, errStubDial) {
						t.Errorf("got %v, want the dial error after 3 attempts", err)
					}
					if base.attempts() != 3 {
						t.Errorf("%d attempts, want 3", base.attempts())
					}
				}
				base := stubScript(stubBreak(io.EOF))
				_, err := stack(base).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
				if !errors.Is(err, ampauth.ErrAmbiguous) || base.attempts() != 1 {
					t.Errorf("a mutation ended in %v after %d attempts", err, base.attempts())
				}
			})
		})
	}
}

func TestFaultsOfTheTransportBelowAreOneClearError(t *testing.T) {
	auth := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("token")), Origin: "https://api.test"}
	}
	nothing := func(req *http.Request) (*http.Response, error) {
		stubUse(req)
		return nil, nil
	}
	for name, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
		"below the RetryTransport": func(b http.RoundTripper) http.RoundTripper { return b },
		"below an AuthTransport":   auth,
	} {
		t.Run("nothing returned, "+name, func(t *testing.T) {
			for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
				base := stubScript(nothing)
				resp, err := (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), op, []byte("x")))
				e := stubError(t, err)
				if resp != nil || base.attempts() != 1 || e.Attempts != 1 {
					t.Errorf("%v: got (%v, %v) after %d attempts, the error says %d; want one attempt", op, resp, err, base.attempts(), e.Attempts)
				}
				// Nobody knows what became of it.
				if errors.Is(err, ampauth.ErrAmbiguous) != (op == ampauth.MutatingOperation) {
					t.Errorf("%v: %v says the wrong thing about being ambiguous", op, err)
				}
			}
		})
		t.Run("response and error, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := newStubBody("x")
				base := stubScript(func(*http.Request) (*http.Response, error) {
					resp := stubResponse(200, "")
					resp.Body = body
					return resp, io.ErrUnexpectedEOF
				})
				resp, err := (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
				if resp != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got (%v, %v), want only the error", resp, err)
				}
				if n := body.closed.Load(); n != 1 {
					t.Errorf("the body was closed %d times, want once", n)
				}
			})
		})
		t.Run("no body, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bare := func(status int) stubStep {
					return func(req *http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: status, Header: http.Header{}}, nil
					}
				}
				rt := &ampauth.RetryTransport{Base: wrap(stubScript(bare(503), bare(200)))}
				resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err != nil || resp.StatusCode != 200 || resp.Body == nil {
					t.Fatalf("got (%v, %v), want a 200 with a body", resp, err)
				}
				if text := stubText(t, resp); text != "" {
					t.Errorf("the body is %q", text)
				}
			})
		})
		t.Run("panic, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var attempt context.Context
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					attempt = req.Context()
					panic("boom")
				})
				defer func() {
					if v := recover(); v != "boom" {
						t.Errorf("recovered %v, want the panic as it was", v)
					}
					if attempt.Err() == nil {
						t.Error("the attempt's context lives on")
					}
				}()
				_, _ = (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
			})
		})
	}
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	for name, spoil := range map[string]func(*http.Request){
		"no URL":    func(r *http.Request) { r.URL = nil },
		"no header": func(r *http.Request) { r.Header = nil },
	} {
		t.Run(name, func(t *testing.T) {
			body := newStubBody("x")
			req := stubRequest(t.Context(), ampauth.SafeOperation, body)
			spoil(req)
			base := stubScript(stubAnswer(200))
			_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
			if e := stubError(t, err); e.Outcome != ampauth.NotSent || base.attempts() != 0 || body.closed.Load() != 1 {
				t.Errorf("got %v (%v), %d attempts, body closed %d times; want NotSent, 0, once", err, e.Outcome, base.attempts(), body.closed.Load())
			}
		})
	}
}

func TestFaultyConfigurationIsOneClearError(t *testing.T) {
	body := newStubBody("x")
	base := stubScript(stubAnswer(200))
	rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: -1, BaseDelay: -1}}
	_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, body))
	if !errors.Is(err, ampauth.ErrConfig) || base.attempts() != 0 || body.closed.Load() != 1 {
		t.Errorf("got %v, %d attempts, body closed %d times; want ErrConfig, 0, once", err, base.attempts(), body.closed.Load())
	}
	for _, field := range []string{"MaxAttempts", "BaseDelay"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestCallersRequestIsTheSameAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(429), stubAnswer(429), stubAnswer(200))
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("payload"))
		req.Header.Set("X-Caller", "1")
		header, body, url, host := req.Header.Clone(), req.Body, *req.URL, req.Host
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if req.Body != body || req.GetBody == nil || req.ContentLength != 7 || *req.URL != url || req.Host != host || len(req.Header) != len(header) {
			t.Error("the caller's request was changed")
		}
		if resp.Request != req {
			t.Error("the response's request is not the caller's")
		}
		if _, ok := ampauth.AttemptFromContext(req.Context()); ok {
			t.Error("the caller's request carries an attempt")
		}
		for i, c := range base.seen() {
			if c.request == req {
				t.Errorf("attempt %d got the caller's request itself", i+1)
			}
		}
	})
}

func TestExpectationThatFailsIsDroppedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expected []string
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			expected = append(expected, req.Header.Get("Expect"))
			if req.Header.Get("Expect") != "" {
				return stubAnswer(417)(req)
			}
			return stubAnswer(200)(req)
		})
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))
		req.Header.Set("Expect", "100-continue")
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, req); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
		if len(expected) != 2 || expected[0] != "100-continue" || expected[1] != "" {
			t.Errorf("the attempts expected %q", expected)
		}
		if req.Header.Get("Expect") != "100-continue" {
			t.Error("the caller's header was changed")
		}
	})
}

// Once the server has said that it does not take Expect, no later attempt has it.
func TestExpectationStaysDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(417), stubAnswer(425), stubAnswer(200))
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))
		req.Header.Set("Expect", "100-continue")
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, req); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
		for i, c := range base.seen() {
			if got := c.request.Header.Get("Expect"); (got != "") != (i == 0) {
				t.Errorf("attempt %d has Expect %q", i+1, got)
			}
		}
	})
}

// RFC 9110 10.1.1, over a real connection: what the server has not asked for, it is
// not sent; what it has asked for may have been performed.
func TestExpectationsOnTheWire(t *testing.T) {
	unread := hostile.ReadAfter // the server answers in place of a 100
	for _, test := range []struct {
		name   string
		first  hostile.Step
		status int // 0: ErrAmbiguous
		length int64
		expect bool // on the second attempt
	}{
		{"417", hostile.Step{Status: 417, Upload: unread, Close: true}, 200, 0, false},
		{"429", hostile.Step{Status: 429, Upload: unread, Close: true}, 200, 0, true},
		{"401", hostile.Step{Status: 401, Upload: unread, Close: true}, 200, 0, true},
		{"100, then a reset", hostile.Step{Perform: true, Do: hostile.Reset}, 0, 7, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(test.first, hostile.Step{Perform: true}))
			defer s.Close()
			base := stubPooled(t)
			base.ExpectContinueTimeout = time.Hour
			auth := &ampauth.AuthTransport{Base: base, Source: new(stubRenewing), Origin: s.URL()}
			req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("payload"))
			req.Header.Set("Expect", "100-continue")
			resp, err := (&ampauth.RetryTransport{Base: auth, Retry: stubQuick}).RoundTrip(req)
			if err == nil {
				stubText(t, resp)
			}
			s.Close()
			log := s.Log()
			if log[0].Length != test.length {
				t.Errorf("the first attempt brought %d bytes, want %d", log[0].Length, test.length)
			}
			if test.status == 0 {
				if !errors.Is(err, ampauth.ErrAmbiguous) || len(log) != 1 {
					t.Errorf("got %v after %d requests, want ErrAmbiguous after one", err, len(log))
				}
				return
			}
			if err != nil || resp.StatusCode != test.status || len(log) != 2 {
				t.Fatalf("got (%v, %v) after %d requests, want %d after 2", resp, err, len(log), test.status)
			}
			if e := log[1]; e.Length != 7 || !e.Performed || (e.Header.Get("Expect") != "") != test.expect {
				t.Errorf("the second attempt: %v, %d bytes, Expect %q", e, e.Length, e.Header.Get("Expect"))
			}
		})
	}
}

func TestAttemptsAreLoggedWithoutWhatTheyCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503, "X-Answer", "canary-answer"), stubRefuse(), stubAnswer(503)), Logger: logger}
		req := stubRequestTo(t.Context(), "https://user:canary-userinfo@api.test/thing?secret=canary-query#canary-fragment", ampauth.SafeOperation, []byte("canary-body"))
		req.Header.Set("Authorization", "token canary-token")
		req.Header.Set("Cookie", "canary-cookie")
		stubStatus(t, rt, req)
		text := log.String()
		if strings.Contains(text, "canary") {
			t.Errorf("the log shows what it must not:\n%s", text)
		}
		if n := strings.Count(text, `"msg":"ampauth: attempt"`); n != 3 {
			t.Errorf("%d records of attempts, want 3:\n%s", n, text)
		}
		if n := strings.Count(text, `"level":"WARN"`); n != 1 {
			t.Errorf("%d warnings, want one of the exhaustion:\n%s", n, text)
		}
		for _, want := range []string{`"url.path":"/thing"`, `"http.response.status_code":503`, `"outcome":"Answered"`, `"outcome":"NotSent"`, `"attempt":3`, `"server.address":"api.test"`} {
			if !strings.Contains(text, want) {
				t.Errorf("the log lacks %s:\n%s", want, text)
			}
		}
	})
}

func TestNothingIsWarnedOfWhenARetryHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503), stubAnswer(200)), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if log.Len() != 0 {
			t.Errorf("logged at info and above:\n%s", log.String())
		}
	})
}

func TestErrorsOfExhaustionShowNothingTheyCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []stubStep{stubRefuse(), stubBreak(io.EOF), stubStall(), stubAnswer(503)} {
			for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				req := stubRequestTo(ctx, "https://user:canary@api.test/thing?secret=canary", op, []byte("canary"))
				req.Header.Set("Authorization", "token canary")
				resp, err := (&ampauth.RetryTransport{Base: stubScript(step)}).RoundTrip(req)
				if err == nil {
					stubText(t, resp)
				} else if strings.Contains(err.Error(), "canary") || !strings.HasPrefix(err.Error(), "ampauth: ") || strings.Count(err.Error(), "ampauth: ") != 1 {
					t.Errorf("the text is %q", err)
				}
				cancel()
			}
		}
	})
}

// stubbedClient is a Client over a base that answers logins by itself.
func stubbedClient(t *testing.T, cfg ampauth.Config, base http.RoundTripper) *ampauth.Client {
	t.Helper()
	cfg.BaseURL = "https://api.test/api"
	cfg.Credentials = ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")}
	cfg.HTTPClient = &http.Client{Transport: stubLayer(func(req *http.Request) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/user/obtain_token") {
			stubUse(req)
			return stubResponse(200, `{"token":"0123456789"}`), nil
		}
		return base.RoundTrip(req)
	})}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestStatsCountRetriesByTheirReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubRefuse(), stubAnswer(421), stubAnswer(429, "Retry-After", "1"), stubAnswer(503), stubAnswer(500), stubStall(), stubBreak(io.EOF), stubAnswer(200))
		client := stubbedClient(t, ampauth.Config{Retry: ampauth.RetryConfig{MaxAttempts: 10}}, base)
		defer client.Close()
		start := time.Now()
		resp, err := client.Do(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		stats := client.Stats()
		want := ampauth.RetryStats{NotSent: 1, Unprocessed: 1, RateLimited: 1, ServerError: 2, Timeout: 1, Broken: 1}
		if stats.Retries != want || stats.Retries.Total() != 7 || stats.Replays != 0 {
			t.Errorf("counted %+v, want %+v", stats.Retries, want)
		}
		if took := time.Since(start) - 10*time.Second; stats.Waits != 7 || stats.Waited != took {
			t.Errorf("counted %d waits of %v, want 7 of %v", stats.Waits, stats.Waited, took)
		}
	})
}

func TestStatsCountOnlyWhatWasWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stubbedClient(t, ampauth.Config{}, stubScript(stubAnswer(429, "Retry-After", "60")))
		defer client.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := client.Do(stubRequest(ctx, ampauth.SafeOperation, nil))
		if stats := client.Stats(); !errors.Is(err, context.Canceled) || stats.Waits != 1 || stats.Waited != time.Second {
			t.Errorf("%v; counted %d waits of %v, want 1 of the second until the caller left", err, stats.Waits, stats.Waited)
		}
	})
}

func TestStatsOfAQuietClientAreZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stubbedClient(t, ampauth.Config{}, stubScript(stubAnswer(503)))
		defer client.Close()
		resp, err := client.Do(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		if stats := client.Stats(); stats != (ampauth.Stats{Obtains: 1}) {
			t.Errorf("counted %+v of one request that was not repeated", stats)
		}
	})
}

func TestRetryDoesNotRepeatAMutationWhoseAnswerBreaks(t *testing.T) {
	for name, answered := range map[string]func(ctx context.Context) (*http.Response, error){
		"stalled 200": func(ctx context.Context) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: untilDone{ctx}}, nil
		},
		"broken 500": func(context.Context) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Header: http.Header{}, ContentLength: 9, Body: io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))}, nil
		},
	} {
		for clock, cfg := range map[string]ampauth.RetryConfig{"of Retry": {}, "of the transport": {Timeout: -1}} {
			t.Run(name+", clock "+clock, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					effects := 0
					rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						effects++
						_ = req.Body.Close()
						return answered(req.Context())
					})}
					_, err := ampauth.Retry(t.Context(), cfg, func(ctx context.Context) ([]byte, error) {
						req, _ := http.NewRequestWithContext(ctx, "POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
						resp, err := rt.RoundTrip(req)
						if err != nil {
							return nil, err
						}
						defer resp.Body.Close()
						return io.ReadAll(resp.Body)
					})
					if err == nil || effects != 1 {
						t.Errorf("%d effects, %v; want one and an error", effects, err)
					}
				})
			})
		}
	}
}

// untilDone is a body that stalls until its request's context ends.
type untilDone struct{ ctx context.Context }

func (b untilDone) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }
func (b untilDone) Close() error             { return nil }

func TestMutationOfALayerBelowIsMaskedOnItsOwnAccount(t *testing.T) {
	masked := false
	inner := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		masked = req.Method == "POST" && req.GetBody == nil && req.Body != nil
		return answer(200, "", ""), nil
	})}
	outer := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		post, _ := http.NewRequestWithContext(req.Context(), "POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
		return inner.RoundTrip(post)
	})}
	req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
	if _, err := outer.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if !masked {
		t.Error("the layer's mutation went out as net/http may repeat it")
	}
}

func TestMaskOutlivesALayerThatMakesTheBodyAnew(t *testing.T) {
	var sent *http.Request
	auth := authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		return answer(200, "", ""), nil
	}))
	signing := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		clone := req.Clone(req.Context())
		clone.Body = io.NopCloser(strings.NewReader("signed"))
		clone.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("signed")), nil }
		return auth.RoundTrip(clone)
	})
	req, _ := http.NewRequest("POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
	if _, err := (&ampauth.RetryTransport{Base: signing}).RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if sent.GetBody != nil || sent.Body == nil {
		t.Error("GetBody is back: net/http may repeat the mutation")
	}
}

func TestDetourLeavesNoDoubt(t *testing.T) {
	url, base := stubBothProtocols(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(421) })
	dial, dials := base.DialContext, 0
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials > 1 { // that of the 421
			return nil, errStubDial
		}
		return dial(ctx, network, address)
	}
	_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
	if e := stubError(t, err); e.Outcome == ampauth.Ambiguous || e.Attempts != 3 || dials < 3 {
		t.Errorf("got %v (%v) after %d dials, yet nothing is in doubt", err, e.Outcome, dials)
	}
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

func TestReplayThatIsNotSentLeavesNoDoubt(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.IdempotentOperation, ampauth.MutatingOperation} {
		base := stubScript(stubAnswer(401), stubRefuse())
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"}, Retry: stubQuick}
		_, err := rt.RoundTrip(stubRequest(t.Context(), op, []byte("x")))
		if e := stubError(t, err); e.Outcome == ampauth.Ambiguous || errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("%v: got %v (%v), yet nothing is in doubt", op, err, e.Outcome)
		}
	}
}

func TestRefusalThatALayerMadeGoodIsNoRefusal(t *testing.T) {
	base := stubScript(stubAnswer(401))
	auth := &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"}
	cache := stubLayer(func(req *http.Request) (*http.Response, error) {
		resp, err := auth.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		stubText(t, resp)
		return stubResponse(200, "from the cache"), nil
	})
	resp, err := (&ampauth.RetryTransport{Base: cache}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if err != nil || resp.StatusCode != 200 || stubText(t, resp) != "from the cache" || base.attempts() != 1 {
		t.Errorf("got (%v, %v) after %d attempts, want the layer's 200 after 1", resp, err, base.attempts())
	}
}

func TestNotSentOfAnotherRequestIsNoProof(t *testing.T) {
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		stubConnect(req, true)
		stubUse(req)
		// It broke; and what the layer then sends instead, has no token.
		return nil, &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.NotSent}
	})
	_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || !errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("got %v (%v), want it ambiguous", err, e.Outcome)
	}
}

func TestCallerWhoLeavesAfterTheClockLearnsItOfHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		slow := stubLayer(func(req *http.Request) (*http.Response, error) {
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

func TestFaultsThatNoRepetitionChangesAreNotRepeated(t *testing.T) {
	for _, kind := range []error{ampauth.ErrConfig, ampauth.ErrClosed} {
		base := stubScript(stubFail(fmt.Errorf("a layer: %w", kind)))
		_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if !errors.Is(err, kind) || base.attempts() != 1 {
			t.Errorf("got %v after %d attempts, want %v after 1", err, base.attempts(), kind)
		}
	}
}

func TestRepeatOfALayerThatMustGoAnotherWayIsNoProof(t *testing.T) {
	s := hostile.New(hostile.HTTP2, hostile.Sequence(hostile.Step{Perform: true}))
	defer s.Close()
	base := stubPooled(t)
	base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
	auth := &ampauth.AuthTransport{Base: base, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("t")), Origin: s.URL()}
	calls := 0
	layer := stubLayer(func(req *http.Request) (*http.Response, error) {
		calls++
		stubConnect(req, true) // over its own connection, which broke
		return auth.RoundTrip(req)
	})
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
	if !errors.Is(err, ampauth.ErrAmbiguous) || calls != 1 || s.Requests() != 0 {
		t.Errorf("got %v after %d calls with %d requests, want it ambiguous after 1", err, calls, s.Requests())
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

func TestSingleAttemptIsNoExhaustion(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{
		Base: stubScript(stubAnswer(503)), Retry: ampauth.RetryConfig{MaxAttempts: 1},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if log.Len() > 0 {
		t.Errorf("warned of retries that were not wanted: %s", &log)
	}
}

func TestLimiterBeyondTheDeadlineGivesTheResponseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503)), Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}
		start := time.Now()
		status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 503 || took != 0 {
			t.Errorf("status %d after %v, want the 503 at once", status, took)
		}
	})
}

func TestRefusedTokenIsRenewedEvenIfTheBodyCannotBeSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renewals := 0
		source := tokenThatIsRenewed()
		source.renewed = func() (ampauth.Token, error) { renewals++; return oneToken("new") }
		base := stubScript(stubAnswer(401))
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
		status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, newStubBody("x")))
		synctest.Wait()
		if status != 401 || base.attempts() != 1 || renewals != 1 {
			t.Errorf("status %d after %d attempts and %d renewals, want 401 after one of each", status, base.attempts(), renewals)
		}
	})
}

func TestShortRefusalIsClosedBeforeTheRenewal(t *testing.T) {
	for _, works := range []bool{true, false} {
		refusal := newStubBody("no")
		source := tokenThatIsRenewed()
		source.renewed = func() (ampauth.Token, error) {
			if n := refusal.closed.Load(); n != 1 {
				t.Errorf("the refusal was closed %d times before the renewal, want once", n)
			}
			if !works {
				return ampauth.Token{}, io.EOF
			}
			return oneToken("new")
		}
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Header: http.Header{}, ContentLength: 2, Body: refusal}, nil
		}, stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if n := refusal.closed.Load(); n != 1 {
			t.Errorf("the refusal was closed %d times, want once", n)
		}
	}
}

func TestRenewalWithoutAnUsableTokenIsNoReplay(t *testing.T) {
	for name, renewed := range map[string]func() (ampauth.Token, error){
		"the same token": func() (ampauth.Token, error) { return oneToken("old") },
		"an ended token": func() (ampauth.Token, error) {
			token, err := oneToken("new")
			token.ExpiresAt = time.Now().Add(-time.Hour)
			return token, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := tokenThatIsRenewed()
			source.renewed = renewed
			base := stubScript(stubAnswer(401))
			rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
			status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, nil))
			if status != 401 || base.attempts() != 1 {
				t.Errorf("status %d after %d attempts, want the 401 after 1", status, base.attempts())
			}
		})
	}
}

func TestRefusalIsNotLostToAGateThatShutsDuringTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		base := stubScript(stubAnswer(401), stubAnswer(429, "Retry-After", "30"), stubAnswer(200))
		source := tokenThatIsRenewed()
		rt := &ampauth.RetryTransport{}
		source.renewed = func() (ampauth.Token, error) {
			if status := stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(context.Background()), ampauth.SafeOperation, nil)); status != 429 {
				t.Errorf("status %d of another request, want 429", status)
			}
			return oneToken("new")
		}
		rt.Base = &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
		start := time.Now()
		status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 401 || took != 0 {
			t.Errorf("status %d after %v, want the 401 at once", status, took)
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

func TestDoubtfulErrorOfOursFromBelowIsAmbiguousForAMutation(t *testing.T) {
	base := stubScript(stubBreak(&ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Err: io.EOF}))
	_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); !errors.Is(err, ampauth.ErrAmbiguous) || e.Attempts != 1 {
		t.Errorf("got %v, want it ambiguous after 1 attempt", err)
	}
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

func TestAttemptIsLoggedWithoutWhatItsErrorQuotes(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{
		Base: stubScript(stubFail(errors.New(`a layer read "hunter2"`))), Retry: stubQuick,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if text := log.String(); !strings.Contains(text, "a layer read") || strings.Contains(text, "hunter2") {
		t.Errorf("the log tells %s", text)
	}
}

func TestCallerWhoLeavesDuringTheRenewalIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		refusal := &stubBody{Reader: strings.NewReader(strings.Repeat("x", 1<<20))}
		source := tokenThatIsRenewed()
		source.renewed = func() (ampauth.Token, error) { cancel(); return ampauth.Token{}, ctx.Err() }
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
