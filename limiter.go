package ampauth

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
)

// A Limiter says when the next attempt may begin. A *rate.Limiter of
// golang.org/x/time/rate is one, for the requests of one process, and a nil
// *rate.Limiter is no limit. One that asks a server which a whole fleet shares fits
// as well: Wait is all that is asked of it.
type Limiter interface {
	// Wait returns nil once an attempt may begin, or an error if none may. It is
	// called before the attempt's clock starts, and must be safe for concurrent
	// use. ctx is the caller's: Wait must return when it ends, since nobody else
	// ends the wait. A wait that cannot end before the deadline of ctx should fail at
	// once, with an error that Is context.DeadlineExceeded.
	Wait(ctx context.Context) error
}

// A queue is a Limiter in use, and where the waits for it are counted.
type queue struct {
	limiter  Limiter
	counters *counters
}

// leastWait is how long a call of somebody else's code takes at least if it waited.
const leastWait = time.Millisecond

var errNoBurst = errors.New("Limiter has no burst, so that nothing ever passes")

// queueFor returns the queue for a limiter, or nil if there is none.
func queueFor(limiter Limiter, counters *counters) *queue {
	if own, ok := limiter.(*rate.Limiter); limiter == nil || ok && own == nil {
		return nil
	}
	return &queue{limiter, counters}
}

// wait waits until an attempt may begin. If none may, the error says why.
func (q *queue) wait(ctx context.Context) *Error {
	began := time.Now()
	err := q.limiter.Wait(ctx)
	if waited := time.Since(began); waited >= leastWait {
		q.counters.addWait(waited)
	}
	e := &Error{Op: "request", Kind: ErrRateLimited, Outcome: NotSent, Err: clean(err)}
	own, isRate := q.limiter.(*rate.Limiter)
	switch {
	case ctx.Err() != nil: // whatever the limiter says
		e.Kind, e.Err = ErrRequestFailed, ended(ctx)
		e.addEnd(ctx)
	case err == nil:
		return nil
	case isRate && own.Burst() <= 0:
		e.Kind, e.Err = ErrConfig, errNoBurst
	case isRate: // there is no other reason left
		e.Err = tooLongAWait{wait: "the wait for the client's own Limiter"}
	}
	return e
}
