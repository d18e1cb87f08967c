package ampauth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestLoginSendsOnePostWithTheCredentials(t *testing.T) {
	for name, credentials := range map[string]struct{ user, password string }{
		"plain":              {"issuer", ampPassword},
		"quotes":             {`is"suer`, `pass"word"`},
		"backslashes":        {`is\suer`, `\"\\u0041\`},
		"control characters": {"issuer", "a\x00b\x1fc\r\nd\x7fe"},
		"unicode":            {"émetteur", "пароль 密码 \u2028 \U0001f511"},
		"markup":             {"<issuer>", "a&b</script>+%20=?"},
		"spaces around":      {"is suer", " \u00a0pass "},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{Users: map[string]string{credentials.user: credentials.password}}, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) {
					c.Credentials = ampauth.Credentials{Username: credentials.user, Password: ampauth.SecretFromString(credentials.password)}
				})
				if token := w.token(m); ampReveal(token.Value) != w.Server.Token(credentials.user) {
					t.Error("the token is not the one that the server gave")
				}
				w.wantSent(1, 0)
				got := w.requests(ampObtain)[0]
				var fields map[string]string
				if err := json.Unmarshal([]byte(got.body), &fields); err != nil {
					t.Fatalf("the body is not JSON: %v", err)
				}
				if len(fields) != 2 || fields["username"] != credentials.user || fields["password"] != credentials.password {
					t.Errorf("the body holds %q", fields)
				}
				for field, want := range map[string]string{
					"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity",
					"Authorization": "", "Cookie": "", "Content-Length": fmt.Sprint(len(got.body)),
				} {
					if got := strings.Join(got.header.Values(field), ","); got != want {
						t.Errorf("%s: %q, want %q", field, got, want)
					}
				}
			})
		})
	}
}

func TestLoginPathIsConfigurable(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.answerText("POST /auth/login", 200, `{"token":"of-another-path"}`)
		token := w.token(w.manager(func(c *ampauth.Config) { c.ObtainPath = "/auth/login" }))
		if ampReveal(token.Value) != "of-another-path" {
			t.Error("the token is not the one that was answered there")
		}
		w.wantSent(0, 0)
	})
}

// Another API: its own login, its own word before the token, its own idea of what is
// a mutation.
func TestClientServesAnotherAPI(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.answerText("POST /auth/login", 200, `{"token":"another"}`)
		var tries atomic.Int32
		unsteady := func(rw http.ResponseWriter, _ *http.Request) {
			if tries.Add(1)%2 == 1 {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		}
		w.answer("GET /wallets", unsteady)
		w.answer("POST /wallets", unsteady)
		c := w.client(func(c *ampauth.Config) {
			c.ObtainPath, c.Scheme, c.Renewal, c.Classify = "/auth/login", "Bearer", ampauth.ObtainOnly, ampauth.ClassifyHTTP
		})
		for method, want := range map[string][2]int{"GET": {200, 2}, "POST": {503, 1}} {
			tries.Store(0)
			req, err := http.NewRequestWithContext(t.Context(), method, w.url+"/api/wallets", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := [2]int{resp.StatusCode, int(tries.Load())}; got != want {
				t.Errorf("%s: status and requests %v, want %v", method, got, want)
			}
		}
		for _, r := range w.requests("GET /wallets") {
			if r.header.Get("Authorization") != "Bearer another" {
				t.Error("a request went without the token")
			}
		}
	})
}

func TestFinalSlashOfTheBaseDoesNotMatter(t *testing.T) {
	for _, path := range []string{"/api", "/api/", "/api//"} {
		t.Run(path, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) { c.BaseURL = w.url + path })
				w.token(m)
				if _, err := m.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				w.wantSent(1, 1)
			})
		})
	}
}

func TestLoginSendsAndKeepsNoCookies(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		jar, _ := cookiejar.New(nil)
		site, _ := url.Parse(w.url + "/api/user/obtain_token")
		jar.SetCookies(site, []*http.Cookie{{Name: "mine", Value: "1", Path: "/"}})
		m := w.manager(func(c *ampauth.Config) { c.HTTPClient.Jar = jar })
		w.token(m)
		if _, err := m.Obtain(t.Context()); err != nil { // the first answer set a cookie
			t.Fatal(err)
		}
		if _, err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range append(w.requests(ampObtain), w.requests(ampRefresh)...) {
			if got := r.header.Values("Cookie"); len(got) > 0 {
				t.Errorf("%s carried cookies %q", r.route, got)
			}
		}
		if got := jar.Cookies(site); len(got) != 1 {
			t.Errorf("the jar holds %v now", got)
		}
	})
}

// A login through layers of which one adds tokens of its own must be bare.
func TestLoginThroughAnAuthTransportGoesBare(t *testing.T) {
	t.Run("with a token of its own", func(t *testing.T) {
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
			m := w.manager(func(c *ampauth.Config) {
				c.HTTPClient = &http.Client{Transport: &ampauth.AuthTransport{
					Base: w.transport, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("other")), Origin: w.url,
				}}
			})
			w.token(m)
			for _, r := range w.requests(ampObtain) {
				if got := r.header.Values("Authorization"); len(got) > 0 {
					t.Errorf("the login carried Authorization %q", got)
				}
			}
		})
	})
	t.Run("with that of the same manager", func(t *testing.T) {
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
			auth := &ampauth.AuthTransport{Base: w.transport}
			m := w.manager(func(c *ampauth.Config) { c.HTTPClient = &http.Client{Transport: auth} })
			auth.Source = m
			took := ampElapsed(func() { w.token(m) })
			if took != 0 {
				t.Errorf("the login took %v", took)
			}
			w.wantSent(1, 0)
		})
	})
}

func TestLoginNeverFollowsARedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, target := range map[string]string{
			"same host":  "/api/landing",
			"other host": "http://stranger.test/api/landing",
		} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					w.answerText(ampObtain, status, `{"token":"from-a-redirect"}`, "Location", target)
					m := w.manager()
					_, err := m.Token(t.Context())
					e := stubError(t, err, ampauth.ErrObtainFailed)
					if e.StatusCode != status || e.Outcome != ampauth.Answered {
						t.Errorf("status %d, outcome %v", e.StatusCode, e.Outcome)
					}
					if !strings.Contains(err.Error(), "redirect") || strings.Contains(err.Error(), "landing") {
						t.Errorf("the error does not say what happened, or says too much: %v", err)
					}
					w.mu.Lock()
					defer w.mu.Unlock()
					if len(w.seen) != 1 {
						t.Errorf("%d requests were sent, want the login alone", len(w.seen))
					}
				})
			})
		}
	}
}

func TestRefreshNeverFollowsARedirect(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.answerText(ampRefresh, 302, "", "Location", "http://stranger.test/api/landing")
		m := w.manager()
		w.token(m)
		if _, err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantSent(2, 1) // the fallback
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.seen) != 3 {
			t.Errorf("%d requests were sent, want 3", len(w.seen))
		}
	})
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
