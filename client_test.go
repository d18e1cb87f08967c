package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
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

func TestRefusedTokenIsRenewedAndTheRequestSentOnceMore(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{"401": {}, "403": {Forbidden: true}} {
		t.Run(name, func(t *testing.T) {
			fake, server := startFake(t, cfg)
			client := newTestClient(t, configFor(server))
			get(t, client, server.URL+"/api/assets")
			fake.Revoke("issuer")
			resp, err := client.Do(issueRequest(t, server, "op-1"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Errorf("status %d", resp.StatusCode)
			}
			effects := fake.Effects()
			if len(effects) != 1 || effects[0].ID != "op-1" {
				t.Errorf("effects %v, want one", effects)
			}
			if s := client.Stats(); s.Renewals != 1 || s.Replays != 1 || s.Obtains != 2 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func issueRequest(t *testing.T, server *httptest.Server, id string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/api/assets/issue",
		strings.NewReader(`{"name":"Bond","amount":100}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Operation-Id", id)
	return req
}

const ampIssue = "POST /assets/issue"

// issue makes the one mutation of a test in a bubble, and checks that its request
// is the caller's own afterwards.
func (w *ampWorld) issue(client *ampauth.Client) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "POST", w.url+"/api/assets/issue", strings.NewReader(`{"name":"Bond","amount":100}`))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "X-Operation-Id": {"op-1"}}
	before := req.Header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if diff := cmp.Diff(before, req.Header); diff != "" {
		w.t.Errorf("the caller's header was changed: %s", diff)
	}
	return resp.StatusCode
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

func TestMutationIsReplayedOnceWithTheNewToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		client := w.client()
		w.token(client.Tokens)
		w.Revoke("issuer")
		if status := w.issue(client); status != 201 {
			t.Errorf("status %d", status)
		}
		sent := w.requests(ampIssue)
		if len(sent) != 2 || len(w.Effects()) != 1 || w.obtains() != 2 {
			t.Fatalf("%d requests, %d effects and %d logins, want 2, 1 and 2", len(sent), len(w.Effects()), w.obtains())
		}
		if sent[0].body != sent[1].body || sent[1].body == "" {
			t.Errorf("the bodies are %q and %q", sent[0].body, sent[1].body)
		}
		if sent[0].header.Get("Authorization") == sent[1].header.Get("Authorization") {
			t.Error("it was sent again with the token that was refused")
		}
	})
}

func TestSecondRefusalIsReturned(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		const route = "GET /assets"
		w.answer(route, func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(401)
			_, _ = fmt.Fprintf(rw, "refusal %d", len(w.requests(route)))
		})
		client := w.client()
		w.token(client.Tokens)
		status, body := get(t, client, w.url+"/api/assets")
		if status != 401 || body != "refusal 2" || len(w.requests(route)) != 2 || w.obtains() != 2 {
			t.Errorf("%d %q after %d requests and %d logins, want the second 401 after 2 and one more", status, body, len(w.requests(route)), w.obtains())
		}
	})
}

// A refusal may arrive when the token has long been replaced.
func TestStragglersOfARefusedTokenMakeNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		const crowd = 50
		client := w.client()
		w.token(client.Tokens)
		old := "token " + w.Token("issuer")
		w.Revoke("issuer")
		var mu sync.Mutex
		came := 0
		all := make(chan struct{})
		w.answer("GET /assets", func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != old {
				return
			}
			mu.Lock()
			came++
			n := came
			mu.Unlock()
			if n == crowd {
				close(all)
			}
			<-all // everybody is under way with the old token
			if n%5 == 0 {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
			}
			rw.WriteHeader(401)
		})
		var wg sync.WaitGroup
		for range crowd {
			wg.Go(func() {
				if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
					t.Errorf("status %d", status)
				}
			})
		}
		wg.Wait()
		if came != crowd || w.obtains() != 2 {
			t.Errorf("%d requests had the old token and %d logins were made, want %d and the first and one more", came, w.obtains(), crowd)
		}
	})
}

func TestFiftyRefusedRequestsMakeOneLogin(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	get(t, client, server.URL+"/api/assets")
	fake.Revoke("issuer")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
	wg.Wait()
	if n := fake.Count("POST /user/obtain_token"); n != 2 {
		t.Errorf("%d logins, want the first and one more", n)
	}
}

func TestServerThatAlwaysRefusesCostsFewLogins(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{"same token": {}, "new token each login": {NewTokenEachLogin: true}} {
		t.Run(name, func(t *testing.T) {
			fake, server := startFake(t, cfg)
			client := newTestClient(t, configFor(server))
			fake.Inject(fakeamp.Fault{Route: "GET /assets", Status: 401, Times: -1})
			for range 100 {
				status, body := get(t, client, server.URL+"/api/assets")
				if status != 401 || !strings.Contains(body, "Invalid token.") {
					t.Fatalf("%d %s, want the refusal with its body", status, body)
				}
			}
			if n := fake.Count("POST /user/obtain_token"); n > 3 {
				t.Errorf("%d logins for 100 refusals, want at most 3", n)
			}
			if n := fake.Count("GET /assets"); n > 103 {
				t.Errorf("%d requests for 100 calls", n)
			}
		})
	}
}

func TestRefusalIsReturnedWholeWhenItsBodyCannotBeSentAgain(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	get(t, client, server.URL+"/api/assets")
	fake.Revoke("issuer")
	req := issueRequest(t, server, "op-1")
	req.GetBody, req.ContentLength = nil, -1
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 401 || !strings.Contains(string(body), "Invalid token.") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if n := len(fake.Effects()); n != 0 {
		t.Errorf("%d effects, want none", n)
	}
	if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
		t.Errorf("the next request has no new token: %d", status)
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

func TestRedirectedMutationIsReturnedNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			fake, server := startFake(t, fakeamp.Config{})
			client := newTestClient(t, configFor(server))
			fake.Inject(fakeamp.Fault{Route: "POST /assets/issue", Status: status, Header: http.Header{"Location": {"/api/assets"}}})
			resp, err := client.Do(issueRequest(t, server, "op"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("status %d, want the redirect itself: a GET in place of the POST looks like success", resp.StatusCode)
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

func TestLogsAndErrorsOfARoughDayShowNoSecret(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	var log bytes.Buffer
	var mu sync.Mutex
	cfg := configFor(server)
	cfg.Logger = slog.New(slog.NewJSONHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
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

	mu.Lock()
	defer mu.Unlock()
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

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
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

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestOneEndpointThatAlwaysRefusesCostsFewLogins(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	fake.Inject(fakeamp.Fault{Route: "GET /managers", Status: 401, Times: -1})
	for range 50 { // what the API accepts elsewhere does not excuse the next login
		if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
			t.Fatalf("status %d", status)
		}
		if status, _ := get(t, client, server.URL+"/api/managers"); status != 401 {
			t.Fatalf("status %d, want the refusal", status)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n > 3 {
		t.Errorf("%d logins for 50 refusals, want at most 3", n)
	}
}

func TestPanickingLogHandlerCostsNobodyTheToken(t *testing.T) {
	_, server := startFake(t, fakeamp.Config{})
	cfg := configFor(server)
	cfg.Logger = slog.New(panickingHandler{slog.DiscardHandler})
	client := newTestClient(t, cfg)
	for range 2 {
		if _, err := client.Tokens.Obtain(t.Context()); err != nil {
			t.Errorf("got %v", err)
		}
	}
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("a handler that panics") }
