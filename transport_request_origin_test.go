package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
)

func TestOriginIsRequiredAndChecked(t *testing.T) {
	for origin, names := range map[string]string{
		"":                          "AuthTransport.Origin",
		"amp.test":                  "AuthTransport.Origin",
		"http://amp.test":           "AuthTransport.Origin",
		"https://user:pw9@amp.test": "AuthTransport.Origin",
	} {
		rt := &ampauth.AuthTransport{Source: static("tok"), Origin: origin}
		req, _ := http.NewRequest("GET", "https://amp.test/", nil)
		_, err := rt.RoundTrip(req)
		if !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), names) || strings.Contains(err.Error(), "pw9") {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
	insecure := &ampauth.AuthTransport{Source: static("tok"), Origin: "http://amp.test", AllowHTTP: true,
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return stubResponse(200, req.Header.Get("Authorization")), nil
		})}
	req, _ := http.NewRequest("GET", "http://amp.test/", nil)
	resp, err := insecure.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "token tok" {
		t.Errorf("AllowHTTP did not let the token pass: %q", body)
	}
}

func TestTokenNeverLeavesItsOriginOverRedirects(t *testing.T) {
	const secret = "token-that-stays-home-0123456789"
	var foreign spy
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		foreign.note(r)
		if r.URL.Path == "/1" { // the second foreign hop must be as bare as the first
			http.Redirect(w, r, "/2", http.StatusFound)
		}
	}))
	defer stranger.Close()

	var home spy
	var targets sync.Map
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		home.note(r)
		if target, ok := targets.Load(r.URL.Path); ok {
			http.Redirect(w, r, target.(string), http.StatusFound)
		}
	}))
	defer api.Close()
	apiURL, _ := url.Parse(api.URL)
	strangerURL, _ := url.Parse(stranger.URL)

	for name, target := range map[string]string{
		"other port, plain http":    stranger.URL + "/1",
		"other name, same address":  "http://localhost:" + strangerURL.Port() + "/1",
		"downgrade on another port": "http://" + apiURL.Hostname() + ":" + strangerURL.Port() + "/1",
		"another host over TLS":     "https://example.com/landing",
	} {
		t.Run(name, func(t *testing.T) {
			targets.Store("/start", target)
			client := api.Client() // dials example.com to the test server
			client.Transport = &ampauth.AuthTransport{
				Base: client.Transport, Source: static(secret), Origin: api.URL,
			}
			resp, err := client.Get(api.URL + "/start")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		})
	}
	for _, header := range foreign.saw() {
		if header != "" {
			t.Error("a foreign server saw the token")
		}
	}
	bare := 0
	for _, header := range home.saw() {
		if header == "" {
			bare++
		}
	}
	if bare != 1 { // example.com lands on the same server and must be bare there
		t.Errorf("%d requests reached the API's server bare, want 1: that for another host", bare)
	}
	if len(foreign.saw()) != 6 {
		t.Errorf("the foreign server saw %d requests, want 6", len(foreign.saw()))
	}
}

func TestTokenComesBackWithTheOrigin(t *testing.T) {
	var home spy
	var stranger *httptest.Server
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		home.note(r)
		if r.URL.Path == "/start" {
			http.Redirect(w, r, stranger.URL, http.StatusFound)
		}
	}))
	defer api.Close()
	stranger = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, api.URL+"/end", http.StatusFound)
	}))
	defer stranger.Close()
	client := &http.Client{Transport: &ampauth.AuthTransport{Source: static("tok"), Origin: api.URL}}
	if status, _ := get(t, client, api.URL+"/start"); status != 200 {
		t.Fatal(status)
	}
	if got, want := fmt.Sprint(home.saw()), "[token tok token tok]"; got != want {
		t.Errorf("the API saw %s, want %s: each hop is judged against the origin", got, want)
	}
}

func TestHostHeaderOfAnotherOriginGetsNoToken(t *testing.T) {
	var seen spy
	rt := &ampauth.AuthTransport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			seen.note(req)
			return stubResponse(200, ""), nil
		}),
		Source: static("tok"), Origin: "https://amp.test",
	}
	for _, host := range []string{"", "amp.test", "AMP.test:443", "evil.test"} {
		req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
		req.Host = host
		if _, err := rt.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprintf("%q", seen.saw()), `["token tok" "token tok" "token tok" ""]`; got != want {
		t.Errorf("saw %s, want %s", got, want)
	}
}

func TestTokenIsNotSentAgainOverABaseThatFollowsRedirects(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		for _, retrying := range []bool{false, true} {
			var got atomic.Value
			stranger := newStranger(t, &got)
			requests := 0
			home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				http.Redirect(w, r, stranger.URL, http.StatusFound)
			}))
			var rt http.RoundTripper = &ampauth.AuthTransport{Base: followsByItself(t), Source: static("tok"), Origin: home.URL}
			if retrying {
				rt = &ampauth.RetryTransport{Base: rt, Retry: stubQuick}
			}
			_, err := rt.RoundTrip(stubRequestTo(t.Context(), home.URL, op, nil))
			if !errors.Is(err, ampauth.ErrConfig) || requests != 1 {
				t.Errorf("%v: got %v after %d requests, want ErrConfig after one: the answer is a stranger's", op, err, requests)
			}
			if doubt := errors.Is(err, ampauth.ErrAmbiguous); retrying && doubt != (op == ampauth.MutatingOperation) {
				t.Errorf("%v: %v", op, err)
			}
			_, err = rt.RoundTrip(stubRequestTo(t.Context(), home.URL, op, nil))
			if e := stubError(t, err); e.Kind != ampauth.ErrConfig || e.Outcome != ampauth.NotSent || requests != 1 {
				t.Errorf("%v: then %v (%v) after %d requests, want nothing more to be sent", op, err, e.Outcome, requests)
			}
			home.Close()
		}
	}
}

// What names another host on the wire gets no token, whatever the URL's Host says.
func TestTokenIsNotSentWithARequestLineOfAnotherHost(t *testing.T) {
	at := func(change func(*http.Request)) *http.Request {
		req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
		change(req)
		return req
	}
	for name, test := range map[string]struct {
		req  *http.Request
		sent bool
	}{
		"plain":                        {at(func(*http.Request) {}), true},
		"no path":                      {at(func(r *http.Request) { r.URL.Path = "" }), true},
		"two slashes":                  {at(func(r *http.Request) { r.URL.Path = "//assets" }), true},
		"asterisk":                     {at(func(r *http.Request) { r.Method, r.URL.Opaque = "OPTIONS", "*" }), true},
		"opaque path":                  {at(func(r *http.Request) { r.URL.Opaque = "/api/a%2Fb" }), true},
		"opaque, own host":             {at(func(r *http.Request) { r.URL.Opaque = "//amp.test/api/a%2Fb" }), true},
		"opaque, own host and port":    {at(func(r *http.Request) { r.URL.Opaque = "//AMP.test:443/api" }), true},
		"opaque, another host":         {at(func(r *http.Request) { r.URL.Opaque = "//elsewhere.example/x" }), false},
		"opaque, a whole URL":          {at(func(r *http.Request) { r.URL.Opaque = "https://elsewhere.example/x" }), false},
		"opaque, another scheme":       {at(func(r *http.Request) { r.URL.Opaque = "http://amp.test/x" }), false},
		"opaque, user information":     {at(func(r *http.Request) { r.URL.Opaque = "//amp.test@elsewhere.example/x" }), false},
		"opaque, no host":              {at(func(r *http.Request) { r.URL.Opaque = "elsewhere.example:443" }), false},
		"opaque, a query":              {at(func(r *http.Request) { r.URL.Opaque = "//elsewhere.example?https://amp.test/" }), false},
		"a path that is a URL":         {at(func(r *http.Request) { r.URL.Path = "http://elsewhere.example/x" }), false},
		"a path without a slash":       {at(func(r *http.Request) { r.URL.Path = "elsewhere.example/x" }), false},
		"CONNECT":                      {at(func(r *http.Request) { r.Method = "CONNECT" }), false},
		"CONNECT, to another host":     {at(func(r *http.Request) { r.Method, r.URL.Path, r.URL.Opaque = "CONNECT", "", "elsewhere.example:443" }), false},
		"Host field":                   {at(func(r *http.Request) { r.Host = "elsewhere.example" }), false},
		"a raw path of another length": {at(func(r *http.Request) { r.URL.RawPath = "http://elsewhere.example/x" }), true}, // which is not sent
	} {
		for layer, stack := range map[string]func(http.RoundTripper) http.RoundTripper{
			"alone": func(base http.RoundTripper) http.RoundTripper {
				return &ampauth.AuthTransport{Base: base, Source: static("tok"), Origin: "https://amp.test"}
			},
			"below a RetryTransport": func(base http.RoundTripper) http.RoundTripper {
				return &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: static("tok"), Origin: "https://amp.test"}}
			},
		} {
			t.Run(name+", "+layer, func(t *testing.T) {
				sent, requestLine := false, ""
				rt := stack(roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sent, requestLine = req.Header.Get("Authorization") != "", req.URL.RequestURI()
					return stubResponse(200, ""), nil
				}))
				if _, err := rt.RoundTrip(test.req); err != nil {
					t.Fatal(err)
				}
				if sent != test.sent {
					t.Errorf("the token was sent with %q: %t, want %t", requestLine, sent, test.sent)
				}
			})
		}
	}
}

// On the wire: through a proxy, which goes where the request line says.
func TestTokenIsNotTakenElsewhereThroughAProxy(t *testing.T) {
	var seen spy
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.note(r) }))
	defer proxy.Close()
	proxyURL, _ := url.Parse(proxy.URL)
	base := stubPooled(t)
	base.Proxy = http.ProxyURL(proxyURL)
	rt := &ampauth.AuthTransport{Base: base, Source: static("tok"), Origin: "http://amp.test", AllowHTTP: true}
	req, _ := http.NewRequest("GET", "http://amp.test/assets", nil)
	req.URL.Opaque = "//elsewhere.example/x"
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := fmt.Sprint(seen.saw()); got != "[]" {
		t.Errorf("the proxy saw %q", got)
	}
}

// Whatever name is dialed, this network ends at one server, which notes who was
// meant and what token came along.
func TestTokenDoesNotGoToAHostThatOnlyLowersToItsOwn(t *testing.T) {
	var mu sync.Mutex // guards seen
	seen := make(map[string]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Host] = r.Header.Get("Authorization")
		mu.Unlock()
		if r.Host == "api.test" {
			http.Redirect(w, r, "http://ap\u0130.test/stolen", http.StatusFound)
		}
	}))
	defer server.Close()
	network := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
	defer network.CloseIdleConnections()
	client := &http.Client{Transport: &ampauth.AuthTransport{
		Base: network, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("c4a7e1f09b3d586270aef1c2d8b4963517fe0ad2")), Origin: "http://api.test", AllowHTTP: true,
	}}
	resp, err := client.Get("http://api.test/assets")
	if err == nil {
		_ = resp.Body.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if seen["api.test"] == "" {
		t.Error("the origin did not get the token")
	}
	for _, host := range slices.Sorted(maps.Keys(seen)) {
		if host != "api.test" && seen[host] != "" {
			t.Errorf("%s got the token", host)
		}
	}
}
