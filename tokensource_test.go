package ampauth_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestTokenEndsAtItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := ampauth.Token{ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
		check := func(age time.Duration, expired, soon bool) {
			t.Helper()
			if got := token.IsExpired(); got != expired {
				t.Errorf("after %v: IsExpired = %v", age, got)
			}
			if got := token.ExpiresSoon(5 * time.Minute); got != soon {
				t.Errorf("after %v: ExpiresSoon(5m) = %v", age, got)
			}
			if got := token.Age(); got != age {
				t.Errorf("after %v: Age = %v", age, got)
			}
		}
		check(0, false, false)
		time.Sleep(55*time.Minute - 1)
		check(55*time.Minute-1, false, false)
		time.Sleep(time.Nanosecond)
		check(55*time.Minute, false, true)
		time.Sleep(5*time.Minute - 1)
		check(time.Hour-1, false, true)
		time.Sleep(time.Nanosecond)
		check(time.Hour, true, true)
	})
}

func TestTokenWithoutExpiryHasNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := ampauth.Token{ObtainedAt: time.Now()}
		time.Sleep(100 * 365 * 24 * time.Hour)
		if token.IsExpired() || token.ExpiresSoon(1<<62) {
			t.Error("a token without expiry is expired, or will be soon")
		}
		if got := (ampauth.Token{}).Age(); got != 0 {
			t.Errorf("Age = %v without ObtainedAt, want 0", got)
		}
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

func TestStaticTokenSourceYieldsItsToken(t *testing.T) {
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("a-token"))
	token, err := source.Token(t.Context())
	if err != nil || ampReveal(token.Value) != "a-token" || token.IsExpired() {
		t.Errorf("Token = %v, %v", token, err)
	}
	if _, renews := source.(ampauth.Renewer); renews {
		t.Error("it claims to renew")
	}
}

func TestEmptyStaticTokenSourceIsAnError(t *testing.T) {
	destroyed := ampauth.SecretFromString("a-token")
	destroyed.Destroy()
	for name, secret := range map[string]ampauth.Secret{
		"zero": {}, "made of nothing": ampauth.SecretFromString(""), "destroyed": destroyed,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ampauth.StaticTokenSource(secret).Token(t.Context())
			if e := ampFailure(t, err, ampauth.ErrObtainFailed); e.Outcome != ampauth.NotSent {
				t.Errorf("Outcome = %v, want NotSent", e.Outcome)
			}
		})
	}
}
