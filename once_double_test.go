package ampauth_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// What Once asks of its caller and of the server, it needs: without any one of these a
// mutation is performed twice.
func TestOnceIsExactlyOnceUnderItsThreeConditionsOnly(t *testing.T) {
	type once = func(change ...func(*ampauth.Mutation[issuance])) error
	for name, test := range map[string]struct {
		want int
		run  func(t *testing.T, w *ampWorld, once once)
	}{
		"the effect comes within Settle": {1, func(t *testing.T, w *ampWorld, once once) {
			w.Inject(fakeamp.Fault{Route: ampIssue, When: fakeamp.After, Do: fakeamp.Reset, Late: time.Minute})
			_ = once()
		}},
		"the effect comes later than Settle": {2, func(t *testing.T, w *ampWorld, once once) {
			w.Inject(fakeamp.Fault{Route: ampIssue, When: fakeamp.After, Do: fakeamp.Reset, Late: time.Minute + 2})
			_ = once()
		}},
		"one caller after the other": {1, func(t *testing.T, w *ampWorld, once once) {
			_ = once()
			_ = once(func(m *ampauth.Mutation[issuance]) { m.FindFirst = true })
		}},
		"two callers at once": {2, func(t *testing.T, w *ampWorld, once once) {
			var callers sync.WaitGroup
			for range 2 {
				callers.Go(func() { _ = once() })
			}
			callers.Wait()
		}},
		"Find lags by less than Settle": {1, func(t *testing.T, w *ampWorld, once once) {
			w.Inject(fakeamp.Fault{Route: ampIssue, When: fakeamp.After, Do: fakeamp.Reset})
			_ = once(lagging(w, 59*time.Second))
		}},
		"Find lags by more than Settle": {2, func(t *testing.T, w *ampWorld, once once) {
			w.Inject(fakeamp.Fault{Route: ampIssue, When: fakeamp.After, Do: fakeamp.Reset})
			_ = once(lagging(w, 61*time.Second))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				client := w.client()
				w.token(client.Tokens)
				test.run(t, w, func(change ...func(*ampauth.Mutation[issuance])) error {
					m := issuing(client.Client, w.url+"/api", "T")
					for _, f := range change {
						f(&m)
					}
					_, err := ampauth.Once(t.Context(), ampauth.RetryConfig{}, m)
					if err != nil {
						t.Error(err)
					}
					return err
				})
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := onceTimes(w.Server, "T"); n != test.want {
					t.Errorf("performed %d times, want %d", n, test.want)
				}
			})
		})
	}
}

// A call of a client without a RetryTransport is a doubt by itself, and overlooked beside one
// that is seen and proves something. So Send's calls are one client's.
func TestOnceOverlooksAnotherClientBesideOneThatItSees(t *testing.T) {
	for name, test := range map[string]struct {
		beside func(context.Context)
		want   int
	}{
		"alone":                         {func(context.Context) {}, 1},
		"beside a read":                 {func(ctx context.Context) { call(ctx, oneAttempt(stubAnswer(404)), safe) }, 1},
		"beside a call that succeeds":   {func(ctx context.Context) { call(ctx, oneAttempt(stubAnswer(200)), mutating) }, 1},
		"beside a call that is a doubt": {func(ctx context.Context) { call(ctx, oneAttempt(stubAnswer(500)), mutating) }, 1},
		"beside a call that is a proof": {func(ctx context.Context) { call(ctx, oneAttempt(stubAnswer(429)), mutating) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				client := w.client()
				w.token(client.Tokens)
				w.Inject(fakeamp.Fault{Route: ampIssue, When: fakeamp.After, Do: fakeamp.Reset})
				m := issuing(client.Client, w.url+"/api", "T")
				unseen := issuing(&http.Client{Transport: &ampauth.AuthTransport{Base: w.transport, Source: client.Tokens}}, w.url+"/api", "T")
				m.Send = func(ctx context.Context) (issuance, error) {
					test.beside(ctx)
					return unseen.Send(ctx)
				}
				_, err := ampauth.Once(t.Context(), ampauth.RetryConfig{}, m)
				if n := onceTimes(w.Server, "T"); n != test.want {
					t.Errorf("performed %d times, want %d: %v", n, test.want, err)
				}
			})
		})
	}
}

// lagging has Find read what a replica has that is so far behind.
func lagging(w *ampWorld, lag time.Duration) func(*ampauth.Mutation[issuance]) {
	return func(m *ampauth.Mutation[issuance]) {
		find := m.Find
		m.Find = func(ctx context.Context) (issuance, bool, error) {
			found, ok, err := find(ctx)
			if effects := w.Effects(); len(effects) > 0 && time.Since(effects[0].Time) < lag {
				return issuance{}, false, err
			}
			return found, ok, err
		}
	}
}
