package fakeamp

import (
	"slices"
	"time"
)

// operationIDHeader carries a test's own name for an operation, the same on
// every attempt at it. AMP knows no such header.
const operationIDHeader = "X-Operation-Id"

// An Effect is one operation of class "never" that was performed, whether or
// not its client heard of it.
type Effect struct {
	Seq   int    // from 1, in the order of performance
	Route string // such as "POST /assets/issue"
	ID    string // value of the request header X-Operation-Id, or ""
	User  string
	Time  time.Time
	Fault string // name of the fault that the request met, or ""
}

// logEffect records the operation that was just performed. s.mu is held.
func (s *Server) logEffect(c *call) {
	s.effects = append(s.effects, Effect{
		Seq:   len(s.effects) + 1,
		Route: c.target.name,
		ID:    c.request.Header.Get(operationIDHeader),
		User:  c.user,
		Time:  time.Now(),
		Fault: c.fault,
	})
}

// Effects returns the log of effects, oldest first.
func (s *Server) Effects() []Effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.effects)
}

// Repeated returns the operation ids that were performed more than once, with
// the number of times. Against a client that keeps its promise it is empty.
func (s *Server) Repeated() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := make(map[string]int)
	for _, e := range s.effects {
		if e.ID != "" {
			times[e.ID]++
		}
	}
	for id, n := range times {
		if n == 1 {
			delete(times, id)
		}
	}
	return times
}
