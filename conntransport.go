package ampauth

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/livepool"
	"github.com/ampauth/ampauth/internal/replay"
	"github.com/ampauth/ampauth/internal/viaproxy"
)

// A ConnTransport sends the mutations of a [RetryTransport] over HTTP/1.1 connections of
// their own, which prove when nothing of a request has left, and everything else over the
// connections of Base. NewClient, AuthTransport and RetryTransport put one over an
// *http.Transport by themselves. It is to be put below a layer of the user's:
//
//	RetryTransport{Base: otelhttp.NewTransport(&ConnTransport{})}
//
// Stacks over one transport share its connections for mutations if they share a
// ConnTransport. Without a RetryTransport above, all goes over the connections of Base.
//
// The connections for mutations are made as Base makes its own: by its proxy, dialers, TLS
// configuration and limits, which count for them separately. What RegisterProtocol has put in the
// place of http or https is left out: wrap such a transport. So is a protocol of
// TLSNextProto. With a DialTLSContext or DialTLS, DisableKeepAlives, or a negative
// MaxIdleConnsPerHost, none is used twice. A TLSClientConfig that is replaced holds for the
// connections that are made from then on; one that is changed in place does not.
//
// A mutation to a host that speaks nothing but HTTP/2 goes over the connections of Base,
// and net/http is kept from sending it a second time; then only a connection that did not
// come about proves that it has not left.
//
// When an attempt ends by its own clock while nothing at all arrived from the host, or
// three callers in a row leave without an answer, the connections of Base to that host are
// not used any more: further requests go over a clone of Base. Whoever waits for an answer
// on the old ones goes on waiting. (The clone pings its connections of HTTP/2.)
//
// A proxy that refuses a CONNECT with a status of 4xx (but 408, 425, 429) is asked once.
// net/http tells of a refusal in the words that the proxy sent: over the connections of
// Base it is known only if these are the usual ones for a status.
//
// Idle connections outlive calls: those for mutations by MutationIdle, those of a clone by
// Base's IdleConnTimeout. CloseIdleConnections ends them; that of Base does not.
//
// The zero value works. A ConnTransport starts no goroutine of its own, is safe for
// concurrent use, and must not be changed or copied once used.
type ConnTransport struct {
	// Base makes the connections. If nil, http.DefaultTransport. It is never changed.
	Base *http.Transport

	// MutationIdle is how long a connection for mutations is kept after its last answer.
	// If 0, 1 s, which is below the keep-alive of the servers that people run; a server
	// that closes sooner costs a connection, and now and then a mutation ends in doubt. If
	// negative, each mutation has a connection of its own: then none is in doubt because a
	// server closed an idle connection, and if a server, or a proxy on the way, answers one
	// request twice, the second answer is not taken for that to the next request.
	MutationIdle time.Duration

	once sync.Once
	made atomic.Pointer[connections] // by once; no printer follows it to what was sent
}

// connections are what a ConnTransport sends over.
type connections struct {
	base  http.RoundTripper
	own   atmostonce.Transport
	pools livepool.Pools
}

var _ http.RoundTripper = (*ConnTransport)(nil)

// defaultMutationIdle is below the shortest keep-alive in use: 2 s of some load balancers,
// 5 s of Apache and Node.js.
const defaultMutationIdle = time.Second

// wrap returns rt, or t over it if it is an *http.Transport and nothing more.
func (t *ConnTransport) wrap(rt http.RoundTripper) http.RoundTripper {
	base, ok := rt.(*http.Transport)
	if !ok {
		return rt
	}
	t.once.Do(func() { t.make(base) })
	return t
}

func (t *ConnTransport) connections() *connections {
	t.once.Do(func() {
		if t.Base != nil {
			t.make(t.Base)
		} else {
			t.make(http.DefaultTransport)
		}
	})
	return t.made.Load()
}

func (t *ConnTransport) make(base http.RoundTripper) {
	c := &connections{base: base}
	c.own.Base, _ = base.(*http.Transport)
	c.pools.Base = c.own.Base
	c.own.Idle = t.MutationIdle
	if t.MutationIdle == 0 {
		c.own.Idle = defaultMutationIdle
	}
	c.own.Outside = forDialer
	t.made.Store(c)
}

// RoundTrip implements http.RoundTripper. Its errors are those of Base, but that a proxy's
// refusal of a CONNECT shows the status of its answer and nothing else.
func (t *ConnTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(req, attemptOf(req))
}

var errDecided = errors.New("the attempt is over: it was answered, or is tried again")

// roundTrip sends req, which belongs to the attempt a, if any.
func (t *ConnTransport) roundTrip(req *http.Request, a *attempt) (*http.Response, error) {
	c := t.connections()
	if a == nil {
		return c.base.RoundTrip(req)
	}
	if c.own.Base == nil || req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return send(c.base, req, a)
	}
	owned := a.ownConn && c.own.SpeaksHTTP1(req.URL)
	var tries *ownTries
	if owned {
		tries = a.try()
	}
	if a.mutates && a.is(stateDecided) { // by a layer that has left a try behind
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, errDecided
	}
	sent := req
	if body, ok := req.Body.(*replay.Watched); ok {
		// net/http knows what it does with a body of a known type; from here on it counts as read.
		body.Begin()
		sent = req.WithContext(req.Context())
		sent.Body = body.ReadCloser
	}
	var resp *http.Response
	var err error
	switch {
	case owned:
		resp, err = c.sendOnce(sent, a, tries)
	case a.mutates:
		resp, err = c.sendPooled(sent, a, atmostonce.RoundTripOver)
	default:
		resp, err = c.sendPooled(sent, a, (*http.Transport).RoundTrip)
	}
	if resp != nil && resp.Request == sent {
		resp.Request = req
	}
	return resp, err
}

// sendOnce sends req over a connection for mutations.
func (c *connections) sendOnce(req *http.Request, a *attempt, tries *ownTries) (*http.Response, error) {
	ctx := req.Context()
	if a.direct {
		ctx = dialContext{a, a.Context} // no trace: there is no other way that req could have gone
	}
	sent := req.WithContext(ctx)
	sent.Body = replay.Restore(req, replay.HasBody(a.caller))
	send := c.own.RoundTrip
	if a.newConn {
		send = c.own.RoundTripFresh
	}
	resp, err := send(sent)
	if resp != nil {
		resp.Request = req
		tries.answer.Store(resp)
	}
	if unsent, ok := err.(*atmostonce.UnsentError); ok {
		tries.unsent.Add(1)
		tries.last.Store(unsent)
	}
	return resp, err
}

// sendPooled sends req by send over the connections of Base, or of a clone of it.
func (c *connections) sendPooled(req *http.Request, a *attempt, send func(*http.Transport, *http.Request) (*http.Response, error)) (*http.Response, error) {
	use, over := c.pools.Use(req.URL.Host)
	sent := req
	if a.mutates {
		sent = req.WithContext(req.Context())
		sent.Body = replay.Restore(req, replay.HasBody(a.caller))
	}
	resp, err := send(over, sent)
	if err != nil {
		if refusal := viaproxy.Of(err, over, req); refusal != nil {
			err = refusal
			a.connectFailed(err)
		}
	}
	switch {
	case err == nil:
		a.note().pool.Store(use.Pool)
		use.Answered(resp)
	case a.timedOut():
		if c.pools.TimedOut(use, pingTime(a.limit)) {
			a.state.Or(stateAvoidPool)
		}
	case a.Err() != nil, timedOut(err):
		c.pools.GivenUp(use, a.Err() == context.Canceled, pingTime(a.limit))
	}
	if resp != nil && resp.Request == sent {
		resp.Request = req
	}
	return resp, err
}

// pingTime is how long a connection of HTTP/2 may be silent until it is asked whether it
// is alive, and how long it then has to answer, where attempts have so much time: both
// together less than half of it, so that another attempt finds another connection.
func pingTime(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return endlessPingTime
	}
	return timeout / 5
}

// endlessPingTime is the same where attempts have no end.
const endlessPingTime = 2 * time.Second

// CloseIdleConnections closes what is idle of Base's connections and of its own.
func (t *ConnTransport) CloseIdleConnections() {
	closeIdleConnections(t.connections().base)
	t.closeIdle()
}

// closeIdle closes what is idle of its own connections.
func (t *ConnTransport) closeIdle() {
	if c := t.made.Load(); c != nil {
		c.own.CloseIdleConnections()
		c.pools.CloseIdleConnections()
	}
}
