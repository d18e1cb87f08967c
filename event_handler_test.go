package ampauth_test

import (
	"context"
	"errors"
	"fmt"
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

type spanKey struct{}

// A handler finds the caller's span, and that of a login has nothing of any caller's.
func TestEventHasTheContextOfItsCall(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var told sync.Map
		client := w.client(func(c *ampauth.Config) {
			c.OnEvent = func(ctx context.Context, e ampauth.Event) {
				told.Store(e.Name, fmt.Sprintf("%v %v", ctx.Value(spanKey{}), ctx.Err()))
			}
		})
		w.Inject(fakeamp.Fault{Route: "GET /assets", Status: 503, Times: 3})
		req, _ := http.NewRequestWithContext(context.WithValue(t.Context(), spanKey{}, "span"), "GET", w.url+"/api/assets", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		synctest.Wait()
		for name, want := range map[ampauth.EventName]string{
			ampauth.EventObtain: "<nil> <nil>", ampauth.EventRetry: "span <nil>", ampauth.EventExhausted: "span <nil>",
		} {
			if got, _ := told.Load(name); got != want {
				t.Errorf("%s: the context has %v, want %q", name, got, want)
			}
		}
	})
}

// Whatever a handler does, it holds no call but that which the event belongs to.
func TestHandlerOfEventsHoldsNobodyElse(t *testing.T) {
	for name, handle := range map[string]func(*ampauth.Client, string){
		"panics": func(*ampauth.Client, string) { panic("a handler that panics") },
		"blocks": func(*ampauth.Client, string) { time.Sleep(24 * time.Hour) },
		"makes a request": func(c *ampauth.Client, url string) {
			if resp, err := c.Get(url); err == nil {
				_ = resp.Body.Close()
			}
		},
		"asks for a token": func(c *ampauth.Client, _ string) { _, _ = c.Tokens.Token(context.Background()) },
		"logs in":          func(c *ampauth.Client, _ string) { _, _ = c.Tokens.Obtain(context.Background()) },
		"reads the stats":  func(c *ampauth.Client, _ string) { _ = c.Stats() },
		"clears":           func(c *ampauth.Client, _ string) { _ = c.Tokens.Clear(context.Background()) },
		"closes":           func(c *ampauth.Client, _ string) { _ = c.Close() },
	} {
		for _, event := range []ampauth.EventName{ampauth.EventObtain, ampauth.EventStore, ampauth.EventRetry, ampauth.EventReplay, ampauth.EventExhausted, ampauth.EventAmbiguous} {
			t.Run(name+" at "+string(event), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
					var client *ampauth.Client
					var calls, returned atomic.Int32
					store := &faultyStore{memoryStore: newMemoryStore(), save: func(context.Context) error { return errors.New("down") }}
					client = w.client(storedIn(store), func(c *ampauth.Config) {
						c.OnEvent = func(_ context.Context, e ampauth.Event) {
							if e.Name == event && calls.Add(1) == 1 {
								defer returned.Add(1)
								handle(client, w.url+"/api/assets")
							}
						}
					})
					took := ampElapsed(func() { _, _ = client.Tokens.Token(t.Context()) }) // a waiter of the login
					synctest.Wait()
					w.Inject(
						fakeamp.Fault{Route: "GET /assets", Status: 401}, fakeamp.Fault{Route: "GET /assets", Status: 503, Times: 10},
						fakeamp.Fault{Route: "POST /assets/issue", When: fakeamp.After, Do: fakeamp.Close},
					)
					done := make(chan struct{})
					go func() {
						defer close(done)
						for range 2 {
							if resp, err := client.Get(w.url + "/api/assets"); err == nil {
								_ = resp.Body.Close()
							}
						}
						req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/api/assets/issue", strings.NewReader(`{"name":"Bond","amount":100}`))
						req.Header.Set("Content-Type", "application/json")
						if resp, err := client.Do(req); err == nil {
							_ = resp.Body.Close()
						}
					}()
					if name == "blocks" {
						time.Sleep(time.Hour)
						w.ClearFaults()
						took += ampElapsed(func() { // somebody else, and a login meanwhile
							if status := w.assets(client); status != 200 {
								t.Errorf("status %d", status)
							}
							_, _ = client.Tokens.Obtain(t.Context())
						})
						took += ampElapsed(func() { _ = client.Close() })
					}
					<-done
					if took != 0 {
						t.Errorf("others waited %v", took)
					}
					if synctest.Wait(); calls.Load() == 0 {
						t.Error("the event never came")
					}
					time.Sleep(48 * time.Hour)
					if returned.Load() != 1 {
						t.Error("the handler hangs")
					}
				})
			})
		}
	}
}

func TestEventsCostNothingWhenNobodyIsTold(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	allocs := func(onEvent func(context.Context, ampauth.Event), statuses ...int) float64 {
		n := 0
		base := roundTripFunc(func(*http.Request) (*http.Response, error) {
			n++
			return &http.Response{StatusCode: statuses[(n-1)%len(statuses)], Header: http.Header{}, Body: http.NoBody}, nil
		})
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{BaseDelay: 1, MaxDelay: 1, MaxAttempts: len(statuses), Budget: -1}, OnEvent: onEvent}
		req := stubRequest(t.Context(), ampauth.SafeOperation, nil)
		return testing.AllocsPerRun(200, func() {
			n = 0
			if _, err := rt.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
		})
	}
	ignore := func(context.Context, ampauth.Event) {}
	if nobody, somebody := allocs(nil, 200), allocs(ignore, 200); nobody != somebody {
		t.Errorf("a success allocates %v times, and %v where somebody is told", nobody, somebody)
	}
	// The same with an error and a call of OnEvent, for the retry and for the end.
	nobody, somebody := allocs(nil, 503, 503), allocs(ignore, 503, 503)
	if somebody-nobody < 2 {
		t.Errorf("two events cost %v allocations where somebody is told, and %v otherwise", somebody, nobody)
	}
	if nobody > maxAllocsOfTwoAttempts {
		t.Errorf("two attempts allocate %v times, want %v", nobody, maxAllocsOfTwoAttempts)
	}
}

// maxAllocsOfTwoAttempts is what they cost without events.
const maxAllocsOfTwoAttempts = 15
