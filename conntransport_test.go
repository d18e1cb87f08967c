package ampauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
	"golang.org/x/time/rate"
)

// net/http repeats by itself what has no body, or a GetBody. Over a base that is
// not known a mutation has neither.
func TestMutationIsMaskedFromTheBase(t *testing.T) {
	for _, method := range []string{"GET", "DELETE", "POST", "PUT", "HEAD"} {
		for _, body := range []io.Reader{nil, http.NoBody, strings.NewReader("payload")} {
			t.Run(fmt.Sprintf("%s %T", method, body), func(t *testing.T) {
				base := stubScript(stubAnswer(200))
				ctx := ampauth.WithOperation(t.Context(), ampauth.MutatingOperation)
				req, err := http.NewRequestWithContext(ctx, method, "https://api.test/", body)
				if err != nil {
					t.Fatal(err)
				}
				stubStatus(t, &ampauth.RetryTransport{Base: base}, req)
				sent := base.seen()[0].request
				if sent.GetBody != nil || sent.Body == nil || sent.Body == http.NoBody {
					t.Errorf("GetBody is nil: %v, Body is %T; want nil, and one that hides what it is", sent.GetBody == nil, sent.Body)
				}
				if sent.ContentLength != req.ContentLength {
					t.Errorf("ContentLength is %d, want %d", sent.ContentLength, req.ContentLength)
				}
			})
		}
	}
}

func TestOtherOperationsAreNotMasked(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.IdempotentOperation} {
		base := stubScript(stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base}
		stubStatus(t, rt, stubRequest(t.Context(), op, []byte("x")))
		stubStatus(t, rt, stubRequest(t.Context(), op, nil))
		calls := base.seen()
		if calls[0].request.GetBody == nil || calls[1].request.Body != nil {
			t.Errorf("%v: GetBody is nil: %v, an absent body became %T", op, calls[0].request.GetBody == nil, calls[1].request.Body)
		}
	}
}

// primed uses a connection and gives it back to the pool. On a busy machine net/http
// closes one now and then instead, so it makes sure.
func primed(t *testing.T, rt http.RoundTripper, url string) {
	t.Helper()
	for pooled := false; !pooled; {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{PutIdleConn: func(err error) { pooled = err == nil }})
		stubStatus(t, rt, stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
	}
}

// net/http sends a request with an Idempotency-Key once more when a connection
// that was used before breaks. AMP does not know that header.
func TestMutationWithAnIdempotencyKeyIsPerformedOnce(t *testing.T) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		for _, do := range []hostile.Action{hostile.Reset, hostile.Close} {
			for _, layered := range []bool{false, true} {
				for _, body := range []any{nil, []byte("payload")} {
					t.Run(fmt.Sprintf("%s, %v, layer between %v, body %v", name, do, layered, body != nil), func(t *testing.T) {
						s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{
							"m": {{Perform: true, Do: do}, {Perform: true}},
						}))
						defer s.Close()
						base := stubPooled(t)
						rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
						if layered {
							rt.Base = stubHeaderLayer(base)
						}
						primed(t, rt, s.URL())
						req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, body)
						req.Header.Set(name, "k")
						req.Header.Set("X-Operation-Id", "m")
						_, err := rt.RoundTrip(req)
						if n := s.Effects("m"); !errors.Is(err, ampauth.ErrAmbiguous) || n != 1 {
							t.Errorf("got %v after %d effects, want ErrAmbiguous after one", err, n)
						}
						log := s.Log()
						if last := log[len(log)-1]; last.FirstOnConn() == layered {
							t.Errorf("over a fresh connection: %v, want %v", last.FirstOnConn(), !layered)
						}
					})
				}
			}
		}
	}
}

func TestMutationsShareConnectionsThatNothingElseUses(t *testing.T) {
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
	for name, wrap := range map[string]func(http.RoundTripper, string) http.RoundTripper{
		"right above": func(b http.RoundTripper, _ string) http.RoundTripper { return b },
		"with an AuthTransport": func(b http.RoundTripper, o string) http.RoundTripper {
			return &ampauth.AuthTransport{Base: b, Source: source, Origin: o}
		},
		"with a layer above auth": func(b http.RoundTripper, o string) http.RoundTripper {
			return stubHeaderLayer(&ampauth.AuthTransport{Base: b, Source: source, Origin: o})
		},
		"with auth for elsewhere": func(b http.RoundTripper, _ string) http.RoundTripper {
			return &ampauth.AuthTransport{Base: b, Source: source, Origin: "https://else.test"}
		},
		"over a RetryTransport": func(b http.RoundTripper, _ string) http.RoundTripper { return &ampauth.RetryTransport{Base: b} },
		"over retry and then auth": func(b http.RoundTripper, o string) http.RoundTripper {
			return &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: b, Source: source, Origin: o}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var closing []bool
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				closing = append(closing, r.Close)
				_, _ = io.Copy(w, r.Body)
			}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
				rt := &ampauth.RetryTransport{Base: wrap(base, url)}
				for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation, ampauth.IdempotentOperation, ampauth.MutatingOperation, ampauth.SafeOperation} {
					stubStatus(t, rt, stubRequestTo(t.Context(), url, op, []byte("x")))
					synctest.Wait()
				}
				if l.Dials() != 2 || slices.Contains(closing, true) {
					t.Errorf("%d connections, closed after the request: %v; want one for the pool and one for the mutations", l.Dials(), closing)
				}
			})
		})
	}
}

// A connection of the pool that the server has just given up must not make a
// doubtful outcome of a mutation. Under a layer it may: there it must not make two
// effects, nor a wrong answer.
func TestDeadIdleConnectionDoesNotDisturbAMutation(t *testing.T) {
	for _, layered := range []bool{false, true} {
		for _, body := range []any{nil, []byte("payload")} {
			t.Run(fmt.Sprintf("layer between %v, body %v", layered, body != nil), func(t *testing.T) {
				s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{
					"": {{Do: hostile.AnswerThenClose}}, "m": {{Perform: true, Status: 201}},
				}))
				defer s.Close()
				base := stubPooled(t)
				rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
				if layered {
					rt.Base = stubHeaderLayer(base)
				}
				stubStatus(t, rt, stubRequestTo(t.Context(), s.URL(), ampauth.SafeOperation, nil))
				req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, body)
				req.Header.Set("X-Operation-Id", "m")
				resp, err := rt.RoundTrip(req)
				if err == nil {
					stubText(t, resp)
				}
				switch effects := s.Effects("m"); {
				case err == nil && resp.StatusCode == 201 && effects == 1:
				case layered && errors.Is(err, ampauth.ErrAmbiguous) && effects == 0:
				default:
					t.Errorf("got (%v, %v) after %d effects", resp, err, effects)
				}
			})
		}
	}
}

func TestMutationWithoutABodyHasNoneOnTheWire(t *testing.T) {
	type seen struct {
		encoding []string
		length   string
		n        int64
	}
	var got seen
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		got = seen{r.TransferEncoding, r.Header.Get("Content-Length"), r.ContentLength}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base}
		for method, length := range map[string]string{"POST": "0", "PUT": "0", "GET": "", "DELETE": ""} {
			req, err := http.NewRequestWithContext(t.Context(), method, url+"/unknown", nil)
			if err != nil {
				t.Fatal(err)
			}
			stubStatus(t, rt, req)
			if got.encoding != nil || got.length != length || got.n != 0 {
				t.Errorf("%s was sent with Transfer-Encoding %q and Content-Length %q, want none and %q", method, got.encoding, got.length, length)
			}
		}
	})
}

func TestUsersTransportIsKeptAsItIs(t *testing.T) {
	url, base := stubBothProtocols(t, func(http.ResponseWriter, *http.Request) {})
	base.Protocols = new(http.Protocols)
	base.Protocols.SetHTTP1(true)
	base.Protocols.SetHTTP2(true)
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	// net/http itself fills in some fields when a transport is first used.
	stubStatus(t, base, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))

	type state struct {
		protocols  string
		pointer    *http.Protocols
		tls        *tls.Config
		nextProtos string
		upgrades   string
		alive, h2  bool
	}
	look := func() state {
		return state{
			base.Protocols.String(), base.Protocols, base.TLSClientConfig, fmt.Sprint(base.TLSClientConfig.NextProtos),
			fmt.Sprint(slices.Sorted(maps.Keys(base.TLSNextProto))), base.DisableKeepAlives, base.ForceAttemptHTTP2,
		}
	}
	before := look()
	for range 2 {
		stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
	}
	if after := look(); after != before {
		t.Errorf("the transport was\n%+v\nand is\n%+v", before, after)
	}
	resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
	if err != nil {
		t.Fatal(err)
	}
	stubText(t, resp)
	if resp.ProtoMajor != 2 {
		t.Errorf("afterwards the pool speaks %s, want HTTP/2", resp.Proto)
	}
}

func TestMutationsKeepTheUsersProxyAndDialer(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Error("the proxy was left out")
	}))
	defer origin.Close()
	var proxied atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.IsAbs() && r.Header.Get("Proxy-Authorization") != "" {
			proxied.Add(1)
		}
	}))
	defer proxy.Close()
	via, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	via.User = url.UserPassword("user", "password")
	var dials atomic.Int32
	base := stubPooled(t)
	base.Proxy = http.ProxyURL(via)
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	stubStatus(t, rt, stubRequestTo(t.Context(), origin.URL, ampauth.MutatingOperation, []byte("x")))
	if proxied.Load() != 1 || dials.Load() != 1 {
		t.Errorf("%d requests through the proxy over %d dials of the user's, want 1 and 1", proxied.Load(), dials.Load())
	}
}

func TestMutationsKeepTheUsersTLSConfiguration(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/1.1" || r.TLS.ServerName != "example.com" || len(r.TLS.PeerCertificates) != 1 {
			w.WriteHeader(400)
		}
	}))
	server.EnableHTTP2 = true
	// Of itself httptest names h2 alone, which is how a server looks that speaks nothing else.
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2", "http/1.1"}}
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	base.TLSClientConfig.ServerName = "example.com"
	base.TLSClientConfig.Certificates = server.TLS.Certificates
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	if status := stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x"))); status != 200 {
		t.Errorf("status %d: the server name, the client's certificate or HTTP/1.1 is missing", status)
	}
}

// A scheme that the user registered is part of their transport as well.
func TestMutationsKeepRegisteredProtocols(t *testing.T) {
	base := stubPooled(t)
	base.RegisterProtocol("amp", stubLayer(func(req *http.Request) (*http.Response, error) { return stubAnswer(200)(req) }))
	rt := &ampauth.RetryTransport{Base: base}
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		resp, err := rt.RoundTrip(stubRequestTo(t.Context(), "amp://api.test/", op, []byte("x")))
		if err != nil {
			t.Errorf("%v: %v", op, err)
			continue
		}
		stubText(t, resp)
	}
}

// stubTLS is a loopback server's certificate, and what trusts it.
func stubTLS(t *testing.T) (server tls.Certificate, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], &tls.Config{RootCAs: pool}
}

// One that ends the handshake with a client that offers HTTP/1.1 alone. A server
// of net/http lets it pass: see the next test.
func TestServerThatSpeaksHTTP2OnlyIsServed(t *testing.T) {
	for _, body := range []any{nil, []byte("payload"), io.Reader(struct{ io.Reader }{strings.NewReader("once")})} {
		t.Run(fmt.Sprintf("body %T", body), func(t *testing.T) {
			s := hostile.New(hostile.HTTP2, hostile.Sequence(hostile.Step{Perform: true}))
			defer s.Close()
			base := stubPooled(t)
			base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
			rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
			for n := range 2 {
				if n == 1 && body != nil {
					body = []byte("payload")
				}
				resp, err := rt.RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, body))
				if err != nil {
					t.Fatalf("mutation %d: %v after %d requests", n+1, err, s.Requests())
				}
				stubText(t, resp)
				if resp.ProtoMajor != 2 || s.Requests() != n+1 {
					t.Errorf("mutation %d: %s, %d requests", n+1, resp.Proto, s.Requests())
				}
			}
		})
	}
}

func TestServersOfNetHTTPAreServedWhateverTheySpeak(t *testing.T) {
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1 alone": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2 alone":   func(p *http.Protocols) { p.SetHTTP2(true) },
		"both":           func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			certificate, trust := stubTLS(t)
			var effects atomic.Int32
			protocols := new(http.Protocols)
			set(protocols)
			server := &http.Server{
				Protocols: protocols,
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
				Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) { effects.Add(1) }),
				ErrorLog:  stubQuiet(),
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			defer server.Close()
			wg.Go(func() { _ = server.ServeTLS(l, "", "") })
			base := stubPooled(t)
			base.TLSClientConfig, base.ForceAttemptHTTP2 = trust, true
			rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
			for _, op := range []ampauth.Operation{ampauth.MutatingOperation, ampauth.SafeOperation, ampauth.MutatingOperation} {
				if status := stubStatus(t, rt, stubRequestTo(t.Context(), "https://"+l.Addr().String(), op, []byte("x"))); status != 200 {
					t.Errorf("%v: status %d", op, status)
				}
			}
			if effects.Load() != 3 {
				t.Errorf("%d effects of 3 requests", effects.Load())
			}
		})
	}
}

func TestTransportThatSpeaksHTTP2OnlyIsUsedMasked(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	base := stubPooled(t)
	base.Protocols = new(http.Protocols)
	base.Protocols.SetUnencryptedHTTP2(true)
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	resp, err := rt.RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	if text := stubText(t, resp); resp.ProtoMajor != 2 || text != "x" {
		t.Errorf("%s, %q; want HTTP/2 and the body back", resp.Proto, text)
	}
}

// A dialer of the user's may negotiate HTTP/2 whatever it is asked for.
func TestDialerThatInsistsOnHTTP2IsServed(t *testing.T) {
	var effects atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { effects.Add(1) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	trust := base.TLSClientConfig.Clone()
	trust.NextProtos, trust.ServerName = []string{"h2", "http/1.1"}, "example.com"
	base.ForceAttemptHTTP2 = true
	base.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&tls.Dialer{Config: trust}).DialContext(ctx, network, address)
	}
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	for n := range int32(2) {
		resp, err := rt.RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		if resp.ProtoMajor != 2 || effects.Load() != n+1 {
			t.Errorf("mutation %d: %s after %d effects", n+1, resp.Proto, effects.Load())
		}
	}
}

func TestMutationWhoseDialIsRefusedTwiceIsPerformedOnce(t *testing.T) {
	for _, body := range []any{[]byte("x"), nil, io.Reader(struct{ io.Reader }{strings.NewReader("once")})} {
		t.Run(fmt.Sprintf("body %T", body), func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true}))
			defer s.Close()
			s.RefuseDials(2)
			base := stubPooled(t)
			base.DialContext = s.DialContext
			status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, body))
			if status != 200 || s.Dials() != 3 || s.Requests() != 1 {
				t.Errorf("status %d after %d dials and %d requests, want 200, 3, 1", status, s.Dials(), s.Requests())
			}
		})
	}
}

// A dial that nobody waits for any more must not stay behind, with its connection.
func TestDialsThatWereLeftEnd(t *testing.T) {
	s := hostile.New(hostile.HTTP1TLS, hostile.Script{}.OnConns(hostile.StallInHandshake))
	defer s.Close()
	var open atomic.Int32
	base := stubPooled(t)
	base.TLSClientConfig = s.TLSConfig()
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &closeNoted{Conn: conn, closed: func() { open.Add(-1) }}, nil
	}
	config := stubQuick
	config.MutationTimeout = 30 * time.Millisecond
	rt := &ampauth.RetryTransport{Base: base, Retry: config}
	for range 3 {
		_, err := rt.RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent {
			t.Fatal(err)
		}
	}
	rt.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); open.Load() > 0; time.Sleep(time.Millisecond) { // real sockets
		if time.Now().After(deadline) {
			t.Fatalf("%d connections stay behind", open.Load())
		}
	}
}

type closeNoted struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *closeNoted) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

func TestUntrustedCertificateIsNotDialedAgain(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			var accepted atomic.Int32
			server := httptest.NewUnstartedServer(nil)
			server.Listener = stubCounting{server.Listener, &accepted}
			server.Config.ErrorLog = stubQuiet()
			server.StartTLS()
			defer server.Close()
			_, err := (&ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, op, []byte("x")))
			e := stubError(t, err)
			_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
			_, verification := errors.AsType[*tls.CertificateVerificationError](err)
			if !unknown || !verification || e.Outcome != ampauth.NotSent || e.Attempts != 1 || accepted.Load() != 1 {
				t.Errorf("got %v (%v) after %d attempts and %d dials, want the certificate's error, NotSent, 1, 1", err, e.Outcome, e.Attempts, accepted.Load())
			}
		})
	}
}

type stubCounting struct {
	net.Listener
	accepted *atomic.Int32
}

func (l stubCounting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// 421 says: another connection (RFC 9110 15.5.20).
func TestMisdirectedRequestGoesOverAnotherConnection(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			wrong := ""
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/prime" {
					return
				}
				conn := fmt.Sprintf("%p", r.Context().Value(stubConnKey{}))
				if wrong == "" || wrong == conn {
					wrong = conn
					w.WriteHeader(421)
				}
			}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
				rt := &ampauth.RetryTransport{Base: base}
				stubStatus(t, rt, stubRequestTo(t.Context(), url+"/prime", ampauth.SafeOperation, nil))
				synctest.Wait()
				if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, op, nil)); status != 200 {
					t.Errorf("status %d over %d connections, want 200 over a second one", status, l.Dials())
				}
			})
		})
	}
}

// stubBothProtocols is a server that prefers HTTP/2, and a transport that does too.
func stubBothProtocols(t *testing.T, handler http.HandlerFunc) (url string, base *http.Transport) {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, server.Client().Transport.(*http.Transport)
}

// stubHTTP2 is a server of HTTP/2, and a transport that speaks it. One that offers
// HTTP/1.1 alone it lets pass without naming a protocol.
func stubHTTP2(t *testing.T, handler http.HandlerFunc) (url string, base *http.Transport) {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, server.Client().Transport.(*http.Transport)
}

// To find out which protocols a server speaks takes a connection or two. That is
// no attempt: it costs no token, no retry, and does not show.
func TestDetourIsNoAttempt(t *testing.T) {
	numbers := make(chan string, 10)
	address, base := stubHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		numbers <- r.Proto + " " + r.Header.Get("X-Attempt")
	})
	const burst = 10
	limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
	config := stubQuick
	config.MaxAttempts = 1
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
	auth := &ampauth.AuthTransport{Base: base, Source: source, Origin: address}
	layer := stubLayer(func(req *http.Request) (*http.Response, error) {
		copied := req.Clone(req.Context())
		n, _ := ampauth.AttemptFromContext(req.Context())
		copied.Header.Set("X-Attempt", fmt.Sprint(n))
		return auth.RoundTrip(copied)
	})
	rt := &ampauth.RetryTransport{Base: layer, Retry: config, Limiter: limiter}
	ctx := ampauth.WithoutRetry(t.Context())
	if status := stubStatus(t, rt, stubRequestTo(ctx, address, ampauth.MutatingOperation, newStubBody("x"))); status != 200 {
		t.Fatalf("status %d", status)
	}
	if got := <-numbers; got != "HTTP/2.0 1" || len(numbers) != 0 {
		t.Errorf("the server saw %q and %d more, want HTTP/2 and attempt 1 alone", got, len(numbers))
	}
	if used := burst - limiter.Tokens(); used > 1.1 {
		t.Errorf("one attempt took %.0f tokens of the limiter", used)
	}
}

// Many at once may be the first to a host.
func TestDetoursAtOnceAllArrive(t *testing.T) {
	var effects, http2 atomic.Int32
	url, base := stubHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		effects.Add(1)
		http2.Add(int32(r.ProtoMajor - 1))
	})
	config := stubQuick
	config.MaxAttempts = 1
	rt := &ampauth.RetryTransport{Base: base, Retry: config}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, newStubBody("x")))
		})
	}
	wg.Wait()
	if effects.Load() != 50 || http2.Load() != 50 {
		t.Errorf("%d effects of 50 mutations, %d of them over HTTP/2; want 50 each", effects.Load(), http2.Load())
	}
}

func TestMutationsKeepTheUsersCheckOfTheConnection(t *testing.T) {
	url, base := stubBothProtocols(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") })
	no := errors.New("not this connection")
	base.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { return no }
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	_, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); !errors.Is(err, no) || e.Outcome != ampauth.NotSent {
		t.Errorf("got %v (%v), want the user's own error, NotSent", err, e.Outcome)
	}
}

// stubAwaited is a body whose end can be waited for: net/http may close it after
// the response has come.
type stubAwaited struct {
	io.Reader
	closed atomic.Int32
	done   chan struct{}
}

func newStubAwaited() *stubAwaited {
	return &stubAwaited{Reader: strings.NewReader("x"), done: make(chan struct{})}
}

func (b *stubAwaited) Close() error {
	if b.closed.Add(1) == 1 {
		close(b.done)
	}
	return nil
}

func TestDetourClosesEveryBodyItOpens(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	rt := &ampauth.RetryTransport{Base: base}
	opened := []*stubAwaited{newStubAwaited()}
	req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, opened[0])
	req.GetBody = func() (io.ReadCloser, error) {
		opened = append(opened, newStubAwaited())
		return opened[len(opened)-1], nil
	}
	stubStatus(t, rt, req)
	if len(opened) != 3 {
		t.Errorf("%d bodies were opened, want the caller's and one for each other way", len(opened))
	}
	for i, body := range opened {
		select {
		case <-body.done:
		case <-time.After(10 * time.Second):
		}
		if n := body.closed.Load(); n != 1 {
			t.Errorf("body %d was closed %d times, want once", i+1, n)
		}
	}
}

func TestMutationThatIsNotEvenWrittenIsNotSent(t *testing.T) {
	stubBubble(t, nil, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x"))
		req.Header["X-Broken"] = []string{"a\nb"}
		_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || errors.Is(err, ampauth.ErrAmbiguous) || l.Dials() != 0 {
			t.Errorf("got %v (%v) after %d dials, want NotSent after none", err, e.Outcome, l.Dials())
		}
	})
}

func TestDetourFromAServerThatAlertsIsNoAttempt(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	// crypto/tls is lenient with clients of HTTP/1.1 only; others end the handshake.
	server.TLS = &tls.Config{NextProtos: []string{"h2"}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil
		}
		return &tls.Config{Certificates: server.TLS.Certificates, NextProtos: []string{"something else"}}, nil
	}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	config := stubQuick
	config.MaxAttempts = 1
	rt := &ampauth.RetryTransport{Base: server.Client().Transport, Retry: config}
	if status := stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x"))); status != 200 {
		t.Errorf("status %d, want 200 in one attempt", status)
	}
}

func TestMaskOutlivesALayerThatDropsTheBody(t *testing.T) {
	var sent *http.Request
	auth := authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		return answer(200, "", ""), nil
	}))
	for _, none := range []io.ReadCloser{nil, http.NoBody} {
		layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			clone := req.Clone(req.Context())
			clone.Body = none
			return auth.RoundTrip(clone)
		})
		req, _ := http.NewRequest("GET", "https://amp.test/api/assets/6f0e/register", nil)
		if _, err := (&ampauth.RetryTransport{Base: layer, Classify: func(*http.Request) ampauth.Operation { return ampauth.MutatingOperation }}).RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if sent.Body == nil || sent.Body == http.NoBody {
			t.Error("the body is gone: net/http may repeat the mutation")
		}
	}
}

// waitedConn tells when it is closed.
type waitedConn struct {
	net.Conn
	once sync.Once
	open *sync.WaitGroup
}

func (c *waitedConn) Close() error {
	c.once.Do(c.open.Done)
	return c.Conn.Close()
}

func TestDetourClosesTheConnectionItDoesNotUse(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	var open sync.WaitGroup
	dial := base.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &waitedConn{Conn: conn, open: &open}, nil
	}
	rt := &ampauth.RetryTransport{Base: base}
	stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
	closed := make(chan struct{})
	go func() { open.Wait(); close(closed) }()
	late := time.After(10 * time.Second)
	for {
		rt.CloseIdleConnections() // a connection of HTTP/2 is idle a moment after its last stream
		select {
		case <-closed:
			return
		case <-late:
			t.Fatal("a connection is left open")
		case <-time.After(time.Millisecond):
		}
	}
}
