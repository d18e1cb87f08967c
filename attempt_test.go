package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

func TestAttemptIsKnownToLayersBelowOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var below []int
		transport := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			// A layer in between may derive contexts of its own.
			n, ok := ampauth.AttemptFromContext(context.WithValue(req.Context(), key{}, 1))
			if !ok {
				t.Error("the attempt is not known below")
			}
			below = append(below, n)
			if n < 3 {
				return nil, errors.New("broken")
			}
			return stubResponse(200, ""), nil
		})}
		req := requestOf(t, "GET", "https://amp.test/api/assets")
		for _, ctx := range []context.Context{req.Context(), ampauth.WithOperation(req.Context(), safe), ampauth.WithoutRetry(req.Context())} {
			if n, ok := ampauth.AttemptFromContext(ctx); ok || n != 0 {
				t.Errorf("above it is attempt %d, %t", n, ok)
			}
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if len(below) != 3 || below[0] != 1 || below[1] != 2 || below[2] != 3 {
			t.Errorf("the layer below saw the attempts %v, want 1, 2, 3", below)
		}
		if _, ok := ampauth.AttemptFromContext(resp.Request.Context()); ok {
			t.Error("the response's request, which is the caller's, has an attempt")
		}
	})
}

func TestFailedAttemptsAreReleased(t *testing.T) {
	for name, step := range map[string]stubStep{"errors": stubRefuse(), "responses": stubAnswer(503)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(step)
				resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err == nil {
					stubText(t, resp)
				}
				for i, c := range base.seen() {
					if c.request.Context().Err() == nil {
						t.Errorf("the context of attempt %d lives on", i+1)
					}
				}
			})
		})
	}
}

func TestEarlierAttemptsAreReleasedBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503, "Retry-After", "30"), stubAnswer(200))
		time.AfterFunc(time.Second, func() {
			if calls := base.seen(); len(calls) != 1 || calls[0].request.Context().Err() == nil {
				t.Error("during the wait the first attempt's context lives on")
			}
		})
		stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	})
}

func TestSwitchedProtocolOutlivesTheClock(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		ping := make([]byte, 4)
		_, _ = io.ReadFull(buffered, ping)
		_, _ = conn.Write(ping)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			attempt := t.Context()
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: time.Second, MutationTimeout: time.Second}}
			if op == ampauth.SafeOperation {
				rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					attempt = req.Context()
					return base.RoundTrip(req)
				})
			}
			req := stubRequestTo(t.Context(), url, op, nil)
			req.Header.Set("Connection", "upgrade")
			req.Header.Set("Upgrade", "echo")
			resp, err := rt.RoundTrip(req)
			if err != nil || resp.StatusCode != 101 {
				t.Fatalf("%v: got (%v, %v), want 101", op, resp, err)
			}
			time.Sleep(time.Minute)
			if attempt.Err() != nil {
				t.Errorf("%v: the context ended: %v", op, context.Cause(attempt))
			}
			both, ok := resp.Body.(io.ReadWriteCloser)
			if !ok {
				t.Fatalf("%v: the body is %T and cannot be written to", op, resp.Body)
			}
			buffer := make([]byte, 4)
			if _, err := io.WriteString(both, "ping"); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(both, buffer); err != nil || string(buffer) != "ping" {
				t.Errorf("%v: the echo is %q, %v", op, buffer, err)
			}
			_ = both.Close()
		}
	})
}

func TestClosedSwitchedProtocolReleasesItsAttempt(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	var attempt context.Context
	rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		attempt = req.Context()
		return &http.Response{StatusCode: 101, Header: http.Header{}, Body: here}, nil
	})}
	resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err != nil {
		t.Fatal(err)
	}
	if attempt.Err() != nil {
		t.Errorf("the context ended before the connection: %v", attempt.Err())
	}
	_ = resp.Body.Close()
	if attempt.Err() == nil {
		t.Error("the context of the attempt outlives its connection")
	}
}
