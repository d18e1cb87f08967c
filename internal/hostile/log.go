package hostile

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// operationIDHeader carries a client's own name for an operation.
const operationIDHeader = "X-Operation-Id"

// An Entry is a request and what the server did about it.
type Entry struct {
	Exchange
	Step      string    // its name, once the script was asked
	Performed bool      // the operation was performed
	At        time.Time // when that was

	// The body, as far as it was read. Length and Sum are known when the reading
	// of it has ended.
	Length int64
	Sum    [sha256.Size]byte
	Whole  bool // it arrived to its announced end; true if there is none
}

// String describes the entry in a line, without the header's values.
func (e Entry) String() string {
	text := fmt.Sprintf("#%d conn %d.%d %s %s id=%q attempt %d: %s", e.Request, e.Conn, e.OnConn, e.Method, e.Path, e.ID, e.Attempt, e.Step)
	if e.Performed {
		text += ", performed"
	}
	if !e.Whole {
		text += ", body not whole"
	}
	return text
}

// Log returns the requests in the order in which their headers arrived, as they
// stand. It changes no more once [Server.Close] has returned.
func (s *Server) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := make([]Entry, len(s.log))
	for i, e := range s.log {
		log[i] = *e
		log[i].Header = e.Header.Clone()
	}
	return log
}

// Requests returns the number of requests whose header arrived.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.log)
}

// Effects returns how often the operation was performed.
func (s *Server) Effects(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.log {
		if e.ID == id && e.Performed {
			n++
		}
	}
	return n
}

// Repeated returns the ids of the operations that were performed more than
// once, in order. Requests without an id do not count.
func (s *Server) Repeated() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := make(map[string]int)
	var ids []string
	for _, e := range s.log {
		if e.ID == "" || !e.Performed {
			continue
		}
		if times[e.ID]++; times[e.ID] == 2 {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// enter puts a request on the log. What is known of it only here, it adds to e.
func (s *Server) enter(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.ID = e.Header.Get(operationIDHeader)
	s.attempts[e.ID]++
	e.Attempt = s.attempts[e.ID]
	e.Request = len(s.log) + 1
	e.Time = time.Now()
	if e.Whole {
		e.Sum = sha256.Sum256(nil)
	}
	s.log = append(s.log, e)
}

// amend changes an entry of the log.
func (s *Server) amend(e *Entry, change func(*Entry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(e)
}
