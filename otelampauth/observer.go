package otelampauth

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/ampauth/ampauth"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/ampauth/ampauth/otelampauth"

// A Source counts what it did: an [ampauth.Client], or in a stack made by hand its
// [ampauth.RetryTransport] and its [ampauth.TokenManager].
type Source interface{ Stats() ampauth.Stats }

// An Observer tells OpenTelemetry what clients do. Make one with [New], and close it. Its
// methods are safe for concurrent use. The zero value tells spans, and has no metrics.
type Observer struct {
	attributes   []attribute.KeyValue
	instruments  *instruments // nil: no metrics
	registration metric.Registration

	mu      sync.Mutex // guards sources
	sources []Source
}

// instruments are the metrics.
type instruments struct {
	login                                               metric.Float64Histogram
	renewals, adoptions                                 metric.Int64Counter
	retries, replays, ambiguous, exhausted, storeFaults metric.Int64Counter
	waits                                               metric.Int64ObservableCounter
	waitTime                                            metric.Float64ObservableCounter
	remaining                                           metric.Float64ObservableGauge
}

// New returns an Observer whose metrics are those of a provider; nil is the global one. All
// of them get the attributes, by which two Observers of one provider are told apart: give
// each its own. The error is the provider's.
func New(provider metric.MeterProvider, attributes ...attribute.KeyValue) (*Observer, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter(scope)
	instruments, err := newInstruments(meter)
	if err != nil {
		return nil, err
	}
	o := &Observer{attributes: slices.Clone(attributes), instruments: instruments}
	o.registration, err = meter.RegisterCallback(o.collect, instruments.waits, instruments.waitTime, instruments.remaining)
	if err != nil {
		return nil, err
	}
	o.beginAtZero()
	return o, nil
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	var faults []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		faults = append(faults, err)
		return c
	}
	i := &instruments{
		renewals:    counter("ampauth.login.renewals", "{login}", "Logins that were made because the API refused a token."),
		adoptions:   counter("ampauth.token.adoptions", "{token}", "Tokens taken from the store."),
		retries:     counter("ampauth.call.retries", "{retry}", "Requests sent again."),
		replays:     counter("ampauth.call.replays", "{replay}", "Requests sent again with a new token."),
		ambiguous:   counter("ampauth.call.ambiguous", "{call}", "Calls whose outcome is in doubt."),
		exhausted:   counter("ampauth.call.exhausted", "{call}", "Calls given up although they could have been sent, or sent again."),
		storeFaults: counter("ampauth.store.faults", "{fault}", "Calls of the token store that failed."),
	}
	var err error
	i.login, err = meter.Float64Histogram("ampauth.login.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of logins and refreshes, with all their attempts and waits."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120))
	faults = append(faults, err)
	i.waits, err = meter.Int64ObservableCounter("ampauth.call.waits", metric.WithUnit("{wait}"),
		metric.WithDescription("Waits for a backoff, a Retry-After or the limiter."))
	faults = append(faults, err)
	i.waitTime, err = meter.Float64ObservableCounter("ampauth.call.wait.time", metric.WithUnit("s"),
		metric.WithDescription("Time spent in waits for a backoff, a Retry-After or the limiter."))
	faults = append(faults, err)
	i.remaining, err = meter.Float64ObservableGauge("ampauth.token.remaining", metric.WithUnit("s"),
		metric.WithDescription("Remaining life of the token, negative once it has ended."))
	return i, errors.Join(append(faults, err)...)
}

// Observe adds what is looked at when metrics are collected, until Close: a client, or the
// parts of a stack, but not a Client together with its Tokens. The waits of several are
// summed up, and of their tokens that counts which ends first.
func (o *Observer) Observe(sources ...Source) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sources = append(o.sources, sources...)
}

// Close ends the observation and lets go of the clients, which are not closed. OnEvent can
// still be called.
func (o *Observer) Close() error {
	o.mu.Lock()
	o.sources = nil
	o.mu.Unlock()
	if o.registration == nil {
		return nil
	}
	return o.registration.Unregister()
}

// collect is called by the reader of the provider.
func (o *Observer) collect(_ context.Context, to metric.Observer) error {
	o.mu.Lock()
	sources := slices.Clone(o.sources)
	o.mu.Unlock()
	var waits int64
	var waited, least float64
	var found bool
	for _, source := range sources {
		stats := source.Stats()
		waits += int64(stats.Waits)
		waited += stats.Waited.Seconds()
		if left, ok := remaining(source); ok && (!found || left < least) {
			least, found = left, true
		}
	}
	with := o.with()
	to.ObserveInt64(o.instruments.waits, waits, with)
	to.ObserveFloat64(o.instruments.waitTime, waited, with)
	if found {
		to.ObserveFloat64(o.instruments.remaining, least, with)
	}
	return nil
}

// remaining is how many seconds the token of a source lives. ok is false if there is none,
// or one without an end.
func remaining(source Source) (seconds float64, ok bool) {
	if client, is := source.(*ampauth.Client); is {
		if client == nil {
			return 0, false
		}
		source = client.Tokens
	}
	tokens, is := source.(*ampauth.TokenManager)
	if !is {
		return 0, false
	}
	info, ok := tokens.Info()
	return info.ExpiresIn.Seconds(), ok && !info.ExpiresAt.IsZero()
}

// with are the attributes of a measurement.
func (o *Observer) with(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(o.attributes, more)...))
}
