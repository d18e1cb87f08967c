package ampauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
	"golang.org/x/time/rate"
)

func TestConnectionForMutationsIsKeptForMutationIdle(t *testing.T) {
	for name, test := range map[string]struct {
		idle, gap time.Duration
		dials     int
	}{
		"by default, within 1 s":   {0, 999 * time.Millisecond, 1},
		"by default, after 1 s":    {0, 1001 * time.Millisecond, 3},
		"for a minute, within it":  {time.Minute, 59 * time.Second, 1},
		"for a minute, after it":   {time.Minute, 61 * time.Second, 3},
		"not at all, if negative":  {-1, 0, 3},
		"no longer than Base says": {time.Hour, 91 * time.Second, 3},
	} {
		t.Run(name, func(t *testing.T) {
			stubBubble(t, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
				base.IdleConnTimeout = 90 * time.Second
				rt := &ampauth.RetryTransport{Base: &ampauth.ConnTransport{Base: base, MutationIdle: test.idle}}
				for range 3 {
					stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
					time.Sleep(test.gap)
				}
				rt.CloseIdleConnections()
				if l.Dials() != test.dials {
					t.Errorf("3 mutations took %d connections, want %d", l.Dials(), test.dials)
				}
			})
		})
	}
}

// Whoever stacks by hand and shares a ConnTransport has one pool.
func TestSharedConnTransportHasOnePoolForMutations(t *testing.T) {
	stubBubble(t, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		conns := &ampauth.ConnTransport{Base: base}
		source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
		for _, rt := range []http.RoundTripper{
			&ampauth.RetryTransport{Base: conns},
			&ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: conns, Source: source, Origin: url}},
			&ampauth.RetryTransport{Base: stubHeaderLayer(conns)},
		} {
			stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
			synctest.Wait()
		}
		conns.CloseIdleConnections()
		if l.Dials() != 1 {
			t.Errorf("%d connections, want 1", l.Dials())
		}
	})
}

func TestWithoutARetryTransportAllIsPooled(t *testing.T) {
	stubBubble(t, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		for _, rt := range []http.RoundTripper{&ampauth.ConnTransport{Base: base}, base} {
			stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
			synctest.Wait()
		}
		if l.Dials() != 1 {
			t.Errorf("%d connections, want the one of the base", l.Dials())
		}
	})
}

// What the user's transport has open is the user's; what was made for mutations ends with
// the client.
func TestCloseEndsTheConnectionsForMutations(t *testing.T) {
	for name, end := range map[string]func(*ampauth.Client){
		"Close":                func(c *ampauth.Client) { _ = c.Close() },
		"CloseIdleConnections": func(c *ampauth.Client) { c.CloseIdleConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				client := w.client(func(c *ampauth.Config) { c.MutationIdle = time.Hour })
				post := func() {
					resp, err := client.Post(w.url+"/api/unknown", "application/json", strings.NewReader("{}"))
					if err != nil {
						t.Fatal(err)
					}
					stubText(t, resp)
					synctest.Wait()
				}
				post()
				dials := w.listener.Dials()
				post()
				if w.listener.Dials() != dials {
					t.Fatalf("a second mutation took a connection of its own")
				}
				end(client)
				synctest.Wait()
				if name == "CloseIdleConnections" {
					if post(); w.listener.Dials() != dials+1 {
						t.Errorf("the connection was kept")
					}
					_ = client.Close()
				}
			})
		})
	}
}

// TestMutationWithoutABodyHasNoneOverHTTP2: over HTTP/2 a body that hides its length is
// seen by the server.
func TestMutationWithoutABodyHasNoneOverHTTP2(t *testing.T) {
	var length int64
	url, base := stubHTTP2(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		length = r.ContentLength
	})
	for name, layer := range map[string]func(http.RoundTripper) http.RoundTripper{
		"directly":      func(rt http.RoundTripper) http.RoundTripper { return rt },
		"below a layer": func(rt http.RoundTripper) http.RoundTripper { return stubHeaderLayer(rt) },
	} {
		rt := &ampauth.RetryTransport{Base: layer(&ampauth.ConnTransport{Base: base})}
		for _, method := range []string{"POST", "GET", "DELETE"} {
			length = -2
			req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, nil)
			req.Method = method
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			stubText(t, resp)
			if resp.ProtoMajor != 2 || length != 0 {
				t.Errorf("%s %s: %s with ContentLength %d, want HTTP/2 and 0", name, method, resp.Proto, length)
			}
		}
		rt.CloseIdleConnections()
	}
}

// net/http sends what has no body once more over HTTP/2 when a server ends the stream with
// PROTOCOL_ERROR, whatever it has done before.
func TestMutationWithoutABodyIsPerformedOnceOverHTTP2(t *testing.T) {
	for _, code := range []uint32{1, 7} { // PROTOCOL_ERROR, REFUSED_STREAM
		for _, method := range []string{"POST", "GET"} {
			s := hostile.New(hostile.HTTP2, hostile.ByID(map[string][]hostile.Step{
				"m": {{Perform: true, Do: hostile.ResetStream, Code: code}, {Perform: true}},
			}))
			defer s.Close()
			base := stubPooled(t)
			base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: 1}}
			stubStatus(t, rt, stubRequestTo(t.Context(), s.URL(), ampauth.SafeOperation, nil))
			req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, nil)
			req.Method = method
			req.Header.Set("X-Operation-Id", "m")
			resp, err := rt.RoundTrip(req)
			if err == nil {
				stubText(t, resp)
			}
			if n := s.Effects("m"); err == nil || n != 1 {
				t.Errorf("%s, code %d: %v after %d effects, want an error after 1", method, code, err, n)
			}
			rt.CloseIdleConnections()
		}
	}
}

// A kept connection that is found closed is no attempt: no wait, no token of the limiter,
// no retry of the budget, and it does not show.
func TestConnectionThatWasClosedWhileIdleIsNoAttempt(t *testing.T) {
	for name, layer := range map[string]func(http.RoundTripper) http.RoundTripper{
		"directly":      func(rt http.RoundTripper) http.RoundTripper { return rt },
		"below a layer": func(rt http.RoundTripper) http.RoundTripper { return stubHeaderLayer(rt) },
	} {
		for _, body := range []any{[]byte("x"), nil, io.Reader(struct{ io.Reader }{strings.NewReader("once")})} {
			t.Run(fmt.Sprintf("%s, body %T", name, body), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := memnet.Listen()
					var seen []string
					server := &httptest.Server{Listener: l, Config: &http.Server{IdleTimeout: 500 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						content, _ := io.ReadAll(r.Body)
						seen = append(seen, string(content))
					})}}
					server.Start()
					defer server.Close()
					conns := &ampauth.ConnTransport{Base: &http.Transport{DialContext: l.DialContext}, MutationIdle: time.Hour}
					defer conns.CloseIdleConnections()
					const burst = 10
					limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
					rt := &ampauth.RetryTransport{Base: layer(conns), Limiter: limiter, Retry: ampauth.RetryConfig{MaxAttempts: 1}}
					stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("first")))
					time.Sleep(time.Second)
					var status int
					took := ampElapsed(func() {
						status = stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, body))
					})
					if status != 200 || took != 0 || len(seen) != 2 || l.Dials() != 2 {
						t.Errorf("status %d after %v, %d requests, %d connections; want 200 at once, 2, 2", status, took, len(seen), l.Dials())
					}
					if used := burst - limiter.Tokens(); used > 2.1 {
						t.Errorf("two mutations took %.0f tokens of the limiter", used)
					}
				})
			})
		}
	}
}

// Nor does a context of ours make net/http start a goroutine that waits for its end.
func TestMutationStartsNoGoroutineMoreThanARead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t)}
	defer rt.CloseIdleConnections()
	const n = 200
	started := func(op ampauth.Operation) int {
		sample := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
		metrics.Read(sample)
		before := sample[0].Value.Uint64()
		for range n {
			stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, op, []byte("x")))
		}
		metrics.Read(sample)
		return int(sample[0].Value.Uint64() - before)
	}
	read, mutation := started(ampauth.IdempotentOperation), started(ampauth.MutatingOperation)
	if mutation > read+n/2 {
		t.Errorf("%d goroutines were started for %d mutations, and %d for as many others", mutation, n, read)
	}
}
