package otelampauth_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"testing"

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

// A client whose second request is answered 503 once, with the metrics and the spans of
// otelhttp that come of it.
func Example() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "GET /assets", Status: 503, RetryAfter: "0"})
	reader, spans := metric.NewManualReader(), tracetest.NewInMemoryExporter()
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	tracers := trace.NewTracerProvider(trace.WithSyncer(spans))

	observer, err := otelampauth.New(meters) // nil: the global provider
	if err != nil {
		log.Fatal(err)
	}
	defer observer.Close()
	cfg := amp.Config() // or ampauth.ConfigFromEnv
	cfg.OnEvent = observer.OnEvent
	cfg.HTTPClient = &http.Client{Transport: otelhttp.NewTransport(
		otelampauth.ResendCount{Base: &ampauth.ConnTransport{Base: amp.Transport()}},
		otelhttp.WithTracerProvider(tracers))}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	observer.Observe(client)

	resp, err := client.Get(cfg.URL("/assets"))
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()

	for _, span := range spans.GetSpans() {
		fmt.Print(span.Name)
		for _, kv := range span.Attributes {
			switch kv.Key {
			case "http.response.status_code", "http.request.resend_count":
				fmt.Printf(" %s=%v", kv.Key, kv.Value.String())
			}
		}
		fmt.Println()
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		log.Fatal(err)
	}
	for _, m := range data.ScopeMetrics[0].Metrics {
		if counter, ok := m.Data.(metricdata.Sum[int64]); ok {
			for _, p := range counter.DataPoints {
				if p.Value > 0 {
					fmt.Println(m.Name, p.Attributes.Encoded(attribute.DefaultEncoder()), p.Value)
				}
			}
		}
	}
	// Output:
	// HTTP POST http.response.status_code=200
	// HTTP GET http.response.status_code=503
	// HTTP GET http.request.resend_count=1 http.response.status_code=200
	// ampauth.call.retries ampauth.retry.reason=server_error 1
	// ampauth.call.waits  1
}

// exampleT is the t of an example, which has none: in a test, take its own.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Logf(string, ...any)               {}
func (t *exampleT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// end runs the cleanups, the last one first.
func (t *exampleT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		f()
	}
}
