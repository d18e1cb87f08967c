package ampauth_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

func relay(c, up net.Conn, from io.Reader) {
	go func() {
		_, _ = io.Copy(up, from)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
}

func startRelay(t *testing.T, serve func(net.Conn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// The ways to a server that performs and then hangs up: whatever is in between, the
// mutation is performed once, and nobody is told that it was not sent.

// startProxy starts a proxy of HTTP: CONNECT, and requests with a whole URL.
func startProxy(t *testing.T) func(*http.Request) (*url.URL, error) {
	address := startRelay(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		defer up.Close()
		if req.Method == http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			relay(c, up, br)
			return
		}
		_ = req.Write(up)
		_, _ = io.Copy(c, up)
	})
	return http.ProxyURL(&url.URL{Scheme: "http", Host: address})
}

// startSOCKS starts a proxy of SOCKS 5 (RFC 1928) that leads to one address.
func startSOCKS(t *testing.T, to string) func(*http.Request) (*url.URL, error) {
	address := startRelay(t, func(c net.Conn) {
		b := make([]byte, 512)
		_, _ = io.ReadFull(c, b[:2])
		_, _ = io.ReadFull(c, b[:int(b[1])])
		_, _ = c.Write([]byte{5, 0})
		_, _ = io.ReadFull(c, b[:4])
		if rest := 6; b[3] == 1 {
			_, _ = io.ReadFull(c, b[:rest])
		} else {
			_, _ = io.ReadFull(c, b[:1])
			_, _ = io.ReadFull(c, b[:int(b[0])+2])
		}
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		relay(c, up, c)
	})
	return http.ProxyURL(&url.URL{Scheme: "socks5", Host: address})
}

// A namelessConn has no address.
type namelessConn struct{ net.Conn }

func (namelessConn) RemoteAddr() net.Addr { return nil }

func TestMutationThatWasCutOffIsInDoubtOverAnyWay(t *testing.T) {
	dialTo := func(address string) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	for name, change := range map[string]func(*testing.T, *proofWorld, *http.Request){
		"directly": func(*testing.T, *proofWorld, *http.Request) {},
		"a proxy":  func(t *testing.T, w *proofWorld, _ *http.Request) { w.base.Proxy = startProxy(t) },
		"SOCKS":    func(t *testing.T, w *proofWorld, _ *http.Request) { w.base.Proxy = startSOCKS(t, w.Addr()) },
		"no address": func(_ *testing.T, w *proofWorld, _ *http.Request) {
			w.base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return namelessConn{conn}, err
			}
		},
		"a name beyond ASCII": func(_ *testing.T, w *proofWorld, req *http.Request) {
			_, port, _ := net.SplitHostPort(w.Addr())
			w.base.DialContext, req.URL.Host = dialTo(w.Addr()), "bücher.test:"+port
		},
		"a proxy, another server name": func(t *testing.T, w *proofWorld, _ *http.Request) {
			w.base.Proxy, w.base.TLSClientConfig = startProxy(t), &tls.Config{ServerName: "api.internal", InsecureSkipVerify: true}
		},
	} {
		for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2} {
			for _, layered := range []bool{false, true} {
				for _, body := range []string{"{}", ""} {
					t.Run(fmt.Sprint(name, " ", protocol, " layered ", layered, " body ", body), func(t *testing.T) {
						w := newProofWorld(t, protocol, hostile.Step{Perform: true, Do: hostile.Close})
						if w.base.TLSClientConfig != nil {
							w.base.TLSClientConfig.InsecureSkipVerify = true
						}
						req := w.request(t, body)
						change(t, w, req)
						var base http.RoundTripper = w.base
						if layered {
							base = roundTripFunc(w.base.RoundTrip)
						}
						_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(req)
						if !errors.Is(err, ampauth.ErrAmbiguous) || w.Effects("op") != 1 {
							t.Errorf("performed %d times, then %v", w.Effects("op"), err)
						}
					})
				}
			}
		}
	}
}

// net/http sends a PUT with an Idempotency-Key once more by itself. When that does
// not even get a connection, the first has been sent all the same.
func TestIdempotentRequestThatNetHTTPRepeatsIsNotSaidToBeUnsent(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{"put": {{Perform: true, Do: hostile.Reset}}}))
	defer s.Close()
	base := stubPooled(t)
	base.DialContext = s.DialContext
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	primed(t, rt, s.URL())
	s.RefuseDials(10)
	req := stubRequestTo(t.Context(), s.URL(), ampauth.IdempotentOperation, []byte("x"))
	req.Header.Set("Idempotency-Key", "k")
	req.Header.Set("X-Operation-Id", "put")
	_, err := rt.RoundTrip(req)
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || s.Effects("put") != 1 {
		t.Errorf("got %v (%v) after %d effects, want Ambiguous after one", err, e.Outcome, s.Effects("put"))
	}
}

// A server that ends TLS after it has performed the request: the error is the one of
// a handshake with what is no TLS server.
func TestMutationWhoseConnectionTurnsToPlainTextIsPerformedOnce(t *testing.T) {
	var performed atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		performed.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn.(*tls.Conn).NetConn(), "HTTP/1.1 408 Request Timeout\r\n\r\n")
		_ = conn.(*tls.Conn).NetConn().Close()
	}))
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	for name, rt := range map[string]http.RoundTripper{
		"known base": base,
		"layer that drops the context": roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return base.RoundTrip(req.WithContext(context.Background()))
		}),
	} {
		for _, op := range []ampauth.Operation{ampauth.MutatingOperation, ampauth.IdempotentOperation} {
			performed.Store(0)
			_, err := (&ampauth.RetryTransport{Base: rt, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, op, []byte("x")))
			if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || op == ampauth.MutatingOperation && performed.Load() != 1 {
				t.Errorf("%s, %v: got %v (%v) after %d effects, want Ambiguous", name, op, err, e.Outcome, performed.Load())
			}
		}
	}
}

// A layer that gives up on a call and leaves it running.
func TestMutationThatALayerLeavesBehindIsPerformedOnce(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1} {
		performed := 0
		stubBubble(t, func(http.ResponseWriter, *http.Request) { performed++ }, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
			dial := base.DialContext
			base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				time.Sleep(60 * time.Millisecond)
				return dial(ctx, network, address)
			}
			var left sync.WaitGroup
			impatient := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				type end struct {
					resp *http.Response
					err  error
				}
				ended := make(chan end, 1)
				left.Go(func() {
					resp, err := base.RoundTrip(req)
					ended <- end{resp, err}
				})
				select {
				case e := <-ended:
					return e.resp, e.err
				case <-time.After(50 * time.Millisecond):
					return nil, errors.New("too slow for this layer")
				}
			})
			status := stubStatus(t, &ampauth.RetryTransport{Base: impatient, Retry: ampauth.RetryConfig{MutationTimeout: timeout}}, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
			left.Wait()
			time.Sleep(time.Second) // the dials that were left end
			if status != 200 || performed != 1 {
				t.Errorf("timeout %v: status %d after %d effects, want 200 after one", timeout, status, performed)
			}
		})
	}
}

// A protocol of the user's own takes the connection over and tells nothing of it.
func TestMutationOverAProtocolOfTheUsersIsPerformedOnce(t *testing.T) {
	performed := 0
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{NextProtos: []string{"x-amp"}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	base.TLSClientConfig.NextProtos = []string{"x-amp"}
	base.ForceAttemptHTTP2 = false
	base.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		"x-amp": func(_ string, conn *tls.Conn) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				performed++
				_ = conn.Close()
				return nil, io.ErrUnexpectedEOF
			})
		},
	}
	_, err := (&ampauth.RetryTransport{Base: stubHeaderLayer(base), Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || performed != 1 {
		t.Errorf("got %v (%v) after %d effects, want Ambiguous after one", err, e.Outcome, performed)
	}
}
