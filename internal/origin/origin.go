// Package origin compares where requests go: the scheme, host and port of a URL. It also
// joins paths to a base URL, so that the result is below it.
package origin

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/ampauth/ampauth/internal/textvalue"
)

// An Origin is the scheme, host and port that credentials are bound to
// (RFC 6454 4), in normal form: lower case, port always there, IPv6 compressed.
type Origin struct {
	scheme, host, port string
	asWritten          string // host and port as in the configuration, for the fast comparison
}

// Parse reads the origin of an absolute http or https URL. The rule that
// the URL breaks, if any, is returned in words that show nothing of it.
func Parse(raw string, allowHTTP bool) (o Origin, rule string) {
	if strings.TrimSpace(raw) == "" {
		return o, "is required"
	}
	if rule := textvalue.Rule(raw); rule != "" {
		return o, rule
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return unicode.Is(unicode.Cf, r) }) {
		return o, "must not hold characters that nobody sees" // as text from a web page may
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return o, "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return o, "must be an absolute https URL"
	case u.User != nil:
		return o, "must not hold user information"
	case u.RawQuery != "" || u.ForceQuery:
		return o, "must not hold a query"
	case strings.Contains(raw, "#"):
		return o, "must not hold a fragment"
	}
	o, ok := Of(u.Scheme, u.Host)
	if !ok {
		return o, "must hold a valid port"
	}
	if o.scheme == "http" && !allowHTTP && !o.isLoopback() {
		return o, "must use https (plain http only for loopback, or with AllowHTTP)"
	}
	return o, ""
}

// Canonical returns the one form of all spellings of a base URL. The rule that
// the URL breaks, if any, is returned in words that show nothing of it.
func Canonical(raw string) (canonical, rule string) {
	o, rule := Parse(raw, true)
	if rule != "" {
		return "", rule
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", "is not a URL"
	}
	return o.String() + Trim(u.EscapedPath()), ""
}

// Of returns the origin of a scheme and what follows the slashes; ok is false without a
// valid port.
func Of(scheme, hostport string) (o Origin, ok bool) {
	u := url.URL{Host: hostport}
	o = Origin{scheme: lower(scheme), host: lower(u.Hostname()), port: u.Port(), asWritten: hostport}
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	if address, err := netip.ParseAddr(o.host); err == nil {
		o.host = address.String()
	}
	_, err := strconv.ParseUint(o.port, 10, 16)
	return o, err == nil && o.host != ""
}

// lower makes ASCII letters lower case, and no others: case in Unicode would make
// different names the same.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func (o *Origin) isLoopback() bool {
	if o.host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(o.host)
	return err == nil && address.IsLoopback()
}

// Admits reports whether a request to this scheme and host stays in the origin.
func (o *Origin) Admits(scheme, hostport string) bool {
	if scheme == o.scheme && hostport == o.asWritten {
		return true
	}
	other, ok := Of(scheme, hostport)
	return ok && other.scheme == o.scheme && other.host == o.host && other.port == o.port
}

// HostPort is host and port as they were written.
func (o *Origin) HostPort() string { return o.asWritten }

// String returns scheme://host:port.
func (o *Origin) String() string { return o.scheme + "://" + net.JoinHostPort(o.host, o.port) }
