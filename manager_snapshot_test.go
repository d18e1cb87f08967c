package ampauth_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

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

func TestTokenLivesADayFromTheMomentItArrived(t *testing.T) {
	for name, test := range map[string]struct {
		lifetime, want time.Duration
	}{
		"default": {0, 24 * time.Hour},
		"own":     {90 * time.Minute, 90 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: 3 * time.Second})
				m := w.manager(func(c *ampauth.Config) { c.Lifetime = test.lifetime })
				token := w.token(m)
				now := time.Now()
				if !token.ObtainedAt.Equal(now) || !token.ExpiresAt.Equal(now.Add(test.want)) {
					t.Errorf("obtained at %v, ends at %v; the answer arrived at %v", token.ObtainedAt, token.ExpiresAt, now)
				}
				if got := ampReveal(token.Value); got != w.Server.Token("issuer") {
					t.Error("the token is not the one that the server gave")
				}
			})
		})
	}
}

func TestNegativeLifetimeIsNoEnd(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Lifetime = -1 })
		if token := w.token(m); !token.ExpiresAt.IsZero() {
			t.Errorf("the token ends at %v", token.ExpiresAt)
		}
		time.Sleep(50 * 365 * 24 * time.Hour)
		w.token(m)
		if info, ok := m.Info(); !ok || info.IsExpired || info.ExpiresSoon || info.ExpiresIn != 0 {
			t.Errorf("Info = %+v, %v", info, ok)
		}
		w.wantSent(1, 0)
	})
}

// Whoever wants a token for ever may well write the longest duration there is.
func TestLongestLifetimeIsNoShortOne(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Lifetime = 1<<63 - 1 })
		for range 10 {
			w.token(m)
			time.Sleep(time.Hour)
		}
		if info, ok := m.Info(); !ok || info.IsExpired || info.ExpiresSoon {
			t.Errorf("Info = %+v, %v", info, ok)
		}
		w.wantSent(1, 0)
	})
}

func TestInfoFollowsTheToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		if info, ok := m.Info(); ok || info != (ampauth.TokenInfo{}) {
			t.Errorf("before the first login Info = %+v, %v", info, ok)
		}
		token := w.token(m)
		check := func(age time.Duration, soon, expired bool) {
			t.Helper()
			want := ampauth.TokenInfo{
				ExpiresAt: token.ExpiresAt, ObtainedAt: token.ObtainedAt,
				ExpiresIn: 24*time.Hour - age, Age: age,
				ExpiresSoon: soon, IsExpired: expired,
			}
			if info, ok := m.Info(); !ok || info != want {
				t.Errorf("Info = %+v, %v, want %+v", info, ok, want)
			}
		}
		check(0, false, false)
		time.Sleep(23 * time.Hour)
		check(23*time.Hour, false, false)
		time.Sleep(56 * time.Minute)
		check(24*time.Hour-4*time.Minute, true, false)
		time.Sleep(4 * time.Minute)
		check(24*time.Hour, true, true)
		time.Sleep(time.Minute)
		check(24*time.Hour+time.Minute, true, true)
		w.wantSent(1, 0) // it does no I/O

		if err := m.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		if info, ok := m.Info(); ok {
			t.Errorf("after Clear Info = %+v", info)
		}
	})
}
