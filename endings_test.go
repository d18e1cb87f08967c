package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"golang.org/x/time/rate"
)

// What a caller may build on an error of a call: that it is what net/http's would be,
// and tells all that happened.

// timeouts are errors of layers below that are net.Errors which timed out.
func timeouts(t *testing.T) map[string]http.RoundTripper {
	stalls := hostile.New(hostile.HTTP1TLS, hostile.Script{}.OnConns(hostile.StallInHandshake))
	t.Cleanup(stalls.Close)
	noTLS := stubPooled(t)
	noTLS.TLSHandshakeTimeout = 50 * time.Millisecond
	noTLS.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, stalls.Addr())
	}
	silent := hostile.New(hostile.HTTP1TLS, hostile.Sequence(hostile.Step{Do: hostile.StallHeaders}))
	t.Cleanup(silent.Close)
	noHeader := stubPooled(t)
	noHeader.ResponseHeaderTimeout, noHeader.TLSClientConfig = 50*time.Millisecond, silent.TLSConfig()
	noHeader.TLSClientConfig.InsecureSkipVerify = true
	noHeader.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, silent.Addr())
	}
	return map[string]http.RoundTripper{
		"TLS handshake":   noTLS,
		"response header": noHeader,
		"ETIMEDOUT":       stubScript(stubFail(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ETIMEDOUT})),
		"DNS":             stubScript(stubFail(&net.DNSError{Err: "i/o timeout", Name: "amp.test", IsTimeout: true})),
		"dial":            stubScript(stubUnconnected(&net.OpError{Op: "dial", Net: "tcp", Err: stubTimeout{}})),
	}
}

func TestTimeoutsAreToldAsNetHTTPTellsThem(t *testing.T) {
	for name, base := range timeouts(t) {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			plain := (&http.Client{Transport: stubLayer(base.RoundTrip)})
			_, want := plain.Do(stubRequest(t.Context(), op, []byte("x")))
			client := &http.Client{Transport: &ampauth.RetryTransport{Base: base, Retry: stubQuick}}
			_, got := client.Do(stubRequest(t.Context(), op, []byte("x")))
			wants, has := errors.AsType[net.Error](want.(*url.Error).Err)
			if !has || !want.(*url.Error).Timeout() {
				t.Fatalf("%s: net/http says %v", name, want)
			}
			e, ok := errors.AsType[net.Error](got.(*url.Error).Err)
			if !ok || e.Timeout() != wants.Timeout() || !got.(*url.Error).Timeout() || !stubError(t, got).Timeout() {
				t.Errorf("%s, %v: %v is no timeout", name, op, got)
			}
		}
	}
}

func TestOwnTimeoutIsANetError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			_, err := (&ampauth.RetryTransport{Base: stubScript(stubStall())}).RoundTrip(stubRequest(t.Context(), op, []byte("x")))
			e, ok := errors.AsType[net.Error](err)
			if !ok || !e.Timeout() {
				t.Errorf("%v: %v is no net.Error that timed out", op, err)
			}
		}
	})
}

// A reset after a timeout is a reset.
func TestTimeoutOfAnEarlierAttemptIsNotTheLastOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &ampauth.RetryTransport{Base: stubScript(stubStall(), stubStall(), stubBreak(errStubReset))}
		_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if e := stubError(t, err); e.Timeout() || !errors.Is(err, errStubReset) {
			t.Errorf("%v says that its time ran out", err)
		}
	})
}

func TestEarlierAttemptIsToldWhenTheTimeRunsOut(t *testing.T) {
	for _, test := range []struct {
		name    string
		steps   []stubStep
		ctx     time.Duration // 0: the attempt's own clock
		earlier error
		says    string
	}{
		{"EOF, then the deadline", []stubStep{stubBreak(io.EOF), stubStall()}, 5 * time.Second, io.EOF, "before that: EOF"},
		{"EOF, then the attempts' clock", []stubStep{stubBreak(io.EOF), stubStall()}, 0, io.EOF, "before that: EOF"},
		{"EOF, a refused dial, then the deadline", []stubStep{stubBreak(io.EOF), stubRefuse(), stubStall()}, 8 * time.Second, io.EOF, "before that: EOF"},
		{"EOF, 503, then the deadline", []stubStep{stubBreak(io.EOF), stubAnswer(503), stubStall()}, 8 * time.Second, io.EOF, "before that: EOF"},
		{"503, then the deadline", []stubStep{stubAnswer(503), stubStall()}, 5 * time.Second, nil, "before that: request failed: HTTP 503 Service Unavailable"},
		{"EOF, then the deadline in the wait", []stubStep{stubBreak(io.EOF), stubAnswer(503, "Retry-After", "3")}, 4 * time.Second, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.ctx)
					defer cancel()
				}
				rt := &ampauth.RetryTransport{Base: stubScript(test.steps...)}
				resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
				if test.says == "" {
					if err != nil || resp.StatusCode != 503 {
						t.Errorf("got %v, %v, want the answer", resp, err)
					}
					return
				}
				if !errors.Is(err, context.DeadlineExceeded) || test.earlier != nil && !errors.Is(err, test.earlier) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%v does not say %q", err, test.says)
				}
				if strings.Count(err.Error(), "before that") != 1 {
					t.Errorf("%v tells it twice", err)
				}
			})
		})
	}
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

// Retryable that says no is a verdict, whatever else the error is.
func TestRetryHeedsAnErrorThatIsNotRetryable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{
			&verdictOf{&ampauth.Error{Kind: ampauth.ErrTimeout}, false},
			&verdictOf{stubTimeout{}, false},
			&ampauth.Error{Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent, Err: &verdictOf{io.EOF, false}},
		} {
			calls := 0
			_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) { calls++; return 0, err })
			if calls != 1 {
				t.Errorf("%v was tried %d times", err, calls)
			}
		}
		calls := 0
		_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
			calls++
			<-ctx.Done() // Retry's own clock
			return 0, &verdictOf{ctx.Err(), false}
		})
		if calls != 1 {
			t.Errorf("tried %d times", calls)
		}
	})
}

type verdictOf struct {
	error
	again bool
}

func (v *verdictOf) Retryable() bool { return v.again }
func (v *verdictOf) Unwrap() error   { return v.error }

// The answer to a read that breaks off is read again, as one that stalls is; that to a
// mutation is not.
func TestRetryRepeatsAReadWhoseAnswerBreaksOff(t *testing.T) {
	for _, do := range []hostile.Action{hostile.CutBody, hostile.TruncatedChunk, hostile.StallBody} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: do}, hostile.Step{Body: "whole"}))
			cfg := stubQuick
			cfg.Timeout, cfg.MutationTimeout = 200*time.Millisecond, 200*time.Millisecond
			rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: cfg}
			text, err := ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (string, error) {
				resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), op, []byte("x")))
				if err != nil {
					return "", err
				}
				defer resp.Body.Close()
				content, err := io.ReadAll(resp.Body)
				return string(content), err
			})
			if safe := op == ampauth.SafeOperation; safe && text != "whole" || !safe && (err == nil || len(s.Log()) != 1) {
				t.Errorf("%v, %v: %q, %v after %d requests", do, op, text, err, len(s.Log()))
			}
			s.Close()
		}
	}
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
	if text := err.Error(); strings.Contains(text, "context deadline exceeded") || !strings.Contains(text, "the wait would end after the deadline") {
		t.Errorf("%q is said of a context that is alive", text)
	}
}
