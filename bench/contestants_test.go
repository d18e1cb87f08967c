package bench

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// The comparison is fair only if all are put together to do the same.

func TestEveryStackGetsThroughALogin(t *testing.T) {
	all := append(append([]layer{}, stacks...), tokenHolders...)
	for _, http2 := range []bool{false, true} {
		server := serve(http2, 0, answerTwoBytes)
		defer server.Close()
		for _, timeout := range []time.Duration{0, timeoutOfAttempt} {
			for _, c := range all {
				base := server.transport(2)
				defer base.CloseIdleConnections()
				s := server.setup(base)
				s.Timeout = timeout
				send, before := c.Over(s), server.logins.Load()
				for _, r := range []*request{get(server.apiURL()+"/assets", 7), post(server.apiURL()+"/assets/issue", 1<<10)} {
					for range 2 {
						if err := finish(send(r.again())); err != nil {
							t.Errorf("%s, HTTP/2 %t, timeout %s: %v", c.Name, http2, timeout, err)
						}
					}
				}
				if n := server.logins.Load() - before; n != 1 {
					t.Errorf("%s logged in %d times", c.Name, n)
				}
			}
		}
	}
}

func TestEveryRetryLayerTriesThreeTimes(t *testing.T) {
	for _, c := range append(retryLayers, layer{"failsafe-go with its budget", failsafeBudgetRetry}) {
		for _, timeout := range []time.Duration{0, timeoutOfAttempt} {
			var tries atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				tries.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer server.Close()
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			s := setup{Base: base, URL: server.URL + "/api", Timeout: timeout, BaseDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond}
			if err := finish(c.Over(s.withDefaults())(get(s.URL+"/assets", 7).Request)); err == nil {
				t.Errorf("%s: no error after 503", c.Name)
			}
			if n := tries.Load(); n != attempts {
				t.Errorf("%s, timeout %s: %d attempts", c.Name, timeout, n)
			}
		}
	}
}

// In real time, since the peers' clocks and the sockets are real. The second attempt
// has two seconds for what takes none.
func TestEveryTimeoutEndsAnAttempt(t *testing.T) {
	for _, c := range retryLayers {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			stalls := make(chan struct{})
			var tries atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if tries.Add(1) == 1 {
					select {
					case <-r.Context().Done():
					case <-stalls:
					}
				}
			}))
			defer server.Close()
			defer close(stalls)
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			s := setup{Base: base, URL: server.URL + "/api", Timeout: 2 * time.Second, BaseDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond}
			if err := finish(c.Over(s.withDefaults())(get(s.URL+"/assets", 7).Request)); err != nil || tries.Load() != 2 {
				t.Errorf("%v after %d attempts", err, tries.Load())
			}
		})
	}
}
