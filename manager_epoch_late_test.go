package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestClearDuringALoginIsNotUndone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		_, err := m.Token(ampWithin(t, 200*time.Millisecond))
		stubError(t, err, context.DeadlineExceeded)
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
