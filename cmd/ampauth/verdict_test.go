package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// goodEvidence is that of a run in which all went well.
func goodEvidence() evidence {
	e := evidence{
		mutations: []call{
			{route: issueRoute, id: "done", end: succeeded},
			{route: issueRoute, id: "cut-before", end: ambiguous, told: "outcome unknown"},
			{route: issueRoute, id: "cut-after", end: ambiguous, told: "outcome unknown"},
			{route: issueRoute, id: "gateway", end: badGateway, told: "HTTP 502"},
			{route: issueRoute, id: "once", once: true, end: succeeded},
			{route: issueRoute, id: "once-cut-before", once: true, end: succeeded},
			{route: issueRoute, id: "once-cut-after", once: true, end: succeeded},
			{route: issueRoute, id: "once-gateway", once: true, end: succeeded},
		},
		effects: []fakeamp.Effect{
			{Route: refreshRoute}, {Route: refreshRoute}, // without an id
			{Route: issueRoute, ID: "done"},
			{Route: issueRoute, ID: "cut-after", Fault: mutationCutAfter},
			{Route: issueRoute, ID: "gateway", Fault: gatewayFault},
			{Route: issueRoute, ID: "once"},
			{Route: issueRoute, ID: "once-cut-before"},
			{Route: issueRoute, ID: "once-cut-after", Fault: onceCutAfter},
			{Route: issueRoute, ID: "once-gateway", Fault: onceGatewayFault},
		},
		injected: map[string]int{
			mutationCutBefore: 1, mutationCutAfter: 1, gatewayFault: 1,
			onceCutBefore: 1, onceCutAfter: 1, onceGatewayFault: 1,
		},
	}
	for _, kind := range faultKinds {
		i := incident{kind: kind, requests: 1}
		if kind == revocation || kind == rotation {
			i.ended, i.logins = true, 1
		}
		e.incidents = append(e.incidents, i, i, i)
	}
	return e
}

func TestVerdictPassesWhenAllWentWell(t *testing.T) {
	v := judge(goodEvidence())
	if v.result() != pass || v.revocations != 6 || v.loginsPerRevocation != 1 {
		t.Errorf("%+v", v)
	}
	if v.ambiguousPerformed != 1 || v.ambiguousNot != 1 || v.gatewayPerformed != 1 || v.gatewayNot != 0 {
		t.Errorf("%+v", v)
	}
	if v.onceWanted != 4 || v.oncePerformed != 4 {
		t.Errorf("%+v", v)
	}
}

// resultOf returns the result of the check that makes a claim.
func resultOf(v *verdict, claim string) string {
	for _, c := range v.checks {
		if c.Claim == claim {
			return c.Result
		}
	}
	return "there is no such check"
}

func TestFaultThatHidTheRefusalOfADeadTokenExplainsACallWithoutEffect(t *testing.T) {
	e := goodEvidence()
	e.mutations = append(e.mutations,
		call{route: issueRoute, id: "x", end: ambiguous},
		call{route: issueRoute, id: "y", end: badGateway})
	if judge(e).result() != fail {
		t.Error("without such a fault they are explained")
	}
	e.injected[mutationCutAfter]++
	e.injected[gatewayFault]++
	if v := judge(e); v.result() != pass || v.ambiguousNot != 2 || v.gatewayNot != 1 {
		t.Errorf("%+v", v)
	}
}

// The claims of the verdict.
const (
	unexplained = "failures that no injected fault explains"
	twice       = "mutations performed twice"
	once        = "issuances by Once, each performed exactly once"
	logins      = "logins per revocation"
	times       = "times each kind of fault happened, at least 3"
	violations  = "requests that a client of AMP must not make"
)

func TestVerdictFails(t *testing.T) {
	effect := func(id, fault string) fakeamp.Effect { return fakeamp.Effect{Route: issueRoute, ID: id, Fault: fault} }
	tests := []struct {
		name  string
		spoil func(*evidence)
		claim string // the only one that fails
		found string // the beginning of what it found
	}{
		{"a success performed twice", func(e *evidence) { e.effects = append(e.effects, effect("done", "")) }, twice, "1"},
		{"a doubtful one performed twice", func(e *evidence) { e.effects = append(e.effects, effect("cut-after", "")) }, twice, "1"},
		{"a success never performed", func(e *evidence) { e.effects = slices.Delete(e.effects, 2, 3) }, unexplained, "1"},
		{"a read that failed", func(e *evidence) { e.failures = append(e.failures, call{route: balanceRoute, told: "HTTP 503"}) }, unexplained, "1"},
		{"a mutation that failed, unsent", func(e *evidence) {
			e.mutations = append(e.mutations, call{route: issueRoute, id: "x", told: "not sent"})
		}, unexplained, "1"},
		{"a mutation cut after its effect that did not end in ErrAmbiguous", func(e *evidence) { e.mutations[2].end = failed }, unexplained, "1"},
		{"a mutation cut after its effect, and reported as done", func(e *evidence) { e.mutations[2].end = succeeded }, unexplained, "1"},
		{"a mutation cut before its effect, and nobody told", func(e *evidence) { e.mutations = slices.Delete(e.mutations, 1, 2) }, unexplained, "1"},
		{"ErrAmbiguous where nothing was cut", func(e *evidence) {
			e.mutations[0].end = ambiguous
		}, unexplained, "1"},
		{"ErrAmbiguous, not performed and not cut", func(e *evidence) {
			e.mutations = append(e.mutations, call{route: issueRoute, id: "x", end: ambiguous})
		}, unexplained, "1"},
		{"a 502 that nobody injected", func(e *evidence) { e.mutations[0].end = badGateway }, unexplained, "1"},
		{"a 502 that nobody injected, not performed", func(e *evidence) {
			e.mutations = append(e.mutations, call{route: issueRoute, id: "x", end: badGateway})
		}, unexplained, "1"},
		{"a 502 reported as done", func(e *evidence) { e.mutations[3].end = succeeded }, unexplained, "1"},
		{"an effect that nobody asked for", func(e *evidence) { e.effects = append(e.effects, effect("x", "")) }, unexplained, "1"},
		{"two logins after a revocation", func(e *evidence) { e.incidents[1].logins = 2 }, logins, "2, at the worst of 6"},
		{"no login after a rotation", func(e *evidence) { e.incidents[3].logins = 0 }, logins, "0, at the worst of 6"},
		{"a fault that happened twice only", func(e *evidence) {
			e.incidents = slices.Delete(e.incidents, len(e.incidents)-1, len(e.incidents))
		}, times, "2 (" + readCutAfter + ")"},
		{"a token in a query", func(e *evidence) { e.violations = []string{"GET /assets: token or password in the query"} }, violations, "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := goodEvidence()
			tt.spoil(&e)
			for _, e.interrupted = range []bool{false, true} {
				v := judge(e)
				verdict := fail
				if e.interrupted && tt.claim == times {
					verdict = incomplete
				}
				if v.result() != verdict {
					t.Fatalf("the verdict is %s, want %s", v.result(), verdict)
				}
				for _, c := range v.checks {
					want := pass
					if c.Claim == tt.claim {
						found := tt.found
						if want = fail; e.interrupted && tt.claim == times {
							want, found = incomplete, "2: interrupted" // its one excuse
						}
						if !strings.HasPrefix(c.Found, found) {
							t.Errorf("%s: found %q, want %q", c.Claim, c.Found, found)
						}
					}
					if c.Result != want {
						t.Errorf("interrupted %v: %q is %s, want %s", e.interrupted, c.Claim, c.Result, want)
					}
				}
			}
		})
	}
}

// What is asked for through Once has one effect and ends in success, whatever fault it met.
func TestVerdictFailsUnlessOnceIsExactlyOnce(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(e *evidence, id string)
		found  string
		others []string // checks that fail with it
		detail string
	}{
		{"performed twice", func(e *evidence, id string) {
			e.effects = append(e.effects, fakeamp.Effect{Route: issueRoute, ID: id})
		}, "3 of 4 wanted", []string{twice}, ": performed 2 times"},
		{"not performed, and reported as done", func(e *evidence, id string) {
			e.effects = slices.DeleteFunc(e.effects, func(effect fakeamp.Effect) bool { return effect.ID == id })
		}, "3 of 4 wanted", []string{unexplained}, ": reported as done, but never performed"},
		{"not performed, and told so", func(e *evidence, id string) {
			e.effects = slices.DeleteFunc(e.effects, func(effect fakeamp.Effect) bool { return effect.ID == id })
			e.callOf(id).end, e.callOf(id).told = failed, "not performed"
		}, "3 of 4 wanted", []string{unexplained}, ": not performed"},
		{"performed, and left in doubt", func(e *evidence, id string) {
			e.callOf(id).end, e.callOf(id).told = failed, "outcome unknown"
		}, "4 of 4 wanted", []string{unexplained}, ": outcome unknown"},
		{"not asked for", func(e *evidence, id string) {
			e.mutations = slices.DeleteFunc(e.mutations, func(c call) bool { return c.id == id })
		}, "3 of 3 wanted", []string{unexplained}, ": performed, but nobody asked for it"},
	}
	for _, tt := range tests {
		for _, id := range []string{"once", "once-cut-before", "once-cut-after", "once-gateway"} {
			t.Run(tt.name+", "+id, func(t *testing.T) {
				e := goodEvidence()
				tt.spoil(&e, id)
				v := judge(e)
				failing := tt.others
				if !strings.HasPrefix(tt.found, "4") && tt.name != "not asked for" {
					failing = append([]string{once}, failing...)
				}
				for _, c := range v.checks {
					want := pass
					if slices.Contains(failing, c.Claim) {
						want = fail
					}
					if c.Result != want {
						t.Errorf("%q is %s, want %s", c.Claim, c.Result, want)
					}
					if c.Claim == once && c.Found != tt.found {
						t.Errorf("found %q, want %q", c.Found, tt.found)
					}
				}
				if details := append(v.unexplained, v.twice...); !slices.Contains(details, id+tt.detail) {
					t.Errorf("the details are %q, want %q", details, id+tt.detail)
				}
			})
		}
	}
}

func (e *evidence) callOf(id string) *call {
	return &e.mutations[slices.IndexFunc(e.mutations, func(c call) bool { return c.id == id })]
}

// A fault that is meant for Once explains nothing that other calls were told, and theirs
// explain nothing of Once.
func TestFaultsOfOnceExplainNoOtherCall(t *testing.T) {
	for _, tt := range []struct {
		id    string
		fault string
	}{{"cut-after", onceCutAfter}, {"gateway", onceGatewayFault}} {
		e := goodEvidence()
		for i, effect := range e.effects {
			if effect.ID == tt.id {
				e.effects[i].Fault = tt.fault
			}
		}
		if v := judge(e); resultOf(v, unexplained) != fail {
			t.Errorf("%s: %+v", tt.id, v.checks)
		}
	}
	e := goodEvidence()
	e.injected[mutationCutBefore]++ // met by a call through Once, so that nobody was told
	if v := judge(e); resultOf(v, unexplained) != fail {
		t.Errorf("%+v", v.checks)
	}
}

func TestVerdictOfARunInterruptedAtOnceIsIncomplete(t *testing.T) {
	v := judge(evidence{interrupted: true})
	if v.result() != incomplete {
		t.Errorf("the verdict is %s", v.result())
	}
	uninterrupted := judge(evidence{})
	for _, claim := range []string{once, logins, times} {
		if got := resultOf(v, claim); got != incomplete {
			t.Errorf("%q is %s", claim, got)
		}
		if got := resultOf(uninterrupted, claim); got != fail {
			t.Errorf("without an interruption %q is %s", claim, got)
		}
	}
}

// What was asked for was a longer run.
func TestVerdictOfAnInterruptedRunIsIncompleteAlsoIfAllChecksHold(t *testing.T) {
	e := goodEvidence()
	e.interrupted = true
	v := judge(e)
	if v.result() != incomplete || slices.ContainsFunc(v.checks, func(c check) bool { return c.Result != pass }) {
		t.Errorf("the verdict is %s: %+v", v.result(), v.checks)
	}
	r := &report{Verdict: v.result(), Interrupted: true, Elapsed: 4.2}
	if got := r.summary(); got != "interrupted after 4.2s; what happened until then holds" {
		t.Error(got)
	}
}

func TestTableNamesWhatFailed(t *testing.T) {
	e := goodEvidence()
	e.failures = []call{{route: balanceRoute, told: "HTTP 503"}}
	v := judge(e)
	var out strings.Builder
	r := &report{Verdict: v.result(), Checks: v.checks, Details: v.unexplained, Retries: map[string]uint64{broken: 2, notSent: 1, unprocessed: 0}}
	if err := r.writeTable(&out, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{balanceRoute + ": HTTP 503", "FAIL: 1 of 6 checks failed", "retries 3 ", "2 of these, broken connection", "1 of these, not sent"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
