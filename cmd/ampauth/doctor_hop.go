package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

const (
	daysBeforeEnd = 14              // from then on a certificate's end is a warning
	clockLimit    = 1 * time.Minute // from which on a difference is a warning
)

// A hop is the first place that requests go to: the server, or a proxy.
type hop struct {
	base       *url.URL
	host, port string // to connect to
	proxy      string // host and port, without user information; "" if there is none
}

// examineNetwork checks what is below the login: name, connection, certificate, clock.
func (d *doctor) examineNetwork(ctx context.Context) {
	var at hop
	d.block(d.check(ctx, "", "dns", 5*time.Second, func(ctx context.Context) (f finding) {
		at, f = firstHop(d.account.BaseURL)
		if f.State != "" {
			return f
		}
		return lookUp(ctx, at)
	}))
	d.block(d.check(ctx, d.blocked, "tcp", 10*time.Second, func(ctx context.Context) finding { return connect(ctx, at) }))
	var seen probe
	d.block(d.check(ctx, d.blocked, "tls", 15*time.Second, func(ctx context.Context) finding {
		seen = probeServer(ctx, d.account.URL("/info"))
		return seen.certificate(at)
	}))
	d.check(ctx, d.blocked, "clock", time.Second, func(context.Context) finding { return seen.clock() })
}

// block has the checks to come wait for one that failed.
func (d *doctor) block(f finding) {
	if f.State == findingFailed && d.blocked == "" {
		d.blocked = f.Name
	}
}

// firstHop returns where to connect to. The finding is zero unless it cannot be told.
func firstHop(base string) (hop, finding) {
	u, err := url.Parse(base)
	if err != nil {
		return hop{}, failing("the base URL cannot be read", "look at AMP_API_BASE_URL")
	}
	at := hop{base: u, host: u.Hostname(), port: portOf(u)}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil { // it may quote the URL, which may hold a password
		return hop{}, failing("HTTPS_PROXY or HTTP_PROXY cannot be used", "set it to the URL of a proxy, as http://proxy.example:3128, or unset it")
	}
	if proxy != nil {
		at.host, at.port = proxy.Hostname(), portOf(proxy)
		at.proxy = net.JoinHostPort(at.host, at.port)
	}
	return at, finding{}
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
}

// of is the name of what is connected to.
func (at hop) of() string {
	if at.proxy != "" {
		return "the proxy " + printable(at.host)
	}
	return printable(at.host)
}

func failing(seen, do string) finding {
	return finding{State: findingFailed, Seen: []string{seen}, Do: []string{do}}
}

// lookUp checks that the host has an address.
func lookUp(ctx context.Context, at hop) finding {
	f := lookUpName(ctx, at)
	switch {
	case at.proxy != "":
		f.Seen = append(f.Seen, "it looks up the name of the server")
	case at.base.Scheme == "https" && os.Getenv("HTTPS_PROXY")+os.Getenv("https_proxy") != "" && !isLoopbackName(at.host):
		f.Seen = append(f.Seen, "HTTPS_PROXY is set and not used: it is no URL, or NO_PROXY has this host")
	}
	return f
}

// isLoopbackName reports whether net/http uses no proxy for a host, whatever is set.
func isLoopbackName(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func lookUpName(ctx context.Context, at hop) finding {
	if _, err := netip.ParseAddr(at.host); err == nil {
		return finding{State: findingOK, Seen: []string{at.of() + " is an address, no name is looked up"}}
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, at.host)
	if err != nil {
		variable := "AMP_API_BASE_URL"
		if at.proxy != "" {
			variable = "HTTPS_PROXY"
		}
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return failing(at.of()+" has no address", "look for a slip in the host of "+variable+"; a network of its own may need its own DNS server")
		}
		return failing(at.of()+" cannot be looked up: "+reason(err), "look at the network and at the DNS servers of this machine")
	}
	shown := strings.Join(addresses[:min(len(addresses), 3)], ", ")
	if len(addresses) > 3 {
		shown += fmt.Sprintf(" and %d more", len(addresses)-3)
	}
	return finding{State: findingOK, Seen: []string{at.of() + " is " + printable(shown)}}
}

func connect(ctx context.Context, at hop) finding {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(at.host, at.port))
	where := at.of() + " port " + printable(at.port)
	if err != nil {
		do := "a firewall may be in between, or the server down; if this network needs a proxy, set HTTPS_PROXY"
		if at.proxy != "" {
			do = "look for a slip in HTTPS_PROXY, or ask those who run the proxy"
		}
		return failing("no connection to "+where+": "+reason(err), do)
	}
	if remote, _, err := net.SplitHostPort(conn.RemoteAddr().String()); err == nil && remote != at.host {
		where += ", " + remote
	}
	_ = conn.Close()
	return finding{State: findingOK, Seen: []string{"connected to " + where}}
}

// A probe is what a request without a token has shown.
type probe struct {
	state      *tls.ConnectionState // nil if there was no handshake
	handshake  error
	date       string
	sent, came time.Time
	status     int
	err        error
}

// probeServer asks for something that needs no token, the way that all requests go.
func probeServer(ctx context.Context, target string) (p probe) {
	var mu sync.Mutex // guards p.state and p.handshake; the trace may tell late
	var state *tls.ConnectionState
	var handshake error
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{TLSHandshakeDone: func(s tls.ConnectionState, err error) {
		mu.Lock()
		defer mu.Unlock()
		state, handshake = &s, err
	}})
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, OnProxyConnectResponse: viaproxy.Telling(nil)}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return probe{err: errors.New("no request can be made of the base URL")}
	}
	p.sent = time.Now()
	resp, err := transport.RoundTrip(req)
	p.came, p.err = time.Now(), err
	if err == nil {
		p.status, p.date = resp.StatusCode, resp.Header.Get("Date")
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		_ = resp.Body.Close()
		p.state = resp.TLS // the handshake with a proxy is traced as well
	}
	mu.Lock()
	defer mu.Unlock()
	p.state, p.handshake = cmp.Or(p.state, state), handshake
	return p
}

func (p *probe) certificate(at hop) finding {
	through := ""
	if at.proxy != "" {
		through = "through the proxy " + printable(at.proxy) + ": "
	}
	if refusal, ok := errors.AsType[*viaproxy.Refusal](p.err); ok {
		return failing(fmt.Sprintf("%sit refused to connect, HTTP %d", through, refusal.StatusCode),
			"ask those who run the proxy to let this host pass; a 407 wants a user name and password in HTTPS_PROXY")
	}
	if at.base.Scheme == "http" {
		return finding{State: findingNotTried, Seen: []string{through + "plain http, so there is no certificate"}}
	}
	if p.err != nil && (p.handshake != nil || p.state == nil) {
		return handshakeFault(through, p.err)
	}
	if p.state == nil || len(p.state.PeerCertificates) == 0 {
		return finding{State: findingWarning, Seen: []string{through + "the server showed no certificate"}}
	}
	leaf := p.state.PeerCertificates[0]
	issuer := leaf.Issuer.CommonName
	if len(leaf.Issuer.Organization) > 0 {
		issuer = strings.TrimSpace(leaf.Issuer.Organization[0] + " " + issuer)
	}
	days := int(time.Until(leaf.NotAfter).Hours() / 24)
	f := finding{State: findingOK, Seen: []string{fmt.Sprintf("%s%s, issuer %s, %d days left", through, tls.VersionName(p.state.Version), printable(issuer), days)}}
	if days < daysBeforeEnd {
		f.State, f.Do = findingWarning, []string{"tell those who run the server that its certificate ends soon"}
	}
	return f
}

// handshakeFault says why there is no connection that can be trusted.
func handshakeFault(through string, err error) finding {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return failing(through+"the certificate has ended, or is not valid yet", "look at the clock of this machine; if it is right, tell those who run the server")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return failing(through+"the issuer of the certificate is not trusted by this machine",
			"install the certificates of your system (ca-certificates); if a proxy of your network signs by itself, add its certificate or name it in SSL_CERT_FILE")
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return failing(through+"the certificate is for another host", "look for a slip in the host of AMP_API_BASE_URL; a proxy or a login page of the network may have answered")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return failing(through+"what answers there does not speak TLS", "look at the port in AMP_API_BASE_URL")
	}
	return failing(through+"no TLS: "+reason(err), "a firewall may read along or cut off; try another network")
}

func (p *probe) clock() finding {
	if p.err != nil {
		return finding{State: findingWarning, Seen: []string{"no answer to compare with: " + reason(p.err)}, Do: []string{"see what the login says"}}
	}
	date, err := http.ParseTime(p.date)
	if err != nil {
		return finding{State: findingWarning, Seen: []string{"the answer has no Date that can be read, so the clock was not compared"}}
	}
	// The field is in whole seconds, cut off.
	middle := p.sent.Add(p.came.Sub(p.sent) / 2)
	ahead := middle.Sub(date.Add(500 * time.Millisecond)).Round(time.Second)
	if ahead.Abs() < clockLimit {
		return finding{State: findingOK, Seen: []string{fmt.Sprintf("within %v of the server's", max(ahead.Abs(), time.Second))}}
	}
	word := "ahead of"
	if ahead < 0 {
		word = "behind"
	}
	return finding{
		State: findingWarning, Seen: []string{fmt.Sprintf("this machine's clock is %v %s the server's", ahead.Abs(), word)},
		Do: []string{"set the clock, best by NTP: tokens in a store are judged by it"},
	}
}

// reason is the text of an error of the network, without what it may quote.
func reason(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return printable(e.Err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return printable(strings.TrimPrefix(withoutURL(err), "ampauth: "))
}
