package ampauth

import (
	"context"
	"time"
)

// clientTimeout is the cause of a call's context when the Timeout of an http.Client
// ran out. The limit is 0 where it is not known.
type clientTimeout struct {
	deadlineError
	limit time.Duration
}

func (e clientTimeout) Error() string {
	if e.limit == 0 {
		return "the http.Client's Timeout, or the context's deadline, is about to run out"
	}
	return "the http.Client's Timeout ran out"
}

// The margin that a mutation leaves to the timer of an http.Client, so that what it
// ends in is there before the text that http.Client puts in its place.
const (
	marginOf  = 50 // of the time that is left, one part
	minMargin = 5 * time.Millisecond
	maxMargin = 100 * time.Millisecond
)

// bound ends the call with the Timeout of its http.Client, whether NewClient has taken
// that over or http.Client keeps it itself. Then it sets Request.Cancel and a
// deadline; that of a context alone comes without Cancel.
func (c *call) bound() {
	if limit := c.t.timeout; limit > 0 {
		if c.deadline.IsZero() {
			c.deadline = time.Now().Add(limit)
		}
		c.ctx, c.end = context.WithDeadlineCause(c.ctx, c.deadline, clientTimeout{limit: limit})
	}
	deadline, ok := c.ctx.Deadline()
	//lint:ignore SA1019 http.Client sets it, and that is how its Timeout shows
	if ok && c.req.Cancel != nil && c.operation == MutatingOperation {
		margin := min(max(time.Until(deadline)/marginOf, minMargin), maxMargin)
		ctx, end := context.WithDeadlineCause(c.ctx, deadline.Add(-margin), clientTimeout{})
		if outer := c.end; outer != nil {
			inner := end
			end = func() { inner(); outer() }
		}
		c.ctx, c.end = ctx, end
	}
}
