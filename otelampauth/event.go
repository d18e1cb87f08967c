package otelampauth

import (
	"context"
	"slices"
	"strings"

	"github.com/ampauth/ampauth"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	errorType       = attribute.Key("error.type")
	loginOperation  = attribute.Key("ampauth.login.operation")
	retryReason     = attribute.Key("ampauth.retry.reason")
	exhaustedReason = attribute.Key("ampauth.exhausted.reason")
	storeOperation  = attribute.Key("ampauth.store.operation")
	resendCount     = attribute.Key("http.request.resend_count")
	wait            = attribute.Key("ampauth.wait")
	attempts        = attribute.Key("ampauth.attempts")
)

// valuesOf are the values of an attribute, in the words of the documentation of
// [ampauth.EventName], with underscores.
func valuesOf(key attribute.Key) []string {
	switch key {
	case retryReason:
		return []string{"not_sent", "unprocessed", "rate_limited", "server_error", "timeout", "broken_connection"}
	case exhaustedReason:
		return []string{"attempts", "budget", "limiter", "retry_after", "deadline", "body"}
	case storeOperation:
		return []string{"load", "save", "delete", "lock"}
	}
	return nil
}

// reason is that of an event as an attribute. What is not known becomes one value, so that
// the set stays small whatever a later ampauth says.
func reason(key attribute.Key, e ampauth.Event) attribute.KeyValue {
	word := strings.ReplaceAll(e.Reason, " ", "_")
	if !slices.Contains(valuesOf(key), word) {
		word = "_OTHER"
	}
	return key.String(word)
}

// beginAtZero makes every series of the counters exist before its first event: what goes
// from nothing to 1 is no increase to who reads it.
func (o *Observer) beginAtZero() {
	ctx := context.Background()
	i := o.instruments
	for _, c := range []metric.Int64Counter{i.renewals, i.adoptions, i.replays, i.ambiguous} {
		c.Add(ctx, 0, o.with())
	}
	for key, c := range map[attribute.Key]metric.Int64Counter{retryReason: i.retries, exhaustedReason: i.exhausted, storeOperation: i.storeFaults} {
		for _, value := range valuesOf(key) {
			c.Add(ctx, 0, o.with(key.String(value)))
		}
	}
}

// OnEvent is for the OnEvent of an [ampauth.Config] or an [ampauth.RetryTransport], or to be
// called by a function that is. Bind it to the clients that Observe has.
func (o *Observer) OnEvent(ctx context.Context, e ampauth.Event) {
	tellSpan(trace.SpanFromContext(ctx), e)
	i := o.instruments
	if i == nil {
		return
	}
	switch e.Name {
	case ampauth.EventObtain, ampauth.EventRefresh:
		with := []attribute.KeyValue{loginOperation.String(string(e.Name))}
		if e.Err != nil {
			with = append(with, errorType.String(e.ErrorType()))
		} else if e.Reason == "refused" {
			i.renewals.Add(ctx, 1, o.with())
		}
		i.login.Record(ctx, e.Elapsed.Seconds(), o.with(with...))
	case ampauth.EventAdopt:
		i.adoptions.Add(ctx, 1, o.with())
	case ampauth.EventRetry:
		i.retries.Add(ctx, 1, o.with(reason(retryReason, e)))
	case ampauth.EventReplay:
		i.replays.Add(ctx, 1, o.with())
	case ampauth.EventAmbiguous:
		i.ambiguous.Add(ctx, 1, o.with())
	case ampauth.EventExhausted:
		i.exhausted.Add(ctx, 1, o.with(reason(exhaustedReason, e)))
	case ampauth.EventStore:
		i.storeFaults.Add(ctx, 1, o.with(reason(storeOperation, e)))
	}
}

// tellSpan adds an event to the span of a call.
func tellSpan(span trace.Span, e ampauth.Event) {
	if !span.IsRecording() {
		return
	}
	add := func(with ...attribute.KeyValue) {
		span.AddEvent("ampauth."+string(e.Name), trace.WithAttributes(with...))
	}
	switch e.Name {
	case ampauth.EventRetry:
		add(resendCount.Int(e.Attempt), wait.Float64(e.Wait.Seconds()), reason(retryReason, e))
	case ampauth.EventReplay:
		add(resendCount.Int(e.Attempt), wait.Float64(e.Wait.Seconds()))
	case ampauth.EventAmbiguous:
		add(attempts.Int(e.Attempt))
	case ampauth.EventExhausted:
		add(attempts.Int(e.Attempt), reason(exhaustedReason, e))
	}
}
