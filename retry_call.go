package ampauth

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
	"github.com/ampauth/ampauth/internal/replay"
	"github.com/ampauth/ampauth/internal/sendable"
)

// A call is one RoundTrip: a request and the attempts at it.
type call struct {
	t         *RetryTransport
	req       *http.Request
	ctx       context.Context    // the request's, or one that an http.Client's Timeout ends
	end       context.CancelFunc // of ctx, if that is the call's own
	deadline  time.Time          // by which http.Client's Timeout, taken over, ends the call
	config    *RetryConfig
	operation Operation
	bodies    replay.Source
	body      io.ReadCloser   // for the next attempt
	sent      *replay.Watched // of the attempt, where it matters whether it was read
	header    sendable.Facts

	number   int       // of the attempt, from 1
	retries  int       // attempts that count against MaxAttempts, but the first
	replayed bool      // the one replay after a refused token was made
	gaveUp   surrender // why there is no other attempt, where there could be
	earlier  Outcome   // of the attempts before this one, the furthest
	before   error     // what ended one of them
	last     result    // of the attempt at work, and then until another is admitted
	user     uint32    // whose token one of them was sent with

	// Reasons to send it otherwise.
	resend        bool // in another way, as the same attempt: an UnsentError says so
	resends       int
	newConn       bool // over a connection that no other request was on: the last one was stale
	ownConn       bool // over a connection of its own: status 421, or a pool that is silent
	withoutExpect bool // status 417
	afterEarly    bool // once more: status 425
}

// maxResends is how often an attempt may be sent another way: two may be wrong, and a
// connection stale.
const maxResends = 3

func (c *call) roundTrip() (*http.Response, error) {
	if err := c.prepare(); err != nil {
		c.bodies.Unused()
		return nil, err
	}
	defer c.done()
	resp, err := c.run()
	if err != nil || c.gaveUp != notGivenUp {
		c.raiseEnd(err)
	}
	return resp, err
}

// prepare checks and resolves what the call needs.
func (c *call) prepare() error {
	c.t.once.Do(c.t.resolve)
	if c.t.fault != nil {
		return c.t.fault
	}
	facts, err := sendable.Check(c.req)
	if err != nil {
		return &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Err: err, repeat: never}
	}
	if err := refuseRedirect(c.t.Classify, c.req); err != nil {
		return err
	}
	c.followRedirect()
	c.config, c.header = &c.t.config, facts
	c.operation = operationOf(c.t.Classify, c.req)
	c.bound()
	return nil
}

// followRedirect goes on with the call that a redirect was the answer of, if the request
// follows it.
func (c *call) followRedirect() {
	if !isHop(c.req) {
		return
	}
	c.earlier = Answered
	if body := redirectOf(c.req); body != nil {
		body.followed.Store(true)
		c.deadline = body.deadline
		if body.witness == witnessOf(c.ctx) {
			body.witness.followed()
		}
	}
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

func (c *call) run() (*http.Response, error) {
	r := &c.last
	var decided time.Time // that there is another attempt
	for c.number = 1; ; c.number++ {
		resent := c.resend
		if c.resend = false; !resent { // otherwise it was admitted already
			if err := c.admit(); err != nil {
				c.ranOut()
				if r.kept && c.ctx.Err() == nil {
					c.number-- // this one is not made
					c.warn("another attempt is not admitted", r)
					return c.finish(r)
				}
				return nil, err
			}
		}
		if r.kept {
			r.dropAnswer(c.drainTime())
		}
		if r.attempt != nil && !resent {
			c.raiseRepeat(r, decided)
		}
		if !c.bodies.Started() {
			c.body, _ = c.bodies.Next() // the first cannot fail
		}
		*r = result{}
		c.try(r)
		again, wait := c.again(r)
		if !again {
			return c.finish(r)
		}
		decided = time.Now()
		if !c.resend {
			c.earlier = c.overall(r.outcome)
			if c.earlier == Answered {
				c.earlier = Ambiguous // of a 5xx nobody knows what it did
			}
			c.note(r)
		}
		c.keepAnswer(r)
		if r.ahead != nil && c.t.queue == nil {
			r.dropAnswer(c.drainTime()) // hardly anything stops the next attempt now: free its connection
		}
		if err := c.sleep(wait - time.Since(decided)); err != nil {
			c.ranOut()
			return nil, err
		}
	}
}

// note keeps what ended an attempt: the last error, or else the last answer. One that
// was not sent, or ran out of time, tells least.
func (c *call) note(r *result) {
	_, answer := c.before.(*Error)
	switch {
	case c.before != nil && (r.outcome == NotSent || r.timedOut):
	case r.timedOut:
		c.before = r.attempt.timeout().ofNobody() // over HTTP/2 r.err says that somebody cancelled it
	case r.resp == nil:
		c.before = clean(r.err)
	case c.before == nil, answer:
		c.before = &Error{Op: "request", Kind: ErrRequestFailed, Outcome: r.outcome, StatusCode: r.resp.StatusCode}
	}
}

// expects reports whether the attempt had an Expect field.
func (c *call) expects() bool { return !c.withoutExpect && c.req.Header.Get("Expect") != "" }

// again decides whether there is another attempt, and after which wait. If there
// is, its body is ready.
func (c *call) again(r *result) (yes bool, wait time.Duration) {
	if r.refusal != nil {
		return c.renew(r), 0
	}
	if r.unsent != nil && (r.unsent.Stale || r.unsent.OtherWay) && c.resends < maxResends && c.ctx.Err() == nil {
		if !c.nextBody() {
			c.gaveUp = outOfBodies
			return false, 0
		}
		c.newConn = c.newConn || r.unsent.Stale
		c.resends++
		c.resend = true
		c.number-- // still the same attempt
		return true, 0
	}
	if !c.repeatable(r) {
		if none, ours := r.attempt.tokenless().(*Error); ours && none.Kind == ErrRateLimited {
			c.gaveUp = notLetPass // once it had waited for a login
		}
		return false, 0
	}
	if c.ctx.Value(noRetryKey{}) != nil {
		return false, 0
	}
	if c.ctx.Err() != nil {
		c.ranOut()
		return false, 0
	}
	c.ownConn = c.ownConn || r.attempt.is(stateAvoidPool)
	if r.resp != nil && r.outcome == Unprocessed && !c.otherwise(r.resp.StatusCode) {
		return false, 0
	}
	if c.retries+1 >= c.config.MaxAttempts {
		if c.retries > 0 {
			c.warn("attempts are exhausted", r)
		}
		c.gaveUp = outOfAttempts
		return false, 0
	}
	wait = c.wait(r)
	switch {
	case c.config.tooLong(r.retryAfter):
		c.gaveUp = askedTooMuch
		return false, 0
	case !pace.Fits(c.ctx, wait):
		c.gaveUp = outOfTime
		return false, 0
	case !c.nextBody():
		c.gaveUp = outOfBodies
		return false, 0
	}
	if !r.waitsAsTold() && !c.t.budget.Take(c.config.Budget) {
		c.warn("the budget of retries is exhausted", r)
		c.gaveUp = outOfBudget
		return false, 0
	}
	c.retries++
	if c.t.logs(c.ctx, slog.LevelDebug) {
		c.t.Logger.DebugContext(c.ctx, "ampauth: will try again", "reason", r.reason().String(), "attempt", c.number, "wait", wait)
	}
	return true, wait
}

// otherwise has the request sent in another way after a status that asks for it.
// What one change of way did not help, a second one does not either.
func (c *call) otherwise(status int) bool {
	way := &c.afterEarly
	switch status {
	case http.StatusMisdirectedRequest:
		way = &c.ownConn
	case http.StatusExpectationFailed:
		way = &c.withoutExpect
	}
	tried := *way
	*way = true
	return !tried
}

// nextBody readies the body for another attempt.
func (c *call) nextBody() bool {
	if !c.bodies.CanRepeat() {
		return false
	}
	body, err := c.bodies.Next()
	c.body = body
	return err == nil
}

// done frees what the call has, but what the response's body goes on to use.
func (c *call) done() {
	if c.last.kept { // the caller left, or a panic passes through
		c.last.dropAnswer(c.drainTime())
	}
	c.closeBody()
	c.bodies.Done()
	if c.end != nil {
		c.end()
	}
}

// closeBody closes a body that was readied for an attempt that is not made, or
// the caller's own when there was no attempt at all.
func (c *call) closeBody() {
	c.bodies.Unused()
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
}

// renew replaces the refused token and reports whether the request is to be sent
// once more. If not, the response is whole, unless its body was too long or too slow.
func (c *call) renew(r *result) bool {
	if c.replayed {
		return false
	}
	if r.outcome != Rejected || !c.nextBody() {
		r.refusal.from.renewSoon(r.refusal.token, r.refusal.with)
		return false
	}
	c.keepAnswer(r) // the login must not wait for its connection
	token, err := r.refusal.from.renewFor(unseen(c.ctx), r.refusal.token, r.refusal.with)
	if err != nil || token.Value.Equal(r.refusal.token.Value) || token.IsExpired() {
		return false
	}
	c.replayed = true
	return true
}

// finish turns the last result into what the caller gets.
func (c *call) finish(r *result) (*http.Response, error) {
	if r.refusal != nil && r.outcome == Rejected {
		if why := ended(c.ctx); why != nil {
			c.ranOut()
			r.dropAnswer(c.drainTime()) // the caller left while its token was renewed
			return nil, c.endedBetween(why)
		}
	}
	if r.kept {
		r.kept = false
		r.attempt.startClock()
	}
	if r.resp == nil {
		r.attempt.release()
		return nil, c.failure(r)
	}
	if r.outcome == Answered && !transientStatus(r.resp.StatusCode) {
		c.t.budget.Success()
	}
	r.resp.Request = c.req
	if c.end != nil {
		context.AfterFunc(r.attempt, c.end)
		c.end = nil
	}
	r.attempt.keep(r.resp)
	noteRedirect(r.resp, c)
	return r.resp, nil
}
