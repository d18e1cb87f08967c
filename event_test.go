package ampauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// An eventLog keeps what OnEvent was told.
type eventLog struct {
	mu     sync.Mutex // guards events
	events []ampauth.Event
}

func (l *eventLog) add(_ context.Context, e ampauth.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *eventLog) into(cfg *ampauth.Config) { cfg.OnEvent = l.add }

// named are the events of a name so far.
func (l *eventLog) named(name ampauth.EventName) []ampauth.Event {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e ampauth.Event) bool { return e.Name != name })
}

// wantLast fails unless so many events of the name were told, and the last is want but for
// its Err, which Is kind, or is nil.
func (l *eventLog) wantLast(t *testing.T, count int, want ampauth.Event, kind error) {
	t.Helper()
	events := l.named(want.Name)
	if len(events) != count {
		t.Fatalf("%d events %q, want %d: %+v", len(events), want.Name, count, events)
	}
	got := events[count-1]
	err := got.Err
	if got.Err = nil; got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	_, ours := errors.AsType[*ampauth.Error](err)
	if (err != nil) != (kind != nil) || kind != nil && (!ours || !errors.Is(err, kind)) {
		t.Errorf("event %q has the error %v, want one of ours that is %v", want.Name, err, kind)
	}
	if err != nil {
		if found := leaks(everythingErrorsSay(err)); len(found) > 0 {
			t.Errorf("the error of %q shows %v", want.Name, found)
		}
	}
}

func TestLoginsAndRefreshesAreTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		m := w.manager(log.into, func(c *ampauth.Config) { c.Retry.BaseDelay = 1 })
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second, Status: 500}, fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		began := time.Now()
		token := w.token(m)
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventObtain, Attempt: 2, Elapsed: time.Since(began)}, nil)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 3 * time.Second})
		_, _ = m.Refresh(t.Context())
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventRefresh, Attempt: 1, Elapsed: 3 * time.Second}, nil)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500, Delay: time.Second}, fakeamp.Fault{Route: ampObtain, Delay: 5 * time.Second})
		_, _ = m.Refresh(t.Context())
		log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventRefresh, Attempt: 1, Elapsed: time.Second}, ampauth.ErrRefreshFailed)
		log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 5 * time.Second}, nil)

		token = w.token(m)
		w.Revoke("issuer")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		log.wantLast(t, 3, ampauth.Event{Name: ampauth.EventObtain, Reason: "refused", Attempt: 1}, nil)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Delay: 4 * time.Second})
		for range 5 { // in the pause nothing is tried
			_, _ = m.Obtain(t.Context())
		}
		log.wantLast(t, 4, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 4 * time.Second}, ampauth.ErrCredentialsRefused)

		time.Sleep(time.Minute)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Times: 3})
		_ = m.Clear(t.Context())
		_, _ = m.Obtain(t.Context())
		if last := log.named(ampauth.EventObtain); len(last) != 5 || last[4].Attempt != 3 || !errors.Is(last[4].Err, ampauth.ErrObtainFailed) {
			t.Errorf("told %+v, want a login that failed after 3 attempts", last)
		}
		if n := len(log.named(ampauth.EventRetry)); n != 0 {
			t.Errorf("the attempts of logins are told as %d retries", n)
		}
	})
}

func TestLoginWithoutTimeLeftIsToldOnce(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		m := w.manager(log.into, func(c *ampauth.Config) { c.Retry = ampauth.RetryConfig{MaxAttempts: 1} }, w.over(func(http.RoundTripper, *http.Request) (*http.Response, error) {
			time.Sleep(time.Hour) // whatever its context says
			return nil, io.EOF
		}))
		if _, err := m.Token(t.Context()); !errors.Is(err, ampauth.ErrTimeout) {
			t.Errorf("got %v", err)
		}
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 30 * time.Second}, ampauth.ErrTimeout)
		time.Sleep(2 * time.Hour)
		if s := m.Stats(); len(log.named(ampauth.EventObtain)) != 1 || s.ObtainFailures != 1 {
			t.Errorf("%+v, counted %d", log.events, s.ObtainFailures)
		}
	})
}

func TestTokenOfTheStoreIsTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		store := newMemoryStore()
		w.token(w.manager(storedIn(store)))
		m := w.manager(storedIn(store), log.into)
		w.token(m)
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventAdopt}, nil)
		if len(log.events) != 1 || m.Stats() != (ampauth.Stats{Adoptions: 1}) {
			t.Errorf("told %+v, counted %+v", log.events, m.Stats())
		}
	})
}

func TestRetriesAreToldWithReasonAndWait(t *testing.T) {
	for reason, test := range map[string]struct {
		step stubStep
		kind error
	}{
		"not sent":          {stubRefuse(), errStubDial},
		"unprocessed":       {stubAnswer(425), ampauth.ErrRequestFailed},
		"rate limited":      {stubAnswer(429, "Retry-After", "7"), ampauth.ErrRateLimited},
		"server error":      {stubAnswer(503), ampauth.ErrRequestFailed},
		"timeout":           {stubStall(), ampauth.ErrTimeout},
		"broken connection": {stubBreak(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF},
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log eventLog
				base := stubScript(stubAnswer(503), test.step, stubAnswer(200))
				rt := &ampauth.RetryTransport{Base: base, OnEvent: log.add}
				if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 {
					t.Fatalf("status %d", status)
				}
				wait := base.waits()[1]
				if reason == "timeout" {
					wait -= 10 * time.Second
				}
				log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventRetry, Reason: reason, Attempt: 2, Wait: wait}, test.kind)
				if e := log.named(ampauth.EventRetry)[0]; e.Attempt != 1 || e.Err.(*ampauth.Error).StatusCode != 503 {
					t.Errorf("the first is told as %+v", e)
				}
				if s := rt.Stats(); s.Retries.Total() != 2 || len(log.events) != 2 {
					t.Errorf("counted %+v, told %+v", s, log.events)
				}
			})
		})
	}
}

func TestReplayIsTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		client := w.client(log.into)
		w.token(client.Tokens)
		w.Revoke("issuer")
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		w.assets(client)
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventReplay, Attempt: 1}, ampauth.ErrRequestFailed)
		log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventObtain, Reason: "refused", Attempt: 1, Elapsed: 2 * time.Second}, nil)
	})
}

func TestAmbiguousEndIsTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		client := w.client(log.into)
		w.Inject(
			fakeamp.Fault{Route: "POST /assets/issue", Status: 429, Header: http.Header{"Retry-After": {"1"}}},
			fakeamp.Fault{Route: "POST /assets/issue", When: fakeamp.After, Do: fakeamp.Close},
		)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/api/assets/issue", strings.NewReader(`{"name":"Bond","amount":100}`))
		req.Header.Set("Content-Type", "application/json")
		_, err := client.Do(req)
		if !errors.Is(err, ampauth.ErrAmbiguous) {
			t.Fatal(err)
		}
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventAmbiguous, Attempt: 2}, ampauth.ErrAmbiguous)
		if s := client.Stats(); s.Ambiguous != 1 || s.Exhausted != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestCallThatIsGivenUpIsToldWithTheReason(t *testing.T) {
	later := func(d time.Duration) func(*testing.T) context.Context {
		return func(t *testing.T) context.Context { return ampWithin(t, d) }
	}
	busy, hour := stubAnswer(503), stubAnswer(503, "Retry-After", "3600")
	for name, test := range map[string]struct {
		retry   ampauth.RetryConfig
		limiter ampauth.Limiter
		base    *stubBase
		ctx     func(*testing.T) context.Context
		body    any
		reason  string // "" for none
		attempt int
		kind    error
	}{
		"attempts, an answer":       {base: stubScript(busy), reason: "attempts", attempt: 3, kind: ampauth.ErrRequestFailed},
		"attempts, an error":        {base: stubScript(stubBreak(io.EOF)), reason: "attempts", attempt: 3, kind: io.EOF},
		"attempts, all timed out":   {base: stubScript(stubStall()), reason: "attempts", attempt: 3, kind: ampauth.ErrTimeout},
		"one attempt at most":       {retry: ampauth.RetryConfig{MaxAttempts: 1}, base: stubScript(busy), reason: "attempts", attempt: 1, kind: ampauth.ErrRequestFailed},
		"budget":                    {retry: ampauth.RetryConfig{Budget: 1}, base: stubScript(busy), reason: "budget", attempt: 2, kind: ampauth.ErrRequestFailed},
		"Retry-After above the cap": {base: stubScript(hour), reason: "retry after", attempt: 1, kind: ampauth.ErrRequestFailed},
		"limiter, later":            {limiter: limiterScript(passing, failing(errFleet)), base: stubScript(busy), reason: "limiter", attempt: 1, kind: ampauth.ErrRequestFailed},
		"limiter, at once":          {limiter: failing(errFleet), base: stubScript(busy), reason: "limiter", kind: errFleet},
		"no time for the wait":      {base: stubScript(stubAnswer(503, "Retry-After", "30")), ctx: later(20 * time.Second), reason: "deadline", attempt: 1, kind: ampauth.ErrRequestFailed},
		"no time for the attempt":   {base: stubScript(stubStall()), ctx: later(5 * time.Second), reason: "deadline", attempt: 1, kind: context.DeadlineExceeded},
		"no time for the limiter":   {limiter: passingAfter(time.Minute), base: stubScript(busy), ctx: later(5 * time.Second), reason: "deadline", kind: context.DeadlineExceeded},
		"body":                      {base: stubScript(busy), body: io.MultiReader(strings.NewReader("once")), reason: "body", attempt: 1, kind: ampauth.ErrRequestFailed},
		"it is not asked for":       {base: stubScript(busy), ctx: func(t *testing.T) context.Context { return ampauth.WithoutRetry(t.Context()) }},
		"it cannot help":            {base: stubScript(stubAnswer(404))},
		"an answer":                 {base: stubScript(busy, stubAnswer(200))},
		"the caller leaves": {base: stubScript(stubStall()), ctx: func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			return ctx
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log eventLog
				rt, ctx := &ampauth.RetryTransport{Retry: test.retry, Limiter: test.limiter, Base: test.base, OnEvent: log.add}, t.Context()
				if test.ctx != nil {
					ctx = test.ctx(t)
				}
				for range max(test.retry.Budget, 1) {
					resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.SafeOperation, test.body))
					if err == nil {
						stubText(t, resp)
					}
				}
				told := log.named(ampauth.EventExhausted)
				if rt.Stats().Exhausted != uint64(len(told)) || rt.Stats().Ambiguous != 0 {
					t.Errorf("counted %+v, told %+v", rt.Stats(), told)
				}
				if test.reason == "" {
					if len(told) != 0 {
						t.Errorf("told %+v, want nothing", told)
					}
					return
				}
				log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventExhausted, Reason: test.reason, Attempt: test.attempt}, test.kind)
			})
		})
	}
}

func TestLimiterThatStopsACallBehindALoginIsTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		client := w.client(log.into, func(c *ampauth.Config) { c.Limiter = limiterScript(passing, failing(errFleet)) })
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		if _, err := client.Get(w.url + "/api/assets"); !errors.Is(err, ampauth.ErrRateLimited) {
			t.Errorf("got %v", err)
		}
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventExhausted, Reason: "limiter", Attempt: 1}, errFleet)
	})
}

func TestFaultsOfTheStoreAreToldEachTime(t *testing.T) {
	down := func(context.Context) error { return errors.New(`down: "` + canaryToken + `"`) }
	for reason, set := range map[string]func(*faultyStore){
		"load":   func(s *faultyStore) { s.load = down },
		"save":   func(s *faultyStore) { s.save = down },
		"delete": func(s *faultyStore) { s.deleteIf = down },
		"lock":   func(s *faultyStore) { s.lock = down },
	} {
		t.Run(reason, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				var records ampLog
				store := &faultyStore{memoryStore: newMemoryStore()}
				client := w.client(storedIn(store), log.into, records.into)
				w.assets(client)
				set(store)
				for n := range 3 {
					w.Revoke("issuer")
					if status := w.assets(client); status != 200 {
						t.Errorf("status %d", status)
					}
					log.wantLast(t, n+1, ampauth.Event{Name: ampauth.EventStore, Reason: reason}, ampauth.ErrStore)
					time.Sleep(time.Minute)
				}
				if s := client.Stats(); s.StoreFaults != 3 {
					t.Errorf("counted %d", s.StoreFaults)
				}
				if n := strings.Count(records.String(), "token store does not work"); n != 1 {
					t.Errorf("%d records, want 1", n)
				}
			})
		})
	}
}

// What is told and what is counted, over a run with every kind of trouble.
func TestEventsAndCountersAgree(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		store := &faultyStore{memoryStore: newMemoryStore()}
		w.token(w.manager(storedIn(store)))
		client := w.client(storedIn(store), log.into, func(c *ampauth.Config) { c.Retry = ampauth.RetryConfig{BaseDelay: time.Millisecond} })
		do := func(method, path string, faults ...fakeamp.Fault) {
			w.Inject(faults...)
			req, _ := http.NewRequestWithContext(t.Context(), method, w.url+"/api"+path, nil)
			if method == "POST" {
				req, _ = http.NewRequestWithContext(t.Context(), method, w.url+"/api"+path, strings.NewReader(`{"name":"Bond","amount":100}`))
				req.Header.Set("Content-Type", "application/json")
			}
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
			w.ClearFaults()
			time.Sleep(time.Minute)
		}
		read, issue := "GET /assets", "POST /assets/issue"
		do("GET", "/assets")
		for _, f := range []fakeamp.Fault{
			{Status: 429, Header: http.Header{"Retry-After": {"1"}}}, {Status: 503}, {Status: 425}, {Do: fakeamp.StallHeaders}, {Do: fakeamp.Close},
			{Status: 503, Times: -1}, {Status: 401}, {Status: 503, Header: http.Header{"Retry-After": {"3600"}}},
		} {
			f.Route = read
			do("GET", "/assets", f)
			f.Route = issue
			do("POST", "/assets/issue", f)
		}
		do("POST", "/assets/issue", fakeamp.Fault{Route: issue, When: fakeamp.After, Do: fakeamp.Close})
		_, _ = client.Tokens.Refresh(t.Context())
		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500})
		_, _ = client.Tokens.Refresh(t.Context())
		down := func(context.Context) error { return errors.New("down") }
		store.load, store.save, store.deleteIf, store.lock = down, down, down, down
		w.Revoke("issuer")
		do("GET", "/assets")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		_, _ = client.Tokens.Obtain(t.Context())
		synctest.Wait()

		told := make(map[string]uint64)
		for _, e := range log.events {
			key := string(e.Name)
			switch {
			case e.Name == ampauth.EventRetry:
				key += " " + e.Reason
			case e.Name == ampauth.EventObtain && e.Err == nil && e.Reason != "":
				told["obtain refused"]++
			case (e.Name == ampauth.EventObtain || e.Name == ampauth.EventRefresh) && e.Err != nil:
				key += " failed"
			}
			told[key]++
		}
		s := client.Stats()
		for key, counted := range map[string]uint64{
			"obtain": s.Obtains, "obtain failed": s.ObtainFailures, "obtain refused": s.Renewals,
			"refresh": s.Refreshes, "refresh failed": s.RefreshFailures, "adopt": s.Adoptions,
			"retry unprocessed": s.Retries.Unprocessed, "retry rate limited": s.Retries.RateLimited,
			"retry server error": s.Retries.ServerError, "retry timeout": s.Retries.Timeout, "retry broken connection": s.Retries.Broken,
			"replay": s.Replays, "ambiguous": s.Ambiguous, "exhausted": s.Exhausted, "store": s.StoreFaults,
		} {
			if told[key] != counted || counted == 0 {
				t.Errorf("%s: told %d times, counted %d", key, told[key], counted)
			}
			delete(told, key)
		}
		if len(told) > 0 {
			t.Errorf("told, and not counted: %v", told)
		}
	})
}

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

func TestStatsAreExportedInSecondsAndSnakeCase(t *testing.T) {
	s := ampauth.Stats{Obtains: 1, StoreFaults: 2, Waits: 3, Waited: 1500 * time.Millisecond}
	s.Retries.NotSent = 4
	text, err := json.Marshal(s)
	want := `{"obtains":1,"obtain_failures":0,"refreshes":0,"refresh_failures":0,"renewals":0,"adoptions":0,` +
		`"retries":{"not_sent":4,"unprocessed":0,"rate_limited":0,"server_error":0,"timeout":0,"broken":0},"replays":0,` +
		`"ambiguous":0,"exhausted":0,"store_faults":2,"waits":3,"waited_seconds":1.5}`
	if string(text) != want || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
}
