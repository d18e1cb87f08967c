package ampauth

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// What is told of a call: that it is sent again, and that it ended in doubt or was given up.

// A surrender is why a call was given up although its request could have been sent, or
// sent again.
type surrender uint8

const (
	notGivenUp surrender = iota
	outOfAttempts
	outOfBudget
	notLetPass // by the Limiter
	askedTooMuch
	outOfTime
	outOfBodies
)

// String is the word for it in an event.
func (s surrender) String() string {
	return [...]string{"", "attempts", "budget", "limiter", "retry after", "deadline", "body"}[s]
}

// ranOut takes note of a caller's deadline that came; one who cancelled has given up itself.
func (c *call) ranOut() {
	if c.ctx.Err() == context.DeadlineExceeded {
		c.gaveUp = outOfTime
	}
}

func (t *RetryTransport) listener() listener { return listener{t.OnEvent, &t.counters} }

// raiseRepeat tells that the request is sent again, for the reason that the last attempt
// gave, which was ended some time ago.
func (c *call) raiseRepeat(last *result, ended time.Time) {
	e := Event{Name: EventReplay, Attempt: int(last.attempt.number), Wait: time.Since(ended)}
	if last.refusal == nil {
		e.Name, e.Reason = EventRetry, last.reason().String()
	}
	c.t.listener().raise(c.ctx, e, func() error { return last.asError() })
}

// raiseEnd tells how the call ended, if that is worth telling.
func (c *call) raiseEnd(err error) {
	e := Event{Err: err}
	switch {
	case errors.Is(err, ErrAmbiguous) && !wasNotSent(err): // not a doubt of a TokenSource's
		e.Name = EventAmbiguous
		c.warn("a mutation may have been performed", &c.last)
	case c.gaveUp != notGivenUp:
		e.Name, e.Reason = EventExhausted, c.gaveUp.String()
	default:
		return
	}
	if c.last.attempt != nil {
		e.Attempt = int(c.last.attempt.number)
	}
	var makeErr func() error
	if err == nil {
		makeErr = func() error { return c.last.asError() }
	}
	c.t.listener().raise(c.ctx, e, makeErr)
}

func wasNotSent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Outcome == NotSent
}

// asError is what an attempt ended in, as an error, also where that is an answer.
func (r *result) asError() *Error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: r.outcome, Attempts: int(r.attempt.number)}
	switch {
	case r.resp != nil:
		e.StatusCode, e.RetryAfter = r.status(), r.retryAfter
		if e.StatusCode == http.StatusTooManyRequests {
			e.Kind = ErrRateLimited
		}
	case r.timedOut:
		e.Kind, e.Limit, e.Err = ErrTimeout, r.attempt.limit, r.attempt.timeout().ofNobody()
	default:
		e.Err = clean(r.err)
	}
	return e
}
