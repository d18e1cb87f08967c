package promampauth

import (
	"github.com/ampauth/ampauth"
	"github.com/prometheus/client_golang/prometheus"
)

// A counter is a metric that is read from Stats.
type counter struct {
	desc   *prometheus.Desc
	series []series
}

// A series of it has the values of its labels.
type series struct {
	value  func(ampauth.Stats) float64
	labels []string
}

// fromStats are the metrics that are read from Stats.
func fromStats() []counter {
	type stats = ampauth.Stats
	named := func(name, help string, labels []string, all ...series) counter {
		return counter{prometheus.NewDesc(name, help, labels, nil), all}
	}
	number := func(of func(stats) uint64, labels ...string) series {
		return series{func(s stats) float64 { return float64(of(s)) }, labels}
	}
	one := func(name, help string, of func(stats) uint64) counter {
		return named(name, help, nil, number(of))
	}
	return []counter{
		named("ampauth_logins_total", "Logins and refreshes that ended.", []string{"operation", "result"},
			number(func(s stats) uint64 { return s.Obtains }, "obtain", "ok"),
			number(func(s stats) uint64 { return s.ObtainFailures }, "obtain", "error"),
			number(func(s stats) uint64 { return s.Refreshes }, "refresh", "ok"),
			number(func(s stats) uint64 { return s.RefreshFailures }, "refresh", "error")),
		one("ampauth_login_renewals_total", "Logins that were made because the API refused a token.",
			func(s stats) uint64 { return s.Renewals }),
		one("ampauth_token_adoptions_total", "Tokens taken from the store.",
			func(s stats) uint64 { return s.Adoptions }),
		named("ampauth_call_retries_total", "Requests sent again.", []string{"reason"},
			number(func(s stats) uint64 { return s.Retries.NotSent }, "not_sent"),
			number(func(s stats) uint64 { return s.Retries.Unprocessed }, "unprocessed"),
			number(func(s stats) uint64 { return s.Retries.RateLimited }, "rate_limited"),
			number(func(s stats) uint64 { return s.Retries.ServerError }, "server_error"),
			number(func(s stats) uint64 { return s.Retries.Timeout }, "timeout"),
			number(func(s stats) uint64 { return s.Retries.Broken }, "broken_connection")),
		one("ampauth_call_replays_total", "Requests sent again with a new token.",
			func(s stats) uint64 { return s.Replays }),
		one("ampauth_call_waits_total", "Waits for a backoff, a Retry-After or the limiter.",
			func(s stats) uint64 { return s.Waits }),
		named("ampauth_call_wait_time_seconds_total", "Time spent in waits for a backoff, a Retry-After or the limiter.", nil,
			series{func(s stats) float64 { return s.Waited.Seconds() }, nil}),
		one("ampauth_call_ambiguous_total", "Calls whose outcome is in doubt.",
			func(s stats) uint64 { return s.Ambiguous }),
		one("ampauth_call_exhausted_total", "Calls given up although they could have been sent, or sent again.",
			func(s stats) uint64 { return s.Exhausted }),
		one("ampauth_store_faults_total", "Calls of the token store that failed.",
			func(s stats) uint64 { return s.StoreFaults }),
	}
}
