package otelampauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/otelampauth"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

const (
	ampObtain  = "POST /user/obtain_token"
	ampRefresh = "GET /user/refresh-token"
	ampAssets  = "GET /assets"
	ampIssue   = "POST /assets/issue"
)

// A world is a fake AMP, a client with otelhttp below it, and what OpenTelemetry is told.
type world struct {
	*testing.T
	*ampauthtest.Server
	provider *metric.MeterProvider
	reader   *metric.ManualReader
	tracer   *trace.TracerProvider
	spans    *tracetest.SpanRecorder
	observer *otelampauth.Observer
	client   *ampauth.Client
}

// inWorld runs a test in a bubble of testing/synctest.
func inWorld(t *testing.T, o ampauthtest.Options, change func(*ampauth.Config), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		w.client = w.newClient(w.observer, change)
		test(w)
	})
}

func newWorld(t *testing.T, o ampauthtest.Options) *world {
	w := &world{T: t, Server: ampauthtest.NewServer(t, o), reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	w.provider = metric.NewMeterProvider(metric.WithReader(w.reader))
	w.tracer = trace.NewTracerProvider(trace.WithSpanProcessor(w.spans))
	w.observer = w.newObserver()
	return w
}

func (w *world) newObserver(attributes ...attribute.KeyValue) *otelampauth.Observer {
	w.Helper()
	o, err := otelampauth.New(w.provider, attributes...)
	if err != nil {
		w.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := o.Close(); err != nil {
			w.Error(err)
		}
	})
	return o
}

// newClient is a client that o observes.
func (w *world) newClient(o *otelampauth.Observer, change func(*ampauth.Config)) *ampauth.Client {
	w.Helper()
	cfg := w.Config()
	cfg.Retry = ampauth.RetryConfig{BaseDelay: time.Millisecond}
	cfg.OnEvent = o.OnEvent
	cfg.HTTPClient = &http.Client{Transport: otelhttp.NewTransport(
		otelampauth.ResendCount{Base: &ampauth.ConnTransport{Base: w.Transport()}},
		otelhttp.WithTracerProvider(w.tracer), otelhttp.WithMeterProvider(metric.NewMeterProvider()))}
	if change != nil {
		change(&cfg)
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.T.Cleanup(func() { _ = client.Close() })
	o.Observe(client)
	return client
}

// do sends a request to a route within a span, and returns the span.
func (w *world) do(ctx context.Context, route string) (span trace.ReadOnlySpan) {
	w.Helper()
	ctx, open := w.tracer.Tracer("").Start(ctx, "the caller's")
	method, path, _ := strings.Cut(route, " ")
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(`{"name":"Bond"}`)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.URL+path, body)
	if err != nil {
		w.Fatal(err)
	}
	if resp, err := w.client.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	open.End()
	synctest.Wait()
	return open.(trace.ReadOnlySpan)
}

// metrics are what the reader collects.
func (w *world) metrics() (all []metricdata.Metrics) {
	w.Helper()
	synctest.Wait()
	return collected(w.T, w.reader)
}

func collected(t *testing.T, reader metric.Reader) (all []metricdata.Metrics) {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	for _, scope := range data.ScopeMetrics {
		all = append(all, scope.Metrics...)
	}
	return all
}

// series are the values of a metric by their attributes, such as
// "ampauth.retry.reason=timeout". Those that are 0 are left out, unless all is asked for.
func (w *world) series(name string, all bool) map[string]string {
	w.Helper()
	found := make(map[string]string)
	for _, m := range w.metrics() {
		if m.Name != name {
			continue
		}
		eachPoint(m, func(set attribute.Set, value string) {
			if all || value != "0" {
				found[text(set.ToSlice())] = value
			}
		})
	}
	return found
}

// want fails unless the series of a metric that are not 0 are these.
func (w *world) want(name string, want map[string]string) {
	w.Helper()
	if got := w.series(name, false); fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: %v, want %v", name, got, want)
	}
}

// eachPoint calls f for each value of a metric; that of a histogram is its count and sum.
func eachPoint(m metricdata.Metrics, f func(set attribute.Set, value string)) {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			f(p.Attributes, fmt.Sprint(p.Value))
		}
	case metricdata.Sum[float64]:
		for _, p := range data.DataPoints {
			f(p.Attributes, fmt.Sprint(p.Value))
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			f(p.Attributes, fmt.Sprint(p.Value))
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			f(p.Attributes, fmt.Sprintf("%d in %v s", p.Count, p.Sum))
		}
	default:
		f(attribute.Set{}, fmt.Sprintf("a %T", data))
	}
}

func text(attributes []attribute.KeyValue) string {
	var parts []string
	for _, kv := range attributes {
		parts = append(parts, string(kv.Key)+"="+kv.Value.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// told are the events of a span, such as "ampauth.ambiguous ampauth.attempts=1".
func told(span trace.ReadOnlySpan) (events []string) {
	for _, e := range span.Events() {
		events = append(events, e.Name+" "+text(e.Attributes))
	}
	return events
}

// failingStore fails each Load.
type failingStore struct{ ampauth.TokenStore }

func (failingStore) Load(context.Context, ampauth.StoreKey) (ampauth.Token, error) {
	return ampauth.Token{}, io.ErrUnexpectedEOF
}

func (failingStore) Save(context.Context, ampauth.StoreKey, ampauth.Token) error { return nil }

func (failingStore) DeleteIf(context.Context, ampauth.StoreKey, ampauth.Secret) error { return nil }
