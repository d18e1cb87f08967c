package ampauth

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// left is the error of a call whose caller left between two attempts.
func (c *call) left(last *result, ctxErr error) *Error {
	c.closeBody()
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Attempts: c.number - 1, StatusCode: last.status(), Err: ctxErr}
	if last.attempt != nil {
		e.Outcome = c.overall(last.outcome)
		e.Attempts = int(last.attempt.number)
	}
	if last.err != nil && !errors.Is(last.err, ctxErr) {
		e.Err = beforeThat(ctxErr, clean(last.err))
	}
	if ctxErr == context.DeadlineExceeded {
		e.Kind = ErrTimeout
	}
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

// heldBack is the error of a call that would have to wait for d, beyond the
// caller's deadline.
func (c *call) heldBack(last *result, d time.Duration) *Error {
	e := c.left(last, context.DeadlineExceeded)
	e.Kind, e.RetryAfter = ErrRateLimited, d
	return e
}

// failure makes an *Error of the error of the last attempt.
func (c *call) failure(r *result) error {
	if c.earlier == NotSent {
		if r.attempt.gotNoToken() {
			return r.err
		}
		if ours, ok := r.err.(*Error); ok && r.final {
			return ours
		}
	}
	if r.limited > 0 {
		return c.heldBack(r, r.limited)
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: c.overall(r.outcome), Attempts: c.number, Err: clean(r.err)}
	ctxErr := c.ctx.Err()
	switch {
	case r.timedOut:
		e.Limit = r.attempt.limit
		e.Kind, e.Err = ErrTimeout, attemptTimeout{}
	case ctxErr != nil:
		e.blame(ctxErr)
	}
	if c.operation == MutatingOperation && r.outcome == Ambiguous {
		if e.Kind == ErrTimeout {
			e.Err = &Error{Op: e.Op, Kind: ErrTimeout, Limit: e.Limit, Err: e.Err}
		}
		e.Kind = ErrAmbiguous
	}
	return e
}

// blame makes e the error of a caller that left, who learns it first.
func (e *Error) blame(ctxErr error) {
	if ctxErr == context.DeadlineExceeded {
		e.Kind = ErrTimeout
	}
	if !errors.Is(e.Err, ctxErr) {
		e.Err = &sequence{ctxErr, ": ", e.Err}
	}
}

func (c *call) logAttempt(r *result, elapsed time.Duration) {
	attributes := []any{
		"http.request.method", c.req.Method, "server.address", c.req.URL.Host, "url.path", c.req.URL.Path,
		"operation", c.operation.String(), "attempt", c.number, "outcome", r.outcome.String(), "elapsed", elapsed,
	}
	if r.resp != nil {
		attributes = append(attributes, "http.response.status_code", r.resp.StatusCode)
	} else {
		attributes = append(attributes, "error", causeText(r.err))
	}
	c.t.Logger.DebugContext(c.ctx, "ampauth: attempt", attributes...)
}

func (c *call) warn(message string, r *result) {
	if !c.t.logs(c.ctx, slog.LevelWarn) {
		return
	}
	c.t.Logger.WarnContext(c.ctx, "ampauth: "+message,
		"http.request.method", c.req.Method, "url.path", c.req.URL.Path, "attempts", c.number,
		"outcome", r.outcome.String(), "http.response.status_code", r.status())
}
