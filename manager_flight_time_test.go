package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestSlowLoginHasTheTimeThatIsConfigured(t *testing.T) {
	for name, test := range map[string]struct {
		retry   ampauth.RetryConfig
		faults  []fakeamp.Fault
		atLeast time.Duration
	}{
		"one attempt of 50 s": {
			ampauth.RetryConfig{Timeout: time.Minute}, []fakeamp.Fault{{Route: ampObtain, Delay: 50 * time.Second}}, 50 * time.Second,
		},
		"the last of three": {
			ampauth.RetryConfig{Timeout: time.Minute},
			[]fakeamp.Fault{{Route: ampObtain, Do: fakeamp.StallHeaders, Times: 2}, {Route: ampObtain, Delay: 50 * time.Second}}, 170 * time.Second,
		},
		"without a timeout": {
			ampauth.RetryConfig{Timeout: -1, MaxAttempts: 1}, []fakeamp.Fault{{Route: ampObtain, Delay: 50 * time.Second}}, 50 * time.Second,
		},
		"two Retry-After": {
			ampauth.RetryConfig{},
			[]fakeamp.Fault{{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {"60"}}, Times: 2}}, 2 * time.Minute,
		},
		"short attempts": {
			ampauth.RetryConfig{Timeout: time.Second, MaxAttempts: 2, MaxRetryAfter: time.Second, BaseDelay: time.Second, MaxDelay: time.Second},
			[]fakeamp.Fault{{Route: ampObtain, Status: 500}}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(test.faults...)
				m := w.manager(func(c *ampauth.Config) { c.Retry = test.retry })
				if took := ampElapsed(func() { w.token(m) }); took < test.atLeast {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// What a login may take by default: a refresh and three attempts of 10 s each, and
// two waits of 61 s.
const ampFlightTime = 2*time.Minute + 42*time.Second

// ampDeaf is a layer that takes its time, whatever the context says, in its first calls.
func ampDeaf(times int32, d time.Duration) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	var calls atomic.Int32
	return func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		if calls.Add(1) <= times {
			time.Sleep(d)
		}
		return base.RoundTrip(req.WithContext(context.WithoutCancel(req.Context())))
	}
}

func TestBaseThatIgnoresItsContextHoldsNobodyPastTheLoginsTime(t *testing.T) {
	for name, test := range map[string]struct {
		retry ampauth.RetryConfig
		limit time.Duration
	}{
		"by default": {ampauth.RetryConfig{}, ampFlightTime},
		"at least":   {ampauth.RetryConfig{MaxAttempts: 1, Timeout: time.Second}, 30 * time.Second},
		"configured": {ampauth.RetryConfig{MaxAttempts: 1, Timeout: 45 * time.Second}, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log ampLog
				m := w.manager(func(c *ampauth.Config) { c.Retry = test.retry }, w.over(ampDeaf(1, 10*time.Hour)), log.into)
				calls := []func(context.Context) (ampauth.Token, error){
					m.Token, m.Obtain, m.Refresh,
					func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, ampauth.Token{}) },
				}
				var results []<-chan ampResult
				for _, call := range calls {
					results = append(results, ampStart(func() (ampauth.Token, error) { return call(t.Context()) }))
				}
				for _, r := range results {
					r := <-r
					e := stubError(t, r.err, ampauth.ErrObtainFailed, ampauth.ErrTimeout, context.DeadlineExceeded)
					if r.after != test.limit || e.Limit != test.limit || !e.Timeout() {
						t.Errorf("after %v, want %v: %+v", r.after, test.limit, e)
					}
				}
				synctest.Wait()
				if n := len(log.records(t, "ampauth: login failed")); n != len(calls) {
					t.Errorf("%d of %d failures are logged while the base still hangs", n, len(calls))
				}
				// Nobody waits for it any more, and what it brings counts for nothing.
				if took := ampElapsed(func() { w.token(m) }); took > time.Second {
					t.Errorf("the next login took %v", took)
				}
				time.Sleep(11 * time.Hour)
				if info, _ := m.Info(); info.Age < 11*time.Hour {
					t.Errorf("the late token is there: %+v", info)
				}
			})
		})
	}
}

func TestCloseWaitsForALoginNoLongerThanItsTime(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(w.over(ampDeaf(1, 10*time.Hour)))
		waiter := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		time.Sleep(10 * time.Second)
		if took := ampElapsed(func() { _ = m.Close() }); took != ampFlightTime-10*time.Second {
			t.Errorf("Close took %v", took)
		}
		r := <-waiter
		stubError(t, r.err, ampauth.ErrClosed)
		if r.after != 10*time.Second {
			t.Errorf("the waiter left after %v", r.after)
		}
		time.Sleep(10 * time.Hour)
	})
}

func TestNoTokenIsHandedOutOnceCloseHasBegun(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(w.over(ampDeaf(1, time.Second)))
		var results []<-chan ampResult
		for _, call := range []func(context.Context) (ampauth.Token, error){
			m.Token, m.Obtain, m.Refresh, m.ForceRefresh,
			func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, ampauth.Token{}) },
		} {
			results = append(results, ampStart(func() (ampauth.Token, error) { return call(t.Context()) }))
		}
		time.Sleep(500 * time.Millisecond)
		if took := ampElapsed(func() { _ = m.Close() }); took != 500*time.Millisecond {
			t.Errorf("Close took %v, and the login ended after 500ms", took)
		}
		for _, r := range results {
			if r := <-r; !errors.Is(r.err, ampauth.ErrClosed) || !r.token.Value.IsZero() {
				t.Errorf("got %v, or a token", r.err)
			}
		}
	})
}

// Whoever is below may call back.
func TestLayerBelowMayCallTheManager(t *testing.T) {
	for name, call := range map[string]func(*ampauth.TokenManager){
		"Close": func(m *ampauth.TokenManager) { _ = m.Close() },
		"Clear": func(m *ampauth.TokenManager) { _ = m.Clear(context.Background()) },
		"Info":  func(m *ampauth.TokenManager) { m.Info() },
		"SetCredentials": func(m *ampauth.TokenManager) {
			_ = m.SetCredentials(ampUser("issuer"))
		},
		"Token": func(m *ampauth.TokenManager) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = m.Token(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var m *ampauth.TokenManager
				var calls atomic.Int32
				m = w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					if calls.Add(1) == 1 {
						call(m)
					}
					return base.RoundTrip(req)
				}))
				_, err := m.Token(t.Context())
				if name == "Close" {
					stubError(t, err, ampauth.ErrClosed)
				} else if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// At every moment of a login, whatever ends it.
func TestManyCallersAndEveryEndOfALogin(t *testing.T) {
	for name, do := range map[string]func(http.RoundTripper, *http.Request) (*http.Response, error){
		"panics":  ampDying(3, func() { panic("no") }),
		"exits":   ampDying(3, runtime.Goexit),
		"is deaf": ampDeaf(3, 2*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(w.over(do), storedIn(newMemoryStore()))
				calls := []func(context.Context) (ampauth.Token, error){m.Token, m.Obtain, m.Refresh, m.ForceRefresh}
				var n atomic.Int32
				for _, r := range ampCalls(1000, func() (ampauth.Token, error) {
					i := n.Add(1)
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*10*time.Millisecond)
					defer cancel()
					if i%100 == 0 {
						time.Sleep(time.Duration(i) * time.Millisecond)
						return ampauth.Token{}, m.Clear(ctx)
					}
					return calls[i%4](ctx)
				}) {
					if r.err != nil && !errors.Is(r.err, context.DeadlineExceeded) && !errors.Is(r.err, ampauth.ErrObtainFailed) {
						t.Error(r.err)
					}
				}
				time.Sleep(time.Minute)
				w.token(m)
				synctest.Wait()
				if took := ampElapsed(func() { _ = m.Close() }); took != 0 {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

func TestStalledLoginEndsByItsOwnDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		do    fakeamp.Action
		retry ampauth.RetryConfig
		limit time.Duration
	}{
		// A refresh and three attempts of a minute each, two waits of 61 s.
		"an attempt without a timeout": {fakeamp.StallHeaders, ampauth.RetryConfig{Timeout: -1}, 6*time.Minute + 2*time.Second},
		"a body that never ends":       {fakeamp.StallBody, ampauth.RetryConfig{Timeout: -1}, 6*time.Minute + 2*time.Second},
		"one attempt":                  {fakeamp.StallHeaders, ampauth.RetryConfig{Timeout: -1, MaxAttempts: 1}, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Do: test.do, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Retry = test.retry })
				var err error
				took := ampElapsed(func() { _, err = m.Token(t.Context()) })
				e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrTimeout, context.DeadlineExceeded)
				if took != test.limit || e.Limit != test.limit || e.Attempts != 1 || !e.Timeout() {
					t.Errorf("took %v, want %v: %+v", took, test.limit, e)
				}
				if want := "the login took longer than " + test.limit.String(); !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say whose time ran out: %v", err)
				}
				w.wantSent(1, 0)
				w.ClearFaults()
				w.token(m)
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
