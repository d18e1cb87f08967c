package conntrace

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"testing"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

// A fakeConn has a remote address, if any, and a TLS server name, if any.
type fakeConn struct {
	net.Conn
	remote net.Addr
	name   string
}

func (c fakeConn) RemoteAddr() net.Addr { return c.remote }
func (c fakeConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{ServerName: c.name}
}

func at(address string) fakeConn {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return fakeConn{remote: a}
}

func TestWhatIsProvedByWhatWasTold(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	another := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	proxy := &net.OpError{Op: "proxyconnect", Err: refused}
	shut := &viaproxy.Refusal{StatusCode: 407}
	type hooks = *httptrace.ClientTrace
	get := func(hostport string) func(hooks) { return func(h hooks) { h.GetConn(hostport) } }
	got := func(c net.Conn) func(hooks) { return func(h hooks) { h.GotConn(httptrace.GotConnInfo{Conn: c}) } }
	fail := func(err error) func(hooks) { return func(h hooks) { h.ConnectDone("tcp", "192.0.2.1:443", err) } }
	first := func(h hooks) { h.GotFirstResponseByte() }
	const own, other = "api.test:443", "signer.test:8443"
	ours, theirs, dump := at("192.0.2.1:443"), at("192.0.2.2:8443"), fakeConn{}
	for _, test := range []struct {
		name          string
		told          []func(hooks)
		err           error
		begun         bool
		unsent, proof bool // of an error, of an answer
	}{
		{"nothing", nil, refused, false, false, false},
		{"refused", []func(hooks){get(own), fail(refused)}, refused, true, true, false},
		{"refused, wrapped", []func(hooks){get(own), fail(refused)}, fmt.Errorf("layer: %w", refused), true, true, false},
		{"refused, joined", []func(hooks){get(own), fail(refused)}, errors.Join(refused, io.EOF), true, false, false},
		{"refused, another error", []func(hooks){get(own), fail(refused)}, another, true, false, false},
		{"refused, another error, body untouched", []func(hooks){get(own), fail(refused)}, another, false, false, false},
		{"first of two addresses", []func(hooks){get(own), fail(refused), fail(another)}, refused, true, true, false},
		{"a proxy's refusal", []func(hooks){get("proxy.test:3128"), fail(shut)}, shut, true, true, false},
		{"another refusal than was told", []func(hooks){get("proxy.test:3128"), fail(shut)}, &viaproxy.Refusal{StatusCode: 407}, true, false, false},
		{"a proxy's refusal after a connection", []func(hooks){get(own), got(ours), fail(shut)}, shut, false, false, false},
		{"EOF in the handshake", []func(hooks){get(own), fail(io.EOF)}, io.EOF, true, false, false},
		{"EOF in the handshake, body untouched", []func(hooks){get(own), fail(io.EOF)}, io.EOF, false, true, false},
		{"asked for and nothing told", []func(hooks){get(own)}, io.EOF, true, false, false},
		{"asked for and nothing told, body untouched", []func(hooks){get(own)}, io.EOF, false, false, false},
		{"a signer that reads the body, then refused", []func(hooks){get(other), got(theirs), first, get(own), fail(refused)}, refused, true, false, false},
		{"another host's", []func(hooks){get(other), fail(refused)}, refused, true, false, false},
		{"another host's, body untouched", []func(hooks){get(other)}, refused, false, false, false},
		{"had", []func(hooks){get(own), got(ours), fail(refused)}, refused, false, false, false},
		{"had and answered", []func(hooks){get(own), got(ours), first}, refused, false, false, true},
		{"had by whoever tells no connection", []func(hooks){get(own), got(nil), first}, refused, false, false, true},
		{"had and answered by a 100", []func(hooks){get(own), got(ours), first, func(h hooks) { h.Got100Continue() }}, refused, false, false, false},
		{"had twice", []func(hooks){get(own), got(ours), get(own), got(ours), first}, refused, false, false, false},
		{"refused, then another way", []func(hooks){get(own), fail(refused), get(other), got(theirs)}, refused, true, false, false},
		{"a signer before, then refused", []func(hooks){get(other), got(theirs), first, get(own), fail(refused)}, refused, false, true, false},
		{"a signer before, then answered", []func(hooks){get(other), got(theirs), first, get(own), got(ours), first}, refused, true, false, true},
		{"a signer's answer only", []func(hooks){get(own), got(ours), get(other), got(theirs), first}, refused, true, false, false},
		{"a dialer that asks, then refused", []func(hooks){get(own), get(other), got(theirs), first, fail(refused)}, refused, false, true, false},
		{"a dialer that asks, then answered", []func(hooks){get(own), get(other), got(theirs), first, got(ours), first}, refused, true, false, true},
		{"two at once, whose cannot be told", []func(hooks){get(own), get("signer.test:443"), got(at("192.0.2.2:443")), fail(refused)}, refused, true, false, false},
		{"two at once on one port, told by their handshakes", []func(hooks){get(own), get("signer.test:443"), got(fakeConn{remote: ours.remote, name: "signer.test"}), first, got(fakeConn{remote: ours.remote, name: "api.test"}), first}, refused, true, false, true},
		{"another port of the same host", []func(hooks){get("api.test:8443"), got(fakeConn{remote: theirs.remote, name: "api.test"}), first, get(own), got(ours), first}, refused, true, false, true},
		{"two at once, without addresses", []func(hooks){get(own), get(other), got(nil), first}, refused, true, false, false},
		{"a dump before, then refused", []func(hooks){get("api.test:80"), got(dump), first, get(own), fail(refused)}, refused, true, true, false},
		{"a dump of the same port, then answered", []func(hooks){get(own), got(dump), first, get(own), got(ours), first}, refused, true, false, true},
		{"a dump after a cut", []func(hooks){get(own), got(ours), get(own), got(dump), first}, refused, true, false, false},
		{"proxy refused", []func(hooks){get("proxy.test:3128"), fail(refused)}, proxy, true, true, false},
		{"proxy refused, after a connection through it", []func(hooks){get("proxy.test:3128"), got(at("192.0.2.3:3128")), get("proxy.test:3128"), fail(refused)}, proxy, true, false, false},
		{"TLS through a proxy", []func(hooks){get("proxy.test:3128"), got(fakeConn{remote: ours.remote, name: "api.test"}), first}, refused, true, false, true},
		{"a protocol of the user's own", []func(hooks){get(own), func(h hooks) { h.TLSHandshakeDone(tls.ConnectionState{NegotiatedProtocol: "h3x"}, nil) }}, refused, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, ctx := Listen(context.Background(), &url.URL{Scheme: "https", Host: "api.test"})
			trace := httptrace.ContextClientTrace(ctx)
			for _, tell := range test.told {
				tell(trace)
			}
			if got := l.Unsent(test.err, test.begun); got != test.unsent {
				t.Errorf("unsent: %t, want %t", got, test.unsent)
			}
			if got := l.AnsweredOnce(); got != test.proof {
				t.Errorf("the answer is a proof: %t, want %t", got, test.proof)
			}
		})
	}
}

// The values that net/http returns are the ones that it tells.
func TestWhatIsKeptOfOneRequestIsBounded(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for tries, unsent := range map[int]bool{1: true, maxKept: true, maxKept + 1: false, 100 * maxKept: false} {
		l, ctx := Listen(t.Context(), &url.URL{Scheme: "https", Host: "api.test"})
		h := httptrace.ContextClientTrace(ctx)
		for range tries {
			h.GetConn("api.test:443")
			h.ConnectDone("tcp", "192.0.2.1:443", refused)
		}
		if len(l.asked) > maxKept || len(l.failures) > maxKept {
			t.Errorf("after %d tries %d connections and %d failures are kept", tries, len(l.asked), len(l.failures))
		}
		if got := l.Unsent(refused, true); got != unsent {
			t.Errorf("after %d tries it counts as not sent: %t, want %t", tries, got, unsent)
		}
	}
}

func TestNetHTTPReturnsWhatItTells(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer untrusted.Close()
	for name, test := range map[string]struct {
		target, proxy string
		unsent        bool
	}{
		"refused":               {closed.URL, "", true},
		"certificate":           {untrusted.URL, "", true},
		"proxy refused":         {plain.URL, closed.URL, true},
		"proxy refused, TLS":    {untrusted.URL, closed.URL, true},
		"answered":              {plain.URL, "", false},
		"answered by the proxy": {"http://api.test", plain.URL, false},
	} {
		t.Run(name, func(t *testing.T) {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			if test.proxy != "" {
				proxy, _ := url.Parse(test.proxy)
				transport.Proxy = http.ProxyURL(proxy)
			}
			target, _ := url.Parse(test.target)
			l, ctx := Listen(context.Background(), target)
			req, _ := http.NewRequestWithContext(ctx, "GET", test.target, nil)
			resp, err := transport.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if got := l.Unsent(err, true); got != test.unsent {
				t.Errorf("%v: unsent: %t, want %t", err, got, test.unsent)
			}
			if direct := err == nil && test.proxy == ""; l.AnsweredOnce() != direct {
				t.Errorf("the answer is a proof: %t, want %t", l.AnsweredOnce(), direct)
			}
		})
	}
}

func TestKeyIsWhatNetHTTPAsksFor(t *testing.T) {
	_, ctx := Listen(context.Background(), &url.URL{Scheme: "https", Host: "api.test"})
	if Key == nil || ctx.Value(Key) != any(httptrace.ContextClientTrace(ctx)) {
		t.Errorf("the key is %T", Key)
	}
}
