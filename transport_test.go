package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/google/go-cmp/cmp"
)

// roundTripFunc is somebody else's layer.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer is a response as a server makes it.
func answer(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {contentType}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// startFake runs a fake AMP on a loopback socket.
func startFake(t *testing.T, cfg fakeamp.Config) (*fakeamp.Server, *httptest.Server) {
	t.Helper()
	fake := fakeamp.New(cfg)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	t.Cleanup(fake.Close)
	t.Cleanup(func() {
		for _, v := range fake.Violations() {
			t.Errorf("the client broke the protocol: %s", v)
		}
	})
	return fake, server
}

// configFor is the configuration for the fake's one user, quick to retry.
func configFor(server *httptest.Server) ampauth.Config {
	return ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
		Retry:       ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond},
	}
}

func newTestClient(t *testing.T, cfg ampauth.Config) *ampauth.Client {
	t.Helper()
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// get reads an answer whole.
func get(t *testing.T, client interface {
	Get(string) (*http.Response, error)
}, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// A spy records the Authorization headers that reach a server.
type spy struct {
	mu   sync.Mutex
	seen []string
}

func (s *spy) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, strings.Join(r.Header.Values("Authorization"), ","))
}

func (s *spy) saw() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
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
			return answer(200, "", ""), nil
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

func TestCallersOwnAuthorizationIsRespected(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		want   string
	}{
		{"none", http.Header{}, "token tok"},
		{"empty, as ogen sends it", http.Header{"Authorization": {""}}, "token tok"},
		{"the caller's", http.Header{"Authorization": {"Bearer mine"}}, "Bearer mine"},
		{"the caller's, second value", http.Header{"Authorization": {"", "Bearer mine"}}, ",Bearer mine"},
		{"the caller's, other spelling", http.Header{"authorization": {"Bearer mine"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			renewals := 0
			rt := &ampauth.AuthTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if got := strings.Join(req.Header["Authorization"], ","); got != test.want {
						t.Errorf("sent %q, want %q", got, test.want)
					}
					//lint:ignore SA1008 the spelling is the point
					if strings.HasSuffix(test.name, "other spelling") && req.Header["authorization"][0] != "Bearer mine" {
						t.Error("the caller's header is gone")
					}
					return answer(401, "application/json", `{"detail":"Invalid token."}`), nil
				}),
				Source: sourceFunc(func(context.Context) (ampauth.Token, error) {
					renewals++
					return ampauth.Token{Value: ampauth.SecretFromString("tok")}, nil
				}),
				Origin: "https://amp.test",
			}
			req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
			req.Header = test.header
			resp, err := (&ampauth.RetryTransport{Base: rt}).RoundTrip(req)
			if err != nil || resp.StatusCode != 401 {
				t.Fatal(resp, err)
			}
			if theirs := !strings.Contains(test.want, "tok"); theirs && renewals > 0 {
				t.Error("a token was fetched for a request that has its own")
			}
		})
	}
}

type sourceFunc func(context.Context) (ampauth.Token, error)

func (f sourceFunc) Token(ctx context.Context) (ampauth.Token, error) { return f(ctx) }

func TestCallersRequestIsUntouched(t *testing.T) {
	shared := make([]string, 1, 8)
	shared[0] = "value"
	req, _ := http.NewRequest("POST", "https://amp.test/assets/issue", strings.NewReader("body"))
	req.Header["X-Shared"] = shared
	before := req.Header.Clone()
	base := roundTripFunc(func(sent *http.Request) (*http.Response, error) {
		sent.Header["X-Shared"] = append(sent.Header["X-Shared"], "appended below")
		sent.Header.Set("Authorization", "edited in place")
		sent.Header.Add("X-New", "v")
		_, _ = io.Copy(io.Discard, sent.Body)
		_ = sent.Body.Close()
		resp := answer(200, "", "")
		resp.Request = sent
		return resp, nil
	})
	for name, rt := range map[string]http.RoundTripper{
		"auth":       authOver(base),
		"retry":      &ampauth.RetryTransport{Base: authOver(base)},
		"auth first": &ampauth.AuthTransport{Base: &ampauth.RetryTransport{Base: base}, Source: static("tok"), Origin: "https://amp.test"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Request != req {
				t.Error("resp.Request is not the caller's request")
			}
			dump, _ := httputil.DumpRequestOut(resp.Request.WithContext(t.Context()), false)
			if strings.Contains(string(dump), "uthorization") {
				t.Error("resp.Request shows the token")
			}
			if fmt.Sprint(req.Header) != fmt.Sprint(before) || shared[:2][1] != "" {
				t.Errorf("the caller's header became %v", req.Header)
			}
			req.Body, _ = req.GetBody()
		})
	}
}

func TestLayersAboveTheTokenNeverSeeIt(t *testing.T) {
	type stack func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper
	for name, build := range map[string]stack{
		"alone": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			return spy(authOver(base))
		},
		"below a RetryTransport": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: spy(authOver(base))}
		},
		"below one of another origin": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			other := &ampauth.AuthTransport{Base: spy(authOver(base)), Source: static("tok"), Origin: "https://other.test"}
			return &ampauth.RetryTransport{Base: other}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent := 0
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Authorization") != "" {
					sent++
				}
				if sent == 1 {
					return answer(503, "", ""), nil
				}
				resp := answer(200, "", "")
				resp.Request = req
				return resp, nil
			})
			spied := 0
			spy := func(next http.RoundTripper) http.RoundTripper {
				return roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp, err := next.RoundTrip(req) // the very request, as layers that only log do
					spied++
					if err != nil || req.Header["Authorization"] != nil || resp.Request.Header["Authorization"] != nil {
						t.Errorf("a layer above sees %v (%v)", req.Header, err)
					}
					return resp, err
				})
			}
			synctest.Test(t, func(t *testing.T) {
				resp, err := build(spy, base).RoundTrip(sevenFields(t, "GET", "/assets", nil))
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			})
			if sent == 0 || spied != sent {
				t.Errorf("%d requests had the token, the layer above saw %d", sent, spied)
			}
		})
	}
}

func TestLayerBelowThatRewritesInPlaceSendsARequestOfItsOwn(t *testing.T) {
	var sent *http.Request
	inner := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		stubConnect(req, true)
		return nil, errStubReset
	})}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		u := *req.URL
		u.Path = "/unknown" // a mutation by GET
		req.URL = &u
		return inner.RoundTrip(req)
	})
	rt := &ampauth.RetryTransport{Base: authOver(layer), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
	_, err := rt.RoundTrip(sevenFields(t, "GET", "/assets", nil))
	if !errors.Is(err, ampauth.ErrAmbiguous) || sent.Body == nil {
		t.Errorf("%v; net/http may repeat the mutation: %t", err, sent.Body == nil)
	}
}

func TestBaseMayKeepItsRequest(t *testing.T) {
	for range 10 {
		var late sync.WaitGroup
		rt := &ampauth.RetryTransport{Base: authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
			late.Go(func() { req.Header.Set("X-Late", "v") })
			return answer(417, "", ""), nil
		}))}
		resp, err := rt.RoundTrip(sevenFields(t, "GET", "/assets", nil))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		late.Wait()
	}
}

func TestEveryHeaderReachesTheServerWithTheToken(t *testing.T) {
	for fields := range 40 {
		for _, empty := range []string{"", "Authorization", "AUTHORIZATION"} {
			header := make(http.Header)
			for i := range fields {
				name := fmt.Sprintf("X-Field-%d", i)
				header[name] = append(make([]string, 0, i%3+1), name)
			}
			if empty != "" {
				header[empty] = []string{""}
			}
			before := header.Clone()
			want := header.Clone()
			if empty != "" {
				delete(want, empty)
			}
			want["Authorization"] = []string{"token 0123456789abcdef0123456789abcdef01234567"}
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if diff := cmp.Diff(want, req.Header); diff != "" {
					t.Errorf("%d fields, empty %q (-want +sent):\n%s", fields, empty, diff)
				}
				for name := range req.Header {
					req.Header.Add(name, "appended")
				}
				return answer(200, "", ""), nil
			})
			for _, rt := range []http.RoundTripper{authOver(base), &ampauth.RetryTransport{Base: authOver(base)}} {
				req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
				req.Header = header
				if _, err := rt.RoundTrip(req); err != nil {
					t.Fatal(err)
				}
				for name, values := range header {
					if spare := values[:cap(values)]; slices.Contains(spare, "appended") {
						t.Errorf("%d fields: an append below wrote into the caller's %s", fields, name)
					}
				}
			}
			if diff := cmp.Diff(before, header); diff != "" {
				t.Errorf("%d fields: the caller's header changed (-before +after):\n%s", fields, diff)
			}
		}
	}
}

func TestRequestWithoutAHeaderMapGetsTheToken(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Authorization") == "" {
			t.Error("no token")
		}
		return answer(200, "", ""), nil
	})
	req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
	req.Header = nil
	if _, err := authOver(base).RoundTrip(req); err != nil || req.Header != nil {
		t.Error(err, req.Header)
	}
}

// closeCounter counts how often a body is closed.
type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error { c.closed.Add(1); return nil }

func TestRequestWithoutTokenFailsOnceAndIsNotSent(t *testing.T) {
	boom := errors.New("vault is sealed")
	for _, test := range []struct {
		name   string
		source ampauth.TokenSource
		is     error
	}{
		{"source fails", sourceFunc(func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, boom }), boom},
		{"empty token", sourceFunc(func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, nil }), ampauth.ErrObtainFailed},
		{"empty static token", ampauth.StaticTokenSource(ampauth.Secret{}), ampauth.ErrObtainFailed},
		{"token that no header can carry", static("a\r\nX-Evil: 1"), ampauth.ErrObtainFailed},
		{"panic", sourceFunc(func(context.Context) (ampauth.Token, error) { panic("secret-in-a-panic") }), ampauth.ErrObtainFailed},
		{"nil source", nil, ampauth.ErrConfig},
		{"nil manager", (*ampauth.TokenManager)(nil), ampauth.ErrObtainFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := 0
			auth := &ampauth.AuthTransport{
				Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
					t.Error("the request was sent")
					return nil, nil
				}),
				Origin: "https://amp.test",
			}
			if test.source != nil {
				auth.Source = test.source
			}
			layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				calls++
				resp, err := auth.RoundTrip(req)
				if err != nil {
					err = fmt.Errorf("logged: %w", err) // somebody's layer wraps it
				}
				return resp, err
			})
			body := &closeCounter{Reader: strings.NewReader("x")}
			req, _ := http.NewRequest("GET", "https://amp.test/assets", body)
			_, err := (&ampauth.RetryTransport{Base: layer}).RoundTrip(req)
			e, ok := errors.AsType[*ampauth.Error](err)
			if !ok || e.Outcome != ampauth.NotSent || !errors.Is(err, test.is) {
				t.Errorf("error is %v, want a NotSent *Error that Is %v", err, test.is)
			}
			if strings.Contains(err.Error(), "secret-in-a-panic") || strings.Contains(err.Error(), "X-Evil") {
				t.Errorf("the error shows what it must not: %v", err)
			}
			if calls != 1 {
				t.Errorf("%d attempts, want 1: a failed login is final", calls)
			}
			if n := body.closed.Load(); n != 1 {
				t.Errorf("the body was closed %d times, want 1", n)
			}
		})
	}
}

// A login that fails in doubt leaves no doubt about a request that waited for it.
func TestRequestBehindADoubtfulLoginIsNotSent(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.Reset, Times: -1})
		client := w.client()
		_, err := client.Post(w.url+"/api/assets/issue", "application/json", strings.NewReader("{}"))
		e := stubError(t, err)
		if e.Outcome != ampauth.NotSent || e.Kind != ampauth.ErrObtainFailed || e.Attempts != 3 {
			t.Errorf("got %v (%v), want NotSent after three attempts at a login", err, e.Outcome)
		}
	})
}

// What a TokenSource sends is not the request, and does not go by what the caller
// says of that.
func TestRequestsOfTheSourceAreNoPartOfTheAttempt(t *testing.T) {
	for _, test := range []struct {
		name     string
		vault    stubStep
		api      stubStep
		outcome  ampauth.Outcome
		attempts int // at the API
	}{
		{"connected and failed", stubBreak(io.EOF), stubAnswer(200), ampauth.NotSent, 0},
		{"connected and answered, then the API is not", stubAnswer(200), stubRefuse(), ampauth.NotSent, 3},
		{"not connected, then the API breaks", func(req *http.Request) (*http.Response, error) {
			stubConnect(req, false)
			return stubAnswer(200)(req.WithContext(context.Background()))
		}, stubFail(io.EOF), ampauth.Ambiguous, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			vault, api := stubScript(test.vault), stubScript(test.api)
			source := sourceFunc(func(ctx context.Context) (ampauth.Token, error) {
				if _, ok := ampauth.AttemptFromContext(ctx); ok {
					t.Error("the source's own requests count as part of the attempt")
				}
				// To the vault it is a plain read, whatever the caller's request is.
				rt := &ampauth.RetryTransport{Base: vault, Classify: ampauth.ClassifyHTTP, Retry: ampauth.RetryConfig{MaxAttempts: 1}}
				req, _ := http.NewRequestWithContext(ctx, "GET", "https://vault.test/", nil)
				resp, err := rt.RoundTrip(req)
				if errors.Is(err, ampauth.ErrAmbiguous) {
					t.Error("the source's read was taken for a mutation")
				}
				if err != nil {
					return ampauth.Token{}, err
				}
				_ = resp.Body.Close()
				return ampauth.Token{Value: ampauth.SecretFromString("t")}, nil
			})
			rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: api, Source: source, Origin: "https://api.test"}, Retry: stubQuick}
			_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
			if e := stubError(t, err); e.Outcome != test.outcome || api.attempts() != test.attempts {
				t.Errorf("got %v (%v) after %d attempts, want %v after %d", err, e.Outcome, api.attempts(), test.outcome, test.attempts)
			}
		})
	}
}

// A layer in between may send the request elsewhere, which hides from the
// RetryTransport what the AuthTransport knows of it.
func TestRequestWithoutTokenFailsOnceBelowALayerThatRewritesIt(t *testing.T) {
	logins := 0
	auth := &ampauth.AuthTransport{
		Base:   stubScript(stubAnswer(200)),
		Source: sourceFunc(func(context.Context) (ampauth.Token, error) { logins++; return ampauth.Token{}, io.EOF }),
		Origin: "https://api.test",
	}
	rewrites := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		moved := req.Clone(req.Context())
		moved.URL.Path = "/v2" + moved.URL.Path
		return auth.RoundTrip(moved)
	})
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		logins = 0
		_, err := (&ampauth.RetryTransport{Base: rewrites, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), op, nil))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || logins != 1 {
			t.Errorf("%v: got %v (%v) after %d logins, want NotSent after one", op, err, e.Outcome, logins)
		}
	}
}

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
			return answer(200, "", req.Header.Get("Authorization")), nil
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

func TestRefusalIsToldFromOtherAnswers(t *testing.T) {
	for _, test := range []struct {
		name    string
		resp    func() *http.Response
		refusal bool
	}{
		{"401 of any form", func() *http.Response { return answer(401, "text/html", "<html>") }, true},
		{"403 invalid token", func() *http.Response { return answer(403, "application/json", `{"detail":"Invalid token."}`) }, true},
		{"403 inactive, charset", func() *http.Response {
			return answer(403, "application/json; charset=utf-8", `{"detail":"User inactive or deleted."}`)
		}, true},
		{"403 no permission", func() *http.Response {
			return answer(403, "application/json", `{"detail":"You do not have permission to perform this action."}`)
		}, false},
		{"403 HTML that quotes it", func() *http.Response { return answer(403, "text/html", `{"detail":"Invalid token."}`) }, false},
		{"403 too long", func() *http.Response {
			return answer(403, "application/json", `{"detail":"Invalid token."}`+strings.Repeat(" ", 1<<10))
		}, false},
		{"403 too long, length unknown", func() *http.Response {
			r := answer(403, "application/json", `{"detail":"Invalid token."}`+strings.Repeat(" ", 1<<10))
			r.ContentLength = -1
			return r
		}, false},
		{"404", func() *http.Response { return answer(404, "application/json", `{"detail":"Invalid token."}`) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := &renewer{value: "old"}
			auth := &ampauth.AuthTransport{Source: source, Origin: "https://amp.test"}
			var sent []string
			auth.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent = append(sent, req.Header.Get("Authorization"))
				return test.resp(), nil
			})
			req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
			resp, err := (&ampauth.RetryTransport{Base: auth}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := io.ReadAll(test.resp().Body)
			if got, _ := io.ReadAll(resp.Body); string(got) != string(want) {
				t.Errorf("the body is %q, want it whole", got)
			}
			if replayed := len(sent) == 2; replayed != test.refusal {
				t.Errorf("sent %q; replay is wanted: %v", sent, test.refusal)
			}
		})
	}
}

// renewer is a foreign source that can renew: old, then new1, new2 ...
type renewer struct {
	mu       sync.Mutex
	value    string
	renewals int
	wait     chan struct{}
}

func (r *renewer) Token(context.Context) (ampauth.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ampauth.Token{Value: ampauth.SecretFromString(r.value)}, nil
}

func (r *renewer) Renew(ctx context.Context, rejected ampauth.Token) (ampauth.Token, error) {
	if r.wait != nil {
		select {
		case <-r.wait:
		case <-ctx.Done():
			return ampauth.Token{}, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rejected.Value.Equal(ampauth.SecretFromString(r.value)) {
		r.renewals++
		r.value = fmt.Sprintf("new%d", r.renewals)
	}
	return ampauth.Token{Value: ampauth.SecretFromString(r.value)}, nil
}

func TestAloneARefusalStartsARenewalThatNobodyWaitsFor(t *testing.T) {
	source := &renewer{value: "old", wait: make(chan struct{})}
	rt := &ampauth.AuthTransport{Source: source, Origin: "https://amp.test",
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "token old" {
				return answer(401, "application/json", `{"detail":"Invalid token."}`), nil
			}
			return answer(200, "", ""), nil
		})}
	status := func() int {
		req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for range 5 { // the renewal is stuck, and nobody is
		if got := status(); got != 401 {
			t.Fatalf("status %d before the renewal, want the refusal", got)
		}
	}
	close(source.wait)
	deadline := time.Now().Add(10 * time.Second)
	for status() != 200 {
		if time.Now().After(deadline) {
			t.Fatal("no request ever had the new token")
		}
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.renewals != 1 {
		t.Errorf("%d renewals, want 1", source.renewals)
	}
}

func TestErrorThatShowsTheTokenIsHidden(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef01234567"
	cause := errors.New("unexpected header token " + token)
	for name, rt := range map[string]http.RoundTripper{
		"auth":  &ampauth.AuthTransport{Source: static(token), Origin: "https://amp.test", Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })},
		"retry": &ampauth.RetryTransport{Base: authOver(roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })), Retry: ampauth.RetryConfig{MaxAttempts: 1}},
	} {
		req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
		_, err := rt.RoundTrip(req)
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v is not its cause", name, err)
		}
		for link := err; link != nil; link = errors.Unwrap(link) {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", link, link, link), token) {
				t.Errorf("%s: a link of the chain shows the token: %T", name, link)
			}
		}
	}
}

func TestIdleConnectionsCanBeClosedThroughAllLayers(t *testing.T) {
	base := new(idleCloser)
	(&http.Client{Transport: &ampauth.RetryTransport{Base: authOver(base)}}).CloseIdleConnections()
	if base.closed != 1 {
		t.Error("CloseIdleConnections did not reach the base")
	}
}

type idleCloser struct {
	staticTransport
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }

func TestSwitchedProtocolKeepsItsConnection(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.CopyN(conn, rw, 4)
	}))
	defer server.Close()
	rt := &ampauth.RetryTransport{
		Base:     &ampauth.AuthTransport{Source: static("tok"), Origin: server.URL, Base: server.Client().Transport},
		Classify: ampauth.ClassifyHTTP,
	}
	req, _ := http.NewRequest("GET", server.URL, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body of a 101 is a %T, which cannot be written to", resp.Body)
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if echo, err := io.ReadAll(conn); err != nil || string(echo) != "ping" {
		t.Errorf("echo %q, %v", echo, err)
	}
}

func TestRefusalOfAnEarlierTryOfALayerIsForgotten(t *testing.T) {
	source, renewals := tokenThatIsRenewed(), 0
	source.renewed = func() (ampauth.Token, error) { renewals++; return oneToken("new") }
	base := stubScript(stubAnswer(401), stubAnswer(403))
	auth := &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
	repeats := stubLayer(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			stubText(t, resp)
		}
		return auth.RoundTrip(req)
	})
	status := stubStatus(t, &ampauth.RetryTransport{Base: repeats}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if status != 403 || base.attempts() != 2 || renewals != 0 {
		t.Errorf("status %d after %d requests and %d renewals, want 403 after 2 and none", status, base.attempts(), renewals)
	}
}

func TestRequestWithoutTokenFailsOnceBelowALayerThatRewritesTheError(t *testing.T) {
	logins := 0
	source := sourceFunc(func(context.Context) (ampauth.Token, error) { logins++; return ampauth.Token{}, io.EOF })
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: source, Origin: "https://api.test"}
	layer := stubLayer(func(req *http.Request) (*http.Response, error) {
		resp, err := auth.RoundTrip(req)
		if err != nil {
			err = errors.New("a layer: " + err.Error())
		}
		return resp, err
	})
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err == nil || logins != 1 {
		t.Errorf("got %v after %d logins, want an error after 1", err, logins)
	}
}

func TestWaitForAForeignSourceDoesNotRunTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := sourceFunc(func(context.Context) (ampauth.Token, error) {
			time.Sleep(time.Minute)
			return oneToken("t")
		})
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			if err := req.Context().Err(); err != nil {
				return nil, err
			}
			return stubAnswer(200)(req)
		})
		rt := &ampauth.RetryTransport{
			Base:  &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"},
			Retry: ampauth.RetryConfig{Timeout: time.Second, MutationTimeout: time.Second, MaxAttempts: 1},
		}
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			if status := stubStatus(t, rt, stubRequest(t.Context(), op, nil)); status != 200 {
				t.Errorf("%v: status %d, want 200 after a minute for the token", op, status)
			}
		}
	})
}

func TestClockRunsAgainAfterTheWaitForASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := sourceFunc(func(context.Context) (ampauth.Token, error) { return oneToken("t") })
		rt := &ampauth.RetryTransport{
			Base:  &ampauth.AuthTransport{Base: stubScript(stubStall()), Source: source, Origin: "https://api.test"},
			Retry: ampauth.RetryConfig{Timeout: time.Second, MaxAttempts: 1},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, nil))
		if e := stubError(t, err); e.Limit != time.Second {
			t.Errorf("got %v, want a timeout after a second", err)
		}
	})
}

func TestAloneEachRefusalStartsARenewalByAForeignRenewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var renewing []context.Context
		source := contextRenewer{func(ctx context.Context) { renewing = append(renewing, ctx) }}
		auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(401)), Source: source, Origin: "https://api.test"}
		for range 3 {
			stubStatus(t, auth, stubRequest(t.Context(), ampauth.SafeOperation, nil))
			synctest.Wait()
		}
		if len(renewing) != 3 {
			t.Errorf("%d renewals of 3 refusals, want 3", len(renewing))
		}
		for _, ctx := range renewing {
			if ctx.Err() == nil {
				t.Error("the context of a renewal outlives it")
			}
		}
	})
}

type contextRenewer struct{ renews func(context.Context) }

func (contextRenewer) Token(context.Context) (ampauth.Token, error) { return oneToken("old") }
func (r contextRenewer) Renew(ctx context.Context, _ ampauth.Token) (ampauth.Token, error) {
	r.renews(ctx)
	return oneToken("new")
}

func TestErrorOfASourceIsCleanedThroughTheChain(t *testing.T) {
	said := errors.New(`the vault said "hunter2"`)
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stubNoToken(said), Origin: "https://api.test"}
	_, err := auth.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if !errors.Is(err, said) {
		t.Errorf("%v is not what the source said", err)
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a link of the chain tells what the source quoted: %v", err)
		}
	}
}
