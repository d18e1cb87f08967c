package ampauth_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
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

// stubEffects is a server that answers any GET, and performs a POST and then ends
// the connection without an answer, as long as silent is positive.
func stubEffects(t *testing.T, silent int32, reset bool) (address string, effects, accepted *atomic.Int32) {
	effects = new(atomic.Int32)
	address, accepted = stubListen(t, func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if req.Method == "POST" && effects.Add(1) <= silent {
				if reset {
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if req.Close {
				return
			}
		}
	})
	return address, effects, accepted
}

// net/http sends a request with an Idempotency-Key once more when a connection
// that was used before breaks. AMP does not know that header.
func TestMutationWithAnIdempotencyKeyIsPerformedOnce(t *testing.T) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		for _, reset := range []bool{false, true} {
			for _, layered := range []bool{false, true} {
				for _, body := range []any{nil, []byte("payload")} {
					t.Run(fmt.Sprintf("%s, reset %v, layer between %v, body %v", name, reset, layered, body != nil), func(t *testing.T) {
						address, effects, accepted := stubEffects(t, 1, reset)
						pooled := stubPooled(t)
						rt := &ampauth.RetryTransport{Base: pooled, Retry: stubQuick}
						if layered {
							rt.Base = stubHeaderLayer(pooled)
						}
						stubStatus(t, rt, stubRequestTo(t.Context(), "http://"+address, ampauth.SafeOperation, nil))
						req := stubRequestTo(t.Context(), "http://"+address, ampauth.MutatingOperation, body)
						req.Header.Set(name, "k")
						_, err := rt.RoundTrip(req)
						if n := effects.Load(); !errors.Is(err, ampauth.ErrAmbiguous) || n != 1 {
							t.Errorf("got %v after %d effects, want ErrAmbiguous after one", err, n)
						}
						want := int32(2) // a fresh connection
						if layered {
							want = 1
						}
						if n := accepted.Load(); n != want {
							t.Errorf("%d connections, want %d", n, want)
						}
					})
				}
			}
		}
	}
}

func TestMutationsUseAFreshConnectionEach(t *testing.T) {
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
				if l.Dials() != 3 || fmt.Sprint(closing) != "[false true false true false]" {
					t.Errorf("%d connections, closed after the request: %v; want one for the pool and one for each mutation", l.Dials(), closing)
				}
			})
		})
	}
}

// A connection of the pool that the server has just given up must not make a
// doubtful outcome of a mutation.
func TestDeadIdleConnectionDoesNotDisturbAMutation(t *testing.T) {
	var effects atomic.Int32
	address, _ := stubListen(t, func(conn net.Conn, n int) {
		in := bufio.NewReader(conn)
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if req.Method == "POST" {
			effects.Add(1)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if n == 1 {
			_, _ = in.ReadByte() // whatever comes next is too late
		}
	})
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	stubStatus(t, rt, stubRequestTo(t.Context(), "http://"+address, ampauth.SafeOperation, nil))
	if status := stubStatus(t, rt, stubRequestTo(t.Context(), "http://"+address, ampauth.MutatingOperation, []byte("x"))); status != 200 || effects.Load() != 1 {
		t.Errorf("status %d after %d effects, want 200 after one", status, effects.Load())
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

// stubHTTP2 speaks just enough HTTP/2 (RFC 9113) to count requests and to end
// each as verdict says: with an error code, or 0 for a 200.
func stubHTTP2(conn net.Conn, verdict func() (code uint32)) {
	preface := make([]byte, 24)
	if _, err := io.ReadFull(conn, preface); err != nil || !bytes.HasPrefix(preface, []byte("PRI * HTTP/2.0")) {
		return
	}
	frame := func(kind, flags byte, stream uint32, payload []byte) {
		head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		_, _ = conn.Write(append(binary.BigEndian.AppendUint32(head, stream), payload...))
	}
	const data, headers, reset, settings, ping = 0, 1, 3, 4, 6
	frame(settings, 0, 0, nil)
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case (kind == settings || kind == ping) && flags&1 == 0:
			frame(kind, 1, 0, map[bool][]byte{true: payload}[kind == ping])
		case (kind == headers || kind == data) && flags&1 != 0: // END_STREAM
			if code := verdict(); code != 0 {
				frame(reset, 0, stream, binary.BigEndian.AppendUint32(nil, code))
			} else {
				frame(headers, 1|4, stream, []byte{0x88}) // :status 200
			}
		}
	}
}

// A stubHTTP2Peer is how a server reacts to a client that offers HTTP/1.1.
type stubHTTP2Peer struct {
	name   string
	config func(*tls.Config) *tls.Config
}

var stubHTTP2Peers = []stubHTTP2Peer{
	{"ends the handshake", func(c *tls.Config) *tls.Config {
		strict := c.Clone()
		strict.NextProtos = []string{"only-h2"}
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if !slices.Contains(hello.SupportedProtos, "h2") {
				return strict, nil // which is answered by no_application_protocol
			}
			return nil, nil
		}
		return c
	}},
	// As crypto/tls does for a server that lists h2 alone.
	{"lets the handshake pass", func(c *tls.Config) *tls.Config { return c }},
}

func TestServerThatSpeaksHTTP2OnlyIsServed(t *testing.T) {
	certificate, trust := stubTLS(t)
	for _, peer := range stubHTTP2Peers {
		for _, body := range []any{nil, []byte("payload"), io.Reader(struct{ io.Reader }{strings.NewReader("once")})} {
			t.Run(fmt.Sprintf("%s, body %T", peer.name, body), func(t *testing.T) {
				config := peer.config(&tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
				var effects atomic.Int32
				address, _ := stubListen(t, func(conn net.Conn, _ int) {
					secured := tls.Server(conn, config)
					defer secured.Close()
					stubHTTP2(secured, func() uint32 { effects.Add(1); return 0 })
				})
				base := stubPooled(t)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = trust.Clone(), true
				rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
				for n := range int32(2) {
					if n == 1 && body != nil {
						body = []byte("payload")
					}
					resp, err := rt.RoundTrip(stubRequestTo(t.Context(), "https://"+address, ampauth.MutatingOperation, body))
					if err != nil {
						t.Fatalf("mutation %d: %v after %d effects", n+1, err, effects.Load())
					}
					stubText(t, resp)
					if resp.ProtoMajor != 2 || effects.Load() != n+1 {
						t.Errorf("mutation %d: %s, %d effects", n+1, resp.Proto, effects.Load())
					}
				}
			})
		}
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

// net/http of Go 1.26 repeats any request whose stream ends by PROTOCOL_ERROR.
func TestMutationOverHTTP2IsPerformedOnce(t *testing.T) {
	certificate, trust := stubTLS(t)
	const protocol, internal, refused, cancel = 1, 2, 7, 8
	for name, code := range map[string]uint32{"PROTOCOL_ERROR": protocol, "INTERNAL_ERROR": internal, "CANCEL": cancel, "REFUSED_STREAM": refused} {
		for _, body := range []any{nil, []byte("payload")} {
			t.Run(fmt.Sprintf("%s, body %v", name, body != nil), func(t *testing.T) {
				var requests atomic.Int32
				address, _ := stubListen(t, func(conn net.Conn, _ int) {
					secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
					defer secured.Close()
					stubHTTP2(secured, func() uint32 {
						if requests.Add(1) <= 2 {
							return code
						}
						return 0
					})
				})
				base := stubPooled(t)
				base.TLSClientConfig = trust.Clone()
				base.Protocols = new(http.Protocols)
				base.Protocols.SetHTTP2(true)
				rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
				resp, err := rt.RoundTrip(stubRequestTo(t.Context(), "https://"+address, ampauth.MutatingOperation, body))
				if err == nil && code == refused {
					stubText(t, resp)
					return // that stream was not processed: to send it again is right
				}
				if n := requests.Load(); !errors.Is(err, ampauth.ErrAmbiguous) || n != 1 {
					t.Errorf("got %v after %d requests, want ErrAmbiguous after one", err, n)
				}
			})
		}
	}
}

func TestMutationWhoseDialIsRefusedTwiceIsPerformedOnce(t *testing.T) {
	effects := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) { effects++ }, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		l.Refuse(2)
		for _, body := range []any{[]byte("x"), nil, io.Reader(struct{ io.Reader }{strings.NewReader("once")})} {
			before, dials := effects, l.Dials()
			l.Refuse(2)
			status := stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, body))
			if status != 200 || l.Dials()-dials != 3 || effects-before != 1 {
				t.Errorf("%T: status %d after %d dials and %d effects, want 200, 3, 1", body, status, l.Dials()-dials, effects-before)
			}
		}
	})
}

func TestMutationWhoseHandshakeIsCutIsPerformedOnce(t *testing.T) {
	certificate, trust := stubTLS(t)
	var effects atomic.Int32
	address, accepted := stubListen(t, func(conn net.Conn, n int) {
		if n == 1 {
			_, _ = conn.Read(make([]byte, 1)) // of the client's hello
			return
		}
		secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
		defer secured.Close()
		req, err := http.ReadRequest(bufio.NewReader(secured))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		effects.Add(1)
		_, _ = io.WriteString(secured, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	base := stubPooled(t)
	base.TLSClientConfig = trust
	status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, stubRequestTo(t.Context(), "https://"+address, ampauth.MutatingOperation, []byte("x")))
	if status != 200 || effects.Load() != 1 || accepted.Load() != 2 {
		t.Errorf("status %d after %d effects over %d connections, want 200, 1, 2", status, effects.Load(), accepted.Load())
	}
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

// stubIssue is the issuance of an asset at a fake AMP.
func stubIssue(t *testing.T, ctx context.Context, server *httptest.Server, token, id string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/api/assets/issue", strings.NewReader(`{"name":"Asset"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Operation-Id", id)
	return req
}

func TestIssuanceIsPerformedOnceWhateverComesBack(t *testing.T) {
	after := func(f fakeamp.Fault) fakeamp.Fault {
		f.Route, f.When = "POST /assets/issue", fakeamp.After
		return f
	}
	for _, test := range []struct {
		name   string
		fault  fakeamp.Fault
		status int // 0: an error that Is ErrAmbiguous
	}{
		{"reset", after(fakeamp.Fault{Do: fakeamp.Reset}), 0},
		{"end of the connection", after(fakeamp.Fault{Do: fakeamp.Close}), 0},
		{"no answer in time", after(fakeamp.Fault{Do: fakeamp.StallHeaders}), 0},
		{"500", after(fakeamp.Fault{Status: 500}), 500},
		{"502 of a proxy", after(fakeamp.Fault{Status: 502, HTML: true}), 502},
		{"503", after(fakeamp.Fault{Status: 503}), 503},
		{"503 with Retry-After 0", after(fakeamp.Fault{Status: 503, Header: http.Header{"Retry-After": {"0"}}}), 503},
		{"504", after(fakeamp.Fault{Status: 504}), 504},
		{"408", after(fakeamp.Fault{Status: 408}), 408},
		{"body cut", after(fakeamp.Fault{Do: fakeamp.CutBody}), 201},
	} {
		for _, layered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, layer between %v", test.name, layered), func(t *testing.T) {
				fake := fakeamp.New(fakeamp.Config{})
				server := httptest.NewServer(fake)
				defer server.Close()
				defer fake.Close()
				config := stubQuick
				config.MutationTimeout = 300 * time.Millisecond
				rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: config}
				if layered {
					rt.Base = stubHeaderLayer(rt.Base)
				}
				test.fault.Times = -1
				fake.Inject(test.fault)
				resp, err := rt.RoundTrip(stubIssue(t, t.Context(), server, fake.Rotate("issuer"), "1"))
				if n := len(fake.Effects()); n != 1 {
					t.Errorf("%d effects, want 1", n)
				}
				if test.status == 0 {
					if e := stubError(t, err); e.Kind != ampauth.ErrAmbiguous || e.Outcome != ampauth.Ambiguous || e.Attempts != 1 {
						t.Errorf("got %v, want ErrAmbiguous after one attempt", err)
					}
					return
				}
				if err != nil || resp.StatusCode != test.status {
					t.Fatalf("got (%v, %v), want the %d", resp, err, test.status)
				}
				defer resp.Body.Close()
				content, err := io.ReadAll(resp.Body)
				if (err != nil) != (test.name == "body cut") || len(content) == 0 {
					t.Errorf("the body reads %q, %v", content, err)
				}
			})
		}
	}
}

// The promise of the package: whatever goes wrong, for however many at once, no
// mutation is performed twice, and one whose call succeeds was performed.
func TestNoMutationIsPerformedTwice(t *testing.T) {
	fake := fakeamp.New(fakeamp.Config{})
	server := httptest.NewServer(fake)
	defer server.Close()
	defer fake.Close()
	const route = "POST /assets/issue"
	retryAfter0 := http.Header{"Retry-After": {"0"}}
	for range 10 {
		for _, when := range []fakeamp.When{fakeamp.Before, fakeamp.After} {
			fake.Inject(
				fakeamp.Fault{Route: route, When: when, Do: fakeamp.Reset},
				fakeamp.Fault{Route: route, When: when, Do: fakeamp.Close},
				fakeamp.Fault{Route: route, When: when, Status: 500},
				fakeamp.Fault{Route: route, When: when, Status: 503, Header: retryAfter0},
				fakeamp.Fault{Route: route, When: when, Delay: 5 * time.Millisecond, Do: fakeamp.CutBody},
			)
		}
		fake.Inject(
			fakeamp.Fault{Route: route, Status: 429, Header: retryAfter0},
			fakeamp.Fault{Route: route, Status: 425},
			fakeamp.Fault{Route: route, Status: 421},
		)
	}
	token := fake.Rotate("issuer")
	for name, base := range map[string]http.RoundTripper{"fresh": stubPooled(t), "masked": stubHeaderLayer(stubPooled(t))} {
		rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				// In between, connections of the pool are used and given back.
				safe := stubRequestTo(t.Context(), server.URL+"/api/info", ampauth.SafeOperation, nil)
				stubStatus(t, rt, safe)
				req := stubIssue(t, t.Context(), server, token, fmt.Sprint(name, i))
				req.Header.Set("Idempotency-Key", fmt.Sprint(name, i))
				resp, err := rt.RoundTrip(req)
				switch {
				case err == nil:
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				case !errors.Is(err, ampauth.ErrAmbiguous):
					t.Errorf("%s %d: %v", name, i, err)
				}
			})
		}
		wg.Wait()
	}
	if repeated := fake.Repeated(); len(repeated) != 0 {
		t.Errorf("performed more than once: %v", repeated)
	}
	if n := len(fake.Effects()); n < 100 {
		t.Errorf("only %d effects of 200 mutations", n)
	}
	for _, fault := range []string{"reset after", "close after", "503 after", "429", "421"} {
		if fake.Injected()[fault] == 0 {
			t.Errorf("the fault %q did not come to pass: %v", fault, fake.Injected())
		}
	}
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

// To find out which protocols a server speaks takes a connection or two. That is
// no attempt: it costs no token, no retry, and does not show.
func TestDetourIsNoAttempt(t *testing.T) {
	numbers := make(chan string, 10)
	address, base := stubBothProtocols(t, func(w http.ResponseWriter, r *http.Request) {
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
	if got := <-numbers; got != "HTTP/1.1 1" || len(numbers) != 0 {
		t.Errorf("the server saw %q and %d more, want HTTP/1.1 and attempt 1 alone", got, len(numbers))
	}
	if used := burst - limiter.Tokens(); used > 1.1 {
		t.Errorf("one attempt took %.0f tokens of the limiter", used)
	}
}

// Many at once may be the first to a host.
func TestDetoursAtOnceAllArrive(t *testing.T) {
	var effects, http2 atomic.Int32
	url, base := stubBothProtocols(t, func(w http.ResponseWriter, r *http.Request) {
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
	if effects.Load() != 50 || http2.Load() != 0 {
		t.Errorf("%d effects of 50 mutations, %d of them over HTTP/2; want 50 and 0", effects.Load(), http2.Load())
	}
}

func TestMutationsKeepTheUsersCheckOfTheConnection(t *testing.T) {
	url, base := stubBothProtocols(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") })
	no := errors.New("not this connection")
	var asked atomic.Int32
	base.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error {
		if asked.Add(1) == 1 {
			return nil // lets the way be found out
		}
		return no
	}
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
	url, base := stubBothProtocols(t, func(http.ResponseWriter, *http.Request) {})
	rt := &ampauth.RetryTransport{Base: base}
	opened := []*stubAwaited{newStubAwaited()}
	req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, opened[0])
	req.GetBody = func() (io.ReadCloser, error) {
		opened = append(opened, newStubAwaited())
		return opened[len(opened)-1], nil
	}
	stubStatus(t, rt, req)
	if len(opened) != 2 {
		t.Errorf("%d bodies were opened, want the caller's and one more", len(opened))
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
