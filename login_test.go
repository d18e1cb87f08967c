package ampauth_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"golang.org/x/time/rate"
)

func TestLoginSendsOnePostWithTheCredentials(t *testing.T) {
	for name, credentials := range map[string]struct{ user, password string }{
		"plain":              {"issuer", ampPassword},
		"quotes":             {`is"suer`, `pass"word"`},
		"backslashes":        {`is\suer`, `\"\\u0041\`},
		"control characters": {"is\tsuer", "a\x00b\x1fc\r\nd\x7fe"},
		"unicode":            {"émetteur", "пароль 密码 \u2028 \U0001f511"},
		"markup":             {"<issuer>", "a&b</script>+%20=?"},
		"spaces around":      {" issuer ", " \u00a0pass "},
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
					e := ampFailure(t, err, ampauth.ErrObtainFailed)
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

func TestUnusableAnswerIsOneClearError(t *testing.T) {
	const canary = "canary-0123456789"
	for name, body := range map[string]string{
		"HTML":              "<html><body>" + canary + "</body></html>",
		"truncated JSON":    `{"token":"` + canary,
		"JSON and more":     `{"token":"` + canary + `"} {}`,
		"no JSON":           canary,
		"array":             `["` + canary + `"]`,
		"text":              `"` + canary + `"`,
		"no token":          `{"key":"` + canary + `"}`,
		"null":              `{"token":null,"key":"` + canary + `"}`,
		"null after text":   `{"token":"` + canary + `","token":null}`,
		"number":            `{"token":12345678901234567890}`,
		"object":            `{"token":{"value":"` + canary + `"}}`,
		"empty":             `{"token":""}`,
		"empty body":        ``,
		"space":             `{"token":"` + canary + ` x"}`,
		"space at the end":  `{"token":"` + canary + ` "}`,
		"carriage return":   `{"token":"` + canary + `\rX-Injected: 1"}`,
		"line feed":         `{"token":"` + canary + `\nX-Injected: 1"}`,
		"raw line feed":     "{\"token\":\"" + canary + "\n\"}",
		"NUL":               `{"token":"` + canary + `\u0000"}`,
		"beyond ASCII":      `{"token":"` + canary + `é"}`,
		"no UTF-8":          "{\"token\":\"" + canary + "\xff\"}",
		"8 KiB":             `{"token":"` + canary + strings.Repeat("a", 8<<10) + `"}`,
		"one too long":      `{"token":"` + strings.Repeat("a", 4097) + `"}`,
		"above 64 KiB":      `{"token":"` + canary + `","padding":"` + strings.Repeat("a", 64<<10) + `"}`,
		"64 KiB of spaces":  `{"token":"` + canary + `"}` + strings.Repeat(" ", 64<<10),
		"byte order mark":   "\ufeff" + `{"token":"` + canary + `"}`,
		"unfinished escape": `{"token":"` + canary + `\u00"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, 200, body)
				var log ampLog
				m := w.manager(log.into)
				_, err := m.Token(t.Context())
				e := ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrSerialization)
				if e.Op != "obtain" || e.StatusCode != 200 || e.Attempts != 1 || e.Outcome != ampauth.Answered {
					t.Errorf("error is %+v", e)
				}
				synctest.Wait()
				if said := fmt.Sprintf("%v %+v %#v", err, err, err) + log.String(); strings.Contains(said, "canary") || strings.Contains(said, "aaaa") {
					t.Errorf("the answer is echoed: %v", err)
				}
				if _, ok := m.Info(); ok {
					t.Error("there is a token")
				}
				w.wantSent(1, 0) // final: the same server would answer the same
			})
		})
	}
}

func TestUsualAndUnusualTokensAreTaken(t *testing.T) {
	long := strings.Repeat("a", 4096)
	for name, test := range map[string]struct {
		status     int
		body, want string
	}{
		"as AMP":             {200, `{"token":"0123456789abcdef0123456789abcdef01234567"}`, "0123456789abcdef0123456789abcdef01234567"},
		"created":            {201, `{"token":"abc"}`, "abc"},
		"escapes":            {200, `{"token":"a\u0062\/c\"d"}`, `ab/c"d`},
		"longest":            {200, `{"token":"` + long + `"}`, long},
		"one character":      {200, `{"token":"a"}`, "a"},
		"white space":        {200, " {\r\n\t\"token\" : \"abc\" } \n", "abc"},
		"more fields":        {200, `{"user":{"token":1},"token":"abc","expires":null}`, "abc"},
		"exactly 64 KiB":     {200, `{"token":"abc"}` + strings.Repeat(" ", 64<<10-len(`{"token":"abc"}`)), "abc"},
		"punctuation":        {200, `{"token":"a.b-c_d~e+f/g=="}`, "a.b-c_d~e+f/g=="},
		"the last duplicate": {200, `{"token":"abc","token":"def"}`, "def"},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, test.status, test.body)
				if got := ampReveal(w.token(w.manager()).Value); got != test.want {
					t.Errorf("token %.60q, want %.60q", got, test.want)
				}
			})
		})
	}
}

func TestEndlessAnswerIsReadInBounds(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"of a success": {Route: ampObtain, Do: fakeamp.EndlessBody, Times: -1},
		"of a failure": {Route: ampObtain, Do: fakeamp.EndlessBody, Times: -1, Status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var read atomic.Int64
				w.Inject(fault)
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(req)
					if err == nil {
						resp.Body = &ampCounted{resp.Body, &read}
					}
					return resp, err
				}))
				_, err := m.Token(t.Context())
				ampFailure(t, err, ampauth.ErrObtainFailed)
				if n := read.Load(); n > 64<<10+1 {
					t.Errorf("%d bytes were read", n)
				}
				w.wantSent(1, 0)
			})
		})
	}
}

func TestEveryAnswerToALoginIsClosed(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"token": {}, "no token": {Body: "{}"}, "refused": {Status: 400}, "not found": {Status: 404}, "outage": {Status: 500},
		"redirect": {Status: 302}, "cut": {Do: fakeamp.CutBody}, "too large": {Body: strings.Repeat("a", 65<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Route, fault.Times = ampObtain, -1
				w.Inject(fault)
				var opened, closed atomic.Int32
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(req)
					if err == nil {
						opened.Add(1)
						resp.Body = &ampClosed{ReadCloser: resp.Body, n: &closed}
					}
					return resp, err
				}))
				_, _ = m.Token(t.Context())
				if o, c := opened.Load(), closed.Load(); o == 0 || c != o {
					t.Errorf("%d of %d bodies were closed", c, o)
				}
			})
		})
	}
}

// What is left unread costs the connection, and a handshake for each attempt.
func TestFailedLoginKeepsItsConnection(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500}, fakeamp.Fault{Route: ampObtain, Status: 502, HTML: true})
		w.token(w.manager())
		if n := w.listener.Dials(); n != 1 {
			t.Errorf("3 attempts took %d connections, want 1", n)
		}
	})
}

// An ampClosed body counts in n when it is first closed.
type ampClosed struct {
	io.ReadCloser
	n    *atomic.Int32
	once sync.Once
}

func (b *ampClosed) Close() error {
	b.once.Do(func() { b.n.Add(1) })
	return b.ReadCloser.Close()
}

// An ampCounted body adds up what is read of it.
type ampCounted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *ampCounted) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func TestTransientFailuresOfTheLoginAreTriedAgain(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"500":             {Status: 500},
		"501":             {Status: 501},
		"502 HTML":        {Status: 502, HTML: true},
		"503":             {Status: 503},
		"504 HTML":        {Status: 504, HTML: true},
		"429":             {Status: 429},
		"closed":          {Do: fakeamp.Close},
		"closed after":    {Do: fakeamp.Close, When: fakeamp.After},
		"reset":           {Do: fakeamp.Reset},
		"cut body":        {Do: fakeamp.CutBody},
		"400 HTML":        {Status: 400, HTML: true},
		"401 HTML":        {Status: 401, HTML: true},
		"403 HTML":        {Status: 403, HTML: true},
		"stalled headers": {Do: fakeamp.StallHeaders},
		"stalled body":    {Do: fakeamp.StallBody},
		"stalled failure": {Do: fakeamp.StallBody, Status: 500},
	} {
		fault.Route = ampObtain
		retry := ampauth.RetryConfig{MaxAttempts: 4, BaseDelay: 100 * time.Millisecond, MaxDelay: 300 * time.Millisecond, Timeout: 2 * time.Second}
		t.Run(name+" passes", func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Times = 2
				w.Inject(fault)
				w.token(w.manager(func(c *ampauth.Config) { c.Retry = retry }))
				w.wantSent(3, 0)
			})
		})
		t.Run(name+" lasts", func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Times = -1
				w.Inject(fault)
				m := w.manager(func(c *ampauth.Config) { c.Retry = retry })
				_, err := m.Token(t.Context())
				e := ampFailure(t, err, ampauth.ErrObtainFailed)
				if e.Attempts != 4 {
					t.Errorf("Attempts = %d, want 4: %v", e.Attempts, err)
				}
				if fault.Status != 0 && e.StatusCode != fault.Status {
					t.Errorf("StatusCode = %d, want %d", e.StatusCode, fault.Status)
				}
				w.wantSent(4, 0)
				// It is not held against the account: the next login is sent at once.
				w.ClearFaults()
				if took := ampElapsed(func() { w.token(m) }); took != 0 {
					t.Errorf("the next login took %v", took)
				}
			})
		})
	}
}

func TestCutAnswerIsAnUnexpectedEnd(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.CutBody, Times: -1})
		_, err := w.manager().Token(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed, io.ErrUnexpectedEOF)
		if errors.Is(err, ampauth.ErrSerialization) {
			t.Errorf("a broken connection is taken for a broken answer: %v", err)
		}
	})
}

func TestNetworkThatRefusesConnectionsIsTriedAgain(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.listener.Refuse(2)
		w.token(m)
		if got := w.listener.Dials(); got != 3 {
			t.Errorf("%d dials, want 3", got)
		}
		_ = m.Clear(t.Context())
		w.transport.CloseIdleConnections()
		w.listener.Refuse(3)
		_, err := m.Token(t.Context())
		if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Attempts != 3 || e.Outcome != ampauth.NotSent {
			t.Errorf("error is %+v", e)
		}
	})
}

func TestWaitsBetweenLoginAttemptsGrowWithJitter(t *testing.T) {
	var longest [3]time.Duration
	for i := range 40 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 4 })
				_, _ = m.Token(t.Context())
				sent := w.requests(ampObtain)
				for n := range longest {
					wait := sent[n+1].at.Sub(sent[n].at)
					if limit := time.Second << n; wait >= limit {
						t.Errorf("wait %d is %v, want less than %v", n+1, wait, limit)
					}
					longest[n] = max(longest[n], wait)
				}
			})
		})
	}
	for n, got := range longest {
		if least := time.Second << n / 2; got < least {
			t.Errorf("the longest wait %d of 40 is %v, want at least %v", n+1, got, least)
		}
	}
}

func TestRetryAfterOfTheLoginIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		value  string
		least  time.Duration
	}{
		"429, seconds": {429, "7", 7 * time.Second},
		"503, seconds": {503, "7", 7 * time.Second},
		// The bubble begins on Saturday, 1 January 2000, and so does the server's Date.
		"429, nearly the cap": {429, "59", 59 * time.Second},
		"429, date":           {429, "Sat, 01 Jan 2000 00:00:09 GMT", 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: test.status, Header: http.Header{"Retry-After": {test.value}}})
				took := ampElapsed(func() { w.token(w.manager()) })
				if took < test.least || took >= test.least+time.Second {
					t.Errorf("took %v, want from %v to a BaseDelay more", took, test.least)
				}
				w.wantSent(2, 0)
			})
		})
	}
}

// The limiter is asked before an attempt's clock starts, and once for each.
func TestLimiterDoesNotUseUpTheTimeOfALogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 5 * time.Second})
		limiter := rate.NewLimiter(rate.Every(8*time.Second), 1)
		limiter.Allow()
		m := w.manager(func(c *ampauth.Config) { c.Limiter = limiter })
		if took := ampElapsed(func() { w.token(m) }); took != 13*time.Second {
			t.Errorf("took %v, want 8s for the limiter and 5s for the server", took)
		}
		w.wantSent(1, 0)
	})
}

// A throttled account is not asked again before the time the server named, by
// whoever wants a token.
func TestLongRetryAfterPausesLogins(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter string
		pause      time.Duration
		retry      ampauth.RetryConfig
	}{
		"above the cap":                {"90", 90 * time.Second, ampauth.RetryConfig{}},
		"beyond the end of the flight": {"300", 300 * time.Second, ampauth.RetryConfig{MaxRetryAfter: -1}},
		"absurd":                       {"99999999999999999999", time.Hour, ampauth.RetryConfig{}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {test.retryAfter}}})
				m := w.manager(func(c *ampauth.Config) { c.Retry = test.retry })
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					if e := ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrRateLimited); e.StatusCode != 429 || e.RetryAfter < test.pause {
						t.Errorf("error is %+v", e)
					}
				})
				if took != 0 {
					t.Errorf("the first error took %v", took)
				}
				time.Sleep(test.pause - time.Second)
				took = ampElapsed(func() {
					_, err := m.Token(t.Context())
					e := ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrRateLimited)
					if e.Outcome != ampauth.NotSent || e.Attempts != 0 || e.RetryAfter < time.Second || e.RetryAfter > time.Second+time.Millisecond {
						t.Errorf("error is %+v", e)
					}
				})
				if took != 0 {
					t.Errorf("the second error took %v", took)
				}
				w.wantSent(1, 0)
				time.Sleep(time.Second)
				w.token(m)
				w.wantSent(2, 0)
			})
		})
	}
}

func TestOtherFailuresOfTheLoginAreFinal(t *testing.T) {
	for _, status := range []int{402, 404, 405, 406, 409, 410, 413, 415, 422, 451, 204, 202, 304} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: status, Times: -1})
				m := w.manager()
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.StatusCode != status || e.Attempts != 1 || e.Outcome != ampauth.Answered {
						t.Errorf("error is %+v", e)
					}
				})
				if took != 0 {
					t.Errorf("it took %v", took)
				}
				w.wantSent(1, 0)
				// A wrong BaseURL is no reason to fear for the account.
				w.ClearFaults()
				w.token(m)
			})
		})
	}
}

func TestUntrustedCertificateIsFinal(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	m, err := ampauth.NewTokenManager(ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = m.Token(t.Context())
	if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Attempts != 1 || e.Outcome != ampauth.NotSent {
		t.Errorf("error is %+v", e)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("the cause is lost: %v", err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestRefusedCredentialsAreFinalAndPauseLogins(t *testing.T) {
	for _, status := range []int{400, 401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, status, `{"non_field_errors":["Unable to log in with provided credentials."]}`)
				m := w.manager()
				sent := 0
				for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
					pause *= time.Second
					_, err := m.Token(t.Context())
					e := ampFailure(t, err, ampauth.ErrObtainFailed)
					if e.StatusCode != status || e.Attempts != 1 || e.Outcome != ampauth.Answered {
						t.Errorf("error is %+v", e)
					}
					sent++
					w.wantSent(sent, 0)
					for _, left := range []time.Duration{pause, pause / 2, 1} {
						time.Sleep(time.Until(w.requests(ampObtain)[sent-1].at.Add(pause - left)))
						took := ampElapsed(func() { _, err = m.Token(t.Context()) })
						e := ampFailure(t, err, ampauth.ErrObtainFailed)
						if took != 0 || e.Outcome != ampauth.NotSent || e.Attempts != 0 || e.RetryAfter < left || e.RetryAfter > left+time.Millisecond {
							t.Errorf("%v before the end of a pause of %v: after %v %+v", left, pause, took, e)
						}
					}
					w.wantSent(sent, 0)
					time.Sleep(time.Nanosecond)
				}
			})
		})
	}
}

// What refuses the credentials is AMP's word: JSON of whatever type, which says so.
func TestRefusedCredentialsAreToldFromAProxysRefusal(t *testing.T) {
	for name, test := range map[string]struct {
		contentType, body string
		refused           bool
	}{
		"object":                 {"application/json", `{"non_field_errors":["no"]}`, true},
		"array":                  {"application/json", `["no"]`, true},
		"string":                 {"application/json; charset=utf-8", `"no"`, true},
		"null":                   {"Application/JSON", "null", true},
		"number":                 {"application/json;charset", " 42\n", true},
		"problem":                {"application/problem+json", `{"title":"no"}`, true},
		"problem, a string":      {"application/problem+json; charset=utf-8", `"no"`, true},
		"HTML":                   {"text/html", "<html>no</html>", false},
		"HTML said to be JSON":   {"application/json", "<html>no</html>", false},
		"JSON said to be HTML":   {"text/html", `{"detail":"no"}`, false},
		"text":                   {"text/plain", "no", false},
		"nothing":                {"", "", false},
		"nothing, as JSON":       {"application/json", "", false},
		"half of it":             {"application/json", `{"detail":`, false},
		"more than can be read":  {"application/json", `"` + strings.Repeat("n", 64<<10) + `"`, false},
		"JSON in its name alone": {"application/json-seq", "1", false},
	} {
		for _, status := range []int{400, 401, 403} {
			t.Run(fmt.Sprint(name, ", ", status), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					w.answerText(ampObtain, status, test.body, "Content-Type", test.contentType)
					m := w.manager()
					_, err := m.Token(t.Context())
					e := ampFailure(t, err, ampauth.ErrObtainFailed)
					if e.Kind != ampauth.ErrObtainFailed || e.StatusCode != status || errors.Is(err, ampauth.ErrCredentialsRefused) != test.refused {
						t.Errorf("error is %+v", e)
					}
					if test.refused {
						want := fmt.Sprintf("ampauth: token obtain failed after 1 attempt: request failed: HTTP %d %s: the credentials were refused: check user name and password", status, http.StatusText(status))
						if err.Error() != want {
							t.Errorf("it says %q, want %q", err, want)
						}
						w.wantSent(1, 0)
					} else {
						w.wantSent(3, 0)
					}
				})
			})
		}
	}
}

// The pause of refused credentials is one of those errors as well.
func TestPauseTellsThatTheCredentialsWereRefused(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		m := w.manager()
		for range 2 {
			_, err := m.Token(t.Context())
			ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrCredentialsRefused)
		}
		w.wantSent(1, 0)
	})
}

// Whatever stands before AMP and refuses: once may be an accident.
func TestRefusalOfAProxyThatComesAgainPausesLogins(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 403, HTML: true, Times: -1})
		m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 1 })
		sent := 0
		for _, pause := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
			pause *= time.Second
			_, err := m.Token(t.Context())
			if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Attempts != 1 || errors.Is(err, ampauth.ErrCredentialsRefused) {
				t.Errorf("error is %+v", e)
			}
			sent++
			if pause > 0 {
				time.Sleep(pause - 1)
				_, err := m.Token(t.Context())
				if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Outcome != ampauth.NotSent || e.Attempts != 0 {
					t.Errorf("just before the end of a pause of %v: %+v", pause, e)
				}
				time.Sleep(time.Nanosecond)
			}
			w.wantSent(sent, 0)
		}
		_ = m.Clear(t.Context())
		w.ClearFaults()
		w.token(m)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 403, HTML: true})
		_, err := m.Obtain(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Errorf("after a success the first is no reason for a pause: %v", err)
		}
	})
}

// A proxy that refuses a refresh says nothing of logins.
func TestRefusalOfARefreshByAProxyPausesNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 1 })
		w.token(m)
		for range 3 {
			w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 403, HTML: true}, fakeamp.Fault{Route: ampObtain, Status: 500})
			_, err := m.Refresh(t.Context())
			ampFailure(t, err, ampauth.ErrObtainFailed)
		}
		w.wantSent(4, 3)
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Each way out of the pause must lead to a login at once.
func TestPauseAfterRefusedCredentialsEnds(t *testing.T) {
	right := ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)}
	for name, end := range map[string]func(*ampauth.TokenManager) error{
		"Clear":          func(m *ampauth.TokenManager) error { return m.Clear(context.Background()) },
		"SetCredentials": func(m *ampauth.TokenManager) error { return m.SetCredentials(right) },
		"ForceRefresh":   func(m *ampauth.TokenManager) error { _, err := m.ForceRefresh(context.Background()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) { c.Credentials = right })
				w.SetPassword("issuer", "another password")
				for _, pause := range []time.Duration{time.Second, 2 * time.Second} {
					_, err := m.Token(t.Context())
					ampFailure(t, err, ampauth.ErrObtainFailed)
					time.Sleep(pause)
				}
				_, err := m.Token(t.Context())
				ampFailure(t, err, ampauth.ErrObtainFailed)
				w.wantSent(3, 0)
				w.SetPassword("issuer", ampPassword)
				if _, err = m.Obtain(t.Context()); err == nil {
					t.Fatal("there was no pause to end")
				}
				w.wantSent(3, 0)

				took := ampElapsed(func() {
					if err := end(m); err != nil {
						t.Error(err)
					}
					w.token(m)
				})
				if took != 0 {
					t.Errorf("it took %v", took)
				}
				w.wantSent(4, 0)

				// The next refusal begins with a short pause again.
				w.SetPassword("issuer", "another password")
				_, err = m.Obtain(t.Context())
				ampFailure(t, err, ampauth.ErrObtainFailed)
				_, err = m.Obtain(t.Context())
				if e := ampFailure(t, err); e.RetryAfter < time.Second || e.RetryAfter > time.Second+time.Millisecond {
					t.Errorf("the new pause is %v, want 1s", e.RetryAfter)
				}
			})
		})
	}
}

func TestSuccessfulLoginForgetsEarlierRefusals(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Times: 2})
		for range 2 {
			_, err := m.Token(t.Context())
			ampFailure(t, err, ampauth.ErrObtainFailed)
			time.Sleep(2 * time.Second)
		}
		w.token(m)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		_, err := m.Obtain(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
		time.Sleep(time.Second)
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Errorf("after a pause of a second: %v", err)
		}
	})
}

// A refused refresh says nothing about the password: only a refused login does.
func TestRefusedRefreshIsNotTakenForRefusedCredentials(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log ampLog
		m := w.manager(log.into)
		w.token(m)
		w.Inject(
			fakeamp.Fault{Route: ampRefresh, Status: 401},
			fakeamp.Fault{Route: ampObtain, Status: 500, Times: 3},
		)
		_, err := m.Refresh(t.Context())
		if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.StatusCode != 500 {
			t.Errorf("error is %+v", e)
		}
		synctest.Wait()
		if found := log.records(t, "ampauth: the credentials were refused"); len(found) > 0 {
			t.Errorf("the log warns of the credentials: %v", found)
		}
		if strings.Contains(err.Error(), "credentials") {
			t.Errorf("the error blames the credentials: %v", err)
		}
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Errorf("logins are paused: %v", err)
		}
		w.wantSent(5, 1)
	})
}

func TestLoginThatTimesOutSaysAfterWhatTime(t *testing.T) {
	for name, do := range map[string]fakeamp.Action{"headers": fakeamp.StallHeaders, "body": fakeamp.StallBody} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Do: do, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts, c.Retry.Timeout = 1, 7*time.Second })
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					e := ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrTimeout, context.DeadlineExceeded)
					if !e.Timeout() || e.Limit != 7*time.Second || e.Attempts != 1 {
						t.Errorf("Timeout() = %v, Limit = %v, Attempts = %d", e.Timeout(), e.Limit, e.Attempts)
					}
					if !strings.Contains(err.Error(), "after 7s") {
						t.Errorf("the error does not say after what time: %v", err)
					}
				})
				if took != 7*time.Second {
					t.Errorf("took %v, want 7s", took)
				}
			})
		})
	}
}

func TestErrorsOfTheLoginReadWell(t *testing.T) {
	for name, test := range map[string]struct {
		faults []fakeamp.Fault
		twice  bool // the error of the second call, within a pause
	}{
		"outage":        {faults: []fakeamp.Fault{{Route: ampObtain, Status: 500, Times: -1}}},
		"rate limit":    {faults: []fakeamp.Fault{{Route: ampObtain, Status: 429, Times: -1, Header: http.Header{"Retry-After": {"90"}}}}},
		"cut":           {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.CutBody, Times: -1}}},
		"closed":        {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.Close, Times: -1}}},
		"stalled":       {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.StallHeaders, Times: -1}}},
		"refused":       {faults: []fakeamp.Fault{{Route: ampObtain, Status: 400, Times: -1}}},
		"in a pause":    {faults: []fakeamp.Fault{{Route: ampObtain, Status: 400, Times: -1}}, twice: true},
		"proxy":         {faults: []fakeamp.Fault{{Route: ampObtain, Status: 403, HTML: true, Times: -1}}},
		"not an answer": {faults: []fakeamp.Fault{{Route: ampObtain, HTML: true, Times: -1}}},
		"refresh, too":  {faults: []fakeamp.Fault{{Route: ampRefresh, Status: 500}, {Route: ampObtain, Status: 503, Times: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 2 })
				w.token(m)
				w.Inject(test.faults...)
				call := m.Obtain
				if test.faults[0].Route == ampRefresh {
					call = m.Refresh
				}
				_, err := call(t.Context())
				if test.twice {
					_, err = m.Obtain(t.Context())
				}
				ampFailure(t, err, ampauth.ErrObtainFailed)
				text := err.Error()
				if !strings.HasPrefix(text, "ampauth: ") || strings.Count(text, "ampauth: ") != 1 {
					t.Errorf("the prefix is not there once: %s", text)
				}
				if strings.ContainsAny(text, "\n\r") || strings.Contains(text, "%!") {
					t.Errorf("%q", text)
				}
			})
		})
	}
}
