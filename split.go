package ampauth

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
)

// A split sends mutations over connections of their own, HTTP/1.1 and not kept
// alive, where the base is an *http.Transport. net/http never repeats a request
// on a connection that was not used before, and such a connection cannot turn
// out dead after the request was written to it.
//
// Whether a host speaks HTTP/1.1 shows for sure only in TLS handshakes: one that
// picks HTTP/2 of both when it could have picked HTTP/1.1, and does not name
// HTTP/1.1 when that alone is offered, speaks HTTP/2 only.
type split struct {
	once  sync.Once
	fresh atomic.Pointer[[]*http.Transport] // to be tried in this order; none if base does not speak HTTP/1.1
	tried sync.Map                          // host to the number of fresh ones that it does not speak with
}

// errHTTP2 says that the host chose HTTP/2, or speaks nothing else: the request
// was not sent, and goes another way when it is sent again.
var errHTTP2 = errors.New("the server chose HTTP/2")

// roundTrip sends req over base or over a fresh connection. a is the attempt that
// req belongs to, if any. What was sent to the wrong connection (status 421) goes
// over a fresh one as well.
func (s *split) roundTrip(base http.RoundTripper, req *http.Request, a *attempt) (*http.Response, error) {
	if a != nil && a.mutates {
		req = masked(req)
	}
	pooled, ok := base.(*http.Transport)
	if body, sent := req.Body.(*sentBody); ok && sent && a != nil && !a.apart {
		// net/http knows what it does with a body of a known type; from here on it counts as read.
		body.begun.Store(true)
		req = req.WithContext(req.Context())
		req.Body = body.ReadCloser
	}
	if !ok || a == nil || !a.apart || req.URL == nil || req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return base.RoundTrip(req)
	}
	s.once.Do(func() { s.fresh.Store(new(freshConnections(pooled))) })
	fresh := *s.fresh.Load()
	tried, known := s.tried.Load(req.URL.Host)
	way, _ := tried.(int)
	if way >= len(fresh) {
		return base.RoundTrip(req) // the masked request
	}
	if body, changed := asItIs(req.Body); changed { // nothing repeats it here
		req = req.WithContext(req.Context())
		req.Body = body
	}
	a.own = a.direct
	resp, err := fresh[way].RoundTrip(req)
	if err != nil && a.Err() != nil {
		fresh[way].CloseIdleConnections() // ends a dial that goes on though nobody waits for it
	}
	if err != nil && !a.connected() && (errors.Is(err, errHTTP2) || noCommonProtocol(err)) {
		if !known {
			s.tried.LoadOrStore(req.URL.Host, way+1)
		} else {
			s.tried.CompareAndSwap(req.URL.Host, way, way+1)
		}
		err = errHTTP2
	}
	return resp, err
}

// closeIdle ends the dials that nobody waits for any more; fresh connections are
// never idle.
func (s *split) closeIdle() {
	if fresh := s.fresh.Load(); fresh != nil {
		for _, t := range *fresh {
			t.CloseIdleConnections()
		}
	}
}

// masked returns req in the form that net/http does not repeat by itself: with a
// body, and nothing to make it anew. It may be so already, unless a layer between
// has changed it.
func masked(req *http.Request) *http.Request {
	if req.GetBody == nil && hasBody(req) {
		return req
	}
	req = req.WithContext(req.Context())
	req.GetBody = nil
	if !hasBody(req) {
		req.Body = emptyBody{}
	}
	return req
}

// freshConnections derives the transports for mutations from base: its proxy,
// TLS configuration and dialers, no connection used twice.
func freshConnections(base *http.Transport) []*http.Transport {
	if base.Protocols != nil && !base.Protocols.HTTP1() {
		return nil
	}
	both := freshTransport(base)
	if both.TLSClientConfig == nil || !slices.Contains(both.TLSClientConfig.NextProtos, "h2") {
		return []*http.Transport{both} // base offers no HTTP/2, so there is no other way
	}
	http1 := freshTransport(base)
	http1.TLSClientConfig.NextProtos = []string{"http/1.1"}
	theirs := http1.TLSClientConfig.VerifyConnection
	http1.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
		if theirs != nil {
			if err := theirs(state); err != nil {
				return err
			}
		}
		if state.NegotiatedProtocol != "http/1.1" {
			return errHTTP2
		}
		return nil
	}
	return []*http.Transport{both, http1}
}

func freshTransport(base *http.Transport) *http.Transport {
	t := base.Clone()
	hideTrace(t)
	t.DisableKeepAlives = true
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		"h2": func(_ string, conn *tls.Conn) http.RoundTripper {
			_ = conn.Close()
			return refuseHTTP2{}
		},
	}
	return t
}

// hideTrace keeps the trace of an attempt from code of the user's that may ask
// something by HTTP itself.
func hideTrace(t *http.Transport) {
	dial := func(theirs func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
		if theirs == nil {
			return nil
		}
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			return theirs(forDialer(ctx), network, address)
		}
	}
	t.DialContext, t.DialTLSContext = dial(t.DialContext), dial(t.DialTLSContext)
	if theirs := t.Proxy; theirs != nil {
		t.Proxy = func(req *http.Request) (*url.URL, error) { return theirs(req.WithContext(forDialer(req.Context()))) }
	}
	if theirs := t.GetProxyConnectHeader; theirs != nil {
		t.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (http.Header, error) {
			return theirs(forDialer(ctx), proxy, target)
		}
	}
	if theirs := t.OnProxyConnectResponse; theirs != nil {
		t.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
			return theirs(forDialer(ctx), proxy, req, resp)
		}
	}
}

// refuseHTTP2 ends a dial that came out at HTTP/2. net/http asks what TLSNextProto
// returned for RoundTripErr and fails the dial with it.
type refuseHTTP2 struct{}

func (refuseHTTP2) RoundTripErr() error                             { return errHTTP2 }
func (refuseHTTP2) RoundTrip(*http.Request) (*http.Response, error) { return nil, errHTTP2 }
