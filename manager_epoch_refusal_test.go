package ampauth_test

import (
	"context"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

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
		stubError(t, err, ampauth.ErrObtainFailed)
		_, err = m.Token(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
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
					e := stubError(t, err, ampauth.ErrObtainFailed)
					if e.Outcome != ampauth.Rejected || e.RetryAfter < 0 || e.RetryAfter > 20*time.Minute {
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

// The last word on a refused token stands for a while, then one more login may show that
// the account is well again: two at once, the next in 20 minutes, five in any hour.
func TestAnotherLoginIsAllowedAfterAWhile(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{
		"same token each time": {},
		"new token each time":  {NewTokenEachLogin: true},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, cfg, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) { c.Lifetime = -1 })
				w.token(m)
				const every = 10 * time.Second
				for range 6 * time.Hour / every {
					_, _ = m.Renew(t.Context(), w.token(m))
					time.Sleep(every)
				}
				logins := w.requests(ampObtain)[1:]
				if d := logins[1].at.Sub(logins[0].at); d > every {
					t.Errorf("the second login came after %v, want it at once", d)
				}
				for i := 2; i < len(logins); i++ {
					if d := logins[i].at.Sub(logins[i-1].at); d < 20*time.Minute || d > 20*time.Minute+2*every {
						t.Errorf("login %d came after %v, want 20 min", i+1, d)
					}
				}
				if most := w.mostInAnHour(ampObtain); most > 5 {
					t.Errorf("%d logins in an hour", most)
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
					stubError(t, err, ampauth.ErrObtainFailed)
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
