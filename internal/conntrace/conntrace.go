// Package conntrace tells from net/http's trace of one request whether it can have
// left, and whether an answer is the answer to its only try.
package conntrace

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

// A Listener is told what happens to the connections of one request. What is sent
// with the request's context but is not the request (a layer that asks a signer by
// HTTP, a dialer that asks for an address) reports to it as well; it is told apart
// by host and port. Where that cannot be told, nothing is proved.
type Listener struct {
	target string // host and port, as net/http names a connection
	host   string

	mu       sync.Mutex // guards all below
	asked    []string   // connections that were asked for and not had so far, by host and port
	wanted   bool       // one of the request's own was asked for
	had      int        // connections of the request's own
	others   int        // connections of others
	any      bool       // there was some connection, whoever's
	unclear  bool       // a connection could be anybody's
	current  bool       // the last connection is the request's own
	answered bool       // the first byte of an answer came over it
	interim  bool       // and was that of a 100, which is no answer yet
	failures []error    // why connections could not be made, since the last one that came about
}

// Listen returns a context that reports the connections of a request for u.
func Listen(ctx context.Context, u *url.URL) (*Listener, context.Context) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	l := &Listener{target: net.JoinHostPort(u.Hostname(), port), host: u.Hostname()}
	return l, httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              l.getConn,
		GotConn:              l.gotConn,
		GotFirstResponseByte: l.gotFirstByte,
		Got100Continue:       l.got100,
		DNSDone:              func(info httptrace.DNSDoneInfo) { l.failed(info.Err) },
		ConnectDone:          func(_, _ string, err error) { l.failed(err) },
		TLSHandshakeDone:     l.handshakeDone,
	})
}

// Key is what net/http asks a context for to find its trace. A context can wait for
// that question before it listens.
var Key = keyOf(func(ctx context.Context) { httptrace.ContextClientTrace(ctx) })

// A keyRecorder is a context that notes what it is asked for.
type keyRecorder struct {
	context.Context
	key any
}

func (r *keyRecorder) Value(key any) any {
	r.key = key
	return nil
}

func keyOf(ask func(context.Context)) any {
	r := &keyRecorder{Context: context.Background()}
	ask(r)
	return r.key
}

func (l *Listener) getConn(hostport string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) == maxKept {
		l.unclear = true
		return
	}
	l.asked = append(l.asked, hostport)
	l.wanted = l.wanted || l.isTarget(hostport)
}

// keepsItsOwnCount reports whether what is sent over conn, or over what is below its TLS,
// is known without a trace.
func keepsItsOwnCount(conn net.Conn) bool {
	for {
		if _, ok := conn.(interface{ KeepsItsOwnCount() }); ok {
			return true
		}
		secure, ok := conn.(*tls.Conn)
		if !ok {
			return false
		}
		conn = secure.NetConn()
	}
}

func (l *Listener) isTarget(hostport string) bool { return strings.EqualFold(hostport, l.target) }

func (l *Listener) gotConn(info httptrace.GotConnInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if keepsItsOwnCount(info.Conn) {
		mine := slices.IndexFunc(l.asked, l.isTarget)
		if mine < 0 {
			mine = len(l.asked) - 1 // it goes to a proxy
		}
		l.take(mine)
		l.failures, l.current = nil, false
		return
	}
	l.any = true
	if info.Conn != nil && info.Conn.RemoteAddr() == nil {
		// Not a connection, but what httputil.DumpRequestOut writes to.
		l.asked = l.asked[:max(len(l.asked)-1, 0)]
		l.current = false
		return
	}
	l.failures = nil
	switch own, clear := l.attribute(info.Conn); {
	case !clear:
		l.unclear, l.current = true, false
	case own:
		l.had++
		l.current = true
	default:
		l.others++
		l.current, l.answered = false, false // an answer that is at hand may be theirs
	}
}

// attribute finds out whose connection conn is; l.mu must be held.
func (l *Listener) attribute(conn net.Conn) (own, clear bool) {
	mine := slices.IndexFunc(l.asked, l.isTarget)
	theirs := slices.IndexFunc(l.asked, func(hostport string) bool { return !l.isTarget(hostport) })
	name := serverName(conn)
	switch {
	case theirs < 0:
		l.take(mine)
		return true, true
	case mine < 0:
		// net/http names a proxy in place of the host that is behind it.
		host, _, _ := net.SplitHostPort(l.asked[theirs])
		l.take(theirs)
		return strings.EqualFold(name, l.host) && !strings.EqualFold(host, l.host), true
	case conn == nil:
		return false, false
	}
	// Both are waited for, as when a dialer asks something by HTTP. What a handshake was
	// made for tells them apart, and else the address.
	named := func(hostport string) bool {
		host, _, _ := net.SplitHostPort(hostport)
		return strings.EqualFold(host, name)
	}
	other := func(hostport string) bool { return !l.isTarget(hostport) }
	isMine := strings.EqualFold(name, l.host)
	theirs = slices.IndexFunc(l.asked, func(h string) bool { return other(h) && named(h) })
	if isMine == (theirs >= 0) {
		address := conn.RemoteAddr().String()
		isMine = reaches(l.target, address)
		theirs = slices.IndexFunc(l.asked, func(h string) bool { return other(h) && reaches(h, address) })
	}
	switch {
	case isMine && theirs < 0:
		l.take(mine)
		return true, true
	case !isMine && theirs >= 0:
		l.take(theirs)
		return false, true
	}
	return false, false
}

// serverName is the host that a TLS connection was made for, "" if it is not known.
func serverName(conn net.Conn) string {
	if c, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return c.ConnectionState().ServerName
	}
	return ""
}

func (l *Listener) take(i int) {
	if i >= 0 {
		l.asked = slices.Delete(l.asked, i, i+1)
	}
}

// reaches reports whether a connection to address can be one to hostport, whose host
// may be a name.
func reaches(hostport, address string) bool {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	remote, err := netip.ParseAddrPort(address)
	if err != nil {
		return hostport == address
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap() != remote.Addr().Unmap() {
		return false
	}
	_, remotePort, err := net.SplitHostPort(address)
	return err == nil && port == remotePort
}

func (l *Listener) gotFirstByte() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = l.answered || l.current
}

func (l *Listener) got100() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interim = true
}

func (l *Listener) handshakeDone(state tls.ConnectionState, err error) {
	switch state.NegotiatedProtocol {
	case "", "http/1.1", "h2":
		l.failed(err)
		return
	}
	// A protocol of the user's own (http.Transport.TLSNextProto), which tells no GotConn.
	l.gotConn(httptrace.GotConnInfo{})
}

// maxKept bounds what is kept of each: a host has a few addresses, and a layer that tries
// more often than that proves nothing.
const maxKept = 32

func (l *Listener) failed(err error) {
	if err != nil {
		l.Failed(err)
	}
}

// Failed says that err is why a connection could not be made.
func (l *Listener) Failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < maxKept {
		l.failures = append(l.failures, err)
	}
}

// Had reports whether the request had a connection, or may have had one.
func (l *Listener) Had() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.had > 0 || l.unclear
}

// HadOne reports whether there was just one connection that the request can have been
// sent over.
func (l *Listener) HadOne() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.had == 1 && !l.unclear
}

// AnsweredOnce reports whether there was just one connection that the request can
// have been sent over, and an answer came over it: then an answer that is at hand is
// no second one's.
func (l *Listener) AnsweredOnce() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.had == 1 && l.answered && !l.interim && !l.unclear
}

// HadAny reports whether there was a connection, whoever asked for it.
func (l *Listener) HadAny() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.any
}

// Waiting reports whether a connection to the request's host was asked for, and nothing
// was heard since: of a dialer of the user's, or one that has not come back.
func (l *Listener) Waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted && !l.any && len(l.failures) == 0
}

// Unsent reports whether err proves that nothing of the request was sent: a connection
// to its host, or to a proxy, was asked for and not had, and err is, or wraps, the very
// value that said why. Whoever had another connection later may have gone another way,
// and so may whoever had one before and has read the body (begun). An error that joins
// several proves nothing, since another one of them may tell of another try; nor does a
// value like io.EOF, which another try could have met as well, once the body was read.
func (l *Listener) Unsent(err error, begun bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.had > 0 || l.unclear || l.others > 0 && begun || !l.wanted && (l.others > 0 || !viaProxy(err)) {
		return false
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if l.heard(err) {
			return !begun || unique(err)
		}
	}
	return false
}

// viaProxy reports whether it is said that err came up on the way to a proxy.
func viaProxy(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		switch e := err.(type) {
		case *net.OpError:
			if e.Op == "proxyconnect" {
				return true
			}
		case *viaproxy.Refusal:
			return true
		}
	}
	return false
}

// heard reports whether err is one of the failures; l.mu must be held.
func (l *Listener) heard(err error) bool {
	return reflect.ValueOf(err).Comparable() && slices.ContainsFunc(l.failures, func(failure error) bool {
		return reflect.ValueOf(failure).Comparable() && failure == err
	})
}

// unique reports whether err was made for one failure, so that to meet it again is to
// meet that failure. io.EOF, for one, is the same value wherever it comes up.
func unique(err error) bool {
	switch err.(type) {
	case *net.OpError, *net.DNSError, *tls.CertificateVerificationError, *viaproxy.Refusal:
		return true
	}
	return false
}
