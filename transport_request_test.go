package ampauth_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/google/go-cmp/cmp"
)

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
					return stubResponse(401, `{"detail":"Invalid token."}`, "Content-Type", "application/json"), nil
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
				return stubResponse(200, ""), nil
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
		return stubResponse(200, ""), nil
	})
	req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
	req.Header = nil
	if _, err := authOver(base).RoundTrip(req); err != nil || req.Header != nil {
		t.Error(err, req.Header)
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
				return stubResponse(200, ""), nil
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
