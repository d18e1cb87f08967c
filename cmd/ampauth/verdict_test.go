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
		},
		effects: []fakeamp.Effect{
			{Route: refreshRoute}, {Route: refreshRoute}, // without an id
			{Route: issueRoute, ID: "done"},
			{Route: issueRoute, ID: "cut-after", Fault: mutationCutAfter},
			{Route: issueRoute, ID: "gateway", Fault: gatewayFault},
		},
		injected: map[string]int{mutationCutBefore: 1, mutationCutAfter: 1, gatewayFault: 1},
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

func TestVerdictFails(t *testing.T) {
	const (
		unexplained = "failures that no injected fault explains"
		twice       = "mutations performed twice"
		logins      = "logins per revocation"
		times       = "times that each kind of fault happened, at least 3"
		violations  = "requests that a client of AMP must not make"
	)
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
				if v.result() != fail {
					t.Fatalf("the verdict is %s", v.result())
				}
				for _, c := range v.checks {
					want := pass
					if c.Claim == tt.claim {
						if want = fail; e.interrupted && tt.claim == times {
							want = incomplete // its one excuse
						}
						if !strings.HasPrefix(c.Found, tt.found) {
							t.Errorf("%s: found %q, want %q", c.Claim, c.Found, tt.found)
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

func TestVerdictOfARunInterruptedAtOnceIsIncomplete(t *testing.T) {
	v := judge(evidence{interrupted: true})
	if v.result() != fail || v.checks[2].Result != incomplete || v.checks[3].Result != incomplete {
		t.Errorf("%+v", v.checks)
	}
	if v := judge(evidence{}); v.checks[2].Result != fail || v.checks[3].Result != fail {
		t.Errorf("without an interruption: %+v", v.checks)
	}
}

func TestVerdictOfACompleteRunThatWasInterruptedPasses(t *testing.T) {
	e := goodEvidence()
	e.interrupted = true
	if v := judge(e); v.result() != pass {
		t.Errorf("%+v", v.checks)
	}
}

func TestTableNamesWhatFailed(t *testing.T) {
	e := goodEvidence()
	e.failures = []call{{route: balanceRoute, told: "HTTP 503"}}
	v := judge(e)
	var out strings.Builder
	r := &report{Verdict: v.result(), Checks: v.checks, Details: v.unexplained, Retries: map[string]uint64{broken: 2, notSent: 1, unprocessed: 0}}
	if err := r.writeTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{balanceRoute + ": HTTP 503", "FAIL: 1 of 5 checks failed", "3: 2 broken connection, 1 not sent"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
