package ampauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/memnet"
	"github.com/google/go-cmp/cmp"
)

// What the tests of the token manager and of the client share: the fake AMP, in a
// bubble and on a loopback socket, and what it saw.

// The routes of tokens, as faults and counters name them.
const (
	ampObtain  = "POST /user/obtain_token"
	ampRefresh = "GET /user/refresh-token"
)

const ampPassword = "correct horse"

// An ampWorld is a fake AMP on an in-memory network, on virtual time.
type ampWorld struct {
	*fakeamp.Server
	t         *testing.T
	url       string // of the server, without a path
	listener  *memnet.Listener
	transport *http.Transport

	mu       sync.Mutex // guards all below
	seen     []ampRequest
	override map[string]http.HandlerFunc
	closers  []io.Closer
}

// serve writes a request down and hands it on.
func (w *ampWorld) serve(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	route := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api")
	w.mu.Lock()
	w.seen = append(w.seen, ampRequest{time.Now(), route, r.Header.Clone(), string(body)})
	override := w.override[route]
	w.mu.Unlock()
	if override != nil {
		override(rw, r)
		return
	}
	w.ServeHTTP(rw, r)
}

// answer makes a handler of the test's own answer a route.
func (w *ampWorld) answer(route string, handler http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.override[route] = handler
}

// answerText answers a route with a status and a body, as JSON.
func (w *ampWorld) answerText(route string, status int, body string, header ...string) {
	w.answer(route, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		for pair := range slices.Chunk(header, 2) {
			rw.Header().Set(pair[0], pair[1])
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	})
}

// requests are those of a route that arrived so far.
func (w *ampWorld) requests(route string) []ampRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.seen), func(r ampRequest) bool { return r.route != route })
}

func (w *ampWorld) obtains() int   { return len(w.requests(ampObtain)) }
func (w *ampWorld) refreshes() int { return len(w.requests(ampRefresh)) }

// wantSent fails the test unless so many requests for tokens have arrived in all.
func (w *ampWorld) wantSent(obtains, refreshes int) {
	w.t.Helper()
	if o, r := w.obtains(), w.refreshes(); o != obtains || r != refreshes {
		w.t.Errorf("%d logins and %d refreshes were sent, want %d and %d", o, r, obtains, refreshes)
	}
}

// config is the configuration for the fake's one user, changed by the test.
func (w *ampWorld) config(change ...func(*ampauth.Config)) ampauth.Config {
	cfg := ampauth.Config{
		BaseURL:     w.url + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
		HTTPClient:  &http.Client{Transport: w.transport},
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// manager makes a manager that the bubble closes.
func (w *ampWorld) manager(change ...func(*ampauth.Config)) *ampauth.TokenManager {
	w.t.Helper()
	m, err := ampauth.NewTokenManager(w.config(change...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.closers = append(w.closers, m)
	return m
}

// client makes a client that the bubble closes.
func (w *ampWorld) client(change ...func(*ampauth.Config)) *ampauth.Client {
	w.t.Helper()
	c, err := ampauth.NewClient(w.config(change...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.closers = append(w.closers, c)
	return c
}

// over puts a layer of the test's own over the in-memory network.
func (w *ampWorld) over(layer func(base http.RoundTripper, req *http.Request) (*http.Response, error)) func(*ampauth.Config) {
	return func(cfg *ampauth.Config) {
		cfg.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return layer(w.transport, req)
		})}
	}
}

// token gets a token, which must succeed.
func (w *ampWorld) token(m *ampauth.TokenManager) ampauth.Token {
	w.t.Helper()
	token, err := m.Token(w.t.Context())
	if err != nil {
		w.t.Fatalf("Token: %v", err)
	}
	return token
}

// An ampRequest is a request as it arrived.
type ampRequest struct {
	at     time.Time
	route  string // method and path behind the base
	header http.Header
	body   string
}

// ampBubble runs a test in a bubble of its own. The bubble fails if anything is
// left behind: a goroutine, a body, a request whose client has gone.
func ampBubble(t *testing.T, cfg fakeamp.Config, test func(*testing.T, *ampWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &ampWorld{
			Server: fakeamp.New(cfg), t: t, listener: memnet.Listen(),
			override: make(map[string]http.HandlerFunc),
		}
		w.transport = &http.Transport{DialContext: w.listener.DialContext}
		var running atomic.Int32
		handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Add(-1)
			w.serve(rw, r)
		})
		server := &httptest.Server{Listener: w.listener, Config: &http.Server{Handler: handler}}
		server.Start()
		w.url = server.URL
		// In this order also when the test ends early.
		defer server.Close()
		defer w.transport.CloseIdleConnections()
		defer w.Close()
		defer func() {
			for _, c := range w.closers {
				_ = c.Close()
			}
			synctest.Wait()
			if n := running.Load(); n != 0 {
				t.Errorf("%d requests run on after their clients have left", n)
			}
			for _, v := range w.Violations() {
				t.Errorf("the client broke the protocol: %s", v)
			}
		}()
		test(t, w)
	})
}

// ampReveal is the content of a secret, for comparison with what the fake knows.
func ampReveal(s ampauth.Secret) (content string) {
	_ = s.Expose(func(b []byte) error { content = string(b); return nil })
	return content
}

// ampElapsed is how long f takes.
func ampElapsed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// ampResult is what a call on another goroutine gave, and when.
type ampResult struct {
	token ampauth.Token
	err   error
	after time.Duration
}

// ampCalls makes n calls at once, each on its own goroutine, and waits for all.
func ampCalls(n int, call func() (ampauth.Token, error)) []ampResult {
	results := make([]ampResult, n)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			token, err := call()
			results[i] = ampResult{token, err, time.Since(began)}
		})
	}
	wg.Wait()
	return results
}

// ampStart makes a call on another goroutine and returns once it waits.
func ampStart(call func() (ampauth.Token, error)) <-chan ampResult {
	done := make(chan ampResult, 1)
	began := time.Now()
	go func() {
		token, err := call()
		done <- ampResult{token, err, time.Since(began)}
	}()
	synctest.Wait()
	return done
}

// An ampLog keeps log records.
type ampLog struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *ampLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *ampLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *ampLog) into(cfg *ampauth.Config) {
	cfg.Logger = slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// records are those with a message, as maps.
func (l *ampLog) records(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("a log record is not JSON: %v", err)
		}
		if record["msg"] == message {
			found = append(found, record)
		}
	}
	return found
}

// ampWithin is a context with a deadline, for a call of which only that matters.
func ampWithin(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var ampTwoUsers = fakeamp.Config{Users: map[string]string{"issuer": ampPassword, "other": ampPassword}}

// ampUser are credentials of one of ampTwoUsers.
func ampUser(name string) ampauth.Credentials {
	return ampauth.Credentials{Username: name, Password: ampauth.SecretFromString(ampPassword)}
}

// A userServer is an AMP whose tokens tell whose they are.
type userServer struct {
	logins atomic.Int32
	wrong  atomic.Int32 // logins with another user's password
}

func (s *userServer) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(rand.N(20 * time.Millisecond))
	if !strings.HasSuffix(req.URL.Path, "obtain_token") {
		stubUse(req)
		return stubResponse(404, "{}"), nil // there is no refresh
	}
	var login struct{ Username, Password string }
	body, _ := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if json.Unmarshal(body, &login) != nil || login.Password != "of "+login.Username {
		s.wrong.Add(1)
	}
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-time.After(rand.N(20 * time.Millisecond)):
	}
	return stubResponse(200, fmt.Sprintf(`{"token":"%s.%d"}`, login.Username, s.logins.Add(1))), nil
}

const (
	ampLife = 24 * time.Hour
	// In the last five minutes of a token its refresh is due, whatever was drawn.
	ampStale = ampLife - 5*time.Minute
)

// ampMany is how many goroutines a test of a crowd starts. The race detector
// bears about 8,000.
func ampMany() int {
	if raceEnabled {
		return 5_000
	}
	return 10_000
}

// ampDying is a layer that dies in its first calls, as somebody else's may.
func ampDying(times int32, die func()) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	var calls atomic.Int32
	return func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		if calls.Add(1) <= times {
			time.Sleep(time.Second)
			if req.Body != nil {
				_ = req.Body.Close()
			}
			die()
		}
		return base.RoundTrip(req)
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
	return resp.StatusCode, stubText(t, resp)
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
