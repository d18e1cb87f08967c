package ampauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

// refusingProxy runs a test behind a proxy that answers CONNECT with a status line and
// canaries, and counts.
func refusingProxy(t *testing.T, status string, test func(t *testing.T, base *http.Transport, connects *atomic.Int32)) {
	t.Helper()
	var connects atomic.Int32
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("the proxy was sent a %s", r.Method)
		}
		connects.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nProxy-Authenticate: Basic realm=canary\r\nContent-Length: 6\r\n\r\ncanary", status)
		_ = conn.Close()
	}, func(t *testing.T, _ string, _ *memnet.Listener, base *http.Transport) {
		base.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.test:3128"})
		test(t, base, &connects)
	})
}

func TestProxysRefusalIsFinalUnlessItIsTransient(t *testing.T) {
	for status, connects := range map[string]int32{
		"407 Proxy Authentication Required": 1,
		"403 Forbidden":                     1,
		"400 Bad Request":                   1,
		"404 Not Found":                     1,
		"451 Unavailable For Legal Reasons": 1,
		"408 Request Timeout":               3,
		"425 Too Early":                     3,
		"429 Too Many Requests":             3,
		"500 Internal Server Error":         3,
		"501 Not Implemented":               3,
		"502 Bad Gateway":                   3,
		"503 Service Unavailable":           3,
	} {
		for _, op := range []ampauth.Operation{safe, idempotent, mutating} {
			t.Run(status[:3]+"/"+op.String(), func(t *testing.T) {
				refusingProxy(t, status, func(t *testing.T, base *http.Transport, seen *atomic.Int32) {
					rt := &ampauth.RetryTransport{Base: base}
					_, err := rt.RoundTrip(stubRequest(t.Context(), op, []byte("payload")))
					e := stubError(t, err, ampauth.ErrRequestFailed)
					if n := seen.Load(); n != connects || e.Attempts != int(connects) || e.Outcome != ampauth.NotSent || e.StatusCode != 0 {
						t.Errorf("%d CONNECTs, want %d; %v after %d attempts: %v", n, connects, e.Outcome, e.Attempts, err)
					}
					if text := err.Error(); !strings.Contains(text, "proxy refused to connect: HTTP "+status) || strings.Contains(text, "canary") {
						t.Errorf("the error is %q", text)
					}
				})
			})
		}
	}
}

// Over the connections of a transport that this package made, or cloned, words do not matter.
func TestProxysRefusalIsKnownByItsStatus(t *testing.T) {
	refusingProxy(t, "407 canary", func(t *testing.T, base *http.Transport, connects *atomic.Int32) {
		rt := &ampauth.RetryTransport{Base: base}
		_, err := rt.RoundTrip(stubRequest(t.Context(), mutating, []byte("payload")))
		if text := err.Error(); connects.Load() != 1 || !strings.Contains(text, "HTTP 407") || strings.Contains(text, "canary") {
			t.Errorf("%d CONNECTs, and the error is %q", connects.Load(), text)
		}
	})
}

func TestUsersHookIsAskedAboutEachAnswerToCONNECT(t *testing.T) {
	for _, op := range []ampauth.Operation{safe, mutating} {
		refusingProxy(t, "407 Proxy Authentication Required", func(t *testing.T, base *http.Transport, connects *atomic.Int32) {
			asked := 0
			base.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
				if asked++; proxy.Host != "proxy.test:3128" || req.Host != "api.test:443" || resp.StatusCode != 407 {
					t.Errorf("asked about %v, %v and %v", proxy, req.Host, resp.Status)
				}
				return nil
			}
			_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), op, nil))
			if stubError(t, err); asked != 1 || connects.Load() != 1 {
				t.Errorf("%v: asked %d times about %d answers, want one", op, asked, connects.Load())
			}
			if base.OnProxyConnectResponse(t.Context(), &url.URL{Host: "proxy.test:3128"}, &http.Request{Host: "api.test:443"}, &http.Response{StatusCode: 407}) != nil {
				t.Error("Base was changed")
			}
		})
	}
}

func TestErrorOfTheUsersHookStaysInTheChain(t *testing.T) {
	refusingProxy(t, "403 Forbidden", func(t *testing.T, base *http.Transport, connects *atomic.Int32) {
		base.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error { return io.ErrNoProgress }
		_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), mutating, nil))
		if stubError(t, err, io.ErrNoProgress); connects.Load() != 1 {
			t.Errorf("%d CONNECTs, want one", connects.Load())
		}
	})
}

func TestLoginThroughAProxyThatRefusesIsFinal(t *testing.T) {
	for status, connects := range map[string]int32{"407 Proxy Authentication Required": 1, "403 Forbidden": 1, "502 Bad Gateway": 3} {
		t.Run(status[:3], func(t *testing.T) {
			refusingProxy(t, status, func(t *testing.T, base *http.Transport, seen *atomic.Int32) {
				cfg := validConfig()
				cfg.HTTPClient = &http.Client{Transport: base}
				client, err := ampauth.NewClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				_, err = client.Post("https://amp.test/api/assets/issue", "application/json", strings.NewReader("{}"))
				e := stubError(t, err, ampauth.ErrObtainFailed)
				if n := seen.Load(); n != connects || e.Attempts != int(connects) || e.Outcome != ampauth.NotSent {
					t.Errorf("%d CONNECTs, want %d; %v after %d attempts: %v", n, connects, e.Outcome, e.Attempts, err)
				}
				if text := err.Error(); !strings.Contains(text, "proxy refused to connect: HTTP "+status) || strings.Contains(text, "canary") {
					t.Errorf("the error is %q", text)
				}
			})
		})
	}
}

// What is sent over a clone of the user's transport, once its connections have gone silent.
func TestProxysRefusalIsKnownOverAClone(t *testing.T) {
	var answers atomic.Bool
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if !answers.Load() {
			_, _ = conn.Read(make([]byte, 1))
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 407 canary\r\n\r\n")
	}, func(t *testing.T, _ string, l *memnet.Listener, base *http.Transport) {
		base.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.test:3128"})
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: 15 * time.Second}}
		_, err := rt.RoundTrip(stubRequest(t.Context(), safe, nil))
		stubError(t, err, ampauth.ErrTimeout)
		answers.Store(true)
		before := l.Dials()
		_, err = rt.RoundTrip(stubRequest(t.Context(), safe, nil))
		if text := err.Error(); !strings.Contains(text, "HTTP 407") || strings.Contains(text, "canary") || l.Dials()-before != 1 {
			t.Errorf("%d dials, and the error is %q", l.Dials()-before, text)
		}
	})
}
