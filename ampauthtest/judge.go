package ampauthtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An Effect is one mutation that was performed, whether or not its client heard of it:
// one of the 16 operations of AMP that must not be performed twice. A refresh of the
// token is one of them.
type Effect struct {
	// Route is such as "POST /assets/issue", with names in braces for what varies.
	Route string

	// Path is what was asked for, below URL, such as "/assets/issue".
	Path string

	// OperationID is the value of the request's X-Operation-Id header field, which AMP
	// does not know: a name of yours for one operation. If empty, there was none, and
	// two operations are taken for one if path and body are the same.
	OperationID string

	// Time is when it was performed: in a bubble, on its clock.
	Time time.Time

	// Twice is true if the same was performed before.
	Twice bool
}

// Effects are the mutations that were performed so far, in their order. What a fault or
// AMP turned away is not among them.
func (s *Server) Effects() []Effect {
	var effects []Effect
	for _, e := range s.fake.Effects() {
		effects = append(effects, Effect{e.Route, e.Path, e.ID, e.Time, e.Repeats != 0})
	}
	return effects
}

// judge fails the test for what its clients did wrong. It runs when all is over.
func (s *Server) judge() {
	s.t.Helper()
	met := s.fake.Injected()
	s.mu.Lock()
	faults := s.faults
	s.mu.Unlock()
	for _, name := range faults {
		if met[name] == 0 {
			s.t.Logf("ampauthtest: note: no request met the fault %q", name)
		}
	}
	if s.options.Tolerant {
		return
	}
	effects := s.fake.Effects()
	for _, e := range effects {
		again := slices.DeleteFunc(slices.Clone(effects), func(other fakeamp.Effect) bool { return other.Repeats != e.Seq })
		if len(again) > 0 && !s.mayRepeat(e.Route) {
			s.t.Errorf("ampauthtest: %s", repeated(e, again))
		}
	}
	counted := make(map[string]int)
	violations := s.fake.Violations()
	for _, v := range violations {
		counted[v]++
	}
	for _, v := range slices.Compact(slices.Sorted(slices.Values(violations))) {
		s.t.Errorf("ampauthtest: %s (requests: %d).\nA client of AMP must not send that; what it must not send is listed in the documentation of package ampauthtest, under \"What fails a test\".", v, counted[v])
	}
}

func (s *Server) mayRepeat(route string) bool {
	return slices.ContainsFunc(s.options.Repeat, func(r string) bool {
		known, wrong := fakeamp.KnownRoute(r)
		return wrong == "" && fakeamp.RouteMatches(known, route)
	})
}

// repeated tells of a mutation that was performed again.
func repeated(e fakeamp.Effect, again []fakeamp.Effect) string {
	var b strings.Builder
	method, _, _ := strings.Cut(e.Route, " ")
	fmt.Fprintf(&b, "%s %s was performed ", method, e.Path)
	if len(again) == 1 {
		b.WriteString("twice: the same ")
	} else {
		fmt.Fprintf(&b, "%d times: the same ", len(again)+1)
	}
	if e.ID != "" {
		fmt.Fprintf(&b, "operation %q again", e.ID)
	} else {
		b.WriteString("request again")
	}
	fmt.Fprintf(&b, " %v after the first", again[0].Time.Sub(e.Time).Round(time.Millisecond))
	if e.Fault != "" {
		fmt.Fprintf(&b, ", which had met the fault %q", e.Fault)
	} else if again[0].Fault != "" {
		fmt.Fprintf(&b, ", and had met the fault %q", again[0].Fault)
	}
	b.WriteString(".\nWhat may have been performed must not be sent again before you have looked: read docs/exactly-once.md in the repository of ampauth.")
	fmt.Fprintf(&b, "\nIf the test means to perform it more than once, say so with Options{Repeat: []string{%q}}.", e.Route)
	return b.String()
}

// mustLive reports whether the test is still on, and fails it if not.
func (s *Server) mustLive(method string) bool {
	s.t.Helper()
	if s.isOver() {
		s.refuse("%s after the end of the test: a goroutine or cleanup outlives it", method)
		return false
	}
	return true
}

// refuse fails the test for a wrong use of this package. It does not end the test: the
// caller may be another goroutine than the test's.
func (s *Server) refuse(format string, args ...any) {
	s.t.Helper()
	text := "ampauthtest: " + fmt.Sprintf(format, args...)
	defer func() {
		if recover() != nil { // t takes nothing any more
			panic(text)
		}
	}()
	s.t.Errorf("%s", text)
}

func (s *Server) checkOptions() {
	s.t.Helper()
	o := s.options
	if o.Lifetime < 0 {
		s.refuse("NewServer: Lifetime is %v; it must not be negative, and zero is no end", o.Lifetime)
	}
	if o.Tolerant && len(o.Repeat) > 0 {
		s.refuse("NewServer: Tolerant lets pass what Repeat names; leave out one of them")
	}
	for _, route := range o.Repeat {
		known, wrong := fakeamp.KnownRoute(route)
		switch {
		case route == "":
			s.refuse("NewServer: Repeat: a route is empty; Tolerant is for all routes")
		case wrong != "":
			s.refuse("NewServer: Repeat: %s", wrong)
		case !isMutation(known):
			s.refuse("NewServer: Repeat: Route %q is no mutation, and may be repeated anyway", route)
		}
	}
}

// isMutation reports whether a known route must not be performed twice.
func isMutation(route string) bool {
	for r, class := range fakeamp.Routes() {
		if class == "never" && fakeamp.RouteMatches(route, r) {
			return true
		}
	}
	return false
}
