package interop

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
)

// cacheable is an API whose answers may be kept for a minute, each for its token alone.
// The token is the name of the user.
func cacheable(t *testing.T) (server *httptest.Server, asked *atomic.Int32) {
	asked = new(atomic.Int32)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/obtain_token") {
			var user struct{ Username string }
			_ = json.NewDecoder(r.Body).Decode(&user)
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]string{"token": user.Username})
			return
		}
		asked.Add(1)
		w.Header().Set("Cache-Control", "private, max-age=60")
		w.Header().Set("Vary", "Authorization")
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// cachedStack is a stack with a cache in it, and a way to become another user.
func cachedStack(t *testing.T, server *httptest.Server, at place) (client *http.Client, become func(user string)) {
	var tokens *ampauth.TokenManager
	password := ampauth.SecretFromString("correct horse")
	cfg := ampauth.Config{
		BaseURL: server.URL + "/api", Credentials: ampauth.Credentials{Username: "ann", Password: password},
		Retry: ampauth.RetryConfigForTests(), HTTPClient: server.Client(),
	}
	tokens, err := ampauth.NewTokenManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokens.Close() })
	rt := server.Client().Transport
	if at == below {
		rt = cached(rt)
	}
	rt = &ampauth.AuthTransport{Source: tokens, Base: rt}
	if at == between {
		rt = cached(rt)
	}
	rt = &ampauth.RetryTransport{Base: rt, Retry: cfg.Retry}
	if at == above {
		rt = cached(rt)
	}
	return &http.Client{Transport: rt, CheckRedirect: ampauth.CheckRedirect}, func(user string) {
		if err := tokens.SetCredentials(ampauth.Credentials{Username: user, Password: password}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCacheBelowTheTokenKeepsUsersApart(t *testing.T) {
	for at, second := range map[place]string{
		below:   "token bob",
		between: "token ann", // it does not see whose answer it keeps
		above:   "token ann",
	} {
		server, asked := cacheable(t)
		client, become := cachedStack(t, server, at)
		read := func(want string, requests int32) {
			t.Helper()
			resp, err := client.Get(server.URL + "/api/assets")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); string(body) != want || asked.Load() != requests {
				t.Errorf("%v: %q after %d requests, want %q after %d", at, body, asked.Load(), want, requests)
			}
		}
		read("token ann", 1)
		read("token ann", 1)
		become("bob")
		read(second, map[place]int32{above: 1, between: 1, below: 2}[at])
	}
}

// AMP has mutations by GET. A cache takes them for reads.
func TestCacheAnswersAMutationByGETFromMemory(t *testing.T) {
	for _, at := range []place{above, between, below} {
		server, asked := cacheable(t)
		client, _ := cachedStack(t, server, at)
		for range 2 {
			if err := ended(client.Get(server.URL + "/api/assets/x/register")); err != nil {
				t.Fatal(err)
			}
		}
		if asked.Load() != 1 {
			t.Errorf("%v: %d requests, and the document says 1", at, asked.Load())
		}
	}
}
