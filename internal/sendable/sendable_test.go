package sendable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// canary is in each value that no error may show.
const canary = "canary"

// plain returns a request that can be sent.
func plain() *http.Request {
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "api.test", Path: "/v1"}, Header: make(http.Header)}
}

// The requests that Check and net/http turn away, each made from a plain one.
var unsendable = []struct {
	name  string
	spoil func(*http.Request)
	want  string // what the error says
}{
	{"no URL", func(r *http.Request) { r.URL = nil }, "no URL"},
	{"no header map", func(r *http.Request) { r.Header = nil }, "no header map"},
	{"no header map, other scheme", func(r *http.Request) { r.Header, r.URL.Scheme = nil, "amp" }, "no header map"},
	{"no host", func(r *http.Request) { r.URL.Host = "" }, "no host"},
	{"method with a blank", func(r *http.Request) { r.Method = "GET " + canary }, "method"},
	{"method with a line break", func(r *http.Request) { r.Method = "GET\n" + canary }, "method"},
	{"method beyond ASCII", func(r *http.Request) { r.Method = "G\u00c9T" + canary }, "method"},
	{"length without a body", func(r *http.Request) { r.ContentLength = 7 }, "ContentLength"},
	{"unknown length without a body", func(r *http.Request) { r.ContentLength = -1 }, "ContentLength"},
	{"line break in the query", func(r *http.Request) { r.URL.RawQuery = "q=" + canary + "\r\n" }, "URL"},
	{"tab in the query", func(r *http.Request) { r.URL.RawQuery = "q=" + canary + "\t" }, "URL"},
	{"delete in the query", func(r *http.Request) { r.URL.RawQuery = "q=" + canary + "\x7f" }, "URL"},
	{"line break in an opaque URL", func(r *http.Request) { r.URL.Opaque = "/" + canary + "\n" }, "URL"},
	{"tab in an opaque URL", func(r *http.Request) { r.URL.Opaque = "/" + canary + "\t" }, "URL"},
	{"field without a name", func(r *http.Request) { r.Header[""] = []string{canary} }, "name of a header field"},
	{"field name with a blank", func(r *http.Request) { r.Header["X "+canary] = []string{"v"} }, "name of a header field"},
	{"field name with a colon", func(r *http.Request) { r.Header["X:"+canary] = nil }, "name of a header field"},
	{"field value with a line break", func(r *http.Request) { r.Header["X-A"] = []string{canary + "\n"} }, "header field X-A"},
	{"second value with a carriage return", func(r *http.Request) { r.Header["X-A"] = []string{"v", canary + "\r"} }, "header field X-A"},
	{"field value with a zero byte", func(r *http.Request) { r.Header["X-A"] = []string{canary + "\x00"} }, "header field X-A"},
	{"field value with a delete", func(r *http.Request) { r.Header["X-A"] = []string{canary + "\x7f"} }, "header field X-A"},
	{"trailer field name with a blank", func(r *http.Request) { chunked(r, "X "+canary, "v") }, "name of a trailer field"},
	{"trailer field value with a line break", func(r *http.Request) { chunked(r, "X-A", canary+"\n") }, "trailer field X-A"},
	{"Transfer-Encoding in the trailer", func(r *http.Request) { chunked(r, "Transfer-Encoding", canary) }, "trailer field Transfer-Encoding"},
	{"Trailer in the trailer", func(r *http.Request) { chunked(r, "trailer", canary) }, "trailer field trailer"},
	{"Content-Length in the trailer", func(r *http.Request) { chunked(r, "content-LENGTH", canary) }, "trailer field content-LENGTH"},
}

// The requests that Check and net/http accept.
var sendable = []struct {
	name   string
	change func(*http.Request)
}{
	{"plain", func(*http.Request) {}},
	{"no method", func(r *http.Request) { r.Method = "" }},
	{"method of one's own", func(r *http.Request) { r.Method = "m!#$%&'*+-.^_`|~9" }},
	{"length of no body", func(r *http.Request) { r.Body = http.NoBody }},
	{"length of a body", func(r *http.Request) {
		r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("payload")), 7
	}},
	{"blank in the query", func(r *http.Request) { r.URL.RawQuery = "q= " }},
	{"bytes beyond ASCII in the query", func(r *http.Request) { r.URL.RawQuery = "q=\u00e9\xff" }},
	{"control characters in the path", func(r *http.Request) { r.URL.Path = "/a\n\t\x7f" }},
	{"control characters in a raw path", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a\n", "/a\n" }},
	{"opaque URL", func(r *http.Request) { r.URL.Opaque = "/v1" }},
	{"field without a value", func(r *http.Request) { r.Header["X-A"] = nil }},
	{"field with an empty value", func(r *http.Request) { r.Header["X-A"] = []string{""} }},
	{"field name in lower case", func(r *http.Request) { r.Header["x-a"] = []string{"v"} }},
	{"field value with a tab and a blank", func(r *http.Request) { r.Header["X-A"] = []string{" a\tb "} }},
	{"field value beyond ASCII", func(r *http.Request) { r.Header["X-A"] = []string{"\u00e9\xff"} }},
	{"trailer", func(r *http.Request) { chunked(r, "X-A", "v") }},
	{"empty trailer", func(r *http.Request) { r.Trailer = make(http.Header) }},
}

// chunked gives r a body, and a trailer of one field.
func chunked(r *http.Request, name, value string) {
	r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("payload")), -1
	r.Trailer = http.Header{name: {value}}
}

func TestFaultIsNamedAndNoValueShown(t *testing.T) {
	for _, test := range unsendable {
		t.Run(test.name, func(t *testing.T) {
			req := plain()
			test.spoil(req)
			_, err := Check(req)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), canary) {
				t.Errorf("%v, want it to name the %s and to show no value", err, test.want)
			}
		})
	}
}

// A countedConn counts what is written to it.
type countedConn struct {
	net.Conn
	written *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

func TestCheckTurnsAwayWhatNetHTTPDoes(t *testing.T) {
	var written atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		return countedConn{conn, &written}, err
	}}
	defer transport.CloseIdleConnections()
	for _, test := range unsendable {
		t.Run(test.name, func(t *testing.T) {
			req := plain()
			test.spoil(req)
			before := written.Load()
			resp, err := transport.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if n := written.Load() - before; err == nil || n != 0 {
				t.Errorf("net/http sends %d bytes of it: %v", n, err)
			}
		})
	}
	for _, test := range sendable {
		t.Run(test.name, func(t *testing.T) {
			req := plain()
			test.change(req)
			if _, err := Check(req); err != nil {
				t.Errorf("turned away: %v", err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatalf("net/http does not send it: %v", err)
			}
			_ = resp.Body.Close()
		})
	}
}

func TestRequestOfAnotherSchemeIsNotChecked(t *testing.T) {
	req := plain()
	req.URL.Scheme, req.URL.Host, req.Method = "file", "", "not a method"
	req.Header["no name"] = []string{"\n"}
	req.Header["Authorization"] = []string{canary}
	if facts, err := Check(req); facts != Authorization || err != nil {
		t.Errorf("%v, %v", facts, err)
	}
	req.URL.Scheme = "HTTP" // not a scheme for net/http
	if _, err := Check(req); err != nil {
		t.Error(err)
	}
	req.URL.Scheme = "https"
	if _, err := Check(req); err == nil {
		t.Error("https is not checked")
	}
}

func TestFactsOfAHeader(t *testing.T) {
	spare := append(make([]string, 0, 2), "v")
	for _, test := range []struct {
		name string
		h    http.Header
		want Facts
	}{
		{"none", nil, 0},
		{"other fields", http.Header{"X-A": {"v"}, "Proxy-Authorization": {"v"}, "Authorizatiom": {"v"}, "Authorization2": {"v"}}, 0},
		{"Authorization", http.Header{"Authorization": {"v"}}, Authorization},
		{"Authorization in lower case", http.Header{"authorization": {"v"}}, Authorization},
		{"Authorization in mixed case", http.Header{"aUTHORIZATIOn": {"v"}}, Authorization},
		{"Authorization without a value", http.Header{"Authorization": nil}, Authorization},
		{"room behind a value", http.Header{"X-A": spare}, Spare},
		{"room behind no value", http.Header{"X-A": spare[:0]}, Spare},
		{"no room", http.Header{"X-A": spare[:1:1]}, 0},
		{"both in one", http.Header{"Authorization": spare}, Authorization | Spare},
		{"both in two", http.Header{"X-A": spare, "X-B": {"v"}, "authorization": {"v"}}, Authorization | Spare},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 50 { // a map has many orders
				if got := FactsOf(test.h); got != test.want {
					t.Fatalf("FactsOf gives %b, want %b", got, test.want)
				}
			}
			req := plain()
			if test.h != nil {
				req.Header = test.h
			}
			chunked(req, "Authorization", "v") // in a trailer it is no fact
			if got, err := Check(req); got != test.want || err != nil {
				t.Errorf("Check gives %b, %v, want %b", got, err, test.want)
			}
		})
	}
}

func TestWordIsATokenOfRFC9110(t *testing.T) {
	const tchar = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for c := range 256 {
		want := strings.IndexByte(tchar, byte(c)) >= 0
		for _, s := range []string{string([]byte{byte(c)}), string([]byte{byte(c), 'a'}), string([]byte{'a', byte(c)})} {
			if got := IsWord(s); got != want {
				t.Errorf("%q: %t, want %t", s, got, want)
			}
		}
	}
	if IsWord("") {
		t.Error("an empty word is one")
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestUnknownSchemeIsToldFromOtherErrors(t *testing.T) {
	fault := errors.New("the file is gone")
	transport := new(http.Transport)
	transport.RegisterProtocol("registered", roundTripperFunc(func(*http.Request) (*http.Response, error) { return nil, fault }))
	for _, test := range []struct {
		name, scheme string
		wrap         func(error) error
		want         bool
	}{
		{"nothing registered", "amp", func(err error) error { return err }, true},
		{"nothing registered, wrapped", "amp", func(err error) error { return fmt.Errorf("layer: %w", &url.Error{Err: err}) }, true},
		{"no scheme", "", func(err error) error { return err }, true},
		{"registered", "registered", func(err error) error { return err }, false},
		{"the words of another scheme", "amp", func(error) error { return errors.New(`unsupported protocol scheme "other"`) }, false},
		{"the words in other words", "amp", func(err error) error { return errors.New("layer: " + err.Error()) }, false},
		{"the words for http", "http", func(error) error { return errors.New(`unsupported protocol scheme "http"`) }, false},
		{"no error", "amp", func(error) error { return nil }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := plain()
			req.URL.Scheme = test.scheme
			err := error(nil)
			if test.scheme != "http" {
				_, err = transport.RoundTrip(req)
			}
			if got := UnknownScheme(req, test.wrap(err)); got != test.want {
				t.Errorf("%t, want %t: %v", got, test.want, err)
			}
		})
	}
}

func TestSchemeOfHTTPIsKnownWithoutAsking(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		req := plain()
		req.URL.Scheme = scheme
		err := errors.New("no such host")
		if n := testing.AllocsPerRun(1, func() { UnknownScheme(req, err) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", scheme, n)
		}
	}
}

// Check has the opinion of net/http about a method, and the fields of a header and a trailer.
func FuzzCheck(f *testing.F) {
	f.Add("GET", "X-A", "v", "X-B", "v")
	f.Add("", "x", " \t\xff", "!#$%&'*+-.^_`|~09azAZ", "")
	f.Add("G T", "X-A", "v", "X-B", "v")
	f.Add("GET", "", "v", "X-B", "v")
	f.Add("GET", "X:", "v", "X-B", "v")
	f.Add("GET", "X-A", "\n", "X-B", "v")
	f.Add("GET", "X-A", "v", "X B", "v")
	f.Add("GET", "X-A", "v", "X-B", "\x7f")
	dialed := errors.New("net/http would send it")
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, dialed }}
	f.Fuzz(func(t *testing.T, method, name, value, trailer, trailing string) {
		switch http.CanonicalHeaderKey(trailer) {
		case "Transfer-Encoding", "Trailer", "Content-Length":
			t.Skip() // net/http looks at these later
		}
		req := plain()
		req.Method, req.Header, req.Trailer = method, http.Header{name: {"v", value}}, http.Header{trailer: {trailing}}
		_, refusal := Check(req)
		if _, err := transport.RoundTrip(req); (err == dialed) != (refusal == nil) {
			t.Errorf("net/http: %v; Check: %v", err, refusal)
		}
	})
}
