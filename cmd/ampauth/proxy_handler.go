package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// passedOn are the fields of a request's header that reach AMP. The rest is the client's
// own affair, or could have a server in between act as somebody or something else. There
// is no Accept-Encoding: net/http asks for what it unpacks itself, so that the answer can
// be looked through. There is no Accept-Language: a refused token is told by English words.
var passedOn = [...]string{
	"Accept", "Content-Type", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
	"If-Unmodified-Since", "Range", "Traceparent", "Tracestate", "User-Agent", "X-Request-Id",
}

// A proxy passes requests on to AMP. Make it with newProxy.
type proxy struct {
	base     string
	port     int // that Host has to name; 0 for a Unix socket, which no name leads to
	log      *log.Logger
	reverse  httputil.ReverseProxy
	requests atomic.Int64
}

func newProxy(a account, transport http.RoundTripper, logger *log.Logger) *proxy {
	p := &proxy{base: a.BaseURL, log: logger}
	p.reverse = httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { rewrite(r, a.Config) },
		Transport:      transport,
		FlushInterval:  -1, // each piece at once
		ModifyResponse: p.modify,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, err error) { answerError(w, a, err) },
		ErrorLog:       log.New(io.Discard, "", 0), // the log has a line for each request
	}
	return p
}

// rewrite makes a request that was let in the one that AMP gets.
func rewrite(r *httputil.ProxyRequest, cfg ampauth.Config) {
	target, err := url.Parse(cfg.URL(r.In.URL.RequestURI()))
	if err != nil { // refusal let it pass, so it is a URL
		target = &url.URL{}
	}
	r.Out.URL, r.Out.Host, r.Out.RequestURI = target, "", ""
	r.Out.Trailer = nil
	header := make(http.Header)
	for _, name := range passedOn {
		if values := r.Out.Header[name]; len(values) > 0 { // where what Connection names is not
			header[name] = values
		}
	}
	if len(header["User-Agent"]) == 0 {
		header["User-Agent"] = []string{"ampauth-proxy"}
	}
	r.Out.Header = header
}

// ServeHTTP answers one request and logs it.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	began := time.Now()
	seen := &statusWriter{ResponseWriter: w}
	end := " cut off"
	defer func() {
		p.log.Printf("%s %s %d %v%s", printable(shortened(r.Method)), printable(shortened(r.URL.Path)), seen.status, time.Since(began).Round(time.Millisecond), end)
	}()
	if status, why := p.refusal(r); status != 0 {
		w.Header().Set("Connection", "close") // the body that may follow is not wanted
		answerDetail(seen, status, why)
	} else {
		p.reverse.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), guarded{}, true)))
	}
	end = "" // otherwise it is a panic, by which ReverseProxy ends a connection
}

// shortened cuts what would fill the log.
func shortened(text string) string {
	const limit = 200
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}

// modify takes out of AMP's answer what would lead past the proxy.
func (p *proxy) modify(resp *http.Response) error {
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return errPacked
	}
	resp.Header.Del("Set-Cookie")
	disarm(resp.Header)
	location := resp.Header.Get("Location")
	if location == "" || resp.StatusCode/100 != 3 && resp.StatusCode != http.StatusCreated {
		return nil
	}
	target, err := resp.Request.URL.Parse(location)
	if err != nil {
		return errLeadsAway
	}
	base, err := url.Parse(p.base)
	if err != nil {
		return errLeadsAway
	}
	below, found := strings.CutPrefix(target.EscapedPath(), strings.TrimRight(base.EscapedPath(), "/")+"/")
	if target.Scheme != base.Scheme || !strings.EqualFold(target.Host, base.Host) || !found {
		return errLeadsAway
	}
	local := "/" + strings.TrimLeft(below, "/")
	if target.RawQuery != "" {
		local += "?" + target.RawQuery
	}
	resp.Header.Set("Location", local)
	return nil
}

var (
	errLeadsAway = errors.New("ampauth: the answer leads to a place that is not below the base URL")
	errPacked    = errors.New("ampauth: the answer is packed although that was not asked for")
)

// disarm has a browser that shows an answer run nothing of it.
func disarm(header http.Header) {
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
}

// answerError answers a request for which there is no answer of AMP's.
func answerError(w http.ResponseWriter, a account, err error) {
	status := http.StatusBadGateway
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		status = http.StatusGatewayTimeout
	}
	answerDetail(w, status, a.advice(withoutURL(err)))
}

// answerDetail sends a sentence as Django REST framework does.
func answerDetail(w http.ResponseWriter, status int, why string) {
	body, _ := json.Marshal(map[string]string{"detail": why}) // text alone does not fail
	disarm(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// A statusWriter remembers the status for the log. It passes on no informational answer,
// which the tokenGuard has not seen.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if status < 200 {
		return
	}
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
