package interop

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
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
// then. Here it is no attempt either: a wait of an hour would be seen. In doubt is only what
// was written before the end of its connection could be read.
func TestConnTransportBelowOtelhttpLeavesNoDoubt(t *testing.T) {
	for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2AndHTTP1} {
		s := hostile.New(protocol, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.AnswerThenClose}))
		t.Cleanup(s.Close)
		var late atomic.Int32
		base := &http.Transport{ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &endingConn{Conn: conn, late: &late}, nil
		}}
		if protocol != hostile.HTTP1 {
			base.TLSClientConfig = s.TLSConfig()
		}
		p := peer{s, protocol, nil}
		rt := overConns(t, base)
		const n = 100
		doubts := 0
		for range n {
			time.Sleep(5 * time.Millisecond) // real sockets: the connection is found closed, most often
			err := p.send(t, t.Context(), rt, operation, withBody)
			switch {
			case errors.Is(err, ampauth.ErrAmbiguous):
				doubts++
			case err != nil:
				t.Fatalf("protocol %v: %v", protocol, err)
			}
		}
		if late.Load() != 0 {
			t.Errorf("protocol %v: %d requests were written to a connection that had ended", protocol, late.Load())
		}
		if effects := s.Effects(operation); effects < n-doubts || effects > n || doubts == n {
			t.Errorf("protocol %v: %d effects of %d mutations, %d in doubt", protocol, effects, n, doubts)
		}
	}
}

// An endingConn counts the requests that are written to it although its end was read.
type endingConn struct {
	net.Conn
	ended atomic.Bool
	late  *atomic.Int32
}

func (c *endingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

func (c *endingConn) Write(p []byte) (int, error) {
	const longestAlert = 64 // with which TLS says goodbye
	if c.ended.Load() && len(p) > longestAlert {
		c.late.Add(1)
	}
	return c.Conn.Write(p)
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
