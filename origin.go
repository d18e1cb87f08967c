package ampauth

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An origin is the scheme, host and port that credentials are bound to
// (RFC 6454 4), in normal form: lower case, port always there, IPv6 compressed.
type origin struct {
	scheme, host, port string
	asWritten          string // host and port as in the configuration, for the fast comparison
}

// parseOrigin reads the origin of an absolute http or https URL. The rule that
// the URL breaks, if any, is returned in words that show nothing of it.
func parseOrigin(raw string, allowHTTP bool) (o origin, rule string) {
	if strings.TrimSpace(raw) == "" {
		return o, "is required"
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
	o, ok := originOf(u.Scheme, u.Host)
	if !ok {
		return o, "must hold a valid port"
	}
	if o.scheme == "http" && !allowHTTP && !o.isLoopback() {
		return o, "must use https (plain http only for loopback, or with AllowHTTP)"
	}
	return o, ""
}

// canonicalBase returns the one form of all spellings of a base URL. The rule that
// the URL breaks, if any, is returned in words that show nothing of it.
func canonicalBase(raw string) (canonical, rule string) {
	o, rule := parseOrigin(raw, true)
	if rule != "" {
		return "", rule
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", "is not a URL"
	}
	return o.String() + strings.TrimRight(u.EscapedPath(), "/"), ""
}

func originOf(scheme, hostport string) (origin, bool) {
	u := url.URL{Host: hostport}
	o := origin{scheme: lower(scheme), host: lower(u.Hostname()), port: u.Port(), asWritten: hostport}
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

func (o origin) isLoopback() bool {
	if o.host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(o.host)
	return err == nil && address.IsLoopback()
}

// admits reports whether a request to this scheme and host stays in the origin.
func (o *origin) admits(scheme, hostport string) bool {
	if scheme == o.scheme && hostport == o.asWritten {
		return true
	}
	other, ok := originOf(scheme, hostport)
	return ok && other.scheme == o.scheme && other.host == o.host && other.port == o.port
}

func (o *origin) String() string { return o.scheme + "://" + net.JoinHostPort(o.host, o.port) }
