package otelampauth_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/otelampauth"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

func TestLoginsAreMeasuredInSeconds(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampObtain, Delay: 2 * time.Second}, ampauthtest.Fault{Route: ampRefresh, Delay: 3 * time.Second, Status: 500},
			ampauthtest.Fault{Route: ampObtain, Delay: time.Second / 2, Status: 400})
		if _, err := w.client.Tokens.Token(w.Context()); err != nil {
			w.Fatal(err)
		}
		_, _ = w.client.Tokens.Refresh(w.Context())
		w.want("ampauth.login.duration", map[string]string{
			"ampauth.login.operation=obtain":                                "1 in 2 s",
			"ampauth.login.operation=refresh error.type=request_failed":     "1 in 3 s",
			"ampauth.login.operation=obtain error.type=credentials_refused": "1 in 0.5 s",
		})
	})
}

func TestRepeatsAndEndsAreCountedByTheirReason(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Retry.Timeout = time.Second }, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"}, ampauthtest.Fault{Route: ampAssets, Delay: time.Hour})
		w.do(w.Context(), ampAssets)
		w.Revoke()
		w.do(w.Context(), ampAssets)
		w.Inject(ampauthtest.Fault{Route: ampIssue, AfterIt: true, Reset: true})
		w.do(w.Context(), ampIssue)
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 429, RetryAfter: "3600"})
		w.do(w.Context(), ampAssets)

		w.want("ampauth.call.retries", map[string]string{"ampauth.retry.reason=server_error": "1", "ampauth.retry.reason=timeout": "1"})
		w.want("ampauth.call.replays", map[string]string{"": "1"})
		w.want("ampauth.login.renewals", map[string]string{"": "1"})
		w.want("ampauth.call.ambiguous", map[string]string{"": "1"})
		w.want("ampauth.call.exhausted", map[string]string{"ampauth.exhausted.reason=retry_after": "1"})
	})
}

func TestFaultsAndTokensOfTheStoreAreCounted(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Store = failingStore{} }, func(w *world) {
		w.do(w.Context(), ampAssets)
		w.want("ampauth.store.faults", map[string]string{"ampauth.store.operation=load": "1"})
		w.observer.OnEvent(w.Context(), ampauth.Event{Name: ampauth.EventAdopt})
		w.want("ampauth.token.adoptions", map[string]string{"": "1"})
	})
}

// The words are those of ampauth's own documentation, so that none is left out.
func TestEveryReasonIsKnownAndBeginsAtZero(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		for name, words := range map[string][]string{
			"ampauth.call.retries ampauth.retry.reason":       {"not sent", "unprocessed", "rate limited", "server error", "timeout", "broken connection"},
			"ampauth.call.exhausted ampauth.exhausted.reason": {"attempts", "budget", "limiter", "retry after", "deadline", "body"},
			"ampauth.store.faults ampauth.store.operation":    {"load", "save", "delete", "lock"},
		} {
			name, key, _ := strings.Cut(name, " ")
			source, err := os.ReadFile("../event.go")
			if err != nil {
				w.Fatal(err)
			}
			series := w.series(name, true)
			for _, word := range words {
				if !bytes.Contains(source, []byte(`"`+word+`"`)) {
					w.Errorf("ampauth has no reason %q", word)
				}
				if got := series[key+"="+strings.ReplaceAll(word, " ", "_")]; got != "0" {
					w.Errorf("%s: %q begins at %q", name, word, got)
				}
			}
			if len(series) != len(words) {
				w.Errorf("%s begins with %v", name, series)
			}
		}
		for _, name := range []string{"ampauth.login.renewals", "ampauth.token.adoptions", "ampauth.call.replays", "ampauth.call.ambiguous", "ampauth.call.waits", "ampauth.call.wait.time"} {
			if got := w.series(name, true); got[""] != "0" || len(got) != 1 {
				w.Errorf("%s begins with %v", name, got)
			}
		}
	})
}

func TestReasonThatIsNotKnownAddsOneSeries(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		for i := range 10 {
			for _, name := range []ampauth.EventName{ampauth.EventRetry, ampauth.EventExhausted, ampauth.EventStore, "new"} {
				w.observer.OnEvent(w.Context(), ampauth.Event{Name: name, Reason: fmt.Sprint("word ", i)})
			}
		}
		w.want("ampauth.call.retries", map[string]string{"ampauth.retry.reason=_OTHER": "10"})
		w.want("ampauth.call.exhausted", map[string]string{"ampauth.exhausted.reason=_OTHER": "10"})
		w.want("ampauth.store.faults", map[string]string{"ampauth.store.operation=_OTHER": "10"})
	})
}

func TestSpanOfTheCallerTellsOfEachRepeatAndEnd(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		check := func(what string, span trace.ReadOnlySpan, want ...string) {
			w.Helper()
			if got := told(span); fmt.Sprint(got) != fmt.Sprint(want) {
				w.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		check("a login, and a success", w.do(w.Context(), ampAssets))
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 425})
		w.Revoke()
		span := w.do(w.Context(), ampAssets)
		check("a retry and a replay", span,
			fmt.Sprintf("ampauth.retry ampauth.retry.reason=unprocessed ampauth.wait=%v http.request.resend_count=1", w.client.Stats().Waited.Seconds()),
			"ampauth.replay ampauth.wait=0 http.request.resend_count=2")
		w.Inject(ampauthtest.Fault{Route: ampIssue, AfterIt: true, Reset: true})
		check("a doubtful end", w.do(w.Context(), ampIssue), "ampauth.ambiguous ampauth.attempts=1")
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 429, RetryAfter: "3600"})
		check("a call that is given up", w.do(w.Context(), ampAssets), "ampauth.exhausted ampauth.attempts=1 ampauth.exhausted.reason=retry_after")
	})
}

func TestSpanOfEachAttemptButTheFirstHasItsNumber(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		w.do(w.Context(), ampAssets) // the login
		before := len(w.spans.Ended())
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"})
		w.Revoke()
		caller := w.do(w.Context(), ampAssets)
		var got []string
		for _, span := range w.spans.Ended()[before:] {
			if span.SpanKind() != api.SpanKindClient || span.Parent().SpanID() != caller.SpanContext().SpanID() {
				continue
			}
			number := "none"
			for _, kv := range span.Attributes() {
				if kv.Key == "http.request.resend_count" {
					number = kv.Value.String()
				}
			}
			got = append(got, number)
		}
		if fmt.Sprint(got) != "[none 1 2]" {
			w.Errorf("the attempts are numbered %v, want none, 1 and 2", got)
		}
		for _, kv := range caller.Attributes() {
			w.Errorf("the caller's span has %s", kv.Key)
		}
	})
}

func TestExemplarsLeadToTheTrace(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampIssue, Reset: true})
		span := w.do(w.Context(), ampIssue)
		id := span.SpanContext().TraceID()
		for _, m := range w.metrics() {
			if m.Name != "ampauth.call.ambiguous" {
				continue
			}
			points := m.Data.(metricdata.Sum[int64]).DataPoints
			if len(points) != 1 || len(points[0].Exemplars) != 1 || !bytes.Equal(points[0].Exemplars[0].TraceID, id[:]) {
				w.Errorf("got %+v, want an exemplar of the trace %v", points, id)
			}
		}
	})
}

// What otelhttp puts on its own spans is its affair.
func TestNothingTellsASecretAURLOrAUser(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Store = failingStore{} }, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampObtain, Status: 500}, ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"},
			ampauthtest.Fault{Route: ampIssue, Reset: true}, ampauthtest.Fault{Route: ampAssets + "/{assetUuid}", Status: 503, Times: -1})
		canaries := []string{"issuer", "correct horse", "127.0.0.1", "/api", "assets", "http:", "EOF"}
		var everything strings.Builder
		for _, route := range []string{ampAssets, ampIssue, ampAssets + "/x"} {
			everything.WriteString(strings.Join(told(w.do(w.Context(), route)), "\n"))
			token, err := w.client.Tokens.Token(w.Context())
			if err != nil {
				w.Fatal(err)
			}
			_ = token.Value.Expose(func(value []byte) error {
				canaries = append(canaries, string(value))
				return nil
			})
			w.Revoke()
		}
		w.Inject(ampauthtest.Fault{Route: ampObtain, Status: 400})
		_, _ = w.client.Tokens.ForceRefresh(w.Context())
		for _, m := range w.metrics() {
			fmt.Fprintf(&everything, "%+v\n", m)
		}
		for _, canary := range canaries {
			if strings.Contains(everything.String(), canary) {
				w.Errorf("%q is shown:\n%s", canary, everything.String())
			}
		}
	})
}

func TestResendCountPassesOnWhatItDoesNotKnow(t *testing.T) {
	var idle int
	base := &idleTransport{closed: &idle}
	layer := otelampauth.ResendCount{Base: base}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://amp.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layer.RoundTrip(req); err != nil || base.got != req {
		t.Errorf("sent %v, %v; want the request as it is", base.got, err)
	}
	layer.CloseIdleConnections()
	if idle != 1 {
		t.Errorf("idle connections were closed %d times", idle)
	}
	otelampauth.ResendCount{Base: roundTripper{}}.CloseIdleConnections()
	otelampauth.ResendCount{}.CloseIdleConnections()
}

type roundTripper struct{}

func (roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Body: http.NoBody}, nil
}

type idleTransport struct {
	roundTripper
	got    *http.Request
	closed *int
}

func (t *idleTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.got = req
	return t.roundTripper.RoundTrip(req)
}

func (t *idleTransport) CloseIdleConnections() { *t.closed++ }

// Run with -race: readers collect while events are told and clients come and go.
func TestObserverIsSafeForConcurrentUse(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		done := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				for i := range 50 {
					w.observer.OnEvent(context.Background(), ampauth.Event{Name: ampauth.EventRetry, Reason: "timeout", Attempt: i})
					w.observer.Observe(w.client)
					var data metricdata.ResourceMetrics
					_ = w.reader.Collect(context.Background(), &data)
				}
			}()
		}
		for range 4 {
			<-done
		}
		synctest.Wait()
		w.want("ampauth.call.retries", map[string]string{"ampauth.retry.reason=timeout": "200"})
	})
}
