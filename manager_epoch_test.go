package ampauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

var ampTwoUsers = fakeamp.Config{Users: map[string]string{"issuer": ampPassword, "other": ampPassword}}

// ampUser are credentials of one of ampTwoUsers.
func ampUser(name string) ampauth.Credentials {
	return ampauth.Credentials{Username: name, Password: ampauth.SecretFromString(ampPassword)}
}

// ampBusy counts the logins and refreshes that a layer has under way.
type ampBusy struct{ now, most, all atomic.Int32 }

func (b *ampBusy) layer(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	b.all.Add(1)
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	return base.RoundTrip(req)
}

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
		e := ampFailure(t, err, ampauth.ErrObtainFailed)
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
			auth := &ampauth.AuthTransport{Source: m, Base: ampLayer(func(req *http.Request) (*http.Response, error) {
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

// A userServer is an AMP whose tokens tell whose they are.
type userServer struct {
	logins atomic.Int32
	wrong  atomic.Int32 // logins with another user's password
}

func (s *userServer) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(rand.N(20 * time.Millisecond))
	if !strings.HasSuffix(req.URL.Path, "obtain_token") {
		stubUse(req)
		return stubResponse(404, "{}"), nil // there is no refresh
	}
	var login struct{ Username, Password string }
	body, _ := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if json.Unmarshal(body, &login) != nil || login.Password != "of "+login.Username {
		s.wrong.Add(1)
	}
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-time.After(rand.N(20 * time.Millisecond)):
	}
	return stubResponse(200, fmt.Sprintf(`{"token":"%s.%d"}`, login.Username, s.logins.Add(1))), nil
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

func TestObtainIsNotServedFromTheStore(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		release := w.holdLock(store)
		m := w.manager(storedIn(store))
		token := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		obtain := ampStart(func() (ampauth.Token, error) { return m.Obtain(t.Context()) })
		refresh := ampStart(func() (ampauth.Token, error) { return m.Refresh(t.Context()) })
		key, _ := ampauth.NewStoreKey(w.url+"/api", "issuer")
		_ = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: time.Now()})
		stored := ampReveal(ampStoredValue(t, store, key))
		release()
		if r := <-token; r.err != nil || ampReveal(r.token.Value) != stored {
			t.Errorf("Token: %v, or not the stored one", r.err)
		}
		for name, call := range map[string]<-chan ampResult{"Obtain": obtain, "Refresh": refresh} {
			if r := <-call; r.err != nil || ampReveal(r.token.Value) == stored {
				t.Errorf("%s: %v, or the stored token", name, r.err)
			}
		}
		w.wantSent(1, 1)
	})
}

func ampStoredValue(t *testing.T, store ampauth.TokenStore, key ampauth.StoreKey) ampauth.Secret {
	t.Helper()
	token, err := store.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return token.Value
}

func TestObtainsOfOneMomentShareOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second, Times: -1})
		m := w.manager()
		for _, r := range ampCalls(1000, func() (ampauth.Token, error) { return m.Obtain(t.Context()) }) {
			if r.err != nil || r.after != time.Second {
				t.Fatalf("after %v: %v", r.after, r.err)
			}
		}
		w.wantSent(1, 0)
	})
}

func TestLoginsOfDifferentPurposesAreMadeOneAfterTheOther(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Delay: time.Second, Times: -1})
		var busy ampBusy
		m := w.manager(w.over(busy.layer))
		var results []<-chan ampResult
		for range 5 {
			for _, call := range []func(context.Context) (ampauth.Token, error){m.Token, m.Obtain, m.Refresh, m.ForceRefresh} {
				results = append(results, ampStart(func() (ampauth.Token, error) { return call(t.Context()) }))
			}
		}
		for _, r := range results {
			if r := <-r; r.err != nil || r.after > 3*time.Second {
				t.Errorf("after %v: %v", r.after, r.err)
			}
		}
		if busy.most.Load() != 1 || busy.all.Load() != 3 {
			t.Errorf("%d calls, %d at once; want 3, one after the other", busy.all.Load(), busy.most.Load())
		}
	})
}

func TestWrongPasswordCostsOneLoginWhateverIsCalled(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Delay: time.Second, Times: -1})
		m := w.manager()
		var results []<-chan ampResult
		for _, call := range []func(context.Context) (ampauth.Token, error){m.Token, m.Obtain, m.Refresh} {
			results = append(results, ampStart(func() (ampauth.Token, error) { return call(t.Context()) }))
		}
		for _, r := range results {
			r := <-r
			ampFailure(t, r.err, ampauth.ErrObtainFailed, ampauth.ErrCredentialsRefused)
		}
		w.wantSent(1, 0)
	})
}

func TestLoginThatNobodyWaitsForAnyMoreIsNotBegun(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		token := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		for range 50 {
			_, err := m.Obtain(ampWithin(t, 10*time.Millisecond))
			ampFailure(t, err, context.DeadlineExceeded)
		}
		if r := <-token; r.err != nil {
			t.Error(r.err)
		}
		synctest.Wait()
		w.wantSent(1, 0)
		if _, err := m.Obtain(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantSent(2, 0)
	})
}

func TestClearsAndShortDeadlinesNeverMakeTwoLoginsAtOnce(t *testing.T) {
	for name, end := range map[string]func(m *ampauth.TokenManager, n int){
		"Clear":        func(m *ampauth.TokenManager, _ int) { _ = m.Clear(context.Background()) },
		"another user": func(m *ampauth.TokenManager, n int) { _ = m.SetCredentials(ampUser([]string{"issuer", "other"}[n%2])) },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, ampTwoUsers, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Minute, Times: 50})
				var busy ampBusy
				m := w.manager(w.over(busy.layer), func(c *ampauth.Config) { c.Retry.Timeout = 2 * time.Minute })
				for n := range 50 {
					_, err := m.Token(ampWithin(t, 10*time.Millisecond))
					ampFailure(t, err, context.DeadlineExceeded)
					end(m, n)
				}
				synctest.Wait()
				if n := busy.now.Load(); n != 0 {
					t.Errorf("%d logins are under way that were ended", n)
				}
				w.token(m)
				if n := busy.most.Load(); n != 1 {
					t.Errorf("%d logins at once", n)
				}
			})
		})
	}
}

// A Base that does not obey its context cannot be ended. The next login waits a
// second for it, and no longer.
func TestLoginThatCannotBeEndedHoldsTheNextUpForASecond(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var calls atomic.Int32
		m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
			if calls.Add(1) == 1 {
				time.Sleep(time.Hour)
			}
			return base.RoundTrip(req)
		}))
		first := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		_ = m.Clear(t.Context())
		if took := ampElapsed(func() { w.token(m) }); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if r := <-first; r.err != nil || r.after != time.Second {
			t.Errorf("after %v: %v", r.after, r.err)
		}
		time.Sleep(time.Hour)
		w.wantSent(1, 0)
	})
}

func TestClearServesWhoWaitsByANewLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		// Performed at once, and answered late: by then the token is dead.
		w.Inject(fakeamp.Fault{Route: ampObtain, When: fakeamp.After, Delay: time.Hour})
		m := w.manager()
		waiter := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		_ = m.Clear(t.Context())
		r := <-waiter
		if r.err != nil || r.after != 0 || ampReveal(r.token.Value) != w.Server.Token("issuer") {
			t.Errorf("after %v: %v, or a dead token", r.after, r.err)
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
