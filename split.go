package ampauth

import (
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"sync"
)

// A split sends mutations over connections of their own, HTTP/1.1 and not kept
// alive, where the base is an *http.Transport. net/http never repeats a request
// on a connection that was not used before, and such a connection cannot turn
// out dead after the request was written to it.
type split struct {
	once      sync.Once
	fresh     *http.Transport // nil if base does not speak HTTP/1.1
	http2Only sync.Map        // hosts that speak nothing else, which get the masked request over base
}

// errHTTP2Only says that a fresh connection is of no use for the host: the
// request was not sent, and goes out over the pool when it is sent again.
var errHTTP2Only = errors.New("the server speaks HTTP/2 only")

// roundTrip sends req, which is the caller's own copy, over base or over a fresh
// connection. a is the attempt that req belongs to, if any. What was sent to the
// wrong connection (status 421) goes over a fresh one as well.
func (s *split) roundTrip(base http.RoundTripper, req *http.Request, a *attempt) (*http.Response, error) {
	pooled, ok := base.(*http.Transport)
	if !ok || a == nil || !a.apart {
		return base.RoundTrip(req)
	}
	s.once.Do(func() { s.fresh = freshConnections(pooled) })
	if s.fresh == nil {
		return base.RoundTrip(req)
	}
	if _, known := s.http2Only.Load(req.URL.Host); known {
		return base.RoundTrip(req)
	}
	if req.Body == (emptyBody{}) {
		req.Body = nil // nothing repeats it here, so it can be what it is
	}
	resp, err := s.fresh.RoundTrip(req)
	if err != nil && !a.connected() && (errors.Is(err, errHTTP2Only) || noCommonProtocol(err)) {
		s.http2Only.Store(req.URL.Host, true)
		err = errHTTP2Only
	}
	return resp, err
}

// freshConnections derives the transport for mutations: base's proxy, TLS
// configuration and dialers, HTTP/1.1 only, no connection used twice.
func freshConnections(base *http.Transport) *http.Transport {
	if base.Protocols != nil && !base.Protocols.HTTP1() {
		return nil
	}
	t := base.Clone()
	t.DisableKeepAlives = true
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	// A dialer of the user's may negotiate HTTP/2 whatever is asked for.
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		"h2": func(_ string, conn *tls.Conn) http.RoundTripper {
			_ = conn.Close()
			return refuseHTTP2{}
		},
	}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = new(tls.Config)
	}
	// Offering HTTP/1.1 by name makes a server that lacks it say so in the
	// handshake instead of after the request.
	protocols := slices.DeleteFunc(slices.Clone(t.TLSClientConfig.NextProtos), func(p string) bool { return p == "h2" })
	if !slices.Contains(protocols, "http/1.1") {
		protocols = append(protocols, "http/1.1")
	}
	t.TLSClientConfig.NextProtos = protocols
	return t
}

// refuseHTTP2 ends a dial that came out at HTTP/2. net/http asks what TLSNextProto
// returned for RoundTripErr and fails the dial with it.
type refuseHTTP2 struct{}

func (refuseHTTP2) RoundTripErr() error                             { return errHTTP2Only }
func (refuseHTTP2) RoundTrip(*http.Request) (*http.Response, error) { return nil, errHTTP2Only }
