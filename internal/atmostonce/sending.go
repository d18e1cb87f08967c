package atmostonce

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/ampauth/ampauth/internal/conntrace"
	"github.com/ampauth/ampauth/internal/replay"
)

// A sending is a request on its way. It is the context of the request, so that net/http
// tells it which connection the request gets.
type sending struct {
	context.Context                        // the caller's
	trace           httptrace.ClientTrace  // the caller's as well, with what is heard here
	theirs          *httptrace.ClientTrace // the caller's; may be nil
	mustName        bool                   // the host must name HTTP/1.1 in the TLS handshake

	// Set by RoundTrip's goroutine alone, in which net/http tells of connections.
	connected bool
	conn      *conn // the last one; nil if it is none of the Transport's
	stale     bool  // conn had been used, or had waited
	wrongWay  bool  // the host does not name HTTP/1.1, and has to

	ends   atomic.Int32 // how many of these are over: the request, its use of a connection that takes no other
	handed atomic.Bool  // a byte of the request may have been handed to a connection; written under the lock of the connection
}

type sendingKey struct{}

func newSending(ctx context.Context) *sending {
	s := &sending{Context: ctx}
	if s.theirs = httptrace.ContextClientTrace(ctx); s.theirs != nil {
		s.trace = *s.theirs
	}
	s.trace.GotConn, s.trace.PutIdleConn = s.gotConn, s.putIdleConn
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
	if s.theirs != nil && s.theirs.GotConn != nil {
		defer s.theirs.GotConn(info) // when the connection is the request's
	}
	s.end(true) // net/http repeats by itself what it could not write
	next := connOf(info.Conn)
	if s.handed.Load() {
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
	next.begin(s, s.stale)
	if secure, ok := info.Conn.(*tls.Conn); ok && s.mustName && secure.ConnectionState().NegotiatedProtocol != "http/1.1" {
		s.wrongWay = true
		s.end(true)
	}
}

func (s *sending) putIdleConn(err error) {
	if s.theirs != nil && s.theirs.PutIdleConn != nil {
		s.theirs.PutIdleConn(err)
	}
	if err == nil {
		s.closeAtTheSecond()
	}
}

// closeAtTheSecond closes a connection that takes no other request as soon as it is both
// idle and known to be such.
func (s *sending) closeAtTheSecond() {
	if s.ends.Add(1) == 2 {
		_ = s.conn.Conn.Close()
	}
}

// send sends req over t. An answer that a kept connection had in store before a byte of
// the request was handed to it is the answer to nothing: servers say 408 before they
// close an idle connection (RFC 9110 15.5.9).
func (s *sending) send(t *http.Transport, req *http.Request) (resp *http.Response, err error) {
	failed := true
	defer func() { s.end(failed) }() // also when a panic passes through
	resp, err = t.RoundTrip(req)
	switch {
	case err != nil:
	case s.stale && !s.handed.Load():
		if s.end(true); s.handed.Load() {
			break
		}
		err = errClosed
	default:
		failed = false
		if resp.StatusCode >= http.StatusBadRequest && s.conn != nil && isLong(req) {
			// A server that answers before it has read the body may go on to drop what
			// comes, the next request as well, and close: nginx does when what it passes
			// the body on to has refused it.
			if s.conn.retire(s) {
				s.closeAtTheSecond()
			}
		}
	}
	return resp, err
}

// isLong reports whether the body of req does not leave together with the header, in the
// first 4 KiB that net/http writes, so that an answer may come before all of it has arrived.
func isLong(req *http.Request) bool {
	return req.Body != nil && req.Body != (replay.Empty{}) && (req.ContentLength <= 0 || req.ContentLength > 4<<10)
}

// end ends the request's time on its connection. If it failed, nothing that it still wants
// to write is written.
func (s *sending) end(failed bool) {
	if s.conn != nil {
		s.conn.end(s, failed)
	}
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
