package ampauth_test

import (
	"context"
	"crypto/tls"
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
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

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

func TestUsersTransportIsKeptAsItIs(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) {}, "h2", "http/1.1")
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
	base.RegisterProtocol("amp", roundTripFunc(func(req *http.Request) (*http.Response, error) { return stubAnswer(200)(req) }))
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

func TestMutationsKeepTheUsersCheckOfTheConnection(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") }, "h2", "http/1.1")
	no := errors.New("not this connection")
	base.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { return no }
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	_, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); !errors.Is(err, no) || e.Outcome != ampauth.NotSent {
		t.Errorf("got %v (%v), want the user's own error, NotSent", err, e.Outcome)
	}
}
