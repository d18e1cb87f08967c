package atmostonce_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/hostile"
)

// tunnel copies both ways between conn and address until one of them ends.
func tunnel(conn net.Conn, address string) {
	there, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, conn)
	}()
	_, _ = io.Copy(conn, there)
}

// socks serves one SOCKS5 connection (RFC 1928), whatever it is asked for leads to address.
func socks(conn net.Conn, address string) {
	defer conn.Close()
	b := make([]byte, 256)
	if _, err := io.ReadAtLeast(conn, b, 3); err != nil {
		return
	}
	_, _ = conn.Write([]byte{5, 0})
	if _, err := io.ReadAtLeast(conn, b, 10); err != nil {
		return
	}
	_, _ = conn.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 80})
	tunnel(conn, address)
}

// listen serves each connection with serve.
func listen(t *testing.T, network, address string, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l
}

func TestConnectionsAreMadeAndKeptAsThoseOfBase(t *testing.T) {
	s := hostile.New(hostile.HTTP1TLS, hostile.Sequence(hostile.Step{Perform: true}))
	defer s.Close()
	address := strings.TrimPrefix(s.URL(), "https://")
	var asked atomic.Int32
	connect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") == "" || r.Header.Get("X-Asked") == "" {
			w.WriteHeader(400)
			return
		}
		asked.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		tunnel(conn, r.RequestURI)
	}))
	defer connect.Close()
	proxied := func(scheme, host string) func(*http.Request) (*url.URL, error) {
		return http.ProxyURL(&url.URL{Scheme: scheme, User: url.UserPassword("user", "password"), Host: host})
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		asked.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	for name, change := range map[string]func(t *testing.T, base *http.Transport){
		"CONNECT": func(_ *testing.T, base *http.Transport) {
			base.Proxy = proxied("http", strings.TrimPrefix(connect.URL, "http://"))
			base.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) {
				return http.Header{"X-Asked": {"yes"}}, nil
			}
			base.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error {
				asked.Add(100)
				return nil
			}
		},
		"SOCKS5": func(t *testing.T, base *http.Transport) {
			l := listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) { asked.Add(1); socks(conn, address) })
			base.Proxy = http.ProxyURL(&url.URL{Scheme: "socks5", Host: l.Addr().String()})
		},
		"unix socket": func(t *testing.T, base *http.Transport) {
			name := filepath.Join(t.TempDir(), "s")
			listen(t, "unix", name, func(conn net.Conn) { defer conn.Close(); asked.Add(1); tunnel(conn, address) })
			base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", name)
			}
		},
		"DialContext": func(_ *testing.T, base *http.Transport) { base.DialContext = dial },
		"Dial": func(_ *testing.T, base *http.Transport) {
			//lint:ignore SA1019 users have it
			base.Dial = func(network, address string) (net.Conn, error) { return dial(context.Background(), network, address) }
		},
		"VerifyConnection": func(_ *testing.T, base *http.Transport) {
			base.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { asked.Add(1); return nil }
		},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				asked.Store(0)
				base := &http.Transport{TLSClientConfig: s.TLSConfig(), ForceAttemptHTTP2: http2}
				change(t, base)
				tr := &atmostonce.Transport{Base: base, Idle: time.Minute}
				defer tr.CloseIdleConnections()
				for range 3 {
					if err := send(tr, post(t, s.URL(), name, strings.NewReader("x"))); err != nil {
						t.Fatal(err)
					}
				}
				if n := asked.Load() % 100; n != 1 || name == "CONNECT" && asked.Load() != 101 {
					t.Errorf("asked %d times, want once", asked.Load())
				}
			})
		}
	}
}

func TestReplacedTLSConfigurationHoldsForTheNextConnection(t *testing.T) {
	s := hostile.New(hostile.HTTP1TLS, hostile.Script{})
	defer s.Close()
	base := &http.Transport{TLSClientConfig: s.TLSConfig()}
	tr := &atmostonce.Transport{Base: base, Idle: time.Minute}
	defer tr.CloseIdleConnections()
	if err := send(tr, post(t, s.URL(), "", nil)); err != nil {
		t.Fatal(err)
	}
	base.TLSClientConfig = new(tls.Config) // which trusts somebody else
	err := send(tr, post(t, s.URL(), "", nil))
	unsent, _ := errors.AsType[*atmostonce.UnsentError](err)
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); !untrusted || unsent == nil || unsent.Stale {
		t.Errorf("got %v, want that the certificate is not trusted, NotSent", err)
	}
}

// A trace and a dialer of the user's are told, and get, what they are over Base.
func TestContextOfTheRequestReachesTheUsersCode(t *testing.T) {
	type key struct{}
	s := hostile.New(hostile.HTTP1, hostile.Script{})
	defer s.Close()
	var told []string
	var value any
	base := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		value = ctx.Value(key{})
		if trace := httptrace.ContextClientTrace(ctx); trace == nil || trace.GotConn == nil {
			t.Error("the dialer does not see the caller's trace")
		} else {
			trace.GotConn(httptrace.GotConnInfo{}) // as a request of the dialer's own would
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	tr := &atmostonce.Transport{Base: base, Idle: time.Minute}
	defer tr.CloseIdleConnections()
	ctx := httptrace.WithClientTrace(context.WithValue(t.Context(), key{}, "value"), &httptrace.ClientTrace{
		GetConn:      func(string) { told = append(told, "GetConn") },
		GotConn:      func(httptrace.GotConnInfo) { told = append(told, "GotConn") },
		PutIdleConn:  func(error) { told = append(told, "PutIdleConn") },
		ConnectDone:  func(string, string, error) { told = append(told, "ConnectDone") },
		WroteRequest: func(httptrace.WroteRequestInfo) { told = append(told, "WroteRequest") },
	})
	req := post(t, s.URL(), "", nil).WithContext(ctx)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.Request != req || value != "value" {
		t.Errorf("the answer's Request is the caller's: %v; the dialer saw the value %v", resp.Request == req, value)
	}
	for _, what := range []string{"GetConn", "GotConn", "ConnectDone", "WroteRequest", "PutIdleConn"} {
		if !slices.Contains(told, what) {
			t.Errorf("the caller was not told of %s, only of %v", what, told)
		}
	}
}

func TestDialerThatReturnsNothingIsAnError(t *testing.T) {
	tr := &atmostonce.Transport{Idle: time.Minute, Base: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil },
	}}
	err := send(tr, post(t, "http://127.0.0.1:1", "", nil))
	if unsent, ok := errors.AsType[*atmostonce.UnsentError](err); !ok || unsent.Stale || unsent.OtherWay {
		t.Errorf("got %v", err)
	}
}
