package origin

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestOriginHasANormalForm(t *testing.T) {
	for _, test := range []struct{ name, raw, want string }{
		{"plain", "https://amp.test/api", "https://amp.test:443"},
		{"upper case", "HTTPS://AMP.Test/API", "https://amp.test:443"},
		{"default port", "https://amp.test:443", "https://amp.test:443"},
		{"empty port", "https://amp.test:/api", "https://amp.test:443"},
		{"other port", "https://amp.test:8443/api/", "https://amp.test:8443"},
		{"default port of http", "http://localhost", "http://localhost:80"},
		{"IPv4", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"IPv6", "http://[0:0:0:0:0:0:0:1]:80", "http://[::1]:80"},
		{"IPv6, upper case", "https://[2001:DB8:0::1]", "https://[2001:db8::1]:443"},
		{"trailing dot", "https://amp.test.", "https://amp.test.:443"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, rule := Parse(test.raw, false)
			if rule != "" {
				t.Fatalf("refused: %s", rule)
			}
			if got := o.String(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRuleThatAURLBreaksIsNamed(t *testing.T) {
	for raw, want := range map[string]string{
		"": "is required", " \t": "is required",
		"https://amp.test/api ": "must not begin or end with white space", "\u00a0https://amp.test": "must not begin or end with white space",
		"https://amp.test\n/api": "must not hold line breaks or control characters", "https://amp.test/api\r\n": "must not hold line breaks or control characters",
		"https://amp.test:x": "is not a URL", "https://[::1": "is not a URL", "https://amp.test/%": "is not a URL",
		"https://amp\u200b.test": "must not hold characters that nobody sees", "https://\u202eamp.test": "must not hold characters that nobody sees",
		"amp.test": "must be an absolute https URL", "ftp://amp.test:21": "must be an absolute https URL", "https://": "must be an absolute https URL",
		"https:///api": "must be an absolute https URL", "https://:443": "must be an absolute https URL", "https:amp.test": "must be an absolute https URL",
		"https://me@amp.test": "must not hold user information", "https://@amp.test": "must not hold user information",
		"https://amp.test?q": "must not hold a query", "https://amp.test?": "must not hold a query",
		"https://amp.test#f": "must not hold a fragment", "https://amp.test#": "must not hold a fragment",
		"https://amp.test:65536": "must hold a valid port",
		"http://amp.test":        "must use https (plain http only for loopback, or with AllowHTTP)",
	} {
		if _, rule := Parse(raw, false); rule != want {
			t.Errorf("%q: %q, want %q", raw, rule, want)
		}
	}
}

func TestCanonicalIsOneFormOfAllSpellings(t *testing.T) {
	for raw, want := range map[string]string{
		"https://amp.test": "https://amp.test:443", "https://amp.test/": "https://amp.test:443", "HTTPS://AMP.Test:443//": "https://amp.test:443",
		"https://amp.test/API/": "https://amp.test:443/API", "https://amp.test/a//b": "https://amp.test:443/a//b",
		"https://amp.test/a%2Fb/": "https://amp.test:443/a%2Fb", "https://amp.test/a b": "https://amp.test:443/a%20b",
		"http://amp.test/api": "http://amp.test:80/api", "http://[0:0::1]:8080/": "http://[::1]:8080",
	} {
		if got, rule := Canonical(raw); got != want || rule != "" {
			t.Errorf("%q: %q, %q, want %q", raw, got, rule, want)
		}
	}
	if got, rule := Canonical("https://amp.test?q"); got != "" || rule != "must not hold a query" {
		t.Errorf("with a query: %q, %q", got, rule)
	}
}

func TestOriginNeedsAHostAndAPort(t *testing.T) {
	for _, test := range []struct {
		scheme, hostport, want string
		ok                     bool
	}{
		{"HTTPS", "AZ.test", "https://az.test:443", true},
		{"https", "amp.test:08443", "https://amp.test:08443", true},
		{"http", "[::1]", "http://[::1]:80", true},
		{"https", "amp.test:65535", "https://amp.test:65535", true},
		{"https", "amp.test:65536", "https://amp.test:65536", false},
		{"ftp", "amp.test:21", "ftp://amp.test:21", true},
		{"ftp", "amp.test", "ftp://amp.test:", false},
		{"https", "", "https://:443", false},
		{"https", ":443", "https://:443", false},
	} {
		o, ok := Of(test.scheme, test.hostport)
		if got := o.String(); ok != test.ok || got != test.want {
			t.Errorf("%s, %s: %s, %t, want %s, %t", test.scheme, test.hostport, got, ok, test.want, test.ok)
		}
	}
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	for raw, loopback := range map[string]bool{
		"http://localhost": true, "http://LocalHost:8080": true, "http://127.0.0.1": true, "http://127.9.8.7:1": true, "http://[::1]:9": true,
		"http://[0:0:0:0:0:0:0:1]": true, "http://[::ffff:127.0.0.1]": true,
		"http://amp.test": false, "http://localhost.": false, "http://localhost.amp.test": false, "http://notlocalhost": false,
		"http://127.0.0.1.amp.test": false, "http://10.0.0.1": false, "http://0.0.0.0": false, "http://[::]": false, "http://[::2]": false,
		"http://127.1": false, "http://2130706433": false, "http://0x7f000001": false,
	} {
		if _, rule := Parse(raw, false); (rule == "") != loopback {
			t.Errorf("%s: %q, want it admitted: %t", raw, rule, loopback)
		}
		if _, rule := Parse(raw, true); rule != "" {
			t.Errorf("%s with AllowHTTP: %s", raw, rule)
		}
	}
}

func TestOriginAdmitsItselfInAnySpellingAndNothingElse(t *testing.T) {
	for _, test := range []struct {
		name, raw    string
		scheme, host string
		want         bool
	}{
		{"as written", "https://amp.test/api", "https", "amp.test", true},
		{"upper case", "https://amp.test/api", "https", "AMP.Test", true},
		{"upper case as written", "https://AMP.Test/api", "https", "amp.test", true},
		{"default port", "https://amp.test/api", "https", "amp.test:443", true},
		{"default port as written", "https://amp.test:443/api", "https", "amp.test", true},
		{"empty port", "https://amp.test/api", "https", "amp.test:", true},
		{"IPv6 spelled out", "https://[2001:db8::1]/api", "https", "[2001:DB8:0:0:0:0:0:1]:443", true},
		{"international name", "https://b\u00fccher.test", "https", "b\u00fccher.test:443", true},

		{"http", "https://amp.test/api", "http", "amp.test", false},
		{"http on the port of https", "https://amp.test/api", "http", "amp.test:443", false},
		{"https for http", "http://localhost:80", "https", "localhost:80", false},
		{"no scheme", "https://amp.test/api", "", "amp.test", false},
		{"other port", "https://amp.test/api", "https", "amp.test:8443", false},
		{"default port for another", "https://amp.test:8443", "https", "amp.test", false},
		{"port in other letters", "https://amp.test:8443", "https", "amp.test:0x20fb", false},
		{"trailing dot", "https://amp.test/api", "https", "amp.test.", false},
		{"without the trailing dot", "https://amp.test./api", "https", "amp.test", false},
		{"subdomain", "https://amp.test/api", "https", "sub.amp.test", false},
		{"parent", "https://sub.amp.test/api", "https", "amp.test", false},
		{"suffix", "https://amp.test/api", "https", "amp.test.evil.test", false},
		{"prefix", "https://amp.test/api", "https", "evil-amp.test", false},
		{"user information", "https://amp.test/api", "https", "amp.test@evil.test", false},
		{"user information after a port", "https://amp.test/api", "https", "amp.test:443@evil.test", false},
		{"two ports", "https://amp.test/api", "https", "amp.test:443:443", false},
		{"host after the port", "https://amp.test/api", "https", "amp.test:443.evil.test", false},
		{"zero byte", "https://amp.test/api", "https", "amp.test\x00.evil.test", false},
		{"blank", "https://amp.test/api", "https", " amp.test", false},
		{"nothing", "https://amp.test/api", "https", "", false},
		{"port alone", "https://amp.test/api", "https", ":443", false},
		{"loopback by another name", "http://localhost", "http", "127.0.0.1", false},
		{"IPv4 in IPv6", "http://127.0.0.1", "http", "[::ffff:127.0.0.1]", false},
		{"other IPv6", "https://[2001:db8::1]", "https", "[2001:db8::2]", false},
		{"IPv6 with a zone", "https://[fe80::1]", "https", "[fe80::1%25eth0]", false},
		// For net/http it is xn--ap-fpa.test, which anybody may own.
		{"dotted capital I", "https://api.test", "https", "ap\u0130.test", false},
		{"other bytes that are no text", "https://a%FFb.test", "https", "a\xfeb.test", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, rule := Parse(test.raw, false)
			if rule != "" {
				t.Fatalf("refused: %s", rule)
			}
			if got := o.Admits(test.scheme, test.host); got != test.want {
				t.Errorf("%s admits %s://%s: %t, want %t", test.raw, test.scheme, test.host, got, test.want)
			}
		})
	}
}

// originRules is all that Parse can say: none has room for the input.
var originRules = []string{
	"must not hold line breaks or control characters", "must not begin or end with white space", "must not hold characters that nobody sees",
	"", "is required", "is not a URL", "must be an absolute https URL", "must not hold user information", "must not hold a query",
	"must not hold a fragment", "must hold a valid port", "must use https (plain http only for loopback, or with AllowHTTP)",
}

func FuzzOrigin(f *testing.F) {
	f.Add("https://amp.test/api", "AMP.test:443")
	f.Fuzz(func(t *testing.T, raw, host string) {
		for _, allowHTTP := range []bool{false, true} {
			o, rule := Parse(raw, allowHTTP)
			if !slices.Contains(originRules, rule) {
				t.Fatalf("%q is said of %q", rule, raw)
			}
			if rule != "" {
				continue
			}
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatalf("%q was accepted and is no URL: %v", raw, err)
			}
			if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
				t.Fatalf("%q was accepted", raw)
			}
			if u.Scheme != "https" && !allowHTTP && !isLoopbackName(u.Hostname()) {
				t.Fatalf("%q was accepted without https", raw)
			}
			if !o.Admits(u.Scheme, u.Host) {
				t.Fatalf("%q does not admit itself", raw)
			}
			if other := map[string]string{"http": "https", "https": "http"}[u.Scheme]; o.Admits(other, u.Host) {
				t.Fatalf("%q admits %s", raw, other)
			}
			for _, elsewhere := range []string{u.Host + ".evil.test", "evil." + u.Host, u.Host + "@evil.test", u.Hostname() + ".:" + o.port, u.Hostname() + ":1" + o.port} {
				if o.Admits(u.Scheme, elsewhere) {
					t.Fatalf("%q admits %q", raw, elsewhere)
				}
			}
			if o.Admits(u.Scheme, host) && !sameHost(o, u.Scheme, u.Host, host) {
				t.Fatalf("%q admits %q", raw, host)
			}
		}
	})
}

func isLoopbackName(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}

// sameHost is the strict opinion about two hosts: the same letters but for the
// case of ASCII, or the same address, and the same port.
func sameHost(o Origin, scheme, a, b string) bool {
	split := func(hostport string) (name, port string) {
		u := url.URL{Host: hostport}
		name, port = u.Hostname(), u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[scheme]
		}
		if address, err := netip.ParseAddr(strings.ToLower(name)); err == nil {
			return address.String(), port
		}
		lower := []byte(name)
		for i, c := range lower {
			if 'A' <= c && c <= 'Z' {
				lower[i] = c + 'a' - 'A'
			}
		}
		return string(lower), port
	}
	nameA, portA := split(a)
	nameB, portB := split(b)
	return nameA == nameB && portA == portB && portA == o.port
}
