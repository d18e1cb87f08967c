package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// terminalRows is what a terminal shows of text that moves its cursor as a view does.
func terminalRows(t *testing.T, text string) (rows []string) {
	t.Helper()
	row := 0
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(line, "\r")
		for strings.HasPrefix(line, "\x1b[") {
			end := strings.IndexAny(line, "AJK")
			n, _ := strconv.Atoi(line[2:end])
			switch line[end] {
			case 'A':
				row -= n
			case 'J':
				rows = rows[:row]
			}
			line = line[end+1:]
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\x1b[K")
		if strings.Contains(line, "\x1b") || row < 0 {
			t.Fatalf("a terminal would show something else for %q", text)
		}
		rows = append(rows[:row], append([]string{line}, rows[min(row+1, len(rows)):]...)...)
		row++
	}
	return rows
}

// fitsAScreen wants that a terminal of 24 rows and 80 columns shows all of a demo that has
// ended, and has a row left for the prompt.
func fitsAScreen(t *testing.T, introduction string, r *report) {
	t.Helper()
	var terminal strings.Builder
	terminal.WriteString(introduction)
	v := newView(&terminal, true)
	for range 3 {
		v.draw(snapshot{elapsed: 10 * time.Second, fault: readCutBefore, hasToken: true, stats: ampauth.Stats{Obtains: 100}})
	}
	v.clear()
	mustDo(t, r.writeTable(&terminal, false))
	rows := terminalRows(t, terminal.String())
	if len(rows) > 23 {
		t.Errorf("%d rows", len(rows))
	}
	if len(rows) == 0 || !strings.HasPrefix(rows[0], "Shown") {
		t.Errorf("it does not begin with the introduction: %q", rows)
	}
	fitsColumns(t, terminal.String())
	if t.Failed() {
		t.Log("\n" + strings.Join(rows, "\n"))
	}
}

func fitsColumns(t *testing.T, text string) {
	t.Helper()
	for _, row := range terminalRows(t, text) {
		if len(row) > 80 {
			t.Errorf("%d columns: %s", len(row), row)
		}
	}
}

// longReport is that of an hour with all workers there can be.
func longReport(e evidence) *report {
	v := judge(e)
	r := &report{
		Verdict: v.result(), Interrupted: e.interrupted, Seed: 999_999, Elapsed: 3600.1, Requests: 2_880_000, OnTheWire: 3_100_000, OK: 2_875_000,
		Ambiguous: reportDoubt{1200, 1200}, GatewayError: reportDoubt{1200, 10}, ByOnce: reportOnce{288_000, 288_000},
		Latency: reportLatency{0.4, 1012.3, 12_345.6}, Logins: 9999, Refreshes: 9999, Renewals: 9999,
		Retries: map[string]uint64{broken: 99_999, rateLimited: 1200, serverError: 9999}, Replays: 99_999, Waits: 99_999, Waited: 99_999.9,
		Revocations: 3600, Checks: v.checks, Faults: v.times, FaultHits: v.requests,
	}
	if v.onceWanted > 0 {
		r.Checks[2].Found = "288000 of 288000 wanted"
	}
	return r
}

func TestDemoFitsAScreen(t *testing.T) {
	introduction := demoOptions{seed: 999_999, workers: maxWorkers}.introduction()
	if n := strings.Count(introduction, "\n"); n != 3 {
		t.Errorf("the introduction has %d lines", n)
	}
	early := evidence{interrupted: true}
	cut := goodEvidence()
	cut.interrupted = true
	for name, e := range map[string]evidence{"passed": goodEvidence(), "interrupted at once": early, "interrupted late": cut} {
		t.Run(name, func(t *testing.T) { fitsAScreen(t, introduction, longReport(e)) })
	}
}

// With -verbose, or when something has failed, there are more rows, and no longer ones.
func TestDemoFitsTheColumnsWhateverHappened(t *testing.T) {
	failing := goodEvidence()
	failing.incidents = failing.incidents[:len(failing.incidents)-1] // of the kind with the longest name
	for _, e := range []evidence{goodEvidence(), failing} {
		for _, all := range []bool{false, true} {
			var out strings.Builder
			mustDo(t, longReport(e).writeTable(&out, all))
			fitsColumns(t, out.String())
		}
	}
	fitsColumns(t, demoUsage)
	var out strings.Builder
	newView(&out, false).draw(snapshot{elapsed: time.Hour, requests: 2_880_000, second: 800, fault: readCutBefore})
	fitsColumns(t, out.String())
}

// Every name of the table is followed by what it means.
func TestDemoSaysWhatItsWordsMean(t *testing.T) {
	for _, row := range longReport(goodEvidence()).rows(true) {
		if row.meaning == "" {
			t.Errorf("nothing is said about %q", row.name)
		}
	}
	var out strings.Builder
	mustDo(t, longReport(goodEvidence()).writeTable(&out, true))
	for _, word := range []string{"ambiguous", "Once", "effect", "revocation", "renewal", "replay", "retry", "repeatable"} {
		if !strings.Contains(out.String(), "\n  "+word+" ") {
			t.Errorf("-verbose does not say what %q means", word)
		}
	}
}

func TestDemoThatIsToldToEndSaysThatItIsIncomplete(t *testing.T) {
	for _, signal := range endings {
		t.Run(signal.String(), func(t *testing.T) {
			for name, lines := range map[string]int{"at the beginning": 3, "under way": 4} {
				r := start(t, lines, "demo", "-duration", "5m")
				got := r.stop(signal)
				rows := strings.Split(strings.TrimSpace(got.stdout), "\n")
				if last := rows[len(rows)-1]; got.code != exitError || !strings.HasPrefix(last, "INCOMPLETE: interrupted after ") || got.stderr != "" {
					t.Errorf("%s: exit code %d\n%s%s", name, got.code, got.stdout, got.stderr)
				}
				if strings.Contains(got.stdout, "FAIL") {
					t.Errorf("%s: something failed\n%s", name, got.stdout)
				}
			}
		})
	}
}

// What stands on a terminal while a demo is under way does not remain.
func TestViewOnATerminalLeavesNothing(t *testing.T) {
	var terminal strings.Builder
	terminal.WriteString("before\n")
	v := newView(&terminal, true)
	v.draw(snapshot{})
	v.draw(snapshot{})
	v.clear()
	terminal.WriteString("after\n")
	if rows := terminalRows(t, terminal.String()); strings.Join(rows, " ") != "before after" {
		t.Errorf("%q", rows)
	}
	var lines strings.Builder
	v = newView(&lines, false)
	v.draw(snapshot{})
	v.clear()
	if strings.Contains(lines.String(), "\x1b") {
		t.Errorf("%q", lines.String())
	}
}
