package ampauth

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/conntrace"
	"github.com/ampauth/ampauth/internal/livepool"
)

// An attempt is one try at sending a request. It is the context that the layers
// below see and the body that the caller reads. It is also where a RetryTransport
// and the AuthTransport below it meet, however many layers stand between them.
//
// The caller holds it, and errors and contexts lead to it. What is sent has the token,
// and so have the buffers of net/http behind a response's body. So an attempt leads to
// them by an atomic.Pointer alone, which no printer and no comparison follows.
type attempt struct {
	context.Context // the caller's, or one that the attempt's clock ends

	caller *http.Request                // the caller's request, which nobody below can change
	whole  atomic.Pointer[sending]      // what it is a part of
	notes  atomic.Pointer[attemptNotes] // made by the first who has something to note

	number  int32         // from 1
	state   atomic.Uint32 // whether it was released, and whose token it was sent with
	status  int16         // of the response, once the caller has it
	mutates bool
	traced  bool // what net/http tells of its connections is listened to
	apart   bool // wants a connection for mutations
	fresh   bool // wants one that no other request was on
	direct  bool // nothing but this package is between it and a ConnTransport
	login   bool // is a login: an AuthTransport it passes through must not wait for one

	// The clock; unset when the attempt has no timeout.
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// A sending is an attempt, what it sends, and what comes back, in one allocation.
type sending struct {
	attempt
	request http.Request
	value   [1]string     // of the Authorization field, if an AuthTransport is right below
	body    io.ReadCloser // the response's, once the caller has it
}

// attemptNotes are what those below have to tell.
type attemptNotes struct {
	report atomic.Pointer[tokenReport]  // of the AuthTransport, if there is something to tell
	trace  atomic.Pointer[attemptTrace] // made when somebody asks for it
	tries  ownTries
	pool   atomic.Pointer[livepool.Pool] // that the answer came from
}

// ownTries are the tries of an attempt that went over connections for mutations.
type ownTries struct {
	begun, unsent atomic.Int32 // in all, and those of which nothing left
	afterOthers   atomic.Bool  // somebody had begun to read the body before the first
	last          atomic.Pointer[atmostonce.UnsentError]
	answer        atomic.Pointer[http.Response] // the last
}

// An attemptTrace hears what net/http tells of the attempt's connections.
type attemptTrace struct {
	*conntrace.Listener
	context.Context // the attempt's, with the trace
}

// A tokenReport says why there was no token, or that the API did not accept it, and
// then who can replace it.
type tokenReport struct {
	none  error
	token Token
	auth  *AuthTransport
}

// note returns the attempt's notes, to write to.
func (a *attempt) note() *attemptNotes {
	if a.notes.Load() == nil {
		a.notes.CompareAndSwap(nil, new(attemptNotes))
	}
	return a.notes.Load()
}

func (a *attempt) trace() *attemptTrace {
	if notes := a.notes.Load(); notes != nil {
		return notes.trace.Load()
	}
	return nil
}

func (a *attempt) report() *tokenReport {
	if notes := a.notes.Load(); notes != nil {
		return notes.report.Load()
	}
	return nil
}

// The state of an attempt: flags, and above them the number of a user.
const (
	stateOver      = 1 << iota // it was released: its context did not end by the caller or the clock
	stateSent                  // an AuthTransport has sent it
	stateElsewhere             // an answer came to a request that is out of the attempt's sight
	stateJudged                // how far it got is decided: nothing more may be sent
	stateAvoidPool             // it timed out in a pool that others have to wait in for as long
	stateUserFrom  = iota
)

func (a *attempt) is(flag uint32) bool { return a.state.Load()&flag != 0 }

func (a *attempt) over() bool { return a.is(stateOver) }

// checkAnswer takes note of an answer to a request that a layer below has taken out of
// the attempt's context, and so out of its trace.
func (a *attempt) checkAnswer(resp *http.Response) {
	if a != nil && a.mutates && resp.Request != nil && attemptFrom(resp.Request.Context()) != a {
		a.state.Or(stateElsewhere)
	}
}

// user is the number of the user whose token the attempt was sent with, or an earlier
// one of the call; 0 if it had none that a manager gave.
func (a *attempt) user() uint32 { return a.state.Load() >> stateUserFrom }

// sendsAs takes note of whose token the attempt is sent with. If an earlier attempt of
// the call was sent as another user, that is an error.
func (a *attempt) sendsAs(token Token) *Error {
	if a == nil {
		return nil
	}
	user := userNumber(token)
	if user == 0 {
		a.state.Or(stateSent)
		return nil
	}
	if before := a.user(); before != 0 && before != user {
		return &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Err: errOtherUser}
	}
	a.state.Or(user<<stateUserFrom | stateSent)
	return nil
}

type attemptKey struct{}

// attemptFrom returns the attempt that ctx is part of, or nil.
func attemptFrom(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// owns reports whether req is what the attempt sends, seen from further below. A
// layer between may send something else with the attempt's context.
func (a *attempt) owns(req *http.Request) bool {
	if req.Method != a.caller.Method || req.URL == nil {
		return false
	}
	mine := a.caller.URL
	return req.URL == mine || req.URL.Scheme == mine.Scheme && req.URL.Host == mine.Host && req.URL.Path == mine.Path
}

// attemptOf returns the attempt that sends req, or nil.
func attemptOf(req *http.Request) *attempt {
	if a := attemptFrom(req.Context()); a != nil && a.owns(req) {
		return a
	}
	return nil
}

// Value implements context.Context.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	trace := a.trace()
	if trace == nil && key == conntrace.Key && a.traced {
		trace = new(attemptTrace)
		trace.Listener, trace.Context = conntrace.Listen(a.Context, a.caller.URL)
		if notes := a.note(); !notes.trace.CompareAndSwap(nil, trace) {
			trace = notes.trace.Load()
		}
	}
	if trace != nil {
		return trace.Context.Value(key)
	}
	return a.Context.Value(key)
}

// A dialContext is the context of an attempt as the user's dialers get it: without the
// attempt's trace, since what a dialer asks by HTTP is not part of the attempt.
type dialContext struct {
	context.Context
	values context.Context // the caller's
}

// Value implements context.Context.
func (c dialContext) Value(key any) any {
	if key == (attemptKey{}) {
		return c.Context.Value(key)
	}
	return c.values.Value(key)
}

// forDialer returns what a dialer gets of the context of an attempt.
func forDialer(ctx context.Context) context.Context {
	if a := attemptFrom(ctx); a != nil {
		return dialContext{ctx, a.caller.Context()}
	}
	return ctx
}

// A sourceContext is the context of an attempt as a TokenSource gets it. What the
// source sends is not part of the attempt: its connections prove nothing, and what
// the caller says of the request does not go for it.
type sourceContext struct{ context.Context }

// Value implements context.Context.
func (c sourceContext) Value(key any) any {
	switch key.(type) {
	case attemptKey, operationKey, noRetryKey:
		return nil
	}
	v := c.Context.Value(key)
	if _, ok := v.(*httptrace.ClientTrace); ok {
		return nil
	}
	return v
}

// newAttempt makes an attempt of a call and starts its clock.
func newAttempt(c *call) *sending {
	s := &sending{attempt: attempt{
		Context: c.ctx, caller: c.req, number: int32(c.number), login: c.t.login,
		mutates: c.operation == MutatingOperation,
		traced:  c.operation != SafeOperation, // which can be repeated in any case
		limit:   c.config.timeoutOf(c.operation),
	}}
	a := &s.attempt
	a.whole.Store(s)
	if c.user != 0 {
		a.state.Store(c.user << stateUserFrom)
	}
	a.apart = a.mutates || c.apart
	a.fresh = c.apart || c.fresh || c.bodies.once != nil
	// A layer may leave its own call of a mutation behind; and a call that has a clock
	// ends with its last attempt.
	if a.limit > 0 || a.mutates || c.end != nil {
		a.Context, a.cancel = context.WithCancelCause(a.Context)
	}
	if a.limit > 0 {
		a.timer = time.AfterFunc(a.limit, a.expire)
	}
	s.request = *c.req.WithContext(a) // inlined, so that no other copy is allocated
	return s
}

// connected reports whether the attempt is known to have had a connection.
func (a *attempt) connected() bool {
	trace := a.trace()
	return trace != nil && trace.Had()
}

// answeredOnce reports whether resp is the answer to the one try that was made.
// Connections for mutations count what left over them; of others only the trace tells.
func (a *attempt) answeredOnce(resp *http.Response) bool {
	own, trace := 0, a.trace()
	var answer *http.Response
	if notes := a.notes.Load(); notes != nil {
		own = int(notes.tries.begun.Load() - notes.tries.unsent.Load())
		answer = notes.tries.answer.Load()
	}
	switch {
	case a.is(stateElsewhere):
		return false
	case own == 0:
		return trace != nil && trace.AnsweredOnce()
	}
	return own == 1 && resp == answer && (trace == nil || !trace.Had())
}

// unsent returns the proof that nothing of the attempt has left, or nil: err is, or wraps,
// that of its last try over a connection for mutations, there are proofs of all the others,
// and there was no connection of another kind that it can have gone over.
func (a *attempt) unsent(err error) *atmostonce.UnsentError {
	notes := a.notes.Load()
	if notes == nil {
		return nil
	}
	tries, trace := &notes.tries, notes.trace.Load()
	last := tries.last.Load()
	switch {
	case last == nil, !wraps(err, last), tries.begun.Load() != tries.unsent.Load():
		return nil
	case trace != nil && (trace.Had() || tries.afterOthers.Load() && trace.HadAny()):
		return nil
	}
	return last
}

// try takes note of a try over a connection for mutations. What was sent to another host
// before, with this body, may have been another try.
func (a *attempt) try() *ownTries {
	tries := &a.note().tries
	whole := a.whole.Load()
	if tries.begun.Add(1) == 1 && whole != nil {
		if body, ok := whole.request.Body.(*sentBody); ok {
			tries.afterOthers.Store(body.begun.Load())
		}
	}
	return tries
}

// refusal returns the report of a token that the API did not accept, or nil.
func (a *attempt) refusal() *tokenReport {
	if r := a.report(); r != nil && r.none == nil {
		return r
	}
	return nil
}

// tokenless returns why there was no token for the request, or nil.
func (a *attempt) tokenless() error {
	if r := a.report(); r != nil {
		return r.none
	}
	return nil
}

func (a *attempt) expire() { a.cancel(attemptTimeout{of: a}) }

// timedOut reports whether the attempt's own clock ended it.
func (a *attempt) timedOut() bool {
	return a.cancel != nil && context.Cause(a.Context) == error(attemptTimeout{of: a})
}

// pause stops the clock while a token is waited for; resume starts it anew.
func (a *attempt) pause() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

func (a *attempt) resume() {
	if a.timer != nil && a.Context.Err() == nil {
		a.timer.Reset(a.limit)
	}
}

// release frees what the clock holds. It is called when nothing of the attempt
// is used any more, and may be called again.
func (a *attempt) release() {
	if a == nil {
		return
	}
	if a.cancel != nil {
		a.state.Or(stateOver)
		a.pause()
		a.cancel(nil)
	}
}

// keep readies a response for the caller: the clock runs until its body is
// closed or read to the end.
func (a *attempt) keep(resp *http.Response) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The connection is the caller's now. Cancelling the context could end it.
		a.pause()
	}
	conn, writable := resp.Body.(io.ReadWriteCloser)
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols && writable:
		resp.Body = &switchedBody{hiddenConn{hideBody(conn), func() io.Writer { return conn }}, a}
	case resp.Body == http.NoBody:
		a.release()
	default:
		a.whole.Load().body, a.status = resp.Body, int16(resp.StatusCode)
		if resp.ProtoMajor == 2 && hasBody(a.caller) && a.Done() != nil {
			a.whole.Load().body = endWith(a, resp.Body)
		}
		resp.Body = (*boundBody)(a)
	}
}
