package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
)

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

func TestFaultsThatNoRepetitionChangesAreNotRepeated(t *testing.T) {
	for _, kind := range []error{ampauth.ErrConfig, ampauth.ErrClosed} {
		base := stubScript(stubFail(fmt.Errorf("a layer: %w", kind)))
		_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if !errors.Is(err, kind) || base.attempts() != 1 {
			t.Errorf("got %v after %d attempts, want %v after 1", err, base.attempts(), kind)
		}
	}
}
