package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

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

func TestEventOfARateLimitIsOneWhateverTheServerAsksFor(t *testing.T) {
	for _, header := range [][]string{nil, {"Retry-After", "1"}} {
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
			var log eventLog
			transport := &ampauth.RetryTransport{Base: stubScript(stubAnswer(429, header...), stubAnswer(200)), OnEvent: log.add}
			resp, err := transport.RoundTrip(requestOf(t, "GET", "https://amp.example/api/assets"))
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			events := log.named(ampauth.EventRetry)
			if len(events) != 1 || events[0].Reason != "rate limited" || !errors.Is(events[0].Err, ampauth.ErrRateLimited) {
				t.Errorf("%v: told %+v", header, events)
			}
		})
	}
}

// A TokenSource may be in doubt about a login of its own.
func TestRequestThatWasNotSentIsNotAmbiguous(t *testing.T) {
	var log eventLog
	transport := &ampauth.RetryTransport{OnEvent: log.add, Base: &ampauth.AuthTransport{
		Base: stubScript(stubAnswer(200)), Origin: "https://amp.example",
		Source: stubNoToken(&ampauth.Error{Op: "request", Kind: ampauth.ErrAmbiguous}),
	}}
	_, err := transport.RoundTrip(requestOf(t, "GET", "https://amp.example/api/assets"))
	stubError(t, err, ampauth.ErrObtainFailed)
	if errors.Is(err, ampauth.ErrAmbiguous) || !strings.HasSuffix(err.Error(), "; the request was not sent") {
		t.Errorf("got %v", err)
	}
	if transport.Stats().Ambiguous != 0 || len(log.events) != 0 {
		t.Errorf("told %v", log.events)
	}
}
