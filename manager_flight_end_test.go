package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
					stubError(t, r.err, ampauth.ErrObtainFailed)
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

// TestBodyThatPanicsIsAnErrorOfTheLogin runs itself as a process for each status,
// since a panic on a goroutine of the library would end it.
func TestBodyThatPanicsIsAnErrorOfTheLogin(t *testing.T) {
	const child = "broken body "
	if text, ok := strings.CutPrefix(os.Getenv(childEnv), child); ok {
		status, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ampauth.NewTokenManager(ampauth.Config{
			BaseURL:     "https://amp.test/api",
			Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
			HTTPClient: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				_ = req.Body.Close()
				body := io.NopCloser(stubReader(func([]byte) (int, error) { panic("canary-of-a-panic") }))
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: body}, nil
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		_, err = m.Token(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
		return
	}
	for _, status := range []int{200, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			code, output := runChild(t, fmt.Sprint(child, status), "-test.run=^TestBodyThatPanicsIsAnErrorOfTheLogin$")
			if code != 0 {
				t.Errorf("the process ended with %d:\n%.300s", code, output)
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
				stubError(t, r.err, ampauth.ErrClosed)
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
		stubError(t, r.err, ampauth.ErrClosed)
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
		stubError(t, err, ampauth.ErrClosed)
		_ = m.Clear(t.Context())
		for name, call := range map[string]func(context.Context) (ampauth.Token, error){
			"Token": m.Token, "Obtain": m.Obtain, "Refresh": m.Refresh, "ForceRefresh": m.ForceRefresh,
			"Renew": func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, token) },
		} {
			_, err := call(t.Context())
			e := stubError(t, err, ampauth.ErrClosed)
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
