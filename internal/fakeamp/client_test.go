package fakeamp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/memnet"
)

// client sends requests as a test writes them and follows no redirect.
type client struct {
	t     *testing.T
	http  *http.Client
	base  string
	token string // sent if not empty
}

type reply struct {
	status int
	header http.Header
	body   string
}

// start runs a fake on a loopback socket.
func start(t *testing.T, cfg fakeamp.Config) (*fakeamp.Server, *client) {
	t.Helper()
	fake := fakeamp.New(cfg)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	t.Cleanup(fake.Close) // Before server.Close, which waits for stalled requests.
	return fake, newClient(t, server.Client().Transport, server.URL)
}

// startLoggedIn is start with a client that has the token of "issuer".
func startLoggedIn(t *testing.T) (*fakeamp.Server, *client) {
	t.Helper()
	fake, c := start(t, fakeamp.Config{})
	c.token = fake.Rotate("issuer")
	return fake, c
}

func newClient(t *testing.T, transport http.RoundTripper, url string) *client {
	return &client{t: t, base: url + "/api", http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// try sends a request. header are names and values in turn.
func (c *client) try(method, path, body string, header ...string) (reply, error) {
	c.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, reader)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "token "+c.token)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header[pair[0]] = strings.Split(pair[1], "|")
	}
	return c.send(req)
}

// send sends a request and reads the whole answer.
func (c *client) send(req *http.Request) (reply, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(got)}, err
}

func (c *client) do(method, path, body string, header ...string) reply {
	c.t.Helper()
	got, err := c.try(method, path, body, header...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

// want fails the test unless the reply has the status and, if it is not empty,
// the body.
func (r reply) want(t *testing.T, status int, body string) {
	t.Helper()
	if r.status != status || body != "" && r.body != body {
		t.Errorf("got %d %s, want %d %s", r.status, r.body, status, body)
	}
}

// field returns a text of a JSON object, "" if it is not there.
func (r reply) field(name string) string {
	var fields map[string]any
	json.Unmarshal([]byte(r.body), &fields)
	text, _ := fields[name].(string)
	return text
}

// inBubble runs a fake over the in-memory listener, on virtual time. Every
// request must have ended with its client: none may be left to fake.Close.
func inBubble(t *testing.T, cfg fakeamp.Config, test func(*testing.T, *fakeamp.Server, *client)) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeamp.New(cfg)
		l := memnet.Listen()
		var running atomic.Int32
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Add(-1)
			fake.ServeHTTP(w, r)
		})
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
		server.Start()
		transport := &http.Transport{DialContext: l.DialContext}
		test(t, fake, newClient(t, transport, server.URL))
		synctest.Wait()
		if n := running.Load(); n != 0 {
			t.Errorf("%d requests run on after their clients have left", n)
		}
		fake.Close()
		transport.CloseIdleConnections()
		server.Close()
	})
}
