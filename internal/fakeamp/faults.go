package fakeamp

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Fault is something that goes wrong with a request, or only differently.
// Most need two or three fields, as an issuance that is performed but whose
// client hears nothing of it:
//
//	s.Inject(fakeamp.Fault{Route: "POST /assets/issue", When: fakeamp.After, Do: fakeamp.Reset})
type Fault struct {
	Name string // for the logs; if empty, made of When and what happens

	// Route says which requests it is for: "POST /assets/issue", a path of any
	// method such as "/assets/issue", or "" for all. Paths are templates as in
	// Routes; for a path that is none of AMP's, as sent behind the base.
	Route string

	Times int // requests it applies to; 0 means 1, negative for ever
	Skip  int // matching requests that pass it first

	// When is Before or After the effect. With Before, a fault that has a
	// Status, or is a Reset, Close or StallHeaders, takes the place of the
	// effect. Any other fault needs AMP's own answer, and the effect happens.
	When When

	// Delay is a wait, Before or After the effect. A client that leaves ends
	// the wait and the request; Before, nothing is performed then.
	Delay time.Duration

	// Late, which goes with After and with what takes the place of AMP's answer, has the
	// effect come so long after the answer is sent or the connection is cut, as that of a
	// server which goes on with what its client, or a gateway, has given up. Who asks is
	// checked when the request arrives. [Server.PerformLate] does not wait for it.
	Late time.Duration

	Status int         // answer with this status instead and DRF's body for it
	HTML   bool        // answer with an HTML page, as a proxy does
	Header http.Header // set in the answer; no values suppress a header
	Body   string      // if not empty, the body of the answer

	Do Action
}

// SaysNotPerformed reports whether an answer of that status says that the request was not
// performed, so that its client may send it again. With After it would be a lie.
func SaysNotPerformed(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusExpectationFailed, http.StatusMisdirectedRequest,
		http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return false
}

// When is a moment in the handling of a request.
type When int

// The moments of a Fault.
const (
	Before When = iota
	After
)

// Action is what a Fault does to the connection.
type Action int

// The actions of a Fault.
const (
	None         Action = iota
	Reset               // no answer, the connection is reset (over HTTP/2: the stream)
	Close               // no answer, the connection is closed
	StallHeaders        // no answer until the client leaves
	StallBody           // headers and half the body, then nothing until the client leaves
	CutBody             // headers and half the body, then the connection is closed
	EarlyAnswer         // Status, or 413, before the request's body is read; nothing is performed
	EndlessBody         // headers, then a body without end until the client leaves
)

var actionNames = [...]string{"", "reset", "close", "stall headers", "stall body", "cut body", "early answer", "endless body"}

// replacesAnswer reports whether AMP's own answer has no part in the fault.
func (f Fault) replacesAnswer() bool {
	return f.Status != 0 || f.Do == Reset || f.Do == Close || f.Do == StallHeaders
}

// defaultName is such as "503 after" or "delay, cut body".
func (f Fault) defaultName() string {
	var parts []string
	if f.Delay > 0 {
		parts = append(parts, "delay")
	}
	if f.Status != 0 {
		parts = append(parts, fmt.Sprint(f.Status))
	}
	if f.Do != None {
		parts = append(parts, actionNames[f.Do])
	}
	if f.Late > 0 {
		parts = append(parts, "late")
	}
	if len(parts) == 0 {
		parts = []string{"altered answer"}
	}
	name := strings.Join(parts, ", ")
	if f.When == After {
		name += " after"
	}
	return name
}

// amend makes of AMP's answer the one that the fault wants.
func (f Fault) amend(a answer, r *http.Request) answer {
	if f.replacesAnswer() {
		a = statusAnswer(f.Status, f.Header.Get("Retry-After"), r.Method)
	}
	if f.HTML {
		a.body = htmlPage(a.status)
		a.header.Set("Content-Type", "text/html")
	}
	if f.Body != "" {
		a.body = []byte(f.Body)
		if a.header.Get("Content-Type") == "" {
			a.header.Set("Content-Type", "application/json")
		}
	}
	for name, values := range f.Header {
		a.header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	return a
}

// armedFault is a fault in the queue.
type armedFault struct {
	Fault
	left int // negative: for ever
	skip int
}

// Inject adds faults to the queue. A request meets at most one: the first, in
// the order of injection, that matches and does not let it pass for its Skip. A Late
// that goes with nothing is a panic.
func (s *Server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		if f.Late != 0 && (f.Late < 0 || f.When != After || !f.replacesAnswer()) {
			panic("fakeamp: Late goes with After, and with a Status, Reset, Close or StallHeaders")
		}
		if f.Name == "" {
			f.Name = f.defaultName()
		}
		if f.Times == 0 {
			f.Times = 1
		}
		f.Header = f.Header.Clone()
		s.faults = append(s.faults, &armedFault{Fault: f, left: f.Times, skip: f.Skip})
	}
}

// ClearFaults empties the queue. Requests that met a fault stay in it.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Injected returns how often each fault was applied, by name. A test that
// scripts a fault should look whether it came to pass.
func (s *Server) Injected() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.injected)
}

// takeFault uses up the fault for a request, if there is one. s.mu is held.
func (s *Server) takeFault(name string) Fault {
	for i, f := range s.faults {
		if !RouteMatches(f.Route, name) {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		if f.left--; f.left == 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
		s.injected[f.Name]++
		return f.Fault
	}
	return Fault{}
}

// lateCall is a request whose effect is still to come.
type lateCall struct {
	call  *call
	timer *time.Timer
}

// performAfter performs what c asks for after a delay.
func (s *Server) performAfter(delay time.Duration, c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &lateCall{call: c}
	l.timer = time.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.late, l); i >= 0 {
			s.late = slices.Delete(s.late, i, i+1)
			s.perform(c)
		}
	})
	s.late = append(s.late, l)
}

// PerformLate performs at once what a Late still puts off, for a log of effects that is
// whole.
func (s *Server) PerformLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.late {
		l.timer.Stop()
		s.perform(l.call)
	}
	s.late = nil
}
