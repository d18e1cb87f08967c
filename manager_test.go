package ampauth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
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
