// Package atmostonce sends requests over HTTP/1.1 connections that carry each of them at
// most once, and proves what did not leave.
package atmostonce

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/replay"
)

// A Transport sends requests over connections of its own, made as those of Base are
// (proxy, TLS configuration, dialers), HTTP/1.1 whatever Base would speak. They are kept
// for a while, and nothing else uses them.
//
// net/http repeats some requests by itself when a connection that was used before breaks.
// Over a Transport it repeats none of which a byte may have left. A request whose
// connection was found closed before a byte was handed to it ends in an *[UnsentError].
//
// The fields must not be changed once it is used. It is safe for concurrent use.
type Transport struct {
	Base *http.Transport // Required. It is read, and never changed

	// Idle is how long a connection is kept after the last byte came over it. If 0 or
	// negative, each request has a connection of its own.
	Idle time.Duration

	// Outside returns what Base's dialers and proxy functions get of the context of a
	// request. If nil, they get the request's own.
	Outside func(context.Context) context.Context

	made   atomic.Pointer[derived]
	making sync.Mutex // for one to replace made
}

var _ http.RoundTripper = (*Transport)(nil)

// An UnsentError says that nothing of the request was handed to a connection, so that it
// cannot have been performed.
type UnsentError struct {
	Err error // what went wrong

	// Stale: the connection had been kept, and was found closed. A fresh one may do.
	Stale bool

	// OtherWay: the host does not speak the protocol that it was tried with. The next
	// request to it is sent another way, unless SpeaksHTTP1 is false then.
	OtherWay bool
}

func (e *UnsentError) Error() string { return e.Err.Error() }
func (e *UnsentError) Unwrap() error { return e.Err }

var (
	// ErrNoHTTP1 says that the host, or Base, does not speak HTTP/1.1.
	ErrNoHTTP1 = errors.New("the server chose HTTP/2, or speaks nothing else")

	// ErrRepeated says that a request was to be sent once more over another connection, by
	// net/http itself, though the first may have carried it.
	ErrRepeated = errors.New("the request would have been sent twice")

	errClosed = errors.New("the connection was closed before the request was written")
)

// RoundTrip implements http.RoundTripper. It sends req over a connection that is kept, or
// over a fresh one. An error that is no *UnsentError proves nothing.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(req, false)
}

// RoundTripFresh is RoundTrip over a connection that nothing was sent over.
func (t *Transport) RoundTripFresh(req *http.Request) (*http.Response, error) {
	return t.roundTrip(req, true)
}

func (t *Transport) roundTrip(req *http.Request, fresh bool) (*http.Response, error) {
	d := t.derived()
	n := d.hosts.wayTo(req.URL.Host)
	if n >= len(d.ways) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, &UnsentError{Err: ErrNoHTTP1, OtherWay: true}
	}
	way := d.ways[n]
	sent, kept := once(req)
	over := way.kept
	if fresh || !kept || req.Close || !t.keeps(req.URL) {
		over = way.fresh
	}
	s := newSending(req.Context())
	s.mustName = way.mustName
	sent = sent.WithContext(s)
	sent.GetBody = nil
	resp, err := s.send(over, sent)
	if err == nil {
		resp.Request = req
		return resp, nil
	}
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if over == way.fresh && req.Context().Err() != nil {
		over.CloseIdleConnections() // ends a dial that goes on though nobody waits for it
	}
	if s.handed.Load() {
		return nil, err
	}
	unsent := &UnsentError{Err: err, Stale: s.stale}
	if s.wrongWay || !s.connected && (errors.Is(err, ErrNoHTTP1) || noCommonProtocol(err)) {
		d.hosts.learn(req.URL.Host, n)
		unsent.Err, unsent.OtherWay = ErrNoHTTP1, true
	}
	return nil, unsent
}

// SpeaksHTTP1 reports whether requests to the host of u can be sent, as far as is known.
func (t *Transport) SpeaksHTTP1(u *url.URL) bool {
	d := t.derived()
	return d.hosts.wayTo(u.Host) < len(d.ways)
}

// CloseIdleConnections closes the connections that are kept and in no use, and ends dials
// that nobody waits for. Base's own it leaves alone.
func (t *Transport) CloseIdleConnections() {
	if d := t.made.Load(); d != nil {
		d.closeIdle()
	}
}

// keeps reports whether connections to the host of u can be kept. What Base's own TLS
// dialer returns cannot be watched, since net/http must see it as it is.
func (t *Transport) keeps(u *url.URL) bool {
	b := t.Base
	//lint:ignore SA1019 it may be set
	customTLS := b.DialTLSContext != nil || b.DialTLS != nil
	return t.Idle > 0 && !b.DisableKeepAlives && b.MaxIdleConnsPerHost >= 0 && !(customTLS && u.Scheme == "https")
}

// once returns req in a form that net/http does not repeat when a byte of it may have
// left, over a connection that was used before. kept is false if there is no such form:
// then it takes a connection that is not used again.
func once(req *http.Request) (unrepeatable *http.Request, kept bool) {
	if req.Body != nil && req.Body != http.NoBody {
		return req, true // without GetBody it is not repeated
	}
	// What has no body is repeated if the method or the header says that it may.
	if _, key := req.Header["Idempotency-Key"]; key {
		return req, false
	}
	if _, key := req.Header["X-Idempotency-Key"]; key {
		return req, false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		// With these methods net/http looks whether there is something in the body, and
		// puts none on the wire.
		return replay.Unrepeatable(req), true
	case http.MethodTrace:
		return req, false
	}
	return req, true
}
