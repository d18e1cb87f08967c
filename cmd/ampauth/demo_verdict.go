package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// evidence is all that the verdict is made of: what the workers were told, and
// what the fake did and saw.
type evidence struct {
	mutations   []call
	failures    []call // of anything but mutations
	effects     []fakeamp.Effect
	injected    map[string]int // requests that met a fault, by the fake's count
	incidents   []incident
	violations  []string
	interrupted bool
}

// The results of a check, and of all checks together.
const (
	pass = "pass"
	fail = "fail"
	// incomplete is a check that an interruption left without enough to judge, and
	// the verdict of every run that was interrupted and in which nothing failed:
	// what was not seen is not proved.
	incomplete = "incomplete"
)

// A check is one line of the verdict.
type check struct {
	Claim  string `json:"claim"`
	Result string `json:"result"`
	Found  string `json:"found"`
}

// A verdict is what came of the evidence.
type verdict struct {
	checks      []check
	interrupted bool

	unexplained         []string // failures, each in a line
	twice               []string // operations performed more than once
	revocations         int      // that were healed and counted, rotations included
	loginsPerRevocation int      // the worst
	times               map[string]int
	requests            map[string]int // that met a fault of the kind

	ambiguousPerformed, ambiguousNot int
	gatewayPerformed, gatewayNot     int // answered 502
	onceWanted, oncePerformed        int // through Once; performed exactly once
}

// result is pass only if all checks are, and the run came to its end.
func (v *verdict) result() string {
	result := pass
	if v.interrupted {
		result = incomplete
	}
	for _, c := range v.checks {
		switch {
		case c.Result == fail:
			return fail
		case c.Result == incomplete:
			result = incomplete
		}
	}
	return result
}

// judge compares what the workers were told with what the fake did.
func judge(e evidence) *verdict {
	v := &verdict{interrupted: e.interrupted, times: make(map[string]int), requests: make(map[string]int)}
	v.judgeCalls(e)
	v.add("failures that no injected fault explains", len(v.unexplained) == 0, fmt.Sprint(len(v.unexplained)))
	v.add("mutations performed twice", len(v.twice) == 0, fmt.Sprint(len(v.twice)))
	v.judgeOnce(e)
	v.judgeRevocations(e)
	v.judgeFaults(e)
	v.add("requests that a client of AMP must not make", len(e.violations) == 0, fmt.Sprint(len(e.violations)))
	return v
}

func (v *verdict) add(claim string, holds bool, found string) {
	result := fail
	if holds {
		result = pass
	}
	v.checks = append(v.checks, check{claim, result, found})
}

// judgeCalls holds every mutation against the log of effects. A fault that may
// end a call in anything but success explains it as follows:
//
//   - A reset after the effect: the log names the fault and the operation, whose
//     call must have ended in ErrAmbiguous.
//   - A 502 after the effect: the log names both, and the call returns the 502.
//   - A reset before the effect is in no log, so these are counted: as many calls
//     must have ended in ErrAmbiguous without an effect.
//   - The first two leave no effect either when the token was dead: the fault
//     hides the refusal. How many they were is known from the log as well.
//
// Everything else, and every failure of a call that is not a mutation, no fault
// explains: the client had to survive it. A mutation through Once has no excuse
// at all: whatever it met, it must end in success.
func (v *verdict) judgeCalls(e evidence) {
	effects := make(map[string][]fakeamp.Effect)
	for _, effect := range e.effects {
		if effect.ID != "" { // a refresh has none
			effects[effect.ID] = append(effects[effect.ID], effect)
		}
	}
	for _, c := range e.failures {
		v.unexplain(c, "")
	}
	for _, c := range e.mutations {
		v.judgeMutation(c, effects[c.id])
		delete(effects, c.id)
	}
	for _, id := range slices.Sorted(maps.Keys(effects)) {
		v.unexplained = append(v.unexplained, id+": performed, but nobody asked for it")
	}
	logged := make(map[string]int)
	for _, effect := range e.effects {
		logged[effect.Fault]++
	}
	cut := e.injected[mutationCutBefore] + e.injected[mutationCutAfter] - logged[mutationCutAfter]
	v.compare("reset without an effect", cut, v.ambiguousNot)
	v.compare("answered 502 without an effect", e.injected[gatewayFault]-logged[gatewayFault], v.gatewayNot)
}

func (v *verdict) compare(what string, happened, told int) {
	if happened != told {
		v.unexplained = append(v.unexplained, fmt.Sprintf("%d mutations were %s, and %d calls were told so", happened, what, told))
	}
}

func (v *verdict) judgeMutation(c call, effects []fakeamp.Effect) {
	if len(effects) > 1 {
		v.twice = append(v.twice, fmt.Sprintf("%s: performed %d times", c.id, len(effects)))
	}
	performed, fault := len(effects) > 0, ""
	if performed {
		fault = effects[0].Fault
	}
	if c.once {
		v.onceWanted++
		if len(effects) == 1 {
			v.oncePerformed++
		}
	}
	switch {
	case c.end == succeeded && !performed:
		v.unexplain(c, "reported as done, but never performed")
	case c.once && c.end == succeeded: // whatever fault it met
	case c.once:
		v.unexplain(c, "")
	case c.end == ambiguous && !performed:
		v.ambiguousNot++ // judged by their number
	case c.end == ambiguous && fault == mutationCutAfter:
		v.ambiguousPerformed++
	case c.end == badGateway && !performed:
		v.gatewayNot++ // likewise
	case c.end == badGateway && fault == gatewayFault:
		v.gatewayPerformed++
	case c.end != succeeded:
		v.unexplain(c, "")
	case fault == mutationCutAfter || fault == gatewayFault:
		v.unexplain(c, "cut after its effect, and reported as done")
	}
}

func (v *verdict) judgeOnce(e evidence) {
	const claim = "issuances by Once, each performed exactly once"
	if v.onceWanted == 0 && e.interrupted {
		v.checks = append(v.checks, check{claim, incomplete, "none: interrupted"})
		return
	}
	v.add(claim, v.onceWanted > 0 && v.oncePerformed == v.onceWanted, fmt.Sprintf("%d of %d wanted", v.oncePerformed, v.onceWanted))
}

func (v *verdict) unexplain(c call, why string) {
	name := c.route
	if c.id != "" {
		name = c.id
	}
	if why == "" {
		why = c.told
	}
	v.unexplained = append(v.unexplained, name+": "+why)
}

func (v *verdict) judgeRevocations(e evidence) {
	const claim = "logins per revocation"
	v.loginsPerRevocation = 1
	for _, i := range e.incidents {
		if !i.ended {
			continue
		}
		v.revocations++
		if i.logins != 1 && (v.loginsPerRevocation == 1 || i.logins > v.loginsPerRevocation) {
			v.loginsPerRevocation = i.logins
		}
	}
	if v.revocations == 0 {
		v.loginsPerRevocation = 0
		if e.interrupted {
			v.checks = append(v.checks, check{claim, incomplete, "none: interrupted"})
			return
		}
	}
	scope := "at each of"
	if v.loginsPerRevocation != 1 {
		scope = "at the worst of"
	}
	v.add(claim, v.loginsPerRevocation == 1, fmt.Sprintf("%d, %s %d", v.loginsPerRevocation, scope, v.revocations))
}

func (v *verdict) judgeFaults(e evidence) {
	claim := fmt.Sprintf("times each kind of fault happened, at least %d", leastTimes)
	for _, i := range e.incidents {
		v.times[i.kind]++
		v.requests[i.kind] += i.requests
	}
	rarest := slices.MinFunc(faultKinds, func(a, b string) int { return v.times[a] - v.times[b] })
	least := v.times[rarest]
	switch {
	case least >= leastTimes:
		v.add(claim, true, fmt.Sprint(least))
	case e.interrupted:
		v.checks = append(v.checks, check{claim, incomplete, fmt.Sprintf("%d: interrupted", least)})
	default:
		v.add(claim, false, fmt.Sprintf("%d (%s)", least, rarest))
	}
}
