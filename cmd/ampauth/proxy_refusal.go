package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ampauth/ampauth"
)

// refusal returns why a request is not passed on, and the status that says so; 0 if it is.
// The sentences quote nothing of the request.
func (p *proxy) refusal(r *http.Request) (status int, why string) {
	if p.port != 0 && !isLoopbackHost(r.Host, p.port) {
		return http.StatusMisdirectedRequest, "the Host field must name this proxy by its loopback address and port: another name may be an attempt to reach it from a web page"
	}
	// A page cannot have "none" sent: it is what a user typed.
	site := r.Header.Get("Sec-Fetch-Site")
	if len(r.Header.Values("Origin")) > 0 || len(r.Header.Values("Sec-Fetch-Site")) > 1 || site != "" && site != "none" {
		return http.StatusForbidden, "web pages cannot use this proxy: it acts for the account of whoever started it"
	}
	switch {
	case r.Method == http.MethodConnect:
		return http.StatusMethodNotAllowed, "this is no proxy for CONNECT: ask for paths below the base URL"
	case !strings.HasPrefix(r.RequestURI, "/"):
		return http.StatusBadRequest, "ask for a path, as GET /assets, and not for a whole URL: do not set this as an HTTP proxy"
	case r.Header.Get("Upgrade") != "" || slices.ContainsFunc(r.Header.Values("Connection"), namesUpgrade):
		return http.StatusBadRequest, "AMP has no protocol to upgrade to"
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if why := pathFault(path); why != "" {
		return http.StatusBadRequest, "the path " + why
	}
	target, err := url.ParseRequestURI(path)
	if err != nil {
		return http.StatusBadRequest, "the path " + noPath
	}
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength != 0 {
		return http.StatusBadRequest, "a GET or HEAD has no body at AMP"
	}
	return p.classRefusal(r.Method, target)
}

// classRefusal refuses what must not be sent twice, and what yields a token.
func (p *proxy) classRefusal(method string, target *url.URL) (status int, why string) {
	if givesToken(target) {
		return http.StatusForbidden, "the proxy logs in by itself, and nobody gets its token"
	}
	// The same path below the base URL: the class is that of what AMP gets.
	below, err := url.Parse(strings.TrimRight(p.base, "/") + target.EscapedPath())
	if err != nil {
		return http.StatusBadRequest, "the path " + noPath
	}
	for _, u := range []*url.URL{target, below} {
		if ampauth.ClassifyAMP(&http.Request{Method: method, URL: u}) == ampauth.MutatingOperation {
			return http.StatusForbidden, "this is a mutation, or no operation of AMP's that is known: if its end were in doubt, your program could not tell, and a second one could be made; use package ampauth"
		}
	}
	return 0, ""
}

// isLoopbackHost reports whether a Host field is this proxy's. The names of a web page that
// has its own resolved to a loopback address are not.
func isLoopbackHost(hostport string, port int) bool {
	u := url.URL{Host: hostport}
	host := u.Hostname()
	if u.Port() != strconv.Itoa(port) && (u.Port() != "" || port != 80) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback() && ip.Zone() == ""
}

func namesUpgrade(value string) bool {
	return slices.ContainsFunc(strings.Split(value, ","), func(token string) bool {
		return strings.EqualFold(strings.TrimSpace(token), "upgrade")
	})
}
