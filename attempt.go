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
	"github.com/ampauth/ampauth/internal/replay"
	"github.com/ampauth/ampauth/internal/sendable"
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

	caller  *http.Request                // the caller's request, which nobody below can change
	sending atomic.Pointer[sending]      // what it is a part of
	notes   atomic.Pointer[attemptNotes] // made by the first who has something to note

	number  int32         // from 1
	state   atomic.Uint32 // whether it was released, and whose token it was sent with
	status  int16         // of the response, once the caller has it
	mutates bool
	traced  bool           // what net/http tells of its connections is listened to
	ownConn bool           // wants a connection for mutations
	newConn bool           // wants one that no other request was on
	direct  bool           // no layer but those of this package has had it so far
	header  sendable.Facts // of the caller's request

	// The clock; unset when the attempt has no timeout.
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// A sending is an attempt, what it sends, and what comes back, in one allocation.
type sending struct {
	attempt
	request http.Request
	value   [1]string     // of the Authorization field, while no other layer has the request
	body    io.ReadCloser // the response's, once the caller has it
}

// attemptNotes are what those below have to tell.
type attemptNotes struct {
	report atomic.Pointer[tokenReport]  // of the AuthTransport, if there is something to tell
	trace  atomic.Pointer[attemptTrace] // made when somebody asks for it
	tries  ownTries
	pool   atomic.Pointer[livepool.Pool] // that the answer came from
	queue  *queue                        // to wait in once more after a login; set before the attempt begins
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
	from  source
	with  *http.Request // that it was sent with
}

// note returns the attempt's notes, to write to.
func (a *attempt) note() *attemptNotes {
	if a.notes.Load() == nil {
		a.notes.CompareAndSwap(nil, new(attemptNotes))
	}
	return a.notes.Load()
}

// queue is that of the limiter, nil if there is none.
func (a *attempt) queue() *queue {
	if a == nil {
		return nil
	}
	if notes := a.notes.Load(); notes != nil {
		return notes.queue
	}
	return nil
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
	stateLogin     = 1 << iota // it is a login: an AuthTransport it passes through must not wait for one
	stateReleased              // its context did not end by the caller or the clock
	stateSent                  // an AuthTransport has sent it
	stateUntraced              // an answer came to a request without the attempt's context
	stateDecided               // how far it got is decided: nothing more may be sent
	stateAvoidPool             // it timed out in a pool that others have to wait in for as long
	stateUserFrom  = iota
)

func (a *attempt) is(flag uint32) bool { return a.state.Load()&flag != 0 }

// checkAnswer takes note of an answer to a request that a layer below has taken out of
// the attempt's context, and so out of its trace.
func (a *attempt) checkAnswer(resp *http.Response) {
	if a != nil && a.mutates && resp.Request != nil && attemptFrom(resp.Request.Context()) != a {
		a.state.Or(stateUntraced)
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
	_, user := userOf(token)
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

// AttemptFromContext returns the number of the attempt that a layer below a
// [RetryTransport] is part of: 1 for the first. ok is false elsewhere.
func AttemptFromContext(ctx context.Context) (n int, ok bool) {
	a := attemptFrom(ctx)
	if a == nil {
		return 0, false
	}
	return int(a.number), true
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

// alone returns the sending of which req is the request, while no other layer has had that;
// otherwise nil.
func (a *attempt) alone(req *http.Request) *sending {
	if a == nil || !a.direct {
		return nil
	}
	if s := a.sending.Load(); req == &s.request {
		return s
	}
	return nil
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
	switch key {
	case attemptKey{}:
		return a
	case witnessKey{}:
		return nil
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
	if key == (attemptKey{}) || key == (witnessKey{}) {
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

// connected reports whether the attempt is known to have had a connection.
func (a *attempt) connected() bool {
	trace := a.trace()
	return trace != nil && trace.Had()
}

// connectFailed notes why there was no connection for the attempt, where net/http does not
// tell its trace.
func (a *attempt) connectFailed(err error) {
	if trace := a.trace(); trace != nil {
		trace.Failed(err)
	}
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
	case a.is(stateUntraced):
		return false
	case own == 0:
		return trace != nil && trace.AnsweredOnce()
	}
	return own == 1 && resp == answer && (trace == nil || !trace.Had())
}

// hadTries reports whether the attempt had tries over connections for mutations.
func (a *attempt) hadTries() bool {
	notes := a.notes.Load()
	return notes != nil && notes.tries.begun.Load() > 0
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
	whole := a.sending.Load()
	if tries.begun.Add(1) == 1 && whole != nil {
		if body, ok := whole.request.Body.(*replay.Watched); ok {
			tries.afterOthers.Store(body.Begun())
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

func (a *attempt) expire() { a.cancel(a.timeout()) }

// timeout is the end of the attempt by its clock.
func (a *attempt) timeout() attemptTimeout {
	setting := "Retry.Timeout"
	if a.mutates && !a.is(stateLogin) {
		setting = "Retry.MutationTimeout"
	}
	return attemptTimeout{limit: a.limit, setting: setting, of: a}
}

// timedOut reports whether the attempt's own clock ended it.
func (a *attempt) timedOut() bool {
	return a.cancel != nil && context.Cause(a.Context) == error(a.timeout())
}

// stopClock is for while a token is waited for; startClock begins the attempt's time anew.
func (a *attempt) stopClock() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

func (a *attempt) startClock() {
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
		a.state.Or(stateReleased)
		a.stopClock()
		a.cancel(nil)
	}
}
