package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A throttled account is not asked again before the time the server named, by
// whoever wants a token.
func TestLongRetryAfterPausesLogins(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter string
		pause      time.Duration
		retry      ampauth.RetryConfig
	}{
		"above the cap":                {"90", time.Minute, ampauth.RetryConfig{}},
		"beyond the end of the flight": {"300", 300 * time.Second, ampauth.RetryConfig{MaxRetryAfter: -1}},
		"absurd":                       {"99999999999999999999", time.Minute, ampauth.RetryConfig{}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {test.retryAfter}}})
				m := w.manager(func(c *ampauth.Config) { c.Retry = test.retry })
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					if e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrRateLimited); e.StatusCode != 429 || e.RetryAfter < test.pause {
						t.Errorf("error is %+v", e)
					}
				})
				if took != 0 {
					t.Errorf("the first error took %v", took)
				}
				time.Sleep(test.pause - time.Second)
				took = ampElapsed(func() {
					_, err := m.Token(t.Context())
					e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrRateLimited)
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
					e := stubError(t, err, ampauth.ErrObtainFailed)
					if e.StatusCode != status || e.Attempts != 1 || e.Outcome != ampauth.Answered {
						t.Errorf("error is %+v", e)
					}
					sent++
					w.wantSent(sent, 0)
					for _, left := range []time.Duration{pause, pause / 2, 1} {
						time.Sleep(time.Until(w.requests(ampObtain)[sent-1].at.Add(pause - left)))
						took := ampElapsed(func() { _, err = m.Token(t.Context()) })
						e := stubError(t, err, ampauth.ErrObtainFailed)
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
					e := stubError(t, err, ampauth.ErrObtainFailed)
					if e.Kind != ampauth.ErrObtainFailed || e.StatusCode != status || errors.Is(err, ampauth.ErrCredentialsRefused) != test.refused {
						t.Errorf("error is %+v", e)
					}
					if test.refused {
						want := fmt.Sprintf("HTTP %d %s: the credentials were refused; check user name and password", status, http.StatusText(status))
						if !strings.Contains(err.Error(), want) {
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
			stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrCredentialsRefused)
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
			if e := stubError(t, err, ampauth.ErrObtainFailed); e.Attempts != 1 || errors.Is(err, ampauth.ErrCredentialsRefused) {
				t.Errorf("error is %+v", e)
			}
			sent++
			if pause > 0 {
				time.Sleep(pause - 1)
				_, err := m.Token(t.Context())
				if e := stubError(t, err, ampauth.ErrObtainFailed); e.Outcome != ampauth.NotSent || e.Attempts != 0 {
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
		stubError(t, err, ampauth.ErrObtainFailed)
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
			stubError(t, err, ampauth.ErrObtainFailed)
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
					stubError(t, err, ampauth.ErrObtainFailed)
					time.Sleep(pause)
				}
				_, err := m.Token(t.Context())
				stubError(t, err, ampauth.ErrObtainFailed)
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
				stubError(t, err, ampauth.ErrObtainFailed)
				_, err = m.Obtain(t.Context())
				if e := stubError(t, err); e.RetryAfter < time.Second || e.RetryAfter > time.Second+time.Millisecond {
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
			stubError(t, err, ampauth.ErrObtainFailed)
			time.Sleep(2 * time.Second)
		}
		w.token(m)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		_, err := m.Obtain(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
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
		if e := stubError(t, err, ampauth.ErrObtainFailed); e.StatusCode != 500 {
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
