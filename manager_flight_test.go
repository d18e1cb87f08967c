package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

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
			if e := stubError(t, r.err, ampauth.ErrObtainFailed); e.StatusCode != 404 || r.after != 50*time.Millisecond {
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
			if e := stubError(t, err, ampauth.ErrObtainFailed, context.DeadlineExceeded); e.Outcome != ampauth.NotSent || !e.Timeout() {
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
		stubError(t, err, ampauth.ErrObtainFailed, context.Canceled)
		w.wantSent(0, 0)
	})
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
			stubError(t, r.err, ampauth.ErrObtainFailed, ampauth.ErrCredentialsRefused)
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
			stubError(t, err, context.DeadlineExceeded)
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
					stubError(t, err, context.DeadlineExceeded)
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
