package atmostonce

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

// What is derived of a Base stands until its TLS configuration is replaced.
type derived struct {
	of    *tls.Config
	ways  []way // to be tried in this order; none if Base does not speak HTTP/1.1
	hosts hosts
}

// A way is what is offered in TLS handshakes, and the connections that came of it.
type way struct {
	mustName bool // the host must name HTTP/1.1
	kept     *http.Transport
	fresh    *http.Transport // no connection is used twice
}

func (d *derived) closeIdle() {
	for _, w := range d.ways {
		w.kept.CloseIdleConnections()
		w.fresh.CloseIdleConnections()
	}
}

func (t *Transport) derived() *derived {
	d := t.made.Load()
	// From the first Clone on net/http does not write Base.TLSClientConfig any more.
	if d != nil && d.of == t.Base.TLSClientConfig {
		return d
	}
	t.making.Lock()
	defer t.making.Unlock()
	if before := t.made.Load(); before != d {
		return before
	}
	made := &derived{ways: t.newWays()}
	made.of = t.Base.TLSClientConfig
	t.made.Store(made)
	if d != nil {
		d.closeIdle()
	}
	return made
}

// newWays derives the ways from Base. Where Base offers HTTP/2, whether a host speaks
// HTTP/1.1 shows for sure in TLS handshakes alone: one that names HTTP/1.1 when it alone
// is offered does, which is the first way. One that names nothing (some do so that speak
// HTTP/2 only) is offered both, which is the second: one that does not choose HTTP/2 then
// does not speak it.
func (t *Transport) newWays() []way {
	if p := t.Base.Protocols; p != nil && !p.HTTP1() {
		return nil
	}
	both := t.newWay()
	if config := both.kept.TLSClientConfig; config == nil || !slices.Contains(config.NextProtos, "h2") {
		return []way{both} // there is no other way
	}
	http1 := t.newWay()
	http1.mustName = true
	for _, t := range []*http.Transport{http1.kept, http1.fresh} {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return []way{http1, both}
}

func (t *Transport) newWay() way {
	w := way{kept: t.newTransport(), fresh: t.newTransport()}
	if w.kept.MaxIdleConnsPerHost == 0 {
		w.kept.MaxIdleConnsPerHost = 100
	}
	if theirs := w.kept.IdleConnTimeout; theirs <= 0 || theirs > t.Idle {
		w.kept.IdleConnTimeout = t.Idle
	}
	// Not DisableKeepAlives: "Connection: close" makes servers lose early answers.
	w.fresh.MaxIdleConnsPerHost = -1
	return w
}

// newTransport clones Base for HTTP/1.1 over conns.
func (t *Transport) newTransport() *http.Transport {
	c := t.Base.Clone()
	c.DisableKeepAlives = false
	c.ForceAttemptHTTP2 = false
	c.Protocols = new(http.Protocols)
	c.Protocols.SetHTTP1(true)
	c.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		"h2": func(_ string, conn *tls.Conn) http.RoundTripper {
			_ = conn.Close()
			return refuseHTTP2{}
		},
	}
	c.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := t.dial(t.outside(ctx), network, address)
		if conn == nil || err != nil {
			return nil, err
		}
		return newConn(conn, t.Idle), nil
	}
	c.Proxy = func(req *http.Request) (*url.URL, error) {
		if t.Base.Proxy == nil {
			return nil, nil
		}
		return t.Base.Proxy(req.WithContext(t.outside(req.Context())))
	}
	if theirs := c.DialTLSContext; theirs != nil {
		c.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return theirs(t.outside(ctx), network, address)
		}
	}
	if theirs := c.GetProxyConnectHeader; theirs != nil {
		c.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (http.Header, error) {
			return theirs(t.outside(ctx), proxy, target)
		}
	}
	theirs := c.OnProxyConnectResponse
	c.OnProxyConnectResponse = viaproxy.Telling(func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
		if theirs == nil {
			return nil
		}
		return theirs(t.outside(ctx), proxy, req, resp)
	})
	return c
}

// dial makes a connection as Base does.
func (t *Transport) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if t.Base.DialContext != nil {
		return t.Base.DialContext(ctx, network, address)
	}
	//lint:ignore SA1019 it may be set
	if dial := t.Base.Dial; dial != nil {
		return dial(network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// outside is what Base's functions get of the context of a request. What they ask by HTTP
// is none of the request's business.
func (t *Transport) outside(ctx context.Context) context.Context {
	if s, ok := ctx.Value(sendingKey{}).(*sending); ok {
		ctx = outsideContext{ctx, s.Context}
	}
	if t.Outside != nil {
		return t.Outside(ctx)
	}
	return ctx
}

// An outsideContext has the values of the caller's context.
type outsideContext struct {
	context.Context
	values context.Context
}

// Value implements context.Context.
func (c outsideContext) Value(key any) any { return c.values.Value(key) }

// refuseHTTP2 ends a dial that came out at HTTP/2. net/http asks what TLSNextProto
// returned for RoundTripErr and fails the dial with it.
type refuseHTTP2 struct{}

func (refuseHTTP2) RoundTripErr() error                             { return ErrNoHTTP1 }
func (refuseHTTP2) RoundTrip(*http.Request) (*http.Response, error) { return nil, ErrNoHTTP1 }

// noCommonProtocol reports whether the server ended the TLS handshake because it speaks
// none of the protocols that were offered (RFC 7301 3.2, alert 120). crypto/tls does not
// export the alert's type, only its text and its number.
func noCommonProtocol(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return false
	}
	alert := reflect.ValueOf(op.Err)
	return alert.Kind() == reflect.Uint8 && alert.Uint() == 120
}

// hosts remembers, of the hosts that do not speak with the first way, which they speak
// with, for an hour.
type hosts struct {
	mu    sync.Mutex // guards known
	known map[string]lesson
}

type lesson struct {
	way   int
	until time.Time
}

const (
	maxHosts   = 128
	lessonTime = time.Hour
)

func (h *hosts) wayTo(host string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.known[host]
	if ok && time.Now().After(l.until) {
		delete(h.known, host)
		return 0
	}
	return l.way
}

// learn says that host does not speak with the way.
func (h *hosts) learn(host string, way int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[host].way > way {
		return // another request has learnt more
	}
	if h.known == nil {
		h.known = make(map[string]lesson)
	}
	for other := range h.known {
		if len(h.known) < maxHosts {
			break
		}
		delete(h.known, other)
	}
	h.known[host] = lesson{way + 1, time.Now().Add(lessonTime)}
}
