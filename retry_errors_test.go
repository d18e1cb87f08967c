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
		"dial":            stubScript(stubUnconnected(&net.OpError{Op: "dial", Net: "tcp", Err: stubNetError{timeout: true}})),
	}
}

func TestTimeoutsAreToldAsNetHTTPTellsThem(t *testing.T) {
	for name, base := range timeouts(t) {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			plain := (&http.Client{Transport: roundTripFunc(base.RoundTrip)})
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
		{"503, then the deadline", []stubStep{stubAnswer(503), stubStall()}, 5 * time.Second, nil, "before that: HTTP 503 Service Unavailable"},
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
