package fakeamp

import (
	"crypto/sha256"
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
	Path  string // as sent, behind the base, without a slash at the end
	ID    string // value of the request header X-Operation-Id, or ""
	User  string
	Time  time.Time
	Fault string // name of the fault that the request met, or ""

	// Repeats is the Seq of the first effect of the same request, 0 if this is
	// the first: of the same route, path and operation id, or where there is no
	// id, body. A refresh ends the token that it is sent with, so another one
	// has another, and is not the same.
	Repeats int
}

// sameness is what two sendings of one request have in common.
type sameness struct {
	route, path, id, token string
	body                   [sha256.Size]byte
}

func (s *Server) samenessOf(c *call) sameness {
	same := sameness{route: c.target.name, path: c.target.path, id: c.request.Header.Get(operationIDHeader)}
	if same.id == "" {
		same.body = sha256.Sum256(c.body)
	}
	if c.target.route.path == refreshPath {
		same.token = c.request.Header.Get("Authorization")
	}
	return same
}

// logEffect records the operation that was just performed. s.mu is held.
func (s *Server) logEffect(c *call) {
	same := s.samenessOf(c)
	e := Effect{
		Seq:     len(s.effects) + 1,
		Route:   c.target.name,
		Path:    c.target.path,
		ID:      same.id,
		User:    c.user,
		Time:    time.Now(),
		Fault:   c.fault,
		Repeats: s.performed[same],
	}
	if e.Repeats == 0 {
		s.performed[same] = e.Seq
	}
	s.effects = append(s.effects, e)
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
