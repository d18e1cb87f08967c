package ampauth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

type quietConn struct {
	net.Conn
	quiet, closed chan struct{}
	once          sync.Once
}

func (c *quietConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.quiet:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *quietConn) Write(p []byte) (int, error) {
	select {
	case <-c.quiet:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

func (c *quietConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A quietWorld is a server whose connections can go silent: what is sent over them from
// then on gets lost, and nothing says so.
type quietWorld struct {
	url  string
	base *http.Transport
	l    *memnet.Listener

	mu    sync.Mutex
	conns []*quietConn
}

// silence makes all connections silent that there are.
func (w *quietWorld) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		close(c.quiet)
	}
	w.conns = nil
}

// quietBubble runs test in a bubble, with a server of the protocols (of HTTP/1.1 in clear
// if there are none).
func quietBubble(t *testing.T, protocols []string, handler http.HandlerFunc, test func(*testing.T, *quietWorld)) {
	t.Helper()
	certificate, trust := stubTLS(t)
	synctest.Test(t, func(t *testing.T) {
		w := &quietWorld{l: memnet.Listen()}
		server := &http.Server{Handler: handler, ErrorLog: stubQuiet(), Protocols: new(http.Protocols)}
		var l net.Listener = w.l
		w.url = "http://" + w.l.Addr().String()
		w.base = &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trust.Clone()}
		w.base.TLSClientConfig.ServerName = "example.com"
		server.Protocols.SetHTTP1(true)
		if protocols != nil {
			server.Protocols.SetHTTP2(true)
			config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: protocols}
			if len(protocols) == 1 {
				strict := &tls.Config{Certificates: config.Certificates, NextProtos: []string{"nothing"}}
				config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] != protocols[0] {
						return strict, nil
					}
					return nil, nil
				}
			}
			l = tls.NewListener(w.l, config)
			w.url = strings.Replace(w.url, "http:", "https:", 1)
		}
		w.base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := w.l.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			quiet := &quietConn{Conn: conn, quiet: make(chan struct{}), closed: make(chan struct{})}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.conns = append(w.conns, quiet)
			return quiet, nil
		}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(l) })
		defer serving.Wait()
		defer server.Close()
		test(t, w)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
}

var (
	http2Alone = []string{"h2"}
	http2First = []string{"h2", "http/1.1"}
)

// TestSilentConnectionCostsOneAttempt: nobody meets a connection again that has not
// answered, not in the same call and not in the next.
func TestSilentConnectionCostsOneAttempt(t *testing.T) {
	for name, protocols := range map[string][]string{"HTTP/1.1": nil, "HTTP/2": http2First, "HTTP/2 alone": http2Alone} {
		t.Run(name, func(t *testing.T) {
			quietBubble(t, protocols, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, w *quietWorld) {
				rt := &ampauth.RetryTransport{Base: w.base}
				defer rt.CloseIdleConnections()
				get := func() { stubStatus(t, rt, stubRequestTo(t.Context(), w.url, ampauth.SafeOperation, nil)) }
				const idle = 8
				var wg sync.WaitGroup
				for range idle {
					wg.Go(get)
				}
				wg.Wait()
				w.silence()
				if took := ampElapsed(get); took < 10*time.Second || took > 11*time.Second {
					t.Errorf("the first call took %v, want the time of one attempt", took)
				}
				for range 3 {
					if took := ampElapsed(get); took > time.Second {
						t.Errorf("a later call took %v", took)
					}
				}
			})
		})
	}
}

// Who pings, as the transport that NewClient makes does, does not even lose the attempt's time.
func TestSilentConnectionThatIsPingedCostsLessThanHalfAnAttempt(t *testing.T) {
	quietBubble(t, http2First, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, w *quietWorld) {
		w.base.HTTP2 = &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second}
		rt := &ampauth.RetryTransport{Base: w.base}
		defer rt.CloseIdleConnections()
		get := func() { stubStatus(t, rt, stubRequestTo(t.Context(), w.url, ampauth.SafeOperation, nil)) }
		get()
		w.silence()
		if took := ampElapsed(get); took > 4*time.Second+time.Second {
			t.Errorf("took %v, want 4 s and a wait of at most 1 s", took)
		}
	})
}

// Many callers, of which there is always one that waits, so that the silent connection is
// never idle.
func TestSilentConnectionIsLeftByAllCallers(t *testing.T) {
	takesLong(t, 3)
	for name, protocols := range map[string][]string{"HTTP/2": http2First, "HTTP/2 alone": http2Alone} {
		t.Run(name, func(t *testing.T) {
			quietBubble(t, protocols, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, w *quietWorld) {
				rt := &ampauth.RetryTransport{Base: w.base}
				defer rt.CloseIdleConnections()
				get := func() { stubStatus(t, rt, stubRequestTo(t.Context(), w.url, ampauth.SafeOperation, nil)) }
				get()
				w.silence()
				var wg sync.WaitGroup
				for caller := range 30 {
					wg.Go(func() {
						time.Sleep(time.Duration(caller) * 300 * time.Millisecond)
						for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
							at := time.Since(began) + time.Duration(caller)*300*time.Millisecond
							if took := ampElapsed(get); took > time.Second && at > 10*time.Second {
								t.Errorf("a call that began %v after the silence took %v", at, took)
							}
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

func TestSilentConnectionIsLeftByMutationsAndLogins(t *testing.T) {
	quietBubble(t, http2Alone, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"token":"0123456789"}`)
	}, func(t *testing.T, w *quietWorld) {
		rt := &ampauth.RetryTransport{Base: w.base}
		defer rt.CloseIdleConnections()
		post := func() error {
			resp, err := rt.RoundTrip(stubRequestTo(t.Context(), w.url, ampauth.MutatingOperation, []byte("x")))
			if err == nil {
				stubText(t, resp)
			}
			return err
		}
		manager, err := ampauth.NewTokenManager(ampauth.Config{
			BaseURL: w.url, Credentials: ampauth.Credentials{Username: "u", Password: ampauth.SecretFromString("p")},
			HTTPClient: &http.Client{Transport: w.base},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		login := func() {
			if _, err := manager.Obtain(t.Context()); err != nil {
				t.Error(err)
			}
		}
		login()
		if err := post(); err != nil {
			t.Fatal(err)
		}
		w.silence()
		if err := post(); !errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("over the silent connection: %v, want ErrAmbiguous", err)
		}
		if took := ampElapsed(func() { err = post() }); err != nil || took > time.Second {
			t.Errorf("the next one: %v after %v", err, took)
		}
		if took := ampElapsed(login); took > 12*time.Second {
			t.Errorf("a login took %v, want at most one attempt and a wait more", took)
		}
		if took := ampElapsed(login); took > time.Second {
			t.Errorf("the next login took %v", took)
		}
	})
}

// A caller's own deadline may always come before the attempt's.
func TestSilentConnectionIsLeftByCallersWithLittleTime(t *testing.T) {
	quietBubble(t, http2First, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, w *quietWorld) {
		rt := &ampauth.RetryTransport{Base: w.base}
		defer rt.CloseIdleConnections()
		get := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			resp, err := rt.RoundTrip(stubRequestTo(ctx, w.url, ampauth.SafeOperation, nil))
			if err == nil {
				stubText(t, resp)
			}
			return err
		}
		if err := get(); err != nil {
			t.Fatal(err)
		}
		w.silence()
		failed := 0
		for range 20 {
			if get() != nil {
				failed++
			}
		}
		if failed > 3 {
			t.Errorf("%d of 20 callers ran out of time, want at most 3", failed)
		}
	})
}

// A slow answer among lively streams is one answer that is slow.
func TestSlowAnswerEndsNobodyElsesStream(t *testing.T) {
	quietBubble(t, http2First, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/stream":
			for i := range 120 {
				_, _ = fmt.Fprintln(rw, i)
				_ = http.NewResponseController(rw).Flush()
				time.Sleep(time.Second)
			}
		}
	}, func(t *testing.T, w *quietWorld) {
		conns := &ampauth.ConnTransport{Base: w.base}
		defer conns.CloseIdleConnections()
		hasty := &ampauth.RetryTransport{Base: conns, Retry: ampauth.RetryConfig{MaxAttempts: 2}}
		patient := &ampauth.RetryTransport{Base: conns, Retry: ampauth.RetryConfig{Timeout: -1}}
		for _, streamer := range []struct {
			name string
			http.RoundTripper
			dials int // in the end: of a stream that others read nothing is known
		}{{"a patient caller", patient, 1}, {"somebody else", w.base, 3}} {
			resp, err := streamer.RoundTrip(stubRequestTo(t.Context(), w.url+"/stream", ampauth.SafeOperation, nil))
			if err != nil {
				t.Fatal(err)
			}
			var lines int
			var reading sync.WaitGroup
			reading.Go(func() { lines = strings.Count(stubText(t, resp), "\n") })
			if _, err := hasty.RoundTrip(stubRequestTo(t.Context(), w.url+"/slow", ampauth.SafeOperation, nil)); !errors.Is(err, ampauth.ErrTimeout) {
				t.Fatalf("the slow answer ended in %v", err)
			}
			reading.Wait()
			if lines != 120 || w.l.Dials() > streamer.dials {
				t.Errorf("the stream of %s ended after %d lines of 120, with %d connections made, want %d", streamer.name, lines, w.l.Dials(), streamer.dials)
			}
		}
	})
}
