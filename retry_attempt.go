package ampauth

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/ampauth/ampauth/internal/replay"
)

// newAttempt makes an attempt with its request, and starts its clock.
func (c *call) newAttempt() *sending {
	s := &sending{attempt: attempt{
		Context: c.ctx, caller: c.req, number: int32(c.number),
		mutates: c.operation == MutatingOperation,
		traced:  c.operation != SafeOperation, // which can be repeated in any case
		ownConn: c.ownConn || c.operation == MutatingOperation,
		newConn: c.ownConn || c.newConn || c.bodies.ExistsOnce(),
		direct:  true, header: c.header,
		limit: c.config.timeoutOf(c.operation),
	}}
	a := &s.attempt
	a.sending.Store(s)
	if c.t.queue != nil {
		a.note().queue = c.t.queue
	}
	a.state.Store(c.user<<stateUserFrom | c.t.states)
	// A layer may leave its own call of a mutation behind; and a call that has a clock
	// ends with its last attempt.
	if a.limit > 0 || a.mutates || c.end != nil {
		a.Context, a.cancel = context.WithCancelCause(a.Context)
	}
	if a.limit > 0 {
		a.timer = time.AfterFunc(a.limit, a.expire)
	}
	s.request = *c.req.WithContext(a) // inlined, so that no other copy is allocated
	if c.withoutExpect {
		s.request.Header = s.request.Header.Clone()
		s.request.Header.Del("Expect")
	}
	c.giveBody(s)
	return s
}

// giveBody gives the attempt its body, in the form that its operation wants.
func (c *call) giveBody(s *sending) {
	a, req := &s.attempt, &s.request
	req.Body, c.body = c.body, nil
	if body := req.Body; c.bodies.ExistsOnce() && a.cancel != nil {
		// net/http waits for a Read of the body, whatever the context says. Whatever the
		// body is that exists once (a pipe, a file, a connection), Close ends its Read.
		context.AfterFunc(a, func() {
			if !a.is(stateReleased) {
				_ = body.Close()
			}
		})
	}
	if a.mutates {
		replay.MakeUnrepeatable(req)
	}
	if a.traced && replay.HasBody(req) {
		sent := &replay.Watched{ReadCloser: req.Body}
		c.sent, req.Body = sent, sent
		if anew := req.GetBody; anew != nil { // net/http repeats what is idempotent
			req.GetBody = func() (io.ReadCloser, error) {
				sent.Begin()
				return anew()
			}
		}
	}
}

// try makes one attempt, whose end is written to r.
func (c *call) try(r *result) {
	s := c.newAttempt()
	a := &s.attempt
	var began time.Time
	logged := c.t.logs(c.ctx, slog.LevelDebug)
	if logged {
		began = time.Now()
	}
	returned := false
	defer func() {
		if !returned {
			a.release() // a panic passes through
		}
	}()
	resp, err := send(c.t.base(), &s.request, a)
	returned = true
	r.attempt, r.resp, r.err = a, resp, err
	c.findOutcome(r)
	if r.outcome != NotSent {
		c.user = a.user()
	}
	if logged {
		c.logAttempt(r, time.Since(began))
	}
}
