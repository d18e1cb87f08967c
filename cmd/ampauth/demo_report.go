package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ampauth/ampauth"
)

// A report is what a demo prints in the end: as a table, or as it is in JSON.
type report struct {
	Verdict     string  `json:"verdict"` // pass or fail
	Interrupted bool    `json:"interrupted"`
	Seed        uint64  `json:"seed"`
	Workers     int     `json:"workers"`
	Lifetime    float64 `json:"lifetime_seconds"`
	Elapsed     float64 `json:"elapsed_seconds"`

	Requests     int               `json:"requests"`
	OnTheWire    int               `json:"requests_on_the_wire"` // as the fake counts them, logins included
	OK           int               `json:"ok"`
	Mutations    int               `json:"mutations"`
	Ambiguous    reportDoubt       `json:"ambiguous"`
	GatewayError reportDoubt       `json:"answered_502"`
	ByOnce       reportOnce        `json:"by_once"`
	Latency      reportLatency     `json:"latency_ms"`
	Logins       int               `json:"logins"` // requests that the fake saw
	Refreshes    uint64            `json:"refreshes"`
	Renewals     uint64            `json:"renewals"`
	Retries      map[string]uint64 `json:"retries"` // by reason
	Replays      uint64            `json:"replays"`
	Waits        uint64            `json:"waits"`
	Waited       float64           `json:"waited_seconds"`
	Faults       map[string]int    `json:"faults"`         // times that each kind happened
	FaultHits    map[string]int    `json:"fault_requests"` // requests that met it

	UnexplainedFailures int      `json:"unexplained_failures"`
	MutationsTwice      int      `json:"mutations_twice"`
	Revocations         int      `json:"revocations"`
	LoginsPerRevocation int      `json:"logins_per_revocation"`
	Violations          []string `json:"violations"`
	Checks              []check  `json:"checks"`
	Details             []string `json:"details"` // of what failed
}

// A reportDoubt counts mutations that did not end in success, by what the log of
// effects says about them.
type reportDoubt struct {
	Performed    int `json:"performed"`
	NotPerformed int `json:"not_performed"`
}

func (d reportDoubt) total() int { return d.Performed + d.NotPerformed }

func (d reportDoubt) String() string {
	return fmt.Sprintf("%d: %d performed, %d not", d.total(), d.Performed, d.NotPerformed)
}

// A reportOnce counts what was to be performed exactly once, and what was.
type reportOnce struct {
	Wanted    int `json:"wanted"`
	Performed int `json:"performed_exactly_once"`
}

type reportLatency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// maxDetails bounds what is told of a run that went wrong all over.
const maxDetails = 20

// report judges a demo whose workers have ended.
func (d *demo) report(interrupted bool, elapsed time.Duration) *report {
	d.load.mu.Lock()
	defer d.load.mu.Unlock()
	d.director.mu.Lock()
	defer d.director.mu.Unlock()
	e := evidence{
		mutations:   d.load.mutations,
		failures:    d.load.failures,
		effects:     d.fake.Effects(),
		injected:    d.fake.Injected(),
		incidents:   d.director.incidents,
		violations:  d.fake.Violations(),
		interrupted: interrupted,
	}
	v := judge(e)
	stats := d.client.Stats()
	r := &report{
		Verdict:             v.result(),
		Interrupted:         interrupted,
		Seed:                d.options.seed,
		Workers:             d.options.workers,
		Lifetime:            d.options.lifetime.Seconds(),
		Elapsed:             elapsed.Seconds(),
		Requests:            d.load.overall.total,
		OK:                  d.load.succeeded,
		Mutations:           len(d.load.mutations),
		Ambiguous:           reportDoubt{v.ambiguousPerformed, v.ambiguousNot},
		GatewayError:        reportDoubt{v.gatewayPerformed, v.gatewayNot},
		ByOnce:              reportOnce{v.onceWanted, v.oncePerformed},
		Latency:             latencyOf(&d.load.overall),
		Logins:              d.fake.Count(obtainRoute),
		Refreshes:           stats.Refreshes,
		Renewals:            stats.Renewals,
		Retries:             retriesByReason(stats.Retries),
		Replays:             stats.Replays,
		Waits:               stats.Waits,
		Waited:              stats.Waited.Seconds(),
		Faults:              v.times,
		FaultHits:           v.requests,
		UnexplainedFailures: len(v.unexplained),
		MutationsTwice:      len(v.twice),
		Revocations:         v.revocations,
		LoginsPerRevocation: v.loginsPerRevocation,
		Violations:          append([]string{}, e.violations...), // JSON has no nil slice
		Checks:              v.checks,
		Details:             append(append([]string{}, v.unexplained...), v.twice...),
	}
	for _, n := range d.fake.Counts() {
		r.OnTheWire += n
	}
	if more := len(r.Details) - maxDetails; more > 0 {
		r.Details = append(r.Details[:maxDetails], fmt.Sprintf("and %d more", more))
	}
	return r
}

func latencyOf(l *latencies) reportLatency {
	ms := func(d time.Duration) float64 {
		return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
	}
	return reportLatency{ms(l.percentile(0.50)), ms(l.percentile(0.99)), ms(l.max)}
}

func (r *report) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// writeTable writes the report for people.
func (r *report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, values ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{name}, values...)...)
	}
	fmt.Fprintln(t)
	if r.Interrupted {
		fmt.Fprintf(t, "Interrupted after %.1fs.\n\n", r.Elapsed)
	}
	row("requests", "%d in %.1fs, %d on the wire with retries, replays and logins", r.Requests, r.Elapsed, r.OnTheWire)
	row("ok", "%d", r.OK)
	row("ambiguous", "%s", r.Ambiguous)
	row("answered 502", "%s", r.GatewayError)
	row("latency", "p50 %.1fms, p99 %.1fms, max %.1fms", r.Latency.P50, r.Latency.P99, r.Latency.Max)
	row("logins", "%d", r.Logins)
	row("refreshes", "%d", r.Refreshes)
	row("renewals", "%d", r.Renewals)
	row("retries", "%s", retryText(r.Retries))
	row("replays", "%d with another token", r.Replays)
	row("waits", "%d, together %.1fs", r.Waits, r.Waited)
	fmt.Fprintln(t, "\nfault\ttimes\trequests that met it")
	for _, kind := range faultKinds {
		hits := "any, until the next login"
		if kind != revocation && kind != rotation {
			hits = fmt.Sprint(r.FaultHits[kind])
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", kind, r.Faults[kind], hits)
	}
	fmt.Fprintln(t, "\nverdict")
	for _, c := range r.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", strings.ToUpper(c.Result), c.Claim, c.Found)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, detail := range append(r.Details, r.Violations...) {
		fmt.Fprintln(w, "     "+detail)
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", strings.ToUpper(r.Verdict), r.summary())
	return err
}

// summary says in a line what the verdict comes from.
func (r *report) summary() string {
	failures, gaps := 0, 0
	for _, c := range r.Checks {
		switch c.Result {
		case fail:
			failures++
		case incomplete:
			gaps++
		}
	}
	switch {
	case failures > 0:
		return fmt.Sprintf("%d of %d checks failed", failures, len(r.Checks))
	case gaps > 0:
		return "what happened holds, but the interruption came before there was enough of it"
	case r.Interrupted:
		return "interrupted, and all checks hold"
	}
	return "all checks hold"
}

// The reasons for a retry, by which a report counts them.
const (
	notSent     = "not sent"
	unprocessed = "unprocessed"
	rateLimited = "rate limited"
	serverError = "server error"
	timedOut    = "timeout"
	broken      = "broken connection"
)

func retriesByReason(s ampauth.RetryStats) map[string]uint64 {
	return map[string]uint64{
		notSent: s.NotSent, unprocessed: s.Unprocessed, rateLimited: s.RateLimited,
		serverError: s.ServerError, timedOut: s.Timeout, broken: s.Broken,
	}
}

// retryText names the reasons that there were.
func retryText(byReason map[string]uint64) string {
	var total uint64
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		if n := byReason[reason]; n > 0 {
			total += n
			reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
		}
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(reasons, ", "))
}
