package viaproxy

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

// A proxy answers each CONNECT with the text that it is given, and counts.
type proxy struct {
	*httptest.Server
	asked atomic.Int32
}

func startProxy(t *testing.T, answer string) *proxy {
	p := new(proxy)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) transport(t *testing.T) *http.Transport {
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(u)}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func get(t *testing.T, rawURL string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), "GET", rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestRefusalHasTheStatusAndNothingElseOfTheProxy(t *testing.T) {
	for _, test := range []struct {
		name, answer string
		status       int
		text         string
	}{
		{"usual words", "HTTP/1.1 407 Proxy Authentication Required\r\nX: canary\r\n\r\ncanary", 407, "the proxy refused to connect: HTTP 407 Proxy Authentication Required"},
		{"its own words", "HTTP/1.1 403 canary\r\n\r\n", 403, "the proxy refused to connect: HTTP 403 Forbidden"},
		{"no words", "HTTP/1.1 502\r\n\r\n", 502, "the proxy refused to connect: HTTP 502 Bad Gateway"},
		{"a status of its own", "HTTP/1.1 520 canary\r\n\r\n", 520, "the proxy refused to connect: HTTP 520"},
	} {
		t.Run(test.name, func(t *testing.T) {
			transport := startProxy(t, test.answer).transport(t)
			transport.OnProxyConnectResponse = Telling(nil)
			req := get(t, "https://api.test/")
			_, err := transport.RoundTrip(req)
			refusal := Of(err, transport, req)
			if refusal == nil || refusal.StatusCode != test.status || refusal.Error() != test.text || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, refusal), "canary") {
				t.Errorf("got %v, want %q", err, test.text)
			}
		})
	}
}

func TestTheirsIsAskedFirst(t *testing.T) {
	theirs := errors.New("theirs")
	for _, test := range []struct {
		status int
		theirs error
		want   error
	}{
		{200, nil, nil},
		{200, theirs, theirs},
		{407, nil, &Refusal{StatusCode: 407}},
		{407, theirs, &Refusal{407, theirs}},
	} {
		asked := 0
		tell := Telling(func(context.Context, *url.URL, *http.Request, *http.Response) error { asked++; return test.theirs })
		err := tell(t.Context(), nil, nil, &http.Response{StatusCode: test.status})
		if refusal, ok := err.(*Refusal); asked != 1 || ok && *refusal != *test.want.(*Refusal) || !ok && err != test.want || errors.Is(err, theirs) != (test.theirs != nil) {
			t.Errorf("after %d and %v: asked %d times, %v; want %v", test.status, test.theirs, asked, err, test.want)
		}
	}
}

// This is what net/http makes of it today: should that change, it shows here.
func TestUsualWordsAreKnownWithoutAHook(t *testing.T) {
	for status, known := range map[string]int{
		"407 Proxy Authentication Required": 407,
		"403 Forbidden":                     403,
		"503 Service Unavailable":           503,
		"407 Ask the porter":                0,
		"502":                               0,
	} {
		t.Run(status, func(t *testing.T) {
			transport := startProxy(t, "HTTP/1.1 "+status+"\r\n\r\n").transport(t)
			req := get(t, "https://api.test/")
			_, err := transport.RoundTrip(req)
			refusal := Of(err, transport, req)
			if refusal == nil {
				refusal = new(Refusal)
			}
			if refusal.StatusCode != known {
				t.Errorf("%v counts as a refusal by %d, want %d", err, refusal.StatusCode, known)
			}
		})
	}
}

func TestOtherErrorsAreNoRefusal(t *testing.T) {
	proxied := &http.Transport{Proxy: http.ProxyFromEnvironment}
	https, plain := get(t, "https://api.test/"), get(t, "http://api.test/")
	forbidden := errors.New("Forbidden")
	for name, test := range map[string]struct {
		err  error
		over *http.Transport
		req  *http.Request
	}{
		"none":              {nil, proxied, https},
		"no proxy":          {forbidden, new(http.Transport), https},
		"no CONNECT":        {forbidden, proxied, plain},
		"of a type":         {&net.OpError{Op: "dial", Err: forbidden}, proxied, https},
		"end":               {io.EOF, proxied, https},
		"no words":          {errors.New(""), proxied, https},
		"words of success":  {errors.New("Created"), proxied, https},
		"words of redirect": {errors.New("Found"), proxied, https},
	} {
		if refusal := Of(test.err, test.over, test.req); refusal != nil {
			t.Errorf("%s: counts as %v", name, refusal)
		}
	}
}

func TestConnectionToAProxyIsToldFromOthers(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, scheme := range []string{"http", "https", "socks5"} {
		proxy := &url.URL{Scheme: scheme, Host: gone.Listener.Addr().String()}
		for _, target := range []string{"https://amp.example", "http://amp.example"} {
			transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
			_, err := (&http.Client{Transport: transport}).Get(target)
			if err == nil || !Unreached(err) {
				t.Errorf("%s to %s: %v is not taken for one of the proxy", scheme, target, err)
			}
		}
	}
	_, err := new(http.Client).Get(gone.URL)
	if err == nil || Unreached(err) {
		t.Errorf("%v is taken for one of a proxy", err)
	}
}
