package promampauth

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/prometheus/client_golang/prometheus"
)

// A Source counts what it did: an [ampauth.Client], or in a stack made by hand its
// [ampauth.RetryTransport] and its [ampauth.TokenManager].
type Source interface{ Stats() ampauth.Stats }

// A Collector is a [prometheus.Collector] of what clients do. The zero value is one that
// has no client yet. Its methods are safe for concurrent use. There is nothing to close: to
// let go of the clients, take it out of its registry.
type Collector struct {
	mu      sync.Mutex // guards all below
	sources []Source
	logins  *prometheus.HistogramVec // made by duration
}

// Observe adds what is looked at when Prometheus scrapes: a client, or the parts of a
// stack, but not a Client together with its Tokens. The counters of several are summed up,
// and of their tokens that counts which ends first; give each a Collector of its own to
// tell them apart.
func (c *Collector) Observe(sources ...Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources = append(c.sources, sources...)
}

// OnEvent is for the OnEvent of an [ampauth.Config], or to be called by a function that is.
// Without it there are no durations of logins.
func (c *Collector) OnEvent(_ context.Context, e ampauth.Event) {
	if e.Name == ampauth.EventObtain || e.Name == ampauth.EventRefresh {
		c.durations().WithLabelValues(string(e.Name), e.ErrorType()).Observe(e.Elapsed.Seconds())
	}
}

// durations is the histogram. The series that everybody has begin at 0, and so does that of
// refused credentials: what goes from nothing to 1 is no increase to an alert.
func (c *Collector) durations() *prometheus.HistogramVec {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins == nil {
		c.logins = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ampauth_login_duration_seconds",
			Help:    "Duration of logins and refreshes, with all their attempts and waits.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"operation", "error_type"})
		c.logins.WithLabelValues("obtain", "")
		c.logins.WithLabelValues("refresh", "")
		c.logins.WithLabelValues("obtain", "credentials_refused")
	}
	return c.logins
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range fromStats() {
		to <- m.desc
	}
	to <- remainingDesc()
	c.durations().Describe(to)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.durations().Collect(to)
	c.mu.Lock()
	sources := slices.Clone(c.sources)
	c.mu.Unlock()

	all := make([]ampauth.Stats, len(sources))
	for i, source := range sources {
		all[i] = source.Stats()
	}
	for _, m := range fromStats() {
		for _, s := range m.series {
			var sum float64
			for _, stats := range all {
				sum += s.value(stats)
			}
			to <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, sum, s.labels...)
		}
	}
	if left, ok := leastRemaining(sources); ok {
		to <- prometheus.MustNewConstMetric(remainingDesc(), prometheus.GaugeValue, left.Seconds())
	}
}

func remainingDesc() *prometheus.Desc {
	return prometheus.NewDesc("ampauth_token_remaining_seconds", "Remaining life of the token, negative once it has ended.", nil, nil)
}

// leastRemaining is the life of the token that ends first; ok is false if there is none that
// ends.
func leastRemaining(sources []Source) (least time.Duration, ok bool) {
	for _, source := range sources {
		if client, is := source.(*ampauth.Client); is {
			if client == nil {
				continue
			}
			source = client.Tokens
		}
		tokens, is := source.(*ampauth.TokenManager)
		if !is {
			continue
		}
		info, found := tokens.Info()
		if found && !info.ExpiresAt.IsZero() && (!ok || info.ExpiresIn < least) {
			least, ok = info.ExpiresIn, true
		}
	}
	return least, ok
}
