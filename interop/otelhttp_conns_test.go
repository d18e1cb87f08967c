package interop

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// overConns is otelhttp with a ConnTransport below it, the stack that its documentation
// names.
func overConns(t *testing.T, base *http.Transport) http.RoundTripper {
	conns := &ampauth.ConnTransport{Base: base, MutationIdle: time.Minute}
	t.Cleanup(conns.CloseIdleConnections)
	return &ampauth.RetryTransport{
		Base:  otelhttp.NewTransport(conns),
		Retry: ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour, MaxAttempts: 3},
	}
}

// A server that closes each connection behind an answer leaves a bare pool in doubt now and
// then. Here it is no attempt either: a wait of an hour would be seen.
func TestConnTransportBelowOtelhttpLeavesNoDoubt(t *testing.T) {
	for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2AndHTTP1} {
		s := hostile.New(protocol, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.AnswerThenClose}))
		t.Cleanup(s.Close)
		base := &http.Transport{ForceAttemptHTTP2: true}
		if protocol != hostile.HTTP1 {
			base.TLSClientConfig = s.TLSConfig()
		}
		p := peer{s, protocol, nil}
		rt := overConns(t, base)
		const n = 100
		for range n {
			time.Sleep(5 * time.Millisecond) // the connection is found closed, most often
			if err := p.send(t, t.Context(), rt, operation, withBody); err != nil {
				t.Fatalf("protocol %v: %v", protocol, err)
			}
		}
		if effects := s.Effects(operation); effects != n {
			t.Errorf("protocol %v: %d effects of %d mutations", protocol, effects, n)
		}
	}
}

func TestConnTransportBelowOtelhttpKeepsConnections(t *testing.T) {
	var conns atomic.Int32
	var length atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		length.Store(r.ContentLength)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	rt := overConns(t, server.Client().Transport.(*http.Transport).Clone())
	for _, content := range []string{"{}", ""} {
		for range 50 {
			var body io.Reader
			if content != "" {
				body = strings.NewReader(content)
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/api/assets/issue", body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if length.Load() != int64(len(content)) {
				t.Fatalf("Content-Length %d arrived, want %d", length.Load(), len(content))
			}
		}
	}
	// net/http closes one instead of keeping it when the machine is busy.
	if n := conns.Load(); n > 20 {
		t.Errorf("%d connections for 100 mutations, want one or a few", n)
	}
}
