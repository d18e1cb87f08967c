package promampauth_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/promampauth"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	ampObtain  = "POST /user/obtain_token"
	ampRefresh = "GET /user/refresh-token"
	ampAssets  = "GET /assets"
	ampIssue   = "POST /assets/issue"
)

// A world is a fake AMP, and a client with its collector in a registry.
type world struct {
	*testing.T
	*ampauthtest.Server
	registry  *prometheus.Registry
	collector *promampauth.Collector
	client    *ampauth.Client
}

// inWorld runs a test in a bubble of testing/synctest.
func inWorld(t *testing.T, change func(*ampauth.Config), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, Server: ampauthtest.NewServer(t, ampauthtest.Options{}), registry: prometheus.NewPedanticRegistry(), collector: new(promampauth.Collector)}
		w.client = w.newClient(w.collector, change)
		w.registry.MustRegister(w.collector)
		test(w)
	})
}

// newClient is a client that c collects from.
func (w *world) newClient(c *promampauth.Collector, change func(*ampauth.Config)) *ampauth.Client {
	w.Helper()
	cfg := w.Config()
	cfg.Retry = ampauth.RetryConfig{BaseDelay: time.Millisecond}
	cfg.OnEvent = c.OnEvent
	if change != nil {
		change(&cfg)
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.T.Cleanup(func() { _ = client.Close() })
	c.Observe(client)
	return client
}

// do sends a request to a route.
func (w *world) do(client *http.Client, route string) {
	w.Helper()
	method, path, _ := strings.Cut(route, " ")
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(`{"name":"Bond"}`)
	}
	req, err := http.NewRequestWithContext(w.Context(), method, w.URL+path, body)
	if err != nil {
		w.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	synctest.Wait()
}

// series are the values of a metric by their labels, such as "reason=timeout". Those that
// are 0 are left out, unless all is asked for.
func (w *world) series(name string, all bool) map[string]string {
	w.Helper()
	synctest.Wait()
	found := make(map[string]string)
	for _, family := range w.gather() {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if value, zero := valueOf(m); all || !zero {
				found[labelsOf(m)] = value
			}
		}
	}
	return found
}

func (w *world) gather() []*dto.MetricFamily {
	w.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	return families
}

// want fails unless the series of a metric that are not 0 are these.
func (w *world) want(name string, want map[string]string) {
	w.Helper()
	if got := w.series(name, false); !maps.Equal(got, want) {
		w.Errorf("%s: %v, want %v", name, got, want)
	}
}

func valueOf(m *dto.Metric) (value string, zero bool) {
	if h := m.GetHistogram(); h != nil {
		return fmt.Sprintf("%d in %v s", h.GetSampleCount(), h.GetSampleSum()), h.GetSampleCount() == 0
	}
	number := m.GetCounter().GetValue() + m.GetGauge().GetValue()
	return fmt.Sprint(number), number == 0
}

func labelsOf(m *dto.Metric) string {
	var parts []string
	for _, pair := range m.GetLabel() {
		if pair.GetValue() != "" { // which is none
			parts = append(parts, pair.GetName()+"="+pair.GetValue())
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// failingStore fails each Load.
type failingStore struct{ ampauth.TokenStore }

func (failingStore) Load(context.Context, ampauth.StoreKey) (ampauth.Token, error) {
	return ampauth.Token{}, io.ErrUnexpectedEOF
}

func (failingStore) Save(context.Context, ampauth.StoreKey, ampauth.Token) error { return nil }

func (failingStore) DeleteIf(context.Context, ampauth.StoreKey, ampauth.Secret) error { return nil }
