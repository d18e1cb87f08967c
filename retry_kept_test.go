package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/memnet"
)

// What the caller gets when the limiter ends the call is the answer as it came, however
// long that waited.
func TestLastAnswerIsWholeWhenTheLimiterEndsTheCall(t *testing.T) {
	later := func(context.Context) error { time.Sleep(time.Hour); return errFleet }
	for _, status := range []int{503, 429, 401} {
		for name, size := range map[string]int{"small": 20, "as much as is read ahead": 64 << 10, "large": 200 << 10} {
			t.Run(fmt.Sprintf("%d, %s", status, name), func(t *testing.T) {
				content := strings.Repeat("r", size)
				requests := 0
				stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					requests++
					w.Header().Set("X-Reason", "busy")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, content)
				}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
					auth := &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: url}
					rt := &ampauth.RetryTransport{Base: auth, Retry: stubNoWait, Limiter: limiterScript(passing, later)}
					op := ampauth.MutatingOperation
					if status == 503 {
						op = ampauth.IdempotentOperation
					}
					resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, op, []byte("x")))
					if err != nil {
						t.Fatalf("the answer is lost: %v", err)
					}
					if resp.StatusCode != status || resp.Header.Get("X-Reason") != "busy" || requests == 0 {
						t.Errorf("status %d with %v after %d requests", resp.StatusCode, resp.Header, requests)
					}
					if text := stubText(t, resp); text != content {
						t.Errorf("%d bytes of the answer, want %d", len(text), size)
					}
				})
			})
		}
	}
}

// A refusal that is returned after all was not replayed.
func TestReplayThatTheLimiterStopsIsNotCounted(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		client := w.client(func(c *ampauth.Config) { c.Limiter = limiterScript(passing, failing(errFleet)) })
		w.token(client.Tokens)
		w.Revoke("issuer")
		if status := w.assets(client); status != 401 {
			t.Errorf("status %d, want the refusal", status)
		}
		if s := client.Stats(); s.Replays != 0 || s.Renewals != 1 {
			t.Errorf("%d replays and %d renewals, want none and 1", s.Replays, s.Renewals)
		}
	})
}

func TestConnectionIsFreeWhileTheLimiterIsAsked(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "busy")
		}
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		base.MaxConnsPerHost = 1
		rt := &ampauth.RetryTransport{Base: base, Retry: stubNoWait, Limiter: limiterScript(passing, func(ctx context.Context) error {
			synctest.Wait() // until the connection is back in its pool
			resp, err := base.RoundTrip(stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
			if err == nil {
				stubText(t, resp)
			}
			return err
		})}
		start := time.Now()
		if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)); status != 200 || time.Since(start) > time.Second {
			t.Errorf("status %d after %v", status, time.Since(start))
		}
		if requests != 3 || l.Dials() != 1 {
			t.Errorf("%d requests over %d connections, want 3 over 1", requests, l.Dials())
		}
	})
}

// The time of an attempt goes on when its answer is returned, not while it waits.
func TestLastAnswerThatStallsHasItsTimeWhenTheCallerReads(t *testing.T) {
	stubBubble(t, stubHangs(503), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base, Retry: stubNoWait, Limiter: limiterScript(passing, func(context.Context) error {
			time.Sleep(time.Hour)
			return errFleet
		})}
		resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		content, err := io.ReadAll(resp.Body)
		if e := stubError(t, err); string(content) != "first" || e.Kind != ampauth.ErrTimeout || e.StatusCode != 503 || time.Since(start) != 10*time.Second {
			t.Errorf("read %q, %v after %v; want what there is and a timeout after 10 s", content, err, time.Since(start))
		}
	})
}

func TestStalledAnswerIsClosedWhenTheNextAttemptBegins(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(503)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base, Retry: stubNoWait, Limiter: limiterScript(passing, passingAfter(time.Hour))}
		start := time.Now()
		status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 200 || took != time.Hour+250*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after 250 ms and the hour of the limiter", status, took)
		}
	}) // which fails if the first body is left open
}

// Who leaves is told so, and what the server said last.
func TestCallerWhoLeavesTheLimiterIsToldOfTheLastAnswer(t *testing.T) {
	for name, size := range map[string]int{"read whole": 10, "not read whole": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				answer := newStubBody(strings.Repeat("a", size))
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					stubUse(req)
					stubAnswered(req)
					resp := stubResponse(429, "")
					resp.Body = answer
					return resp, nil
				})
				rt := &ampauth.RetryTransport{Base: base, Retry: stubNoWait, Limiter: limiterScript(passing, passingAfter(time.Hour))}
				time.AfterFunc(time.Minute, cancel)
				start := time.Now()
				_, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, []byte("x")))
				e := stubError(t, err, context.Canceled)
				if e.StatusCode != 429 || e.Outcome != ampauth.Rejected || e.Attempts != 1 || time.Since(start) != time.Minute {
					t.Errorf("got %+v after %v", e, time.Since(start))
				}
				if n := answer.closed.Load(); n != 1 {
					t.Errorf("the answer was closed %d times, want once", n)
				}
			})
		})
	}
}

// There is no answer to return: the error says why there is no other attempt, and how the
// last one ended.
func TestLimiterThatEndsTheCallKeepsTheLastErrorOfAnyLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &ampauth.RetryTransport{Base: stubScript(stubBreak(io.EOF)), Retry: stubNoWait, Limiter: limiterScript(passing, failing(errFleet))}
		_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.IdempotentOperation, []byte("x")))
		e := stubError(t, err, ampauth.ErrRateLimited, errFleet, io.EOF)
		if e.Outcome != ampauth.Ambiguous || e.Attempts != 1 || errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("error is %+v", e)
		}
	})
}

func TestAnswerIsNotLostToAGateThatShutsDuringTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		base := stubScript(stubAnswer(503, "Retry-After", "5"), stubAnswer(429, "Retry-After", "30"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base}
		time.AfterFunc(time.Second, func() {
			stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(context.Background()), ampauth.SafeOperation, nil))
		})
		resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatalf("the answer is lost: %v", err)
		}
		if text := stubText(t, resp); resp.StatusCode != 503 || text != "body of the answer" || base.attempts() != 2 {
			t.Errorf("status %d with %q after %d attempts, want the 503 whole", resp.StatusCode, text, base.attempts())
		}
	})
}

// Without a limiter there is hardly a reason to keep it, and the wait may be long.
func TestAnswerThatIsNotReadWholeIsClosedBeforeTheWaitWithoutALimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := newStubBody(strings.Repeat("a", 100<<10))
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			resp := stubResponse(503, "", "Retry-After", "30")
			resp.Body = answer
			return resp, nil
		}, stubAnswer(200))
		time.AfterFunc(time.Second, func() {
			if answer.closed.Load() != 1 || base.seen()[0].request.Context().Err() == nil {
				t.Error("during the wait the answer is open, or its attempt goes on")
			}
		})
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 {
			t.Errorf("status %d", status)
		}
	})
}

func TestAttemptThatIsNotAdmittedIsLogged(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{
		Base: stubScript(stubAnswer(503)), Retry: stubNoWait, Limiter: limiterScript(passing, failing(errFleet)),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if text := log.String(); !strings.Contains(text, "not admitted") || !strings.Contains(text, "attempts=1\n") {
		t.Errorf("no warning after one attempt:\n%s", text)
	}
}
