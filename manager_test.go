package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

const (
	ampLife = 24 * time.Hour
	// In the last five minutes of a token its refresh is due, whatever was drawn.
	ampStale = ampLife - 5*time.Minute
)

func TestIdleManagerSendsNothing(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		time.Sleep(time.Hour)
		w.wantSent(0, 0)
		w.token(m)
		time.Sleep(10 * ampLife)
		w.wantSent(1, 0)
	})
}

func TestRefreshIsDueFiveMinutesAheadAndSpreadEarlier(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		const fleet = 200
		managers := make([]*ampauth.TokenManager, fleet)
		for i := range managers {
			managers[i] = w.manager()
			w.token(managers[i])
		}
		due := func() (n int) {
			for _, m := range managers {
				if info, _ := m.Info(); info.ExpiresSoon {
					n++
				}
			}
			return n
		}
		time.Sleep(ampLife - 7*time.Minute - 30*time.Second)
		if n := due(); n != 0 {
			t.Errorf("%d refreshes are due before the last 7.5 minutes", n)
		}
		// Evenly spread, 20 would become due in each of the ten quarters of a minute.
		before := 0
		for i := range 10 {
			time.Sleep(15 * time.Second)
			now := due()
			if n := now - before; n < 1 || n > 60 {
				t.Errorf("%d of %d refreshes become due in the same 15 seconds (%d)", n, fleet, i)
			}
			before = now
		}
		if before != fleet {
			t.Errorf("%d of %d refreshes are due 5 minutes before the end", before, fleet)
		}
	})
}

func TestRefreshHappensWhenItIsDueAndNotBefore(t *testing.T) {
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				first := w.token(m)
				time.Sleep(ampLife - 7*time.Minute - 31*time.Second)
				due := false
				for range 2*60 + 32 {
					w.token(m)
					synctest.Wait()
					if got := w.refreshes(); (got == 1) != due {
						t.Fatalf("%d refreshes, due: %v", got, due)
					}
					if w.refreshes() == 1 {
						break
					}
					time.Sleep(time.Second)
					info, _ := m.Info()
					due = info.ExpiresSoon
				}
				second := w.token(m)
				if second.Value.Equal(first.Value) || !second.ObtainedAt.Equal(w.requests(ampRefresh)[0].at) {
					t.Error("the refreshed token is not the one in use")
				}
				if got := w.requests(ampRefresh)[0].header.Get("Authorization"); got != "token "+ampReveal(first.Value) {
					t.Error("the refresh did not carry the old token")
				}
				w.wantSent(1, 1)
			})
		})
	}
}

// Tokens too short for the window are refreshed in the second half of their life.
func TestRefreshScalesWithShortLives(t *testing.T) {
	for _, test := range []struct{ life, window, from, to time.Duration }{
		{15 * time.Minute, 0, 7*time.Minute + 30*time.Second, 10 * time.Minute},
		{12 * time.Minute, 0, 6 * time.Minute, 7 * time.Minute},
		{10 * time.Minute, 0, 5 * time.Minute, 5 * time.Minute},
		{8 * time.Minute, 0, 4 * time.Minute, 5 * time.Minute},
		{8 * time.Second, 0, 4 * time.Second, 5 * time.Second},
		{8 * time.Millisecond, 0, 4 * time.Millisecond, 5 * time.Millisecond},
		{time.Hour, time.Minute, 58*time.Minute + 30*time.Second, 59 * time.Minute},
		{time.Hour, 10 * time.Hour, 30 * time.Minute, 37*time.Minute + 30*time.Second},
	} {
		t.Run(fmt.Sprint(test.life, " ", test.window), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				managers := make([]*ampauth.TokenManager, 50)
				for i := range managers {
					managers[i] = w.manager(func(c *ampauth.Config) { c.Lifetime, c.RefreshWindow = test.life, test.window })
					w.token(managers[i])
				}
				check := func(want bool) {
					t.Helper()
					for _, m := range managers {
						if info, _ := m.Info(); info.ExpiresSoon != want {
							t.Fatalf("at an age of %v: ExpiresSoon = %v", info.Age, info.ExpiresSoon)
						}
					}
				}
				time.Sleep(test.from - 1)
				check(false)
				time.Sleep(test.to - test.from + 1)
				check(true)
			})
		})
	}
}

func TestStaleTokenIsServedWhileOneRefreshRuns(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 2 * time.Second})
		for range 20 {
			for _, r := range ampCalls(50, func() (ampauth.Token, error) { return m.Token(t.Context()) }) {
				if r.err != nil || r.after != 0 || !r.token.Value.Equal(first.Value) {
					t.Fatalf("a caller waited %v, or did not get the old token: %v", r.after, r.err)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if got := w.token(m); got.Value.Equal(first.Value) {
			t.Error("after the refresh the old token is served still")
		}
		w.wantSent(1, 1)
	})
}

// Nobody whose token is good waits because somebody else wants another one.
func TestCallsThatReplaceTheTokenDelayNobodyElse(t *testing.T) {
	for name, call := range map[string]func(*ampauth.TokenManager) (ampauth.Token, error){
		"Obtain":       func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.Obtain(context.Background()) },
		"Refresh":      func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.Refresh(context.Background()) },
		"ForceRefresh": func(m *ampauth.TokenManager) (ampauth.Token, error) { return m.ForceRefresh(context.Background()) },
	} {
		for _, age := range []time.Duration{time.Hour, ampStale} {
			t.Run(fmt.Sprint(name, " at ", age), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					m := w.manager()
					first := w.token(m)
					time.Sleep(age)
					w.Inject(fakeamp.Fault{Delay: 2 * time.Second})
					slow := ampStart(func() (ampauth.Token, error) { return call(m) })
					for range 20 {
						took := ampElapsed(func() {
							if got := w.token(m); !got.Value.Equal(first.Value) {
								t.Error("another token")
							}
						})
						if took != 0 {
							t.Errorf("a caller waited %v", took)
						}
						time.Sleep(90 * time.Millisecond)
					}
					if r := <-slow; r.err != nil || r.after != 2*time.Second {
						t.Errorf("after %v: %v", r.after, r.err)
					}
					if w.obtains()+w.refreshes() != 2 {
						t.Errorf("%d requests, want 2", w.obtains()+w.refreshes())
					}
				})
			})
		}
	}
}

func TestTokenThatEndsDuringItsRefreshIsWaitedFor(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		time.Sleep(ampLife - time.Second)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 3 * time.Second})
		w.token(m)
		time.Sleep(time.Second)
		var got ampauth.Token
		if took := ampElapsed(func() { got = w.token(m) }); took != 2*time.Second {
			t.Errorf("waited %v, want 2s", took)
		}
		if got.IsExpired() {
			t.Error("the token has ended")
		}
		w.wantSent(1, 1)
	})
}

func TestEndedTokenIsReplacedByALogin(t *testing.T) {
	for name, change := range map[string]func(*ampauth.Config){
		"by default":            func(*ampauth.Config) {},
		"with ObtainOnly":       func(c *ampauth.Config) { c.Renewal = ampauth.ObtainOnly },
		"with a RefreshWindow":  func(c *ampauth.Config) { c.RefreshWindow = time.Hour },
		"without RefreshWindow": func(c *ampauth.Config) { c.RefreshWindow = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(change)
				w.token(m)
				time.Sleep(ampLife)
				if got := w.token(m); got.Age() != 0 {
					t.Errorf("the token is %v old", got.Age())
				}
				w.wantSent(2, 0)
			})
		})
	}
}

func TestNegativeRefreshWindowWaitsForTheEnd(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.RefreshWindow = -1 })
		w.token(m)
		time.Sleep(ampLife - 1)
		if got := w.token(m); got.Age() != ampLife-1 {
			t.Errorf("the token is %v old", got.Age())
		}
		if info, _ := m.Info(); info.ExpiresSoon || info.IsExpired {
			t.Errorf("Info = %+v", info)
		}
		synctest.Wait()
		w.wantSent(1, 0)
		time.Sleep(time.Nanosecond)
		if got := w.token(m); got.Age() != 0 {
			t.Errorf("the token is %v old", got.Age())
		}
		w.wantSent(2, 0)
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

func TestOutageWhileTheTokenIsValidIsNotNoticed(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Status: 500, Times: -1})
		ampServesStale(t, w, m, first, 4*time.Minute+20*time.Second, 10*time.Millisecond)
		// Each try is a refresh and three logins, and at most 30 s and its own
		// waits after the one before. The waits are drawn, evenly from 0.
		if n := w.refreshes(); n < 260/34 || n > 60 {
			t.Errorf("the refresh was tried %d times in 260s", n)
		}
		if o, r := w.obtains()-1, w.refreshes(); o > 3*r || o < 3*(r-1) {
			t.Errorf("%d logins to %d refreshes", o, r)
		}
		w.ClearFaults()
		ampServesStaleUntil(t, w, m, first, 36*time.Second)
	})
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

func TestTokenThatEndsInAnOutageIsAnError(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Status: 500, Times: -1})
		ampServesStale(t, w, m, first, 5*time.Minute, time.Second)
		_, err := m.Token(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
		if !first.IsExpired() {
			t.Error("the token has not ended yet")
		}
		w.ClearFaults()
		w.token(m)
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
				w.Inject(fakeamp.Fault{Route: ampRefresh, Status: status})
				m := w.manager()
				w.token(m)
				if _, err := m.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.wantSent(2, 1)
				time.Sleep(ampStale)
				w.token(m)
				synctest.Wait()
				if got := w.token(m); got.Age() != 0 {
					t.Errorf("the token is %v old", got.Age())
				}
				for _, call := range []func(context.Context) (ampauth.Token, error){m.Refresh, m.ForceRefresh} {
					if _, err := call(t.Context()); err != nil {
						t.Error(err)
					}
				}
				w.wantSent(5, 1)
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

func TestRefreshWithoutATokenLogsIn(t *testing.T) {
	for _, state := range []string{"cold", "cleared", "ended"} {
		t.Run(state, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				if state != "cold" {
					w.token(m)
				}
				if state == "cleared" {
					_ = m.Clear(t.Context())
				}
				time.Sleep(ampLife)
				before := w.obtains()
				if got, err := m.Refresh(t.Context()); err != nil || got.Age() != 0 {
					t.Errorf("Refresh = %v, %v", got, err)
				}
				w.wantSent(before+1, 0)
			})
		})
	}
}

func TestRefreshCallIsConfigurable(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		const route = "POST /v2/session/renew"
		w.answerText(route, 200, `{"token":"renewed"}`)
		m := w.manager(func(c *ampauth.Config) {
			c.RefreshMethod, c.RefreshPath, c.Scheme = "POST", "/v2/session/renew", "Bearer"
		})
		first := w.token(m)
		got, err := m.Refresh(t.Context())
		if err != nil || ampReveal(got.Value) != "renewed" {
			t.Errorf("Refresh = %q, %v", ampReveal(got.Value), err)
		}
		sent := w.requests(route)
		if len(sent) != 1 {
			t.Fatalf("%d refreshes, want 1", len(sent))
		}
		if got := sent[0].header.Get("Authorization"); got != "Bearer "+ampReveal(first.Value) {
			t.Error("the refresh did not carry the token after the configured word")
		}
		if sent[0].body != "" {
			t.Errorf("the refresh had a body: %q", sent[0].body)
		}
		w.wantSent(1, 0)
	})
}

func TestObtainLogsInWhateverThereIs(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		for n := range 3 {
			time.Sleep(time.Minute)
			if got, err := m.Obtain(t.Context()); err != nil || got.Age() != 0 {
				t.Errorf("Obtain = %v, %v", got, err)
			}
			w.wantSent(n+1, 0)
		}
	})
}

func TestClearForgetsTheToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		w.token(m)
		w.wantSent(1, 0)
		if err := m.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.token(m)
		w.wantSent(2, 0)
	})
}

func TestLateRefusalOfAnOldTokenIsNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		old := w.token(m)
		current, err := m.Refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			got, err := m.Renew(t.Context(), old)
			if err != nil || !got.Value.Equal(current.Value) {
				t.Fatalf("Renew of an old token: %v, or another token", err)
			}
		}
		if got := w.token(m); !got.Value.Equal(current.Value) {
			t.Error("the newer token was thrown away")
		}
		w.wantSent(1, 1)
	})
}

func TestRefusedCrowdMakesOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		old := w.token(m)
		w.Revoke("issuer")
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		for _, r := range ampCalls(ampMany(), func() (ampauth.Token, error) { return m.Renew(t.Context(), old) }) {
			if r.err != nil || r.after != time.Second || r.token.Value.Equal(old.Value) {
				t.Fatalf("after %v: %v, or the refused token", r.after, r.err)
			}
		}
		w.wantSent(2, 0)
		// Those whose refusal comes later are given the new one.
		for _, r := range ampCalls(100, func() (ampauth.Token, error) { return m.Renew(t.Context(), old) }) {
			if r.err != nil || r.after != 0 {
				t.Fatalf("after %v: %v", r.after, r.err)
			}
		}
		w.wantSent(2, 0)
	})
}

func TestRefusedTokenIsNotServedAgain(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		old := w.token(m)
		w.Revoke("issuer")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500, Times: -1})
		_, err := m.Renew(t.Context(), old)
		ampFailure(t, err, ampauth.ErrObtainFailed)
		_, err = m.Token(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
		w.ClearFaults()
		if got := w.token(m); got.Value.Equal(old.Value) {
			t.Error("the refused token is served")
		}
	})
}

func TestServerThatRefusesEveryTokenCostsAConstantNumberOfLogins(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{
		"same token each time": {},
		"new token each time":  {NewTokenEachLogin: true},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, cfg, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				for range 1000 {
					token := w.token(m)
					_, err := m.Renew(t.Context(), token)
					if err == nil {
						continue
					}
					e := ampFailure(t, err, ampauth.ErrObtainFailed)
					if e.Outcome != ampauth.Rejected || e.RetryAfter <= 0 || e.RetryAfter > 5*time.Second {
						t.Fatalf("error is %+v", e)
					}
				}
				if n := w.obtains(); n > 3 {
					t.Errorf("%d logins for 1000 refusals", n)
				}
			})
		})
	}
}

// The last word on a refused token holds for a while that grows, then one more
// login may show that the account is well again.
func TestAnotherLoginIsAllowedAfterTheHoldOff(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{
		"same token each time": {},
		"new token each time":  {NewTokenEachLogin: true},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, cfg, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				_, _ = m.Renew(t.Context(), w.token(m))
				for _, hold := range []time.Duration{5, 10, 20, 40, 60, 60} {
					hold *= time.Second
					sent := w.obtains()
					at := w.requests(ampObtain)[sent-1].at
					for _, left := range []time.Duration{hold, hold / 2, 1} {
						time.Sleep(time.Until(at.Add(hold - left)))
						_, err := m.Renew(t.Context(), w.token(m))
						if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Outcome != ampauth.Rejected || e.RetryAfter != left {
							t.Errorf("%v before the end of %v: %+v", left, hold, e)
						}
					}
					w.wantSent(sent, 0)
					time.Sleep(time.Nanosecond)
					token := w.token(m)
					got, err := m.Renew(t.Context(), token)
					if cfg.NewTokenEachLogin && (err != nil || got.Value.Equal(token.Value)) {
						t.Errorf("after the hold-off: %v, or the same token", err)
					}
					w.wantSent(sent+1, 0)
				}
			})
		})
	}
}

func TestHoldOffEndsWhenTheUserSaysSo(t *testing.T) {
	for name, end := range map[string]func(*ampauth.TokenManager) error{
		"Clear": func(m *ampauth.TokenManager) error { return m.Clear(context.Background()) },
		"SetCredentials": func(m *ampauth.TokenManager) error {
			return m.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)})
		},
		"ForceRefresh": func(m *ampauth.TokenManager) error { _, err := m.ForceRefresh(context.Background()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				for range 10 {
					_, err := m.Renew(t.Context(), w.token(m))
					ampFailure(t, err, ampauth.ErrObtainFailed)
				}
				if err := end(m); err != nil {
					t.Fatal(err)
				}
				token := w.token(m)
				w.Revoke("issuer")
				if got, err := m.Renew(t.Context(), token); err != nil || got.Value.Equal(token.Value) {
					t.Errorf("Renew: %v, or the refused token", err)
				}
			})
		})
	}
}

// A token that the API has accepted went bad later: that is worth a login at once.
func TestAcceptedTokenIsRenewedWithoutHoldOff(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		c := w.client()
		for range 10 {
			for range 3 {
				took := ampElapsed(func() {
					resp, err := c.Get(w.url + "/api/assets")
					if err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					if resp.StatusCode != 200 {
						t.Errorf("status %d", resp.StatusCode)
					}
				})
				if took != 0 {
					t.Errorf("it took %v", took)
				}
			}
			w.Revoke("issuer")
		}
		w.wantSent(10, 0)
		if s := c.Stats(); s.Renewals != 9 || s.Obtains != 10 || s.Replays != 9 {
			t.Errorf("Stats = %+v", s)
		}
	})
}

func TestClearDuringALoginIsNotUndone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		_, err := m.Token(ampWithin(t, 200*time.Millisecond))
		ampFailure(t, err, context.DeadlineExceeded)
		time.Sleep(100 * time.Millisecond)
		_ = m.Clear(t.Context())
		time.Sleep(time.Second)
		if info, ok := m.Info(); ok {
			t.Errorf("the token is back: %+v", info)
		}
		w.token(m)
		w.wantSent(2, 0)
	})
}

func TestClearDuringABackgroundRefreshIsNotUndone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		time.Sleep(ampStale)
		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: time.Second})
		w.token(m)
		synctest.Wait()
		_ = m.Clear(t.Context())
		time.Sleep(2 * time.Second)
		if _, ok := m.Info(); ok {
			t.Error("the token is back")
		}
	})
}

// AMP gives the same token to the next login, so one that was refused meanwhile
// may well come back.
func TestRefusalDuringALoginIsNotUndone(t *testing.T) {
	for _, state := range []string{"with the token", "cleared before"} {
		t.Run(state, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				old := w.token(m)
				if state == "cleared before" {
					_ = m.Clear(t.Context())
				}
				// The server answers and is slow to send it; meanwhile the token dies.
				w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: time.Second})
				slow := ampStart(func() (ampauth.Token, error) { return m.Obtain(t.Context()) })
				w.Revoke("issuer")
				renewed := ampStart(func() (ampauth.Token, error) { return m.Renew(t.Context(), old) })
				if r := <-slow; r.err != nil || r.after != time.Second {
					t.Errorf("Obtain: %v after %v", r.err, r.after)
				}
				r := <-renewed
				if r.err != nil || r.token.Value.Equal(old.Value) {
					t.Errorf("Renew: %v, or the refused token", r.err)
				}
				if got := w.token(m); ampReveal(got.Value) != w.Server.Token("issuer") {
					t.Error("a dead token is served")
				}
				w.wantSent(3, 0)
			})
		})
	}
}

func TestRefusalThatNobodyWaitsForIsNotUndoneByALogin(t *testing.T) {
	refuse := func(t *testing.T, m *ampauth.TokenManager, token ampauth.Token) {
		t.Helper()
		if _, err := m.Renew(ampWithin(t, 100*time.Millisecond), token); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Renew: %v", err)
		}
	}
	for state, test := range map[string]struct {
		before func(*ampauth.TokenManager)
		after  func(t *testing.T, m *ampauth.TokenManager, older ampauth.Token)
	}{
		"with the token":                {},
		"cleared before":                {before: func(m *ampauth.TokenManager) { _ = m.Clear(context.Background()) }},
		"an older one refused after it": {after: refuse},
		"ForceRefresh after it": {after: func(t *testing.T, m *ampauth.TokenManager, _ ampauth.Token) {
			_, _ = m.ForceRefresh(ampWithin(t, 100*time.Millisecond))
		}},
	} {
		t.Run(state, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				older := w.token(m)
				old, err := m.Refresh(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if test.before != nil {
					test.before(m)
				}
				w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: time.Second})
				slow := ampStart(func() (ampauth.Token, error) { return m.Obtain(t.Context()) })
				w.Revoke("issuer")
				refuse(t, m, old)
				if test.after != nil {
					test.after(t, m, older)
				}
				<-slow
				if got := w.token(m); got.Value.Equal(old.Value) {
					t.Error("the refused token is served")
				}
			})
		})
	}
}

func TestSetCredentialsDuringALogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Credentials.Password = ampauth.SecretFromString("outdated password") })
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		outdated := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		time.Sleep(300 * time.Millisecond)
		if err := m.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)}); err != nil {
			t.Error(err)
		}
		if took := ampElapsed(func() { w.token(m) }); took != 0 {
			t.Errorf("the login with the new password waited %v for that with the old one", took)
		}
		if r := <-outdated; r.err != nil || r.after != 300*time.Millisecond {
			t.Errorf("who waited for the login with the old password got %v after %v", r.err, r.after)
		}
		// The refusal of the old password is not held against the new one.
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantSent(3, 0)
	})
}

func TestSetCredentialsKeepsTheTokenOfTheSameUserOnly(t *testing.T) {
	ampBubble(t, fakeamp.Config{Users: map[string]string{"issuer": ampPassword, "other": "another password"}}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		first := w.token(m)
		_ = m.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("changed")})
		if got := w.token(m); !got.Value.Equal(first.Value) {
			t.Error("another token after a change of password")
		}
		w.wantSent(1, 0)
		_ = m.SetCredentials(ampauth.Credentials{Username: "other", Password: ampauth.SecretFromString("another password")})
		if _, ok := m.Info(); ok {
			t.Error("there is still a token of the former user")
		}
		if got := w.token(m); ampReveal(got.Value) != w.Server.Token("other") {
			t.Error("the token is not that of the new user")
		}
		w.wantSent(2, 0)
	})
}

func TestLateResultNeverReplacesANewerOne(t *testing.T) {
	for name, end := range map[string]func(*ampauth.TokenManager){
		"Clear": func(m *ampauth.TokenManager) { _ = m.Clear(context.Background()) },
		"SetCredentials": func(m *ampauth.TokenManager) {
			_ = m.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				// Performed at once and answered late: the first token is dead by then.
				w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: 5 * time.Second})
				late := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
				end(m)
				newer := w.token(m)
				if r := <-late; r.err != nil || !r.token.Value.Equal(newer.Value) {
					t.Errorf("who waited for the late one: %v, or another token", r.err)
				}
				time.Sleep(10 * time.Second)
				if got := w.token(m); !got.Value.Equal(newer.Value) {
					t.Error("the late result replaced the newer token")
				}
				w.wantSent(2, 0)
			})
		})
	}
}

func TestLateFailureDoesNotHoldUpWhatCameAfter(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429, Delay: time.Second, Header: http.Header{"Retry-After": {"600"}}})
		late := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		_ = m.Clear(t.Context())
		w.token(m)
		if r := <-late; r.err != nil {
			t.Errorf("who waited for it: %v", r.err)
		}
		time.Sleep(2 * time.Second)
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Errorf("logins are paused: %v", err)
		}
	})
}

// Whatever is called in whatever order: no error, no deadlock, and in the end the
// token is the server's.
func TestCallsInAnyOrderEndInTheServersToken(t *testing.T) {
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Delay: 20 * time.Millisecond, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Lifetime = 400 * time.Millisecond })
				credentials := ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)}
				var wg sync.WaitGroup
				for range 30 {
					wg.Go(func() {
						for range 20 {
							time.Sleep(rand.N(50 * time.Millisecond))
							var err error
							switch rand.N(8) {
							case 0:
								_, err = m.Obtain(t.Context())
							case 1:
								_, err = m.Refresh(t.Context())
							case 2:
								_, err = m.ForceRefresh(t.Context())
							case 3:
								err = m.Clear(t.Context())
							case 4:
								err = m.SetCredentials(credentials)
							case 5:
								m.Info()
							default:
								var token ampauth.Token
								if token, err = m.Token(t.Context()); err == nil && ampReveal(token.Value) == "" {
									t.Error("an empty token")
								}
							}
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				time.Sleep(time.Minute)
				if got := w.token(m); ampReveal(got.Value) != w.Server.Token("issuer") {
					t.Error("the token is not the server's")
				}
			})
		})
	}
}

func TestLoginsAndRefreshesAreLoggedWithOutcomeAndTime(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log ampLog
		m := w.manager(log.into)
		check := func(message, level, outcome string, elapsed time.Duration) {
			t.Helper()
			synctest.Wait()
			found := log.records(t, message)
			if len(found) != 1 {
				t.Fatalf("%d records %q, want 1:\n%s", len(found), message, log.String())
			}
			r := found[0]
			if r["level"] != level || r["outcome"] != outcome || r["elapsed"] != float64(elapsed) {
				t.Errorf("record is %v", r)
			}
		}
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		w.token(m)
		check("ampauth: logged in", "INFO", "ok", 2*time.Second)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 3 * time.Second})
		_, _ = m.Refresh(t.Context())
		check("ampauth: token refreshed", "INFO", "ok", 3*time.Second)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500, Delay: time.Second})
		_, _ = m.Refresh(t.Context())
		check("ampauth: refresh failed, logging in instead", "INFO", "Answered", time.Second)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 404, Delay: 4 * time.Second})
		_, _ = m.Obtain(t.Context())
		check("ampauth: login failed", "INFO", "Answered", 4*time.Second)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Delay: 5 * time.Second})
		for range 10 { // the pause is not logged
			_, _ = m.Obtain(t.Context())
		}
		check("ampauth: the credentials were refused", "WARN", "Answered", 5*time.Second)
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, `"ERROR"`) || strings.Count(line, "WARN") > 0 && !strings.Contains(line, "credentials were refused") {
				t.Errorf("unexpected record %s", line)
			}
		}
	})
}

func TestLogsAndErrorsOfTheTokenManagerShowNoSecret(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log ampLog
		var said strings.Builder
		m := w.manager(log.into)
		tokens := []string{ampReveal(w.token(m).Value)}
		call := func(do func(context.Context) (ampauth.Token, error), faults ...fakeamp.Fault) {
			w.Inject(faults...)
			token, err := do(t.Context())
			fmt.Fprintf(&said, "%v %+v %#v %v %+v %#v\n", err, err, err, token, token, token)
			for e := err; e != nil; e = errors.Unwrap(e) {
				fmt.Fprintf(&said, "%v %+v %#v\n", e, e, e)
			}
			if err == nil {
				tokens = append(tokens, ampReveal(token.Value))
			}
			w.ClearFaults()
			fmt.Fprintf(&said, "%v %+v %#v\n", w.config(), w.config(), w.config())
		}
		echo := func() string {
			return fmt.Sprintf("user issuer password %s token %s", ampPassword, tokens[len(tokens)-1])
		}
		renew := func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, w.token(m)) }
		call(m.Refresh)
		call(m.Refresh, fakeamp.Fault{Route: ampRefresh, Status: 401, Body: echo()})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 500, Body: echo(), Times: -1})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Body: echo()})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Body: `{"token":"` + echo() + `"}`})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Do: fakeamp.CutBody, Times: -1})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 302, Header: http.Header{"Location": {"/?" + echo()}}})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {echo()}}, Times: -1})
		call(renew)
		call(renew)
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 400, Body: `"` + echo() + `"`})
		call(m.Obtain)
		call(m.ForceRefresh)
		w.answer(ampObtain, func(rw http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", echo())
			_ = conn.Close()
		})
		call(m.Obtain)
		synctest.Wait()

		if !strings.Contains(log.String(), "ampauth: the credentials were refused") {
			t.Error("the log is not that of a rough day")
		}
		for _, secret := range append(tokens, ampPassword) {
			if strings.Contains(log.String(), secret) || strings.Contains(said.String(), secret) {
				t.Error("a log or an error shows a secret")
			}
		}
		if slices.Contains(tokens, "") {
			t.Error("a token is empty")
		}
	})
}

func TestWithoutALoggerNothingIsWritten(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Logger = nil })
		w.token(m)
		for _, route := range []string{ampRefresh, ampObtain} {
			w.Inject(fakeamp.Fault{Route: route, Status: 400})
			_, _ = m.Refresh(t.Context())
		}
		_, err := m.Obtain(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
	})
}

func TestStatsCountWhatBecameOfTokens(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		c := w.client()
		m := c.Tokens
		var want ampauth.Stats
		check := func(what string) {
			t.Helper()
			got := c.Stats()
			got.Waits, got.Waited = 0, 0
			if got != want {
				t.Errorf("after %s: %+v, want %+v", what, got, want)
			}
		}
		check("nothing")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500}) // attempts are not counted
		w.token(m)
		want.Obtains++
		check("a login")
		w.token(m)
		check("a token from memory")
		_, _ = m.Refresh(t.Context())
		want.Refreshes++
		check("a refresh")
		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500})
		_, _ = m.Refresh(t.Context())
		want.RefreshFailures++
		want.Obtains++
		check("a failed refresh")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 404})
		_, _ = m.Obtain(t.Context())
		want.ObtainFailures++
		check("a failed login")
		token := w.token(m)
		w.Revoke("issuer")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Error(err)
		}
		want.Obtains++
		want.Renewals++
		check("a renewal")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Error(err)
		}
		check("a late refusal")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		for range 5 {
			_, _ = m.Obtain(t.Context())
		}
		want.ObtainFailures++
		check("a pause")
	})
}
