package ampauth_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"golang.org/x/time/rate"
)

const ampAssets = "GET /assets"

// assets makes the call of a test in a bubble that is only read.
func (w *ampWorld) assets(client *ampauth.Client) int {
	w.t.Helper()
	resp, err := client.Get(w.url + "/api/assets")
	if err != nil {
		w.t.Error(err)
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// wantAtMost fails the test if more requests for a route arrived in any second.
func (w *ampWorld) wantAtMost(route string, most int) {
	w.t.Helper()
	sent := w.requests(route)
	for first := range sent {
		n := 0
		for _, r := range sent[first:] {
			if r.at.Sub(sent[first].at) < time.Second {
				n++
			}
		}
		if n > most {
			w.t.Fatalf("%d requests arrived within a second, want at most %d", n, most)
		}
	}
}

// Those who wait for a login in the queue of the limiter do not keep it from being made.
func TestCrowdBehindTheLimiterDoesNotKeepTheLoginFromBeingMade(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		limiter := rate.NewLimiter(2, 1)
		limiter.Allow()
		client := w.client(func(c *ampauth.Config) { c.Limiter = limiter })
		var served atomic.Int32
		took := ampElapsed(func() {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if w.assets(client) == 200 {
						served.Add(1)
					}
				})
			}
			wg.Wait()
		})
		if n := served.Load(); n != 100 || took.Round(time.Microsecond) != 50*time.Second {
			t.Errorf("%d of 100 calls were served after %v, want all after the 50 s of the limiter", n, took)
		}
		w.wantSent(1, 0)
		w.wantAtMost(ampAssets, 2)
	})
}

func TestTokensThatEndDoNotFailAnybodyBehindTheLimiter(t *testing.T) {
	takesLong(t, 5)
	const life = 10 * time.Minute
	for name, change := range map[string]func(*ampauth.Config){
		"refreshed ahead of time": func(*ampauth.Config) {},
		"replaced once it ended": func(c *ampauth.Config) {
			c.RefreshWindow, c.Renewal = -1, ampauth.ObtainOnly
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{Lifetime: life}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 300 * time.Millisecond, Times: -1})
				client := w.client(change, func(c *ampauth.Config) {
					c.Limiter, c.Lifetime = rate.NewLimiter(2, 1), life
				})
				end := time.Now().Add(time.Hour)
				var wg sync.WaitGroup
				for range 80 {
					wg.Go(func() {
						for time.Now().Before(end) {
							if status := w.assets(client); status != 200 {
								t.Errorf("status %d", status)
							}
						}
					})
				}
				wg.Wait()
				if n := len(w.requests(ampAssets)); n < 7000 {
					t.Errorf("%d requests arrived in an hour, want about 7,200", n)
				}
				if n := w.obtains() + w.refreshes(); n < 6 || n > 15 {
					t.Errorf("%d logins and refreshes in an hour of ten-minute tokens", n)
				}
				w.wantAtMost(ampAssets, 3)
			})
		})
	}
}

func TestThoseWhoWaitedForALoginLeaveThroughTheLimiter(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		const burst = 5
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 8 * time.Second})
		client := w.client(func(c *ampauth.Config) { c.Limiter = rate.NewLimiter(10, burst) })
		took := ampElapsed(func() {
			var wg sync.WaitGroup
			for range 80 {
				wg.Go(func() { w.assets(client) })
			}
			wg.Wait()
		})
		// The first 5 as the login ends, the others one after the other.
		if took.Round(time.Microsecond) != 15500*time.Millisecond {
			t.Errorf("took %v, want the 8 s of the login and 7.5 s", took)
		}
		w.wantSent(1, 0)
		w.wantAtMost(ampAssets, 10+burst)
	})
}

// Who waited for a login has waited for the limiter twice, and an attempt has its
// whole time after that.
func TestClockDoesNotRunInTheQueueBehindALogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(
			fakeamp.Fault{Route: ampObtain, Delay: 9 * time.Second},
			fakeamp.Fault{Route: ampAssets, Delay: 9 * time.Second},
		)
		client := w.client(func(c *ampauth.Config) { c.Limiter = rate.NewLimiter(rate.Every(time.Minute), 1) })
		took := ampElapsed(func() {
			if status := w.assets(client); status != 200 {
				t.Errorf("status %d", status)
			}
		})
		if took != time.Minute+9*time.Second {
			t.Errorf("took %v, want the minute of the limiter and 9 s of the server", took)
		}
		if s := client.Stats(); s.Waits != 1 || s.Waited != 51*time.Second {
			t.Errorf("%d waits of %v in all, want the one of 51 s behind the login", s.Waits, s.Waited)
		}
	})
}

func TestQueueBehindALoginThatDoesNotFitTheDeadlineFailsAtOnce(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		client := w.client(func(c *ampauth.Config) { c.Limiter = rate.NewLimiter(rate.Every(time.Hour), 1) })
		ctx := ampWithin(t, time.Minute)
		req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/api/assets", nil)
		if err != nil {
			t.Fatal(err)
		}
		took := ampElapsed(func() { _, err = client.Do(req) })
		e := stubError(t, err, ampauth.ErrRateLimited)
		if !e.Timeout() || e.Outcome != ampauth.NotSent || e.RetryAfter != 0 || ctx.Err() != nil || took != 2*time.Second {
			t.Errorf("got %v (%v) after %v, want a wait that does not fit, right after the login", err, e.Outcome, took)
		}
		// It says nothing of the server: the next has the token, and nobody is paused.
		if _, err := client.Tokens.Obtain(t.Context()); err != nil {
			t.Errorf("the next login failed: %v", err)
		}
	})
}

func TestTokenThatEndedInTheQueueIsNotSent(t *testing.T) {
	const life = 30 * time.Second
	ampBubble(t, fakeamp.Config{Lifetime: life}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second, Times: -1})
		client := w.client(func(c *ampauth.Config) {
			c.Limiter, c.Lifetime, c.RefreshWindow = rate.NewLimiter(rate.Every(time.Minute), 1), life, -1
		})
		if status := w.assets(client); status != 200 || len(w.requests(ampAssets)) != 1 {
			t.Errorf("status %d after %d requests, want 200 after 1", status, len(w.requests(ampAssets)))
		}
		w.wantSent(2, 0)
	})
}
