package ampauth

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
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
	bodies    bodySource
	body      io.ReadCloser // for the next attempt
	sent      *sentBody     // of the attempt, where it matters whether it was read
	header    headerFacts

	number   int     // of the attempt, from 1
	retries  int     // attempts that count against MaxAttempts, but the first
	replayed bool    // the one replay after a refused token was made
	earlier  Outcome // of the attempts before this one, the furthest
	before   error   // what ended one of them
	user     uint32  // whose token one of them was sent with

	// Reasons to send it otherwise.
	detour     bool // in another way, as the same attempt: an UnsentError says so
	detours    int
	fresh      bool // over a connection that was not used before: that one was
	apart      bool // over a connection of its own: status 421, or a pool that is silent
	unexpected bool // without Expect: status 417
	late       bool // later: status 425
}

// maxDetours is how often an attempt may be sent another way: two may be wrong, and a
// connection stale.
const maxDetours = 3

// A result is how an attempt ended: in a response or an error.
type result struct {
	attempt    *attempt
	resp       *http.Response
	err        error
	outcome    Outcome
	unsent     *atmostonce.UnsentError // the proof that nothing left, or nil
	refusal    *tokenReport            // of the token, by the API; nil if there was none
	timedOut   bool                    // by the attempt's own clock
	final      bool                    // an error that no repetition changes
	retryAfter time.Duration           // 0 if the response has none
	limited    time.Duration           // a retry would wait so long for the limiter, beyond the deadline
}

// prepare checks and resolves what the call needs.
func (c *call) prepare() error {
	c.t.once.Do(c.t.resolve)
	if c.t.fault != nil {
		return c.t.fault
	}
	facts, err := sendable(c.req)
	if err != nil {
		return &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Err: err, repeat: never}
	}
	if err := c.t.refuseRedirect(c.req); err != nil {
		return err
	}
	c.follow()
	c.config, c.header = &c.t.config, facts
	c.operation = operationOf(c.t.Classify, c.req)
	c.bound()
	return nil
}

func (c *call) run() (*http.Response, error) {
	var last result
	for c.number = 1; ; c.number++ {
		if c.detour {
			c.detour = false // it was admitted already
		} else if err := c.admit(&last); err != nil {
			return nil, err
		}
		if !c.bodies.used {
			c.body, _ = c.bodies.next() // the first cannot fail
		}
		var r result
		c.try(&r)
		again, wait := c.again(&r)
		if !again {
			return c.finish(&r)
		}
		decided := time.Now()
		if !c.detour {
			c.earlier = c.overall(r.outcome)
			if c.earlier == Answered {
				c.earlier = Ambiguous // of a 5xx nobody knows what it did
			}
			c.note(&r)
		}
		if r.resp != nil {
			discard(r.attempt, r.resp.Body, c.drainTime())
		} else {
			r.attempt.release()
		}
		last = r
		if err := c.sleep(wait-time.Since(decided), &last); err != nil {
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
		c.before = attemptTimeout{} // over HTTP/2 r.err says that somebody cancelled it
	case r.resp == nil:
		c.before = clean(r.err)
	case c.before == nil, answer:
		c.before = &Error{Op: "request", Kind: ErrRequestFailed, Outcome: r.outcome, StatusCode: r.resp.StatusCode}
	}
}

// drainTime is how long to wait for the rest of a response that nobody wants: not
// for so long that there is no time left for another.
func (c *call) drainTime() time.Duration {
	if deadline, ok := c.ctx.Deadline(); ok {
		return min(drainTime, time.Until(deadline)/2)
	}
	return drainTime
}

// expects reports whether the attempt had an Expect field.
func (c *call) expects() bool { return !c.unexpected && c.req.Header.Get("Expect") != "" }

// try makes one attempt, whose end is written to r.
func (c *call) try(r *result) {
	s := newAttempt(c)
	a := &s.attempt
	s.request.Body, c.body = c.body, nil
	if body := s.request.Body; c.bodies.once != nil && a.cancel != nil {
		// net/http waits for a Read of the body, whatever the context says. Whatever the
		// body is that exists once (a pipe, a file, a connection), Close ends its Read.
		context.AfterFunc(a, func() {
			if !a.over() {
				_ = body.Close()
			}
		})
	}
	if c.unexpected {
		s.request.Header = s.request.Header.Clone()
		s.request.Header.Del("Expect")
	}
	base := c.t.base()
	auth, ok := base.(*AuthTransport)
	lowest := base
	if ok {
		lowest = auth.base()
	}
	_, a.direct = lowest.(*ConnTransport)
	if a.login && !a.direct {
		s.request.GetBody = nil // so that a layer which follows redirects does not take the password along
	}
	if c.operation == MutatingOperation {
		// As in masked, and here, where it takes no copy of the request.
		s.request.GetBody = nil
		if !hasBody(&s.request) {
			s.request.Body = emptyBody{}
		}
	}
	if a.traced && hasBody(&s.request) {
		sent := &sentBody{ReadCloser: s.request.Body}
		c.sent, s.request.Body = sent, sent
		if anew := s.request.GetBody; anew != nil { // net/http repeats what is idempotent
			s.request.GetBody = func() (io.ReadCloser, error) {
				sent.begun.Store(true)
				return anew()
			}
		}
	}
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
	var resp *http.Response
	var err error
	if ok {
		resp, err = auth.roundTrip(&s.request, a, &ownRequest{&s.value, c.header})
	} else {
		resp, err = roundTrip(base, &s.request, a)
	}
	returned = true
	r.attempt, r.resp, r.err = a, resp, err
	c.judge(r)
	if r.outcome != NotSent {
		c.user = a.user()
	}
	if logged {
		c.logAttempt(r, time.Since(began))
	}
}

// again decides whether there is another attempt, and after which wait. If there
// is, its body is ready.
func (c *call) again(r *result) (yes bool, wait time.Duration) {
	if r.refusal != nil {
		return c.renew(r), 0
	}
	if r.unsent != nil && (r.unsent.Stale || r.unsent.OtherWay) && c.detours < maxDetours && c.ctx.Err() == nil {
		if !c.nextBody() {
			return false, 0
		}
		c.fresh = c.fresh || r.unsent.Stale
		c.detours++
		c.detour = true
		c.number-- // still the same attempt
		return true, 0
	}
	if !c.repeatable(r) || c.ctx.Err() != nil {
		return false, 0
	}
	if c.ctx.Value(noRetryKey{}) != nil {
		return false, 0
	}
	c.apart = c.apart || r.attempt.is(stateAvoidPool)
	if r.resp != nil && r.outcome == Unprocessed && !c.otherwise(r.resp.StatusCode) {
		return false, 0
	}
	if c.retries+1 >= c.config.MaxAttempts {
		if c.retries > 0 {
			c.warn("attempts are exhausted", r)
		}
		return false, 0
	}
	wait = c.wait(r)
	if c.config.tooLong(r.retryAfter) || !fits(c.ctx, wait) {
		return false, 0
	}
	if r.limited = c.limiterBlocks(); r.limited > 0 {
		return false, 0
	}
	if !c.nextBody() {
		return false, 0
	}
	if !c.t.budget.take(c.config.Budget) {
		c.warn("the budget of retries is exhausted", r)
		return false, 0
	}
	c.retries++
	counter, reason := c.t.counters.reason(*r)
	counter.Add(1)
	if c.t.logs(c.ctx, slog.LevelDebug) {
		c.t.Logger.DebugContext(c.ctx, "ampauth: will try again", "reason", reason, "attempt", c.number, "wait", wait)
	}
	return true, wait
}

// otherwise has the request sent in another way after a status that asks for it.
// What one change of way did not help, a second one does not either.
func (c *call) otherwise(status int) bool {
	way := &c.late
	switch status {
	case http.StatusMisdirectedRequest:
		way = &c.apart
	case http.StatusExpectationFailed:
		way = &c.unexpected
	}
	tried := *way
	*way = true
	return !tried
}

// repeatable is the table of outcome and operation.
func (c *call) repeatable(r *result) bool {
	switch {
	case r.final:
		return false
	case r.outcome == NotSent, r.outcome == Unprocessed, r.outcome == Rejected:
		return true
	case c.operation == MutatingOperation:
		return false
	case r.outcome == Ambiguous:
		return true
	}
	return transientStatus(r.resp.StatusCode)
}

// nextBody readies the body for another attempt.
func (c *call) nextBody() bool {
	if !c.bodies.canRepeat() {
		return false
	}
	body, err := c.bodies.next()
	c.body = body
	return err == nil
}

func (r *result) status() int {
	if r.resp == nil {
		return 0
	}
	return r.resp.StatusCode
}

// done frees what the call holds, but what the response's body goes on to use.
func (c *call) done() {
	c.bodies.done()
	if c.end != nil {
		c.end()
	}
}

// closeBody closes a body that was readied for an attempt that is not made, or
// the caller's own when there was no attempt at all.
func (c *call) closeBody() {
	c.bodies.unused()
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
}

// renew replaces the refused token and reports whether the request is to be sent
// once more. If not, the response is whole, unless the caller left meanwhile.
func (c *call) renew(r *result) bool {
	if c.replayed {
		return false
	}
	if r.outcome != Rejected || !c.nextBody() {
		r.refusal.auth.renewSoon(r.refusal.token)
		return false
	}
	// The login must not wait for the connection that the refusal still holds.
	ahead := readAhead(r.resp.Body, maxDrain, drainTime)
	r.resp.Body = ahead
	if content, ok := ahead.whole(); ok {
		_ = ahead.Close()
		r.resp.Body = io.NopCloser(bytes.NewReader(content))
	}
	r.attempt.pause()
	token, err := r.refusal.auth.renew(c.ctx, r.refusal.token)
	if err != nil || token.Value.Equal(r.refusal.token.Value) || token.IsExpired() ||
		!fits(c.ctx, c.gated(c.retries > 0)) || c.limiterBlocks() > 0 {
		r.attempt.resume()
		return false
	}
	if !ahead.finished() {
		r.attempt.release() // it has had its time to end
		_ = ahead.Close()
		r.resp.Body = http.NoBody
	}
	c.replayed = true
	c.t.counters.replays.Add(1)
	return true
}

// finish turns the last result into what the caller gets.
func (c *call) finish(r *result) (*http.Response, error) {
	c.closeBody()
	if r.refusal != nil && r.outcome == Rejected {
		if why := ended(c.ctx); why != nil {
			_ = r.resp.Body.Close() // the caller left while its token was renewed
			r.attempt.release()
			return nil, c.left(r, why)
		}
	}
	if r.resp == nil {
		r.attempt.release()
		return nil, c.failure(r)
	}
	if r.outcome == Answered && !transientStatus(r.resp.StatusCode) {
		c.t.budget.success()
	}
	r.resp.Request = c.req
	if c.end != nil {
		context.AfterFunc(r.attempt, c.end)
		c.end = nil
	}
	r.attempt.keep(r.resp)
	c.noteRedirect(r.resp)
	return r.resp, nil
}
