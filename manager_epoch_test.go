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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestFlightThatWaitedForTheLockDoesNotTouchTheTokenOfAnotherUser(t *testing.T) {
	for name, call := range map[string]func(*ampauth.TokenManager, context.Context) (ampauth.Token, error){
		"Token": (*ampauth.TokenManager).Token, "Obtain": (*ampauth.TokenManager).Obtain,
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
				store := newMemoryStore()
				release := w.holdLock(store) // of the first user
				m := w.manager(storedIn(store))
				first := ampStart(func() (ampauth.Token, error) { return call(m, t.Context()) })
				time.Sleep(time.Second)
				if err := m.SetCredentials(ampUser("other")); err != nil {
					t.Fatal(err)
				}
				r := <-first
				if r.err != nil || r.after != time.Second || ampReveal(r.token.Value) != w.Server.Token("other") {
					t.Errorf("who waited for the first user's login: %v after %v, or not the second's token", r.err, r.after)
				}
				release()
				time.Sleep(time.Minute)
				if got := w.token(m); ampReveal(got.Value) != w.Server.Token("other") || !got.Value.Equal(r.token.Value) {
					t.Error("the second user's token was ended")
				}
				w.wantSent(1, 0)
			})
		})
	}
}

func TestRefusalOfAnotherUsersTokenIsNoRenewal(t *testing.T) {
	wantOtherUser := func(t *testing.T, err error) {
		t.Helper()
		e := stubError(t, err, ampauth.ErrObtainFailed)
		if e.Outcome != ampauth.Rejected || !strings.Contains(err.Error(), "another user's by now") {
			t.Errorf("%+v", e)
		}
	}
	for _, state := range []string{"without a token", "with one"} {
		t.Run("changed before, "+state, func(t *testing.T) {
			ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
				m := w.manager(storedIn(newMemoryStore()))
				token := w.token(m)
				w.Revoke("issuer")
				_ = m.SetCredentials(ampUser("other"))
				sent := 1
				if state == "with one" {
					w.token(m)
					sent = 2
				}
				_, err := m.Renew(t.Context(), token)
				wantOtherUser(t, err)
				w.wantSent(sent, 0)
				if got := w.token(m); ampReveal(got.Value) != w.Server.Token("other") {
					t.Error("the second user has another token")
				}
			})
		})
	}
	t.Run("changed during the login", func(t *testing.T) {
		ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
			m := w.manager()
			token := w.token(m)
			w.Revoke("issuer")
			w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
			renewal := ampStart(func() (ampauth.Token, error) { return m.Renew(t.Context(), token) })
			_ = m.SetCredentials(ampUser("other"))
			r := <-renewal
			wantOtherUser(t, r.err)
			if r.after != 0 {
				t.Errorf("it waited %v", r.after)
			}
			w.wantSent(2, 0)
		})
	})
	t.Run("a stored token", func(t *testing.T) {
		ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
			store := newMemoryStore()
			w.token(w.manager(storedIn(store)))
			m := w.manager(storedIn(store))
			token := w.token(m)
			_ = m.SetCredentials(ampUser("other"))
			_, err := m.Renew(t.Context(), token)
			wantOtherUser(t, err)
			w.wantSent(1, 0)
		})
	})
	t.Run("nobody waits", func(t *testing.T) {
		ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
			m := w.manager()
			auth := &ampauth.AuthTransport{Source: m, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				_ = m.SetCredentials(ampUser("other"))
				return w.transport.RoundTrip(req)
			})}
			w.token(m)
			w.Revoke("issuer")
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/api/assets", nil)
			resp, err := auth.RoundTrip(req)
			if err != nil || resp.StatusCode != 401 {
				t.Fatalf("%v, %v", resp, err)
			}
			_ = resp.Body.Close()
			synctest.Wait()
			w.wantSent(1, 0)
		})
	})
}

func TestRefusalIsRenewedAsTheSameUser(t *testing.T) {
	for name, change := range map[string]func(*ampauth.TokenManager){
		"after a change of password": func(m *ampauth.TokenManager) { _ = m.SetCredentials(ampUser("issuer")) },
		"after another user in between": func(m *ampauth.TokenManager) {
			_, _ = m.SetCredentials(ampUser("other")), m.SetCredentials(ampUser("issuer"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				token := w.token(m)
				w.Revoke("issuer")
				change(m)
				got, err := m.Renew(t.Context(), token)
				if err != nil || ampReveal(got.Value) != w.Server.Token("issuer") || got.Value.Equal(token.Value) {
					t.Errorf("Renew: %v, or not a new token of the user", err)
				}
			})
		})
	}
}

// Users that change while 30 callers send, are refused and renew: what a caller began
// as one user it goes on with as that user, or not at all.
func TestWhatLeftAsOneUserIsNeverSentAgainAsAnother(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := new(userServer)
				users := make([]ampauth.Credentials, 2)
				for i, name := range []string{"alice", "bob"} {
					users[i] = ampauth.Credentials{Username: name, Password: ampauth.SecretFromString("of " + name)}
				}
				cfg := ampauth.Config{BaseURL: "https://amp.test/api", Credentials: users[0], HTTPClient: &http.Client{Transport: server}}
				if stored {
					cfg.Store = newMemoryStore()
				}
				m, err := ampauth.NewTokenManager(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				userOf := func(token ampauth.Token) string {
					user, _, _ := strings.Cut(ampReveal(token.Value), ".")
					return user
				}
				var renewed, refused atomic.Int32
				var callers sync.WaitGroup
				for range 30 {
					callers.Go(func() {
						for range 40 {
							time.Sleep(rand.N(10 * time.Millisecond))
							token, err := m.Token(t.Context())
							if err != nil {
								t.Error(err)
								return
							}
							began := userOf(token)
							time.Sleep(rand.N(10 * time.Millisecond)) // the request, which is refused
							again, err := m.Renew(t.Context(), token)
							switch {
							case err == nil && userOf(again) != began:
								t.Errorf("what left as %s is sent again as %s", began, userOf(again))
							case err == nil:
								renewed.Add(1)
							case strings.Contains(err.Error(), "another user's"):
								refused.Add(1)
							}
						}
					})
				}
				ctx, stop := context.WithCancel(t.Context())
				var changer sync.WaitGroup
				changer.Go(func() {
					for i := 1; ctx.Err() == nil; i++ {
						time.Sleep(rand.N(60 * time.Millisecond))
						if err := m.SetCredentials(users[i%2]); err != nil {
							t.Error(err)
						}
					}
				})
				callers.Wait()
				stop()
				changer.Wait()
				if renewed.Load() == 0 || refused.Load() == 0 || server.wrong.Load() > 0 {
					t.Errorf("%d renewed, %d not, %d logins with the other's password", renewed.Load(), refused.Load(), server.wrong.Load())
				}
			})
		})
	}
}

// Users that change while 30 callers send through the whole stack: all attempts of a
// call carry the token of one user.
func TestAttemptsOfOneCallAreSentAsOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login := new(userServer)
		var mu sync.Mutex
		seen := make(map[string][]string) // users by the name of the call
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "obtain_token") {
				return login.RoundTrip(req)
			}
			stubUse(req)
			user, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("Authorization"), "token "), ".")
			id := req.Header.Get("X-Call")
			mu.Lock()
			seen[id] = append(seen[id], user)
			first := len(seen[id]) == 1
			mu.Unlock()
			time.Sleep(rand.N(10 * time.Millisecond))
			switch {
			case first && rand.N(2) == 0:
				return stubResponse(401, "{}"), nil
			case first && rand.N(2) == 0:
				return stubResponse(503, "{}"), nil
			}
			return stubResponse(200, "{}"), nil
		})
		users := make([]ampauth.Credentials, 2)
		for i, name := range []string{"alice", "bob"} {
			users[i] = ampauth.Credentials{Username: name, Password: ampauth.SecretFromString("of " + name)}
		}
		client, err := ampauth.NewClient(ampauth.Config{
			BaseURL: "https://amp.test/api", Credentials: users[0], HTTPClient: &http.Client{Transport: base},
			Retry: ampauth.RetryConfig{BaseDelay: 10 * time.Millisecond, Budget: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var callers sync.WaitGroup
		for c := range 30 {
			callers.Go(func() {
				for i := range 40 {
					time.Sleep(rand.N(10 * time.Millisecond))
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://amp.test/api/assets", nil)
					req.Header.Set("X-Call", fmt.Sprint(c, " ", i))
					resp, err := client.Do(req)
					switch {
					case err == nil:
						_ = resp.Body.Close()
					case !strings.Contains(err.Error(), "another user's"):
						t.Error(errors.Unwrap(err))
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { callers.Wait(); close(done) }()
		for i := 1; ; i++ {
			select {
			case <-done:
				for id, users := range seen {
					if len(slices.Compact(slices.Clone(users))) > 1 {
						t.Errorf("call %s was sent as %v", id, users)
					}
				}
				return
			case <-time.After(rand.N(40 * time.Millisecond)):
				_ = client.Tokens.SetCredentials(users[i%2])
			}
		}
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

func TestFaultyCredentialsChangeNothing(t *testing.T) {
	destroyed := ampauth.SecretFromString("x")
	destroyed.Destroy()
	password := ampauth.SecretFromString(ampPassword)
	for name, test := range map[string]struct {
		credentials ampauth.Credentials
		fields      []string
	}{
		"empty":              {ampauth.Credentials{}, []string{"Credentials.Username", "Credentials.Password"}},
		"no user":            {ampauth.Credentials{Username: " ", Password: password}, []string{"Credentials.Username"}},
		"no password":        {ampauth.Credentials{Username: "issuer"}, []string{"Credentials.Password"}},
		"destroyed password": {ampauth.Credentials{Username: "issuer", Password: destroyed}, []string{"Credentials.Password"}},
		"no UTF-8":           {ampauth.Credentials{Username: "\xff", Password: password}, []string{"Credentials.Username"}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager()
				token := w.token(m)
				err := m.SetCredentials(test.credentials)
				if !errors.Is(err, ampauth.ErrConfig) {
					t.Errorf("error is %v", err)
				}
				for _, field := range test.fields {
					if err == nil || !strings.Contains(err.Error(), field) {
						t.Errorf("%s is not named: %v", field, err)
					}
				}
				if got := w.token(m); !got.Value.Equal(token.Value) {
					t.Error("the token is gone")
				}
				if _, err := m.Obtain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
