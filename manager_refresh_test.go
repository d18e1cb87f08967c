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

func TestObtainOnlyRefreshesOnRequestAlone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Renewal = ampauth.ObtainOnly })
		w.token(m)
		for range 3 {
			time.Sleep(ampStale)
			w.token(m)
			synctest.Wait()
			if got := w.token(m); got.Age() != 0 {
				t.Errorf("the token is %v old", got.Age())
			}
		}
		w.wantSent(4, 0)
		for i, call := range []func(context.Context) (ampauth.Token, error){m.Refresh, m.ForceRefresh} {
			if _, err := call(t.Context()); err != nil {
				t.Error(err)
			}
			w.wantSent(4, i+1)
		}
	})
}

// A refresh ends the old token, so one whose end is unknown is never sent again.
func TestFailedRefreshGoesOnToALogin(t *testing.T) {
	for name, test := range map[string]struct {
		fault fakeamp.Fault
		takes time.Duration
	}{
		"500":                      {fakeamp.Fault{Status: 500}, 0},
		"503 with Retry-After":     {fakeamp.Fault{Status: 503, Header: http.Header{"Retry-After": {"5"}}}, 0},
		"429 with Retry-After":     {fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"5"}}}, 0},
		"400":                      {fakeamp.Fault{Status: 400}, 0},
		"401":                      {fakeamp.Fault{Status: 401}, 0},
		"403":                      {fakeamp.Fault{Status: 403}, 0},
		"403 HTML":                 {fakeamp.Fault{Status: 403, HTML: true}, 0},
		"404":                      {fakeamp.Fault{Status: 404}, 0},
		"closed":                   {fakeamp.Fault{Do: fakeamp.Close}, 0},
		"closed after its effect":  {fakeamp.Fault{Do: fakeamp.Close, When: fakeamp.After}, 0},
		"reset after its effect":   {fakeamp.Fault{Do: fakeamp.Reset, When: fakeamp.After}, 0},
		"502 after its effect":     {fakeamp.Fault{Status: 502, HTML: true, When: fakeamp.After}, 0},
		"cut body":                 {fakeamp.Fault{Do: fakeamp.CutBody}, 0},
		"no token":                 {fakeamp.Fault{Body: "{}"}, 0},
		"stalled headers":          {fakeamp.Fault{Do: fakeamp.StallHeaders}, 10 * time.Second},
		"stalled after its effect": {fakeamp.Fault{Do: fakeamp.StallHeaders, When: fakeamp.After}, 10 * time.Second},
		"stalled body":             {fakeamp.Fault{Do: fakeamp.StallBody}, 10 * time.Second},
	} {
		test.fault.Route = ampRefresh
		for _, by := range []string{"Token", "Refresh"} {
			t.Run(name+", "+by, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					m := w.manager()
					w.token(m)
					time.Sleep(ampStale)
					w.Inject(test.fault)
					if by == "Token" {
						w.token(m)
						time.Sleep(test.takes)
						synctest.Wait()
					} else {
						took := ampElapsed(func() {
							if _, err := m.Refresh(t.Context()); err != nil {
								t.Error(err)
							}
						})
						if took != test.takes {
							t.Errorf("took %v, want %v", took, test.takes)
						}
					}
					got := w.token(m)
					if got.Age() != 0 || ampReveal(got.Value) != w.Server.Token("issuer") {
						t.Errorf("the token is %v old, or not the server's", got.Age())
					}
					w.wantSent(2, 1)
					if effects := len(w.Effects()); effects > 1 {
						t.Errorf("%d refreshes were performed", effects)
					}
				})
			})
		}
	}
}

func TestDeadConnectionDoesNotRepeatARefresh(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Do: fakeamp.Close, When: fakeamp.After, Times: -1})
		for range 5 {
			w.token(m) // leaves an idle connection
			if _, err := m.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.wantSent(6, 5)
		if n := len(w.Effects()); n != 5 {
			t.Errorf("%d refreshes were performed, want 5", n)
		}
	})
}

// ampServesStale asks for a token every tick and fails unless it is the old one, at once.
func ampServesStale(t *testing.T, w *ampWorld, m *ampauth.TokenManager, want ampauth.Token, d, tick time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(tick) {
		took := ampElapsed(func() {
			if got := w.token(m); !got.Value.Equal(want.Value) {
				t.Fatal("another token")
			}
		})
		if took != 0 {
			t.Fatalf("a caller waited %v", took)
		}
	}
}

// ampServesStaleUntil asks until the token is renewed, which must be within d.
func ampServesStaleUntil(t *testing.T, w *ampWorld, m *ampauth.TokenManager, old ampauth.Token, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got := w.token(m); got.ObtainedAt.After(old.ObtainedAt) { // a login may give the same one
			return
		}
	}
	t.Errorf("the refresh was not tried again within %v", d)
}

func TestOutageWhileTheTokenIsValidIsNotNoticed(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Status: 500, Times: -1})
		ampServesStale(t, w, m, first, 4*time.Minute+20*time.Second, 10*time.Millisecond)
		// Each try is a refresh and a login, the first time with its retries, and at most
		// 30 s and its own waits after the one before. The waits are drawn, evenly from 0.
		if n := w.refreshes(); n < 260/34 || n > 60 {
			t.Errorf("the refresh was tried %d times in 260s", n)
		}
		if o, r := w.obtains()-1, w.refreshes(); o > r+2 || o < r+1 {
			t.Errorf("%d logins to %d refreshes", o, r)
		}
		w.ClearFaults()
		ampServesStaleUntil(t, w, m, first, 36*time.Second)
	})
}

func TestTokenThatEndsInAnOutageIsAnError(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Lifetime = 24 * time.Hour })
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Status: 500, Times: -1})
		ampServesStale(t, w, m, first, 5*time.Minute, time.Second)
		_, err := m.Token(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
		if !first.IsExpired() {
			t.Error("the token has not ended yet")
		}
		w.ClearFaults()
		time.Sleep(30 * time.Second) // the longest pause
		w.token(m)
	})
}

// Where nobody has said how long a token lives, its end is our guess.
func TestTokenIsServedPastItsAssumedEndInAnOutage(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(24*time.Hour + time.Minute)
		w.Inject(fakeamp.Fault{Status: 500, Times: -1})
		if got := w.token(m); !got.Value.Equal(first.Value) {
			t.Error("not the old token, after the first failed login")
		}
		sent := w.obtains()
		ampServesStale(t, w, m, first, 10*time.Minute, time.Second)
		if n := w.obtains() - sent; n < 10 || n > 40 {
			t.Errorf("%d logins in ten minutes of outage", n)
		}
		w.ClearFaults()
		ampServesStaleUntil(t, w, m, first, 31*time.Second)
	})
}

func TestTokenIsNotServedPastItsAssumedEndIfTheCredentialsAreRefused(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		time.Sleep(24*time.Hour + time.Minute)
		w.answerText(ampObtain, 400, `{"non_field_errors":["Unable to log in with provided credentials."]}`)
		for range 3 {
			_, err := m.Token(t.Context())
			stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrCredentialsRefused)
			time.Sleep(time.Minute)
		}
	})
}

func TestRetryAfterKeepsRefreshesAwayWhileTheTokenIsServed(t *testing.T) {
	after := func(route string, status int, seconds string) fakeamp.Fault {
		return fakeamp.Fault{Route: route, Status: status, Header: http.Header{"Retry-After": {seconds}}, Times: -1}
	}
	plain := func(route string) fakeamp.Fault { return fakeamp.Fault{Route: route, Status: 500, Times: -1} }
	for name, faults := range map[string][]fakeamp.Fault{
		"429 of the login":        {plain(ampRefresh), after(ampObtain, 429, "70")},
		"503 of the login":        {plain(ampRefresh), after(ampObtain, 503, "70")},
		"429 of both":             {after(ampRefresh, 429, "70"), after(ampObtain, 429, "70")},
		"429 of the refresh":      {after(ampRefresh, 429, "70"), plain(ampObtain)},
		"the longer one, refresh": {after(ampRefresh, 429, "70"), after(ampObtain, 429, "1")},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				first := w.token(m)
				time.Sleep(ampStale)
				w.Inject(faults...)
				ampServesStale(t, w, m, first, 69*time.Second, 100*time.Millisecond)
				if n := w.refreshes(); n != 1 {
					t.Errorf("%d refreshes were sent within 69s of a Retry-After of 70", n)
				}
				w.ClearFaults()
				ampServesStaleUntil(t, w, m, first, 36*time.Second)
			})
		})
	}
}

// A wait longer than this package believes in is still a wait.
func TestLongRetryAfterOfARefreshIsNoHotLoop(t *testing.T) {
	for _, seconds := range []string{"3600", "7200", "99999999999999999999"} {
		for _, route := range []string{ampRefresh, ampObtain} {
			t.Run(route+" "+seconds, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					m := w.manager()
					first := w.token(m)
					time.Sleep(ampStale)
					w.Inject(
						fakeamp.Fault{Route: route, Status: 429, Header: http.Header{"Retry-After": {seconds}}, Times: -1},
						fakeamp.Fault{Status: 500, Times: -1},
					)
					ampServesStale(t, w, m, first, 5*time.Minute, 100*time.Millisecond)
					if n := w.refreshes(); n != 1 {
						t.Errorf("%d refreshes were sent in 5 minutes", n)
					}
				})
			})
		}
	}
}

func TestPauseOfRefusedCredentialsLeavesAValidTokenInUse(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500, Times: -1}, fakeamp.Fault{Route: ampObtain, Status: 400, Times: -1})
		ampServesStale(t, w, m, first, 4*time.Minute, 100*time.Millisecond)
		// Pauses of 1, 2, 4, 8, 16, 32, 60, 60 and 60 s.
		if n := w.obtains() - 1; n < 5 || n > 9 {
			t.Errorf("%d logins were refused in 4 minutes", n)
		}
		sent := w.requests(ampObtain)[1:]
		for i := 1; i < len(sent); i++ {
			if got, least := sent[i].at.Sub(sent[i-1].at), min(time.Second<<(i-1), time.Minute); got < least {
				t.Errorf("login %d came %v after the refusal before it, want at least %v", i+1, got, least)
			}
		}
	})
}

func TestRefreshThatIsNotThereIsRemembered(t *testing.T) {
	for _, status := range []int{404, 405} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampRefresh, Status: status, Times: -1})
				const life = 30 * time.Minute
				m := w.manager(func(c *ampauth.Config) { c.Lifetime = life })
				w.token(m)
				renewed := func() {
					t.Helper()
					time.Sleep(life - time.Minute)
					w.token(m)
					synctest.Wait()
					if got := w.token(m); got.Age() != 0 {
						t.Errorf("the token is %v old", got.Age())
					}
				}
				renewed()
				w.wantSent(2, 1)
				renewed()
				w.wantSent(3, 1)
				for i, call := range []func(context.Context) (ampauth.Token, error){m.Refresh, m.ForceRefresh} {
					if _, err := call(t.Context()); err != nil {
						t.Error(err)
					}
					w.wantSent(4+i, 2+i) // who asks for it has it tried
				}
				renewed()
				w.wantSent(6, 3)
				renewed()
				renewed()
				w.wantSent(8, 4) // after an hour
			})
		})
	}
}

func TestOtherFailuresOfARefreshAreNotRemembered(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		for _, status := range []int{400, 401, 403, 410, 500, 501} {
			w.Inject(fakeamp.Fault{Route: ampRefresh, Status: status})
			if _, err := m.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.wantSent(7, 6)
	})
}

// The login behind a refresh settles its doubt: no request of the caller's is in doubt.
func TestDoubtfulRefreshLeavesNoRequestInDoubt(t *testing.T) {
	for name, do := range map[string]fakeamp.Fault{"reset": {Do: fakeamp.Reset}, "silent": {Do: fakeamp.StallHeaders}} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				client := w.client(log.into, func(c *ampauth.Config) { c.Lifetime = time.Hour })
				w.token(client.Tokens)
				do.Route, do.Times = ampRefresh, -1
				do.Delay = 5 * time.Second
				w.Inject(do, fakeamp.Fault{Route: ampObtain, Times: -1, Status: 500})
				time.Sleep(time.Hour - time.Second)
				go func() { _, _ = client.Tokens.Refresh(t.Context()) }()
				time.Sleep(2 * time.Second) // the token has ended, and the refresh is under way
				_, err := client.Post(w.url+"/api/assets/issue", "application/json", strings.NewReader("{}"))
				e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrRefreshFailed)
				if errors.Is(err, ampauth.ErrAmbiguous) || e.Outcome != ampauth.NotSent {
					t.Errorf("%v: it Is ErrAmbiguous: %t, and is %v", err, errors.Is(err, ampauth.ErrAmbiguous), e.Outcome)
				}
				if events := log.named(ampauth.EventAmbiguous); len(events) > 0 || client.Stats().Ambiguous > 0 {
					t.Errorf("told %v", events)
				}
			})
		})
	}
}
