package ampauth

import (
	"log/slog"
	"time"
)

// endedBetween is the error of a call that ended between two attempts: its caller left, or
// would have before the next.
func (c *call) endedBetween(why error) *Error {
	last := &c.last
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: c.earlier, Attempts: c.number - 1, StatusCode: last.status(), Err: why}
	if last.attempt != nil {
		e.Outcome = c.overall(last.outcome)
		e.Attempts = int(last.attempt.number)
	}
	earlier := c.before
	if last.err != nil {
		earlier = clean(last.err)
	} else if _, answer := earlier.(*Error); answer {
		earlier = nil // StatusCode tells it
	}
	if !is(earlier, why) {
		e.Err = beforeThat(why, earlier)
	}
	e.addEnd(c.ctx)
	return e
}

// overall is the outcome of the call when that of its last attempt is o: what an
// earlier one may have done is not undone by one that was not sent.
func (c *call) overall(o Outcome) Outcome {
	if o == NotSent || c.earlier == Ambiguous && o != Answered {
		return c.earlier
	}
	return o
}

// waitTooLong is the error of a call that would have to wait for d, beyond the
// caller's deadline.
func (c *call) waitTooLong(d time.Duration) *Error {
	e := c.endedBetween(tooLongAWait{wait: "the wait that the server asks for"})
	e.Kind, e.RetryAfter = ErrRateLimited, d
	return e
}

// failure makes an *Error of the error of the last attempt.
func (c *call) failure(r *result) error {
	if c.earlier == NotSent && r.final && r.outcome != Ambiguous {
		if r.attempt.tokenless() != nil {
			return r.err
		}
		if ours, ok := r.err.(*Error); ok && ours.Outcome == r.outcome {
			return ours
		}
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: c.overall(r.outcome), Attempts: c.number, Err: clean(r.err)}
	if r.final {
		e.repeat = never
	}
	if r.timedOut {
		e.Kind, e.Limit, e.Err = ErrTimeout, r.attempt.limit, r.attempt.timeout().ofNobody()
	} else {
		e.addEnd(c.ctx)
	}
	if timedOut(e.Err) || c.ctx.Err() != nil {
		e.Err = beforeThat(e.Err, c.before) // which tells more
	}
	if c.operation == MutatingOperation && r.outcome == Ambiguous {
		if e.Kind == ErrTimeout {
			e.Err = &Error{Op: e.Op, Kind: ErrTimeout, Limit: e.Limit, Err: e.Err}
		}
		e.Kind = ErrAmbiguous
	}
	return e
}

func (c *call) logAttempt(r *result, elapsed time.Duration) {
	attributes := logged(c.req.Method, c.req.URL, r.outcome, r.status(), r.err)
	c.t.Logger.DebugContext(c.ctx, "ampauth: attempt",
		append(attributes, "operation", c.operation.String(), "attempt", c.number, "elapsed", elapsed)...)
}

func (c *call) warn(message string, r *result) {
	if !c.t.logs(c.ctx, slog.LevelWarn) {
		return
	}
	attributes := logged(c.req.Method, c.req.URL, r.outcome, r.status(), r.err)
	c.t.Logger.WarnContext(c.ctx, "ampauth: "+message, append(attributes, "attempts", c.number)...)
}
