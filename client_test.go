package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/google/go-cmp/cmp"
)

func TestClientLogsInOnceAndWorks(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	for range 3 {
		if status, body := get(t, client, server.URL+"/api/assets"); status != 200 || !strings.HasPrefix(body, "[") {
			t.Fatalf("%d %s", status, body)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if s := client.Stats(); s.Obtains != 1 || s.Retries.Total() != 0 {
		t.Errorf("stats %+v", s)
	}
}

// The demands of generated clients: oapi-codegen and ogen take a Do, go-swagger
// and openapi-generator an *http.Client.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

func TestGeneratedClientNeedsOnlyDoOrTheHTTPClient(t *testing.T) {
	_, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	for name, do := range map[string]doer{"Doer": client, "*http.Client": client.Client} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/api/assets", nil)
		req.Header.Set("Authorization", "") // ogen sends one
		resp, err := do.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
}

func TestLayersStackInAnyOrder(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	manager, err := ampauth.NewTokenManager(configFor(server))
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	theirs := func(base http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			type key struct{}
			ctx := context.WithValue(req.Context(), key{}, "somebody's value")
			clone := req.Clone(ctx)
			clone.Header.Set("X-Layer", "theirs")
			return base.RoundTrip(clone)
		})
	}
	auth := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: manager}
	}
	retry := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.RetryTransport{Base: base, Retry: configFor(server).Retry}
	}
	network := server.Client().Transport
	for _, test := range []struct {
		name    string
		rt      http.RoundTripper
		replays bool // RetryTransport above AuthTransport: refusals are healed
	}{
		{"retry, auth", retry(auth(network)), true},
		{"retry, theirs, auth", retry(theirs(auth(network))), true},
		{"theirs, retry, auth, theirs", theirs(retry(auth(theirs(network)))), true},
		{"retry, auth, retry", retry(auth(retry(network))), true},
		{"retry, retry, auth", retry(retry(auth(network))), true},
		{"auth, retry", auth(retry(network)), false},
		{"auth, theirs, retry", auth(theirs(retry(network))), false},
		{"auth alone", auth(network), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := &http.Client{Transport: test.rt}
			if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
				t.Fatalf("status %d", status)
			}
			fake.Revoke("issuer")
			status, _ := get(t, client, server.URL+"/api/assets")
			if want := map[bool]int{true: 200, false: 401}[test.replays]; status != want {
				t.Errorf("status %d after a revocation, want %d", status, want)
			}
			if _, err := manager.Token(t.Context()); err != nil { // the renewal that nobody waited for
				t.Error(err)
			}
			if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
				t.Errorf("status %d after the renewal", status)
			}
			if !strings.HasPrefix(test.name, "auth alone") {
				before := fake.Count("GET /assets")
				fake.Inject(fakeamp.Fault{Route: "GET /assets", Status: 503, Times: -1})
				if status, _ := get(t, client, server.URL+"/api/assets"); status != 503 {
					t.Errorf("status %d in an outage, want the last response", status)
				}
				if n := fake.Count("GET /assets") - before; n != 3 {
					t.Errorf("%d attempts, want 3 however they are stacked", n)
				}
				fake.ClearFaults()
			}
			fake.Rotate("issuer")
			if _, err := manager.Obtain(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestUsersHTTPClientIsKeptAndNotChanged(t *testing.T) {
	_, server := startFake(t, fakeamp.Config{})
	jar, _ := cookiejar.New(nil)
	calls := 0
	theirs := &http.Client{
		Jar:           jar,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { calls++; return http.ErrUseLastResponse },
		Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			calls++
			return server.Client().Transport.RoundTrip(req)
		}),
	}
	before := *theirs
	cfg := configFor(server)
	cfg.HTTPClient = theirs
	client := newTestClient(t, cfg)
	get(t, client, server.URL+"/api/assets")
	if calls != 2 {
		t.Errorf("the user's transport saw %d requests, want login and call", calls)
	}
	if client.Jar != jar || client.Timeout != 0 || client.CheckRedirect == nil {
		t.Error("the Jar or CheckRedirect is lost, or Timeout is http.Client's to keep")
	}
	if theirs.Jar != before.Jar || theirs.Timeout != before.Timeout || fmt.Sprintf("%p", theirs.Transport) != fmt.Sprintf("%p", before.Transport) {
		t.Error("the user's client was changed")
	}
	if n := len(jar.Cookies(mustURL(t, server.URL+"/api/"))); n != 0 {
		t.Errorf("the login left %d cookies in the jar", n)
	}
}

func TestNewClientChangesNothingThatItIsGiven(t *testing.T) {
	// The functions and the transport are compared by identity, the rest by content.
	same := []cmp.Option{
		cmp.Transformer("identity", func(f func(*http.Request, []*http.Request) error) uintptr { return reflect.ValueOf(f).Pointer() }),
		cmp.Comparer(func(a, b http.RoundTripper) bool { return a == b }),
	}
	for name, theirs := range map[string]*http.Client{
		"none":  nil,
		"empty": {},
		"full": {
			Transport: new(http.Transport), Timeout: time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := validConfig()
			cfg.HTTPClient = theirs
			before := cfg
			if theirs != nil {
				before.HTTPClient = new(*theirs)
			}
			defaultTransport, defaultClient := http.DefaultTransport, *http.DefaultClient
			client, err := ampauth.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if diff := cmp.Diff(before, cfg, same...); diff != "" {
				t.Errorf("NewClient changed its Config (-before +after):\n%s", diff)
			}
			if client.Client == theirs {
				t.Error("the user's client is used itself, not copied")
			}
			if http.DefaultTransport != defaultTransport || !reflect.DeepEqual(*http.DefaultClient, defaultClient) {
				t.Error("NewClient changed the defaults of net/http")
			}
			if theirs != nil && theirs.Transport != nil {
				if transport := theirs.Transport.(*http.Transport); transport.MaxIdleConnsPerHost != 0 || transport.TLSClientConfig != nil {
					t.Error("NewClient changed the user's transport")
				}
			}
		})
	}
}

func TestCloseEndsTheClient(t *testing.T) {
	_, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	get(t, client, server.URL+"/api/assets")
	token, err := client.Tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := token.Value.Expose(func([]byte) error { return nil }); !errors.Is(err, ampauth.ErrDestroyed) {
		t.Errorf("the token was not wiped: %v", err)
	}
	if _, err := client.Get(server.URL + "/api/assets"); !errors.Is(err, ampauth.ErrClosed) {
		t.Errorf("a request after Close: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

// What the user's transport has open is the user's; what was made for mutations ends with
// the client.
func TestCloseEndsTheConnectionsForMutations(t *testing.T) {
	for name, end := range map[string]func(*ampauth.Client){
		"Close":                func(c *ampauth.Client) { _ = c.Close() },
		"CloseIdleConnections": func(c *ampauth.Client) { c.CloseIdleConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				client := w.client(func(c *ampauth.Config) { c.MutationIdle = time.Hour })
				post := func() {
					resp, err := client.Post(w.url+"/api/unknown", "application/json", strings.NewReader("{}"))
					if err != nil {
						t.Fatal(err)
					}
					stubText(t, resp)
					synctest.Wait()
				}
				post()
				dials := w.listener.Dials()
				post()
				if w.listener.Dials() != dials {
					t.Fatalf("a second mutation took a connection of its own")
				}
				end(client)
				synctest.Wait()
				if name == "CloseIdleConnections" {
					if post(); w.listener.Dials() != dials+1 {
						t.Errorf("the connection was kept")
					}
					_ = client.Close()
				}
			})
		})
	}
}

func TestRateLimitedMutationWaitsAndIsSentAgainWhole(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampIssue, Status: 429, Header: http.Header{"Retry-After": {"1"}}})
		if status := w.issue(w.client()); status != 201 {
			t.Errorf("status %d", status)
		}
		sent := w.requests(ampIssue)
		if len(sent) != 2 || len(w.Effects()) != 1 {
			t.Fatalf("%d requests and %d effects, want 2 and 1", len(sent), len(w.Effects()))
		}
		if sent[0].body != sent[1].body || sent[1].body == "" {
			t.Errorf("the bodies are %q and %q", sent[0].body, sent[1].body)
		}
		if wait := sent[1].at.Sub(sent[0].at); wait < time.Second || wait > 2*time.Second {
			t.Errorf("waited %v, want 1 s and at most the spread of another", wait)
		}
	})
}

func TestLogsAndErrorsOfARoughDayShowNoSecret(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	var log ampLog
	cfg := configFor(server)
	log.into(&cfg)
	client := newTestClient(t, cfg)
	var said strings.Builder
	call := func(faults ...fakeamp.Fault) {
		fake.Inject(faults...)
		resp, err := client.Do(issueRequest(t, server, "op"))
		if err != nil {
			fmt.Fprintf(&said, "%v %+v %#v\n", err, err, err)
			return
		}
		_ = resp.Body.Close()
	}
	token := fake.Rotate("issuer")
	echo := "user issuer password correct horse token " + token
	call()
	call(fakeamp.Fault{Route: "POST /assets/issue", Status: 500, Body: echo})
	call(fakeamp.Fault{Route: "POST /assets/issue", Do: fakeamp.Reset})
	call(fakeamp.Fault{Route: "POST /assets/issue", Status: 429, Body: echo})
	fake.Revoke("issuer")
	call(fakeamp.Fault{Route: "POST /user/obtain_token", Status: 400, Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"detail":"` + echo + `"}`})
	call()
	_ = client.Tokens.Clear(t.Context())
	call(fakeamp.Fault{Route: "POST /user/obtain_token", Body: `{"token":"` + echo + `"}`})
	call(fakeamp.Fault{Route: "POST /user/obtain_token", Body: echo})

	for _, secret := range []string{"correct horse", token} {
		if strings.Contains(log.String()+said.String(), secret) {
			t.Error("a log or an error shows a secret")
		}
	}
	for _, message := range []string{"ampauth: attempt", "ampauth: logged in", "ampauth: the credentials were refused"} {
		if !strings.Contains(log.String(), message) {
			t.Errorf("the log lacks %q", message)
		}
	}
}

// TestLive talks to the AMP server of the environment. It reads only.
func TestLive(t *testing.T) {
	if os.Getenv("AMP_TESTS") != "live" {
		t.Skip("live tests run only with AMP_TESTS=live and the AMP_ variables of a test account")
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	client := newTestClient(t, cfg)
	if status, _ := get(t, client, strings.TrimRight(cfg.BaseURL, "/")+"/assets"); status != 200 {
		t.Errorf("GET /assets answers %d", status)
	}
	if info, ok := client.Tokens.Info(); !ok || info.IsExpired {
		t.Errorf("no fresh token after a call: %+v", info)
	}
}
