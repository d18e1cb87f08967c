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
