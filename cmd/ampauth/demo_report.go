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
	Verdict     string  `json:"verdict"` // pass, fail or incomplete
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

// A row is a figure of the table, with the meaning of its name.
type row struct{ name, value, meaning string }

// rows are the figures that tell what happened; with all there are, those that tell how.
func (r *report) rows(all bool) []row {
	var rows []row
	add := func(name, meaning, format string, values ...any) {
		rows = append(rows, row{name, fmt.Sprintf(format, values...), meaning})
	}
	add("requests", "by the workers", "%d in %.1fs, %d ok", r.Requests, r.Elapsed, r.OK)
	if all {
		add("on the wire", "with retries, replays and logins", "%d", r.OnTheWire)
	}
	add("ambiguous", "reset after or before the effect", "%s", r.Ambiguous)
	add("answered 502", "by a gateway, after the effect", "%s", r.GatewayError)
	add("by Once", "reads before it sends again", "%d of %d performed", r.ByOnce.Performed, r.ByOnce.Wanted)
	add("revocations", "the token ended by somebody else", "%d", r.Revocations)
	add("logins", "whenever there was no good token", "%d", r.Logins)
	add("refreshes", "ahead of the end of a good token", "%d", r.Refreshes)
	if all {
		add("renewals", "of tokens that were refused", "%d", r.Renewals)
	}
	add("replays", "sent again with another token", "%d", r.Replays)
	add("retries", "sent again after a wait", "%d", total(r.Retries))
	if all {
		for _, reason := range slices.Sorted(maps.Keys(r.Retries)) {
			if n := r.Retries[reason]; n > 0 {
				add("", "of these, "+reason, "%d", n)
			}
		}
		add("waits", "of attempts, before they were sent", "%d, together %.1fs", r.Waits, r.Waited)
		add("slowest", "from the call to the whole answer", "%.1fms", r.Latency.Max)
	}
	add("latency", "a 429 asks for a wait of a second", "p50 %.1fms, p99 %.1fms", r.Latency.P50, r.Latency.P99)
	return rows
}

func total(byReason map[string]uint64) (sum uint64) {
	for _, n := range byReason {
		sum += n
	}
	return sum
}

// writeTable writes the report for people: with the introduction it fits a screen, unless
// all is asked for, or something failed.
func (r *report) writeTable(w io.Writer, all bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t)
	for _, row := range r.rows(all) {
		fmt.Fprintf(t, "%s\t%s\t%s\n", row.name, row.value, row.meaning)
	}
	if all {
		fmt.Fprintln(t, "\nfault\ttimes\trequests that met it")
		for _, kind := range faultKinds {
			hits := "any, until the next login"
			if kind != revocation && kind != rotation {
				hits = fmt.Sprint(r.FaultHits[kind])
			}
			fmt.Fprintf(t, "%s\t%d\t%s\n", kind, r.Faults[kind], hits)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if all {
		fmt.Fprint(w, "\n"+demoWords)
	}
	fmt.Fprintln(w, "\nverdict")
	results, claims := 0, 0
	for _, c := range r.Checks {
		results, claims = max(results, len(c.Result)), max(claims, len(c.Claim))
	}
	for _, c := range r.Checks {
		line := fmt.Sprintf("%-*s  %-*s  %s", results, strings.ToUpper(c.Result), claims, c.Claim, c.Found)
		if len(line) > screenWidth { // what was found goes below the claim
			line = fmt.Sprintf("%-*s  %s\n%*s%s", results, strings.ToUpper(c.Result), c.Claim, results+2, "", c.Found)
		}
		fmt.Fprintln(w, line)
	}
	for _, detail := range append(r.Details, r.Violations...) {
		fmt.Fprintln(w, "     "+detail)
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", strings.ToUpper(r.Verdict), r.summary())
	return err
}

// screenWidth is how many columns a terminal has at least.
const screenWidth = 80

const demoWords = `words
  ambiguous   the connection broke after the request was sent, and no answer
              came. The client returns ErrAmbiguous and sends it no more.
  Once        reads, and sends again only what was not performed.
  effect      what a request changes. The fake keeps a log of them.
  revocation  the token is ended while it is used; a rotation is a refresh by
              somebody else, which ends it too. One login serves all workers.
  renewal     a login that was made because the fake refused the token.
  replay      a request whose token was refused, sent with the new one.
  retry       a request that may be repeated, or was not looked at, sent again.
  repeatable  what may be sent twice: a read, and here the lock of an asset.
`

// summary says in a line what the verdict comes from.
func (r *report) summary() string {
	failures := 0
	for _, c := range r.Checks {
		if c.Result == fail {
			failures++
		}
	}
	switch {
	case failures > 0:
		return fmt.Sprintf("%d of %d checks failed", failures, len(r.Checks))
	case r.Verdict == incomplete:
		return fmt.Sprintf("interrupted after %.1fs; what happened until then holds", r.Elapsed)
	}
	return fmt.Sprintf("all checks hold (-verbose tells more, -seed %d repeats the faults)", r.Seed)
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
