package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

func TestShortDemoPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s; run without -short")
	}
	noGoroutineLeft(t)
	got := runCommand(t.Context(), "demo", "-duration", "3s", "-seed", "7", "-json")
	r := parseReport(t, got.stdout)
	if got.code != 0 || r.Verdict != pass || r.Interrupted {
		t.Fatalf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	for _, kind := range faultKinds {
		if n := r.Faults[kind]; n < 3 {
			t.Errorf("%s happened %d times, want at least 3", kind, n)
		}
	}
	if r.Seed != 7 || r.Requests == 0 || r.OK+r.Ambiguous.total()+r.GatewayError.total() != r.Requests {
		t.Errorf("the numbers do not add up:\n%s", got.stdout)
	}
	if r.LoginsPerRevocation != 1 || r.Revocations < 6 || r.Logins <= r.Revocations {
		t.Errorf("%d logins, %d per revocation of %d", r.Logins, r.LoginsPerRevocation, r.Revocations)
	}
	if r.Ambiguous.Performed < 3 || r.Ambiguous.NotPerformed < 3 || r.Refreshes == 0 || r.Replays == 0 || r.Retries[broken] == 0 {
		t.Errorf("nothing of a kind happened:\n%s", got.stdout)
	}
	if r.ByOnce.Wanted < 9 || r.ByOnce.Performed != r.ByOnce.Wanted {
		t.Errorf("through Once: %+v", r.ByOnce)
	}
	if !strings.Contains(got.stderr, "seed 7") || !strings.Contains(got.stderr, "at  1s  requests") {
		t.Errorf("the live lines are not on stderr: %q", got.stderr)
	}
	fitsAScreen(t, demoOptions{seed: r.Seed, workers: r.Workers}.introduction(), &r)
}

// parseReport wants exactly one JSON object.
func parseReport(t *testing.T, stdout string) report {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(stdout))
	var r report
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Fatalf("more than one JSON value in %q", stdout)
	}
	return r
}

func TestInterruptedDemoEndsWithTheTable(t *testing.T) {
	noGoroutineLeft(t)
	ctx, interrupt := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer interrupt()
	began := time.Now()
	got := runCommand(ctx, "demo", "-duration", "1m")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it ended after %v", took)
	}
	if got.code != 1 || got.stderr != "" {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
	table := strings.Join(strings.Fields(got.stdout), " ") // the columns' width aside
	for _, want := range []string{
		"requests", "p50", "PASS failures that no injected fault explains 0", "PASS mutations performed twice 0", "issuances by Once, each performed exactly once",
		"INCOMPLETE times each kind of fault happened, at least 3 0: interrupted", "INCOMPLETE: interrupted after",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is missing in:\n%s", want, got.stdout)
		}
	}
}

func TestInterruptedDemoSaysSoInJSON(t *testing.T) {
	noGoroutineLeft(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	got := runCommand(ctx, "demo", "-json")
	if r := parseReport(t, got.stdout); got.code != 1 || r.Verdict != incomplete || !r.Interrupted || r.UnexplainedFailures != 0 {
		t.Errorf("exit code %d\n%s", got.code, got.stdout)
	}
}

func TestDemoReportsAStdoutThatIsGone(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var stderr strings.Builder
	if code := run(ctx, []string{"demo"}, brokenPipe{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}

func TestViewIsOneLineEachOrInPlace(t *testing.T) {
	s := snapshot{
		elapsed: 2 * time.Second, requests: 120, second: 60, p50: 300 * time.Microsecond, p99: 4 * time.Millisecond,
		stats:    ampauth.Stats{Obtains: 3, Refreshes: 2, Renewals: 1, Waits: 5, Retries: ampauth.RetryStats{Broken: 4}},
		token:    ampauth.TokenInfo{Age: 500 * time.Millisecond, ExpiresIn: 1500 * time.Millisecond},
		hasToken: true,
		fault:    outage,
	}
	var plain, terminal strings.Builder
	lines, screen := newView(&plain, false), newView(&terminal, true)
	lines.verbose = true
	for range 2 {
		lines.draw(s)
		screen.draw(s)
	}
	const line = "at  2s  requests 120 (+60)  p50 0.3ms  p99 4.0ms  logins 3  refreshes 2  renewals 1  retries 4  waits 5" +
		"  token 0.5s old, 1.5s left  fault burst of 503\n"
	if plain.String() != line+line {
		t.Errorf("plain lines:\n%s", plain.String())
	}
	first, second, found := strings.Cut(terminal.String(), "\r\x1b[11A")
	if !found || first != second || strings.Count(first, "\n") != 11 {
		t.Errorf("on a terminal: %q", terminal.String())
	}
	s = snapshot{}
	plain.Reset()
	lines.draw(s)
	if !strings.Contains(plain.String(), "token none  fault none yet") {
		t.Errorf("without a token: %s", plain.String())
	}
}

func TestPercentilesAreAtMostTwoPercentTooHigh(t *testing.T) {
	var l latencies
	if l.percentile(0.5) != 0 {
		t.Error("there is a percentile of nothing")
	}
	for n := 1; n <= 1000; n++ {
		l.add(time.Duration(n) * time.Millisecond)
	}
	l.add(1)
	for _, tt := range []struct {
		p    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.99, 990 * time.Millisecond}, {1, time.Second}} {
		if got := l.percentile(tt.p); got < tt.want || got > tt.want+tt.want/50 {
			t.Errorf("p%v is %v, want %v", 100*tt.p, got, tt.want)
		}
	}
	l.add(1000 * time.Hour)
	if got := l.percentile(1); got < 24*time.Hour || l.max != 1000*time.Hour {
		t.Errorf("the largest is %v, max %v", got, l.max)
	}
}
