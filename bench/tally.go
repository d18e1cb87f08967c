package bench

import (
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	"github.com/ampauth/ampauth"
)

// A verdict is what a caller is told of a mutation.
type verdict int

const (
	answered verdict = iota
	inDoubt          // it may have been performed
	notSent          // it was not
)

func verdictOf(err error) verdict {
	if err == nil {
		return answered
	}
	if e, ok := errors.AsType[*ampauth.Error](err); ok {
		switch e.Outcome {
		case ampauth.NotSent, ampauth.Unprocessed, ampauth.Rejected:
			return notSent
		}
	}
	return inDoubt // also what a peer returns, which says no more
}

// A tally compares what callers were told with what the server performed.
type tally struct {
	mu        sync.Mutex // guards all below
	performed map[string]int
	told      map[string]verdict
}

func newTally() *tally {
	return &tally{performed: make(map[string]int), told: make(map[string]verdict)}
}

// idHeader names a mutation, so that the server knows it again.
const idHeader = "X-Id"

// perform is what the server does with a mutation.
func (t *tally) perform(r *http.Request) {
	if id := r.Header.Get(idHeader); id != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.performed[id]++
	}
}

// send sends a mutation under a name of its own, and notes how it ended.
func (t *tally) send(send sender, r *request) verdict {
	id := rand.Text()
	r.Header.Set(idHeader, id)
	v := verdictOf(finish(send(r.again())))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told[id] = v
	return v
}

// A reckoning is what a tally comes to, in mutations.
type reckoning struct {
	sent, inDoubt, notSent int
	doubtPerformed         int // in doubt, and performed
	denied                 int // called NotSent, and performed
	repeated               int // performed more than once
}

// wrong is what must not be, whatever happens.
func (r reckoning) wrong() int { return r.denied + r.repeated }

// cut is how many were performed without an answer that reached the caller.
func (r reckoning) cut() int { return r.doubtPerformed + r.denied }

func (r *reckoning) add(other reckoning) {
	r.sent += other.sent
	r.inDoubt += other.inDoubt
	r.notSent += other.notSent
	r.doubtPerformed += other.doubtPerformed
	r.denied += other.denied
	r.repeated += other.repeated
}

// reckon counts. The server must have come to its end.
func (t *tally) reckon() (r reckoning) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.sent = len(t.told)
	for id, v := range t.told {
		n := t.performed[id]
		switch v {
		case inDoubt:
			r.inDoubt++
			if n > 0 {
				r.doubtPerformed++
			}
		case notSent:
			r.notSent++
			if n > 0 {
				r.denied++
			}
		}
		if n > 1 {
			r.repeated++
		}
	}
	return r
}
