package otelampauth_test

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/otelampauth"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	api "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestRemainingLifeIsThatOfTheToken(t *testing.T) {
	const name = "ampauth.token.remaining"
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		w.want(name, map[string]string{})
		if _, err := w.client.Tokens.Token(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.want(name, map[string]string{"": "3600"})
		time.Sleep(61 * time.Minute)
		w.want(name, map[string]string{"": "-60"})
		_ = w.client.Close()
		w.want(name, map[string]string{})
	})
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Lifetime = -1 }, func(w *world) {
		w.do(w.Context(), ampAssets)
		if got := w.series(name, true); len(got) > 0 {
			w.Errorf("a token without an end has %v left", got)
		}
	})
}

func TestSeveralSourcesOfOneObserverAreSummedUp(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		other := w.newClient(w.observer, func(cfg *ampauth.Config) { cfg.Lifetime = 2 * time.Hour })
		w.observer.Observe((*ampauth.Client)(nil), &ampauth.Client{}, new(ampauth.RetryTransport))
		for _, client := range []*ampauth.Client{w.client, other} {
			if _, err := client.Tokens.Token(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.client = client
			w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 429, RetryAfter: "2"})
			w.do(w.Context(), ampAssets)
		}
		w.want("ampauth.call.waits", map[string]string{"": "2"})
		waited := w.series("ampauth.call.wait.time", true)[""]
		if sum := other.Stats().Waited; !strings.HasPrefix(waited, "4.") || sum >= 3*time.Second {
			w.Errorf("waited %s s, one of them %v", waited, sum)
		}
		if left := w.series("ampauth.token.remaining", true)[""]; !strings.HasPrefix(left, "359") {
			w.Errorf("%s s are left, want those of the hour", left)
		}
	})
}

func TestAStackMadeByHandIsObservedByItsParts(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		observer := w.newObserver(attribute.String("stack", "by hand"))
		tokens, err := ampauth.NewTokenManager(w.Config())
		if err != nil {
			w.Fatal(err)
		}
		defer tokens.Close()
		retry := &ampauth.RetryTransport{
			Base:    &ampauth.AuthTransport{Source: tokens, Base: w.Transport()},
			Retry:   ampauth.RetryConfigForTests(),
			OnEvent: observer.OnEvent,
		}
		observer.Observe(retry, tokens)
		w.client.Transport = retry
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "1"})
		w.do(w.Context(), ampAssets)
		w.want("ampauth.call.retries", map[string]string{"ampauth.retry.reason=server_error stack=by hand": "1"})
		w.want("ampauth.call.waits", map[string]string{"stack=by hand": "1"})
		if left := w.series("ampauth.token.remaining", true)["stack=by hand"]; !strings.HasPrefix(left, "8639") {
			w.Errorf("%s s are left of a day", left)
		}
	})
}

func TestTwoClientsAreToldApartByTheirAttributes(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		for _, name := range []string{"a", "b"} {
			observer := w.newObserver(attribute.String("client", name))
			w.client = w.newClient(observer, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour })
			w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"})
			w.do(w.Context(), ampAssets)
		}
		w.want("ampauth.call.retries", map[string]string{
			"ampauth.retry.reason=server_error client=a": "1", "ampauth.retry.reason=server_error client=b": "1"})
		if left := w.series("ampauth.token.remaining", true); len(left) != 2 || left["client=a"] == "" || left["client=b"] == "" {
			w.Errorf("the tokens' lives are %v", left)
		}
	})
}

func TestClosedObserverLooksAtNothing(t *testing.T) {
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		w.do(w.Context(), ampAssets)
		for range 2 {
			if err := w.observer.Close(); err != nil {
				w.Error(err)
			}
		}
		for _, name := range []string{"ampauth.token.remaining", "ampauth.call.waits", "ampauth.call.wait.time"} {
			if got := w.series(name, true); len(got) > 0 {
				w.Errorf("%s: %v", name, got)
			}
		}
		w.observer.OnEvent(w.Context(), ampauth.Event{Name: ampauth.EventReplay})
		w.want("ampauth.call.replays", map[string]string{"": "1"})
	})
}

func TestZeroObserverTellsSpansAndHasNoMetrics(t *testing.T) {
	var zero otelampauth.Observer
	zero.Observe(new(ampauth.Client))
	if err := zero.Close(); err != nil {
		t.Error(err)
	}
	inWorld(t, ampauthtest.Options{}, func(cfg *ampauth.Config) { cfg.OnEvent = zero.OnEvent }, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampIssue, Reset: true})
		if got := told(w.do(w.Context(), ampIssue)); len(got) != 1 {
			w.Errorf("told %v", got)
		}
		w.want("ampauth.call.ambiguous", map[string]string{})
	})
}

func TestProviderThatIsNilIsTheGlobalOne(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	defer otel.SetMeterProvider(before)
	observer, err := otelampauth.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer observer.Close()
	if all := collected(t, reader); len(all) == 0 {
		t.Error("there are no metrics")
	}
}

// A brokenMeter refuses one kind of instrument, or the callback.
type brokenMeter struct {
	noop.Meter
	refuses string
}

// A brokenProvider has one.
type brokenProvider struct {
	noop.MeterProvider
	refuses string
}

var errBroken = errors.New("broken")

func (p brokenProvider) Meter(string, ...api.MeterOption) api.Meter {
	return brokenMeter{refuses: p.refuses}
}

func (m brokenMeter) fault(kind string) error {
	if m.refuses == kind {
		return errBroken
	}
	return nil
}

func (m brokenMeter) Int64Counter(string, ...api.Int64CounterOption) (api.Int64Counter, error) {
	return noop.Int64Counter{}, m.fault("counter")
}

func (m brokenMeter) Float64Histogram(string, ...api.Float64HistogramOption) (api.Float64Histogram, error) {
	return noop.Float64Histogram{}, m.fault("histogram")
}

func (m brokenMeter) Int64ObservableCounter(string, ...api.Int64ObservableCounterOption) (api.Int64ObservableCounter, error) {
	return noop.Int64ObservableCounter{}, m.fault("observable counter")
}

func (m brokenMeter) Float64ObservableCounter(string, ...api.Float64ObservableCounterOption) (api.Float64ObservableCounter, error) {
	return noop.Float64ObservableCounter{}, m.fault("observable sum")
}

func (m brokenMeter) Float64ObservableGauge(string, ...api.Float64ObservableGaugeOption) (api.Float64ObservableGauge, error) {
	return noop.Float64ObservableGauge{}, m.fault("gauge")
}

func (m brokenMeter) RegisterCallback(api.Callback, ...api.Observable) (api.Registration, error) {
	return noop.Registration{}, m.fault("callback")
}

func TestErrorOfTheProviderIsReturned(t *testing.T) {
	for _, kind := range []string{"counter", "histogram", "observable counter", "observable sum", "gauge", "callback"} {
		if _, err := otelampauth.New(brokenProvider{refuses: kind}); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := otelampauth.New(brokenProvider{}); err != nil {
		t.Error(err)
	}
}

// row is a line of the table of metrics in the package documentation.
var row = regexp.MustCompile(`(?m)^//\t(ampauth\.\S+) +(histogram|counter|gauge) +(\S+)  `)

func TestDocumentationListsTheMetricsWithTheirUnits(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, match := range row.FindAllStringSubmatch(string(doc), -1) {
		want = append(want, strings.Join(match[1:], " "))
	}
	inWorld(t, ampauthtest.Options{}, nil, func(w *world) {
		w.do(w.Context(), ampAssets)
		var got []string
		for _, m := range w.metrics() {
			kind := "counter"
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				kind = "histogram"
			case metricdata.Gauge[float64]:
				kind = "gauge"
			case metricdata.Sum[int64]:
				if !data.IsMonotonic {
					kind = "up-down counter"
				}
			}
			got = append(got, m.Name+" "+kind+" "+m.Unit)
			if m.Description == "" {
				w.Errorf("%s has no description", m.Name)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			w.Errorf("there is\n%s\nand in doc.go\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
