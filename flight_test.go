package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// ampMany is how many goroutines a test of a crowd starts. The race detector
// bears about 8,000.
func ampMany() int {
	if raceEnabled {
		return 5_000
	}
	return 10_000
}

func TestColdCrowdMakesOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		want := ""
		for _, r := range ampCalls(ampMany(), func() (ampauth.Token, error) { return m.Token(t.Context()) }) {
			if r.err != nil || r.after != time.Second {
				t.Fatalf("after %v: %v", r.after, r.err)
			}
			if want == "" {
				want = w.Server.Token("issuer")
			}
			if ampReveal(r.token.Value) != want {
				t.Fatal("a caller got another token")
			}
		}
		w.wantSent(1, 0)
	})
}

// The crowd does not arrive at once: some come while the login lands.
func TestTricklingCrowdMakesOneLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		for _, r := range ampCalls(ampMany(), func() (ampauth.Token, error) {
			runtime.Gosched()
			return m.Token(t.Context())
		}) {
			if r.err != nil {
				t.Fatal(r.err)
			}
		}
		w.wantSent(1, 0)
	})
}

func TestFailingLoginIsSharedByAllWhoWait(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 404, Delay: 50 * time.Millisecond})
		m := w.manager()
		for _, r := range ampCalls(40, func() (ampauth.Token, error) { return m.Token(t.Context()) }) {
			if e := ampFailure(t, r.err, ampauth.ErrObtainFailed); e.StatusCode != 404 || r.after != 50*time.Millisecond {
				t.Errorf("after %v: %v", r.after, r.err)
			}
		}
		w.wantSent(1, 0)
		w.token(m) // the failure is not kept
		w.wantSent(2, 0)
	})
}

func TestWaiterLeavesAtItsOwnDeadline(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		for name, call := range map[string]func(context.Context) (ampauth.Token, error){
			"Token": m.Token, "Obtain": m.Obtain, "Refresh": m.Refresh, "ForceRefresh": m.ForceRefresh,
			"Renew": func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, ampauth.Token{}) },
		} {
			ctx := ampWithin(t, 50*time.Millisecond)
			var err error
			if took := ampElapsed(func() { _, err = call(ctx) }); took != 50*time.Millisecond {
				t.Errorf("%s took %v, want 50ms", name, took)
			}
			if e := ampFailure(t, err, ampauth.ErrObtainFailed, context.DeadlineExceeded); e.Outcome != ampauth.NotSent || !e.Timeout() {
				t.Errorf("%s: error is %+v", name, e)
			}
		}
		w.wantSent(1, 0)
		took := ampElapsed(func() { w.token(m) }) // the login went on
		if took != 750*time.Millisecond {
			t.Errorf("the login took %v more, want 750ms", took)
		}
		w.wantSent(1, 0)
	})
}

func TestFirstCallersCancellationFailsNobodyElse(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		m := w.manager()
		ctx, cancel := context.WithCancel(t.Context())
		first := ampStart(func() (ampauth.Token, error) { return m.Token(ctx) })
		second := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		time.Sleep(300 * time.Millisecond)
		cancel()
		if r := <-first; !errors.Is(r.err, context.Canceled) || r.after != 300*time.Millisecond {
			t.Errorf("the first left after %v: %v", r.after, r.err)
		}
		if r := <-second; r.err != nil || r.after != time.Second {
			t.Errorf("the second was served after %v: %v", r.after, r.err)
		}
		w.wantSent(1, 0)
	})
}

func TestCallerWhoHasLeftStartsNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.Token(ctx)
		ampFailure(t, err, ampauth.ErrObtainFailed, context.Canceled)
		w.wantSent(0, 0)
	})
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
				e := ampFailure(t, err, ampauth.ErrObtainFailed, ampauth.ErrTimeout, context.DeadlineExceeded)
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

type ampCallersKey struct{}

func TestFlightCarriesNothingOfItsCaller(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var traced atomic.Int32
		deadlines := make(chan time.Duration, 10)
		m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
			if req.Context().Value(ampCallersKey{}) != nil {
				t.Error("the login carries a value of the caller's")
			}
			deadline, _ := req.Context().Deadline()
			deadlines <- time.Until(deadline)
			return base.RoundTrip(req)
		}))
		ctx := context.WithValue(ampWithin(t, time.Minute), ampCallersKey{}, "theirs")
		ctx = ampauth.WithoutRetry(ampauth.WithOperation(ctx, ampauth.MutatingOperation))
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GetConn:          func(string) { traced.Add(1) },
			WroteHeaderField: func(string, []string) { traced.Add(1) },
		})
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500})
		for _, call := range []func(context.Context) (ampauth.Token, error){m.Token, m.Obtain, m.Refresh} {
			if _, err := call(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n := traced.Load(); n != 0 {
			t.Errorf("the caller's trace saw the login %d times", n)
		}
		close(deadlines)
		for d := range deadlines {
			if d <= time.Minute {
				t.Errorf("an attempt at the login has %v, want what is left of the flight's time, not of the caller's minute", d)
			}
		}
		w.wantSent(3, 1)
	})
}

// ampDying is a layer that dies in its first calls, as somebody else's may.
func ampDying(times int32, die func()) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	var calls atomic.Int32
	return func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		if calls.Add(1) <= times {
			time.Sleep(time.Second)
			if req.Body != nil {
				_ = req.Body.Close()
			}
			die()
		}
		return base.RoundTrip(req)
	}
}

func TestLayerThatDiesIsOneClearErrorForAllWhoWait(t *testing.T) {
	var nothing []int
	for name, die := range map[string]func(){
		"panic":         func() { panic("canary-of-a-panic") },
		"runtime error": func() { _ = nothing[len(nothing)] },
		"nil panic":     func() { panic(nil) },
		"abort":         func() { panic(http.ErrAbortHandler) },
		"goexit":        runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log ampLog
				m := w.manager(log.into, w.over(ampDying(1, die)))
				for _, r := range ampCalls(20, func() (ampauth.Token, error) { return m.Token(t.Context()) }) {
					ampFailure(t, r.err, ampauth.ErrObtainFailed)
					if r.after != time.Second {
						t.Errorf("a waiter was told after %v", r.after)
					}
					if !strings.Contains(r.err.Error(), "layer below") {
						t.Errorf("the error does not say who died: %v", r.err)
					}
					if strings.Contains(fmt.Sprintf("%v %+v", r.err, r.err)+log.String(), "canary") {
						t.Errorf("the error shows the panic's value: %v", r.err)
					}
				}
				synctest.Wait()
				if len(log.records(t, "ampauth: login failed")) != 1 {
					t.Errorf("the log has not one record of it:\n%s", log.String())
				}
				w.token(m)
				w.wantSent(1, 0)
			})
		})
	}
}

// An ampPanickingBody is somebody else's body that panics when it is read.
type ampPanickingBody struct{}

func (ampPanickingBody) Read([]byte) (int, error) { panic("canary-of-a-panic") }
func (ampPanickingBody) Close() error             { return nil }

// TestBodyThatPanicsIsAnErrorOfTheLogin runs itself as a process for each status,
// since a panic on a goroutine of the library would end it.
func TestBodyThatPanicsIsAnErrorOfTheLogin(t *testing.T) {
	const env = "AMPAUTH_TEST_PANICKING_BODY"
	if status, err := strconv.Atoi(os.Getenv(env)); err == nil {
		m, err := ampauth.NewTokenManager(ampauth.Config{
			BaseURL:     "https://amp.test/api",
			Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
			HTTPClient: &http.Client{Transport: ampLayer(func(req *http.Request) (*http.Response, error) {
				_ = req.Body.Close()
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: ampPanickingBody{}}, nil
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		_, err = m.Token(t.Context())
		ampFailure(t, err, ampauth.ErrObtainFailed)
		return
	}
	for _, status := range []int{200, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestBodyThatPanicsIsAnErrorOfTheLogin$", "-test.count=1")
			child.Env = append(os.Environ(), fmt.Sprint(env, "=", status))
			if output, err := child.CombinedOutput(); err != nil {
				t.Errorf("the process ended: %v\n%.300s", err, output)
			}
		})
	}
}

func TestLayerThatDiesInARefreshLeavesTheToken(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic("no") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var dying atomic.Bool
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					if dying.Load() {
						die()
					}
					return base.RoundTrip(req)
				}))
				first := w.token(m)
				dying.Store(true)
				time.Sleep(24*time.Hour - 2*time.Minute)
				if got := w.token(m); !got.Value.Equal(first.Value) {
					t.Error("another token")
				}
				synctest.Wait()
				if got := w.token(m); !got.Value.Equal(first.Value) {
					t.Error("the token did not survive a failed refresh")
				}
				dying.Store(false)
				time.Sleep(time.Second) // the longest first wait
				w.token(m)
				synctest.Wait()
				if got := w.token(m); got.Value.Equal(first.Value) {
					t.Error("the refresh was not tried again")
				}
			})
		})
	}
}

func TestCloseEndsALoginAndWaitsForIt(t *testing.T) {
	for name, do := range map[string]fakeamp.Action{"headers": fakeamp.StallHeaders, "body": fakeamp.StallBody} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Do: do, Times: -1})
				var under atomic.Int32
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					under.Add(1)
					defer under.Add(-1)
					resp, err := base.RoundTrip(req)
					if err != nil {
						time.Sleep(100 * time.Millisecond) // somebody's slow clean-up
					}
					return resp, err
				}))
				waiter := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
				time.Sleep(time.Second)
				if err := m.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if n := under.Load(); n != 0 {
					t.Errorf("%d requests are under way after Close", n)
				}
				r := <-waiter
				ampFailure(t, r.err, ampauth.ErrClosed)
				if r.after > 1100*time.Millisecond {
					t.Errorf("the waiter left after %v", r.after)
				}
			})
		})
	}
}

func TestCloseEndsTheWaitBetweenAttempts(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Header: http.Header{"Retry-After": {"20"}}, Times: -1})
		m := w.manager()
		waiter := ampStart(func() (ampauth.Token, error) { return m.Token(t.Context()) })
		if took := ampElapsed(func() { _ = m.Close() }); took != 0 {
			t.Errorf("Close took %v", took)
		}
		r := <-waiter
		ampFailure(t, r.err, ampauth.ErrClosed)
		w.wantSent(1, 0)
	})
}

func TestClosedManagerHasNoToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		token := w.token(m)
		for range 2 {
			if err := m.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if err := token.Value.Expose(func([]byte) error { return nil }); !errors.Is(err, ampauth.ErrDestroyed) {
			t.Errorf("the token was not wiped: %v", err)
		}
		if _, ok := m.Info(); ok {
			t.Error("Info has a token")
		}
		err := m.SetCredentials(ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)})
		ampFailure(t, err, ampauth.ErrClosed)
		_ = m.Clear(t.Context())
		for name, call := range map[string]func(context.Context) (ampauth.Token, error){
			"Token": m.Token, "Obtain": m.Obtain, "Refresh": m.Refresh, "ForceRefresh": m.ForceRefresh,
			"Renew": func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, token) },
		} {
			_, err := call(t.Context())
			e := ampFailure(t, err, ampauth.ErrClosed)
			if e.Outcome != ampauth.NotSent {
				t.Errorf("%s: Outcome = %v", name, e.Outcome)
			}
		}
		w.wantSent(1, 0)
	})
}

// A token that lands in the moment of Close must not come back.
func TestCloseWhileACrowdWaits(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second - 1, time.Second, time.Second + 1} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second, Times: -1})
				m := w.manager()
				done := make(chan []ampResult)
				go func() {
					done <- ampCalls(100, func() (ampauth.Token, error) { return m.Token(t.Context()) })
				}()
				time.Sleep(after)
				_ = m.Close()
				for _, r := range <-done {
					if r.err == nil && after < time.Second || r.err != nil && !errors.Is(r.err, ampauth.ErrClosed) {
						t.Errorf("error is %v", r.err)
					}
				}
				if _, ok := m.Info(); ok {
					t.Error("there is a token after Close")
				}
			})
		})
	}
}

func TestClosesOfOneManagerMayMeet(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.token(m)
		for _, r := range ampCalls(10, func() (ampauth.Token, error) { return ampauth.Token{}, m.Close() }) {
			if r.err != nil {
				t.Error(r.err)
			}
		}
	})
}
