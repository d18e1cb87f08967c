package ampauth_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

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

func TestOtherAlertIsNotTakenForHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	var handshakes atomic.Int32
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	base.TLSClientConfig.MaxVersion = tls.VersionTLS12
	config := stubQuick
	config.MaxAttempts = 1
	_, err := (&ampauth.RetryTransport{Base: base, Retry: config}).RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.NotSent || handshakes.Load() != 1 {
		t.Errorf("got %v (%v) after %d handshakes, want NotSent after 1", err, e.Outcome, handshakes.Load())
	}
}
