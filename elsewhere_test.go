package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// followsByItself is a RoundTripper that follows redirects, as an http.Client does that
// somebody has wrapped.
func followsByItself(t *testing.T) http.RoundTripper {
	client := &http.Client{Transport: stubPooled(t)}
	return stubLayer(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		return client.Do(req)
	})
}

// A stranger takes what it is sent, and hands out a token.
func newStranger(t *testing.T, got *atomic.Value) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(r.Header.Get("Authorization") + string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"token":"taken-from-a-stranger"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestLoginIsNotTakenElsewhereByABaseThatFollowsRedirects(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		var got atomic.Value
		stranger := newStranger(t, &got)
		requests := 0
		home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			http.Redirect(w, r, stranger.URL, status)
		}))
		m, err := ampauth.NewTokenManager(ampauth.Config{
			BaseURL: home.URL, HTTPClient: &http.Client{Transport: followsByItself(t)}, Retry: stubQuick,
			Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(canaryPassword)},
		})
		if err != nil {
			t.Fatal(err)
		}
		token, err := m.Token(t.Context())
		if err == nil || !token.Value.IsZero() || requests != 1 {
			t.Errorf("%d: %v after %d requests: the stranger's token was taken, or the login repeated", status, err, requests)
		}
		if text, _ := got.Load().(string); strings.Contains(text, canaryPassword) || strings.Contains(text, "issuer") {
			t.Errorf("%d: the stranger was sent the credentials", status)
		}
		_ = m.Close()
		home.Close()
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

// Below a RetryTransport alone, a mutation that a layer has redirected is no success.
func TestMutationThatALayerHasRedirectedIsToldByItsRedirect(t *testing.T) {
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/assets/issue" {
			http.Redirect(w, r, "/landing", http.StatusSeeOther)
		}
	}))
	defer home.Close()
	rt := &ampauth.RetryTransport{Base: followsByItself(t), Retry: stubQuick}
	_, err := rt.RoundTrip(stubRequestTo(t.Context(), home.URL+"/assets/issue", ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.Answered || e.StatusCode != 303 || e.Attempts != 1 {
		t.Errorf("got %v (%v), want that it was answered by a 303", err, e.Outcome)
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
					return answer(200, "", ""), nil
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

func TestErrorThatQuotesTheTokenDoesNotShowIt(t *testing.T) {
	for _, token := range []string{canaryToken, `a"quoted\token"<&>'%2F+/=`} {
		for name, quote := range map[string]func(string) string{
			"as it is": func(s string) string { return s },
			"%q":       func(s string) string { return fmt.Sprintf("%q", s) },
			"%+q":      func(s string) string { return fmt.Sprintf("%+q", "token "+s) },
			"a query":  url.QueryEscape,
			"a path":   url.PathEscape,
		} {
			rt := &ampauth.AuthTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return nil, fmt.Errorf("malformed HTTP response %s", quote(strings.TrimPrefix(req.Header.Get("Authorization"), "token ")))
				}),
				Source: static(token), Origin: "https://amp.test",
			}
			req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
			_, err := rt.RoundTrip(req)
			if err == nil || strings.Contains(err.Error(), quote(token)) || strings.Contains(err.Error(), token) {
				t.Errorf("%s: %v shows the token", name, err)
			}
		}
	}
}

// A generator's security hook that is fed from the manager: the field that it sets is
// not the caller's own, and the token in it is renewed when it is refused.
func TestTokenThatAHookTookFromTheManagerIsRenewed(t *testing.T) {
	for name, hook := range map[string]func(string) string{
		"ogen":           func(token string) string { return "token " + token },
		"another case":   func(token string) string { return "Token " + token },
		"without a word": func(token string) string { return token },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				client := w.client()
				var kept string
				call := func(stale bool) int {
					if !stale || kept == "" {
						token, err := client.Tokens.Token(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						kept = ampReveal(token.Value)
					}
					req, _ := http.NewRequestWithContext(t.Context(), "GET", w.url+"/api/assets", nil)
					req.Header.Set("Authorization", hook(kept))
					resp, err := client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					return resp.StatusCode
				}
				if status := call(false); status != 200 {
					t.Fatalf("status %d", status)
				}
				w.Rotate("issuer")
				for i := range 20 {
					if status := call(i%2 == 0); status != 200 { // also with the token that was replaced
						t.Fatalf("call %d after a revocation: status %d", i, status)
					}
				}
				if n := w.obtains(); n != 2 {
					t.Errorf("%d logins, want 2", n)
				}
			})
		})
	}
}

// What is somebody else's stays as it is.
func TestTokenOfSomebodyElseInTheHeaderIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		login := new(userServer)
		client, err := ampauth.NewClient(ampauth.Config{
			BaseURL: "https://amp.test/api", Credentials: ampauth.Credentials{Username: "alice", Password: ampauth.SecretFromString("of alice")},
			HTTPClient: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "obtain_token") {
					return login.RoundTrip(req)
				}
				seen = append(seen, req.Header.Get("Authorization"))
				return answer(200, "", ""), nil
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Tokens.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"Basic dXNlcjpwdw==", "token of-another-manager", "token", "Bearer x y"} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://amp.test/api/assets", nil)
			req.Header.Set("Authorization", value)
			if _, err := client.Do(req); err != nil || seen[len(seen)-1] != value {
				t.Errorf("%q was sent as %q, %v", value, seen[len(seen)-1], err)
			}
		}
	})
}
