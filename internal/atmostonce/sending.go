package atmostonce

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/ampauth/ampauth/internal/conntrace"
)

// A sending is a request on its way. It is the context of the request, so that net/http
// tells it which connection the request gets.
type sending struct {
	context.Context // the caller's
	trace           httptrace.ClientTrace
	theirs          func(httptrace.GotConnInfo) // of the caller's trace; may be nil

	// Set by RoundTrip's goroutine alone, in which net/http tells of connections.
	connected bool
	conn      *conn // the last one; nil if it is none of the Transport's
	stale     bool  // conn had been used, or had waited

	handed atomic.Bool // a byte of the request may have been handed to a connection; written under the lock of the connection
}

type sendingKey struct{}

func newSending(ctx context.Context) *sending {
	s := &sending{Context: ctx}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil {
		s.trace, s.theirs = *trace, trace.GotConn
	}
	s.trace.GotConn = s.gotConn
	return s
}

// Value implements context.Context.
func (s *sending) Value(key any) any {
	switch key {
	case conntrace.Key:
		return &s.trace
	case sendingKey{}:
		return s
	}
	return s.Context.Value(key)
}

func (s *sending) gotConn(info httptrace.GotConnInfo) {
	if s.theirs != nil {
		s.theirs(info)
	}
	next := connOf(info.Conn)
	if s.connected && s.mayHaveLeft() {
		if next != nil {
			next.seal()
		}
		return
	}
	s.connected, s.conn, s.stale = true, next, info.Reused || info.WasIdle
	if next == nil {
		s.handed.Store(true) // nobody counts what it is handed
		return
	}
	next.begin(s)
}

// send sends req over t. An answer that a kept connection had in store before a byte of
// the request was handed to it is the answer to nothing: servers say 408 before they
// close an idle connection (RFC 9110 15.5.9).
func (s *sending) send(t *http.Transport, req *http.Request) (resp *http.Response, err error) {
	failed := true
	defer func() {
		if failed { // or panicked
			s.mayHaveLeft()
		}
	}()
	resp, err = t.RoundTrip(req)
	switch {
	case err != nil:
	case s.stale && !s.mayHaveLeft():
		err = errClosed
	default:
		failed = false
	}
	return resp, err
}

// mayHaveLeft ends the request's time on its connection, and reports whether a byte of it
// may have been handed to one.
func (s *sending) mayHaveLeft() bool {
	if s.conn != nil && s.conn.end(s) {
		s.conn.seal()
	}
	return s.handed.Load()
}

// connOf returns the connection of a Transport that is below c, or nil.
func connOf(c net.Conn) *conn {
	for {
		switch above := c.(type) {
		case *conn:
			return above
		case *tls.Conn:
			c = above.NetConn()
		default:
			return nil
		}
	}
}

// emptyBody is the body of a request that has none, and that net/http must not repeat.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }
