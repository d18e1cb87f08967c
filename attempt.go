package ampauth

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// An attempt is one try at sending a request. It is the context that the layers
// below see and the body that the caller reads. It is also where a RetryTransport
// and the AuthTransport below it meet, however many layers stand between them.
//
// The caller holds it, and errors and contexts lead to it, so nothing in it leads to
// what is sent, which may get the token.
type attempt struct {
	context.Context // the caller's, or one that the attempt's clock ends

	body io.ReadCloser // the response's, once the caller has it

	caller *http.Request // the caller's request, which nobody below can change

	number  int32         // from 1
	status  int32         // of the response, once the caller has it
	proof   atomic.Uint32 // how far it got; the connections of safe operations are not traced
	mutates bool
	apart   bool // wants a connection that no other request was on
	login   bool // is a login: an AuthTransport it passes through must not wait for one

	// The clock; unset when the attempt has no timeout.
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc

	report atomic.Pointer[tokenReport] // of the AuthTransport below, if there is something to tell
}

// A sending is an attempt and what it sends, in one allocation.
type sending struct {
	attempt
	request http.Request
	value   [1]string // of the Authorization field, if an AuthTransport is right below
}

// What is known of an attempt.
const (
	sawDial    = 1 << iota // a connection was asked for
	sawConnect             // and was had
	sawAnother             // and one more, so that something below tried again
	released               // it is over: its context did not end by the caller or the clock
)

// A tokenReport says that there was no token to be had, or that the API did not
// accept it, and then who can replace it.
type tokenReport struct {
	none  bool
	token Token
	auth  *AuthTransport
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
	return a.Context.Value(key)
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

// newAttempt makes attempt number n of req and starts its clock.
func newAttempt(req *http.Request, n int, op Operation, limit time.Duration) *sending {
	s := &sending{attempt: attempt{
		Context: req.Context(), caller: req, number: int32(n),
		mutates: op == MutatingOperation, apart: op == MutatingOperation, limit: limit,
	}}
	a := &s.attempt
	if limit > 0 || a.mutates { // a layer may leave its own call of a mutation behind
		a.Context, a.cancel = context.WithCancelCause(a.Context)
	}
	if limit > 0 {
		a.timer = time.AfterFunc(limit, a.expire)
	}
	if op != SafeOperation {
		a.Context = httptrace.WithClientTrace(a.Context, &httptrace.ClientTrace{
			GetConn: func(string) { a.proof.Or(sawDial) },
			GotConn: func(httptrace.GotConnInfo) { a.gotConn() },
			TLSHandshakeDone: func(state tls.ConnectionState, err error) {
				switch state.NegotiatedProtocol {
				case "", "http/1.1", "h2":
				default:
					// One of the user's own (http.Transport.TLSNextProto), which tells no GotConn.
					if err == nil {
						a.gotConn()
					}
				}
			},
		})
	}
	s.request = *req.WithContext(a) // inlined, so that no other copy is allocated
	return s
}

func (a *attempt) gotConn() {
	if a.proof.Or(sawConnect)&sawConnect != 0 {
		a.proof.Or(sawAnother)
	}
}

// repeated reports whether something below sent the request again by itself.
func (a *attempt) repeated() bool { return a.proof.Load()&sawAnother != 0 }

// over reports whether the attempt was released, which ends its context as well.
func (a *attempt) over() bool { return a.proof.Load()&released != 0 }

func (a *attempt) connected() bool { return a.proof.Load()&sawConnect != 0 }
func (a *attempt) dialing() bool   { return a.proof.Load()&sawDial != 0 }

// refusal returns the report of a token that the API did not accept, or nil.
func (a *attempt) refusal() *tokenReport {
	if r := a.report.Load(); r != nil && !r.none {
		return r
	}
	return nil
}

// gotNoToken reports whether the request could not be sent for want of a token.
func (a *attempt) gotNoToken() bool {
	r := a.report.Load()
	return r != nil && r.none && !a.connected()
}

func (a *attempt) expire() { a.cancel(attemptTimeout{a}) }

// timedOut reports whether the attempt's own clock ended it.
func (a *attempt) timedOut() bool {
	return a.cancel != nil && context.Cause(a.Context) == error(attemptTimeout{a})
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
	if a != nil && a.cancel != nil {
		a.pause()
		a.proof.Or(released)
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
		resp.Body = &switchedBody{conn, a}
	case resp.Body == http.NoBody:
		a.release()
	default:
		a.body, a.status = resp.Body, int32(resp.StatusCode)
		if resp.ProtoMajor == 2 && hasBody(a.caller) && a.Done() != nil {
			a.body = endWith(a, resp.Body)
		}
		resp.Body = (*boundBody)(a)
	}
}

// An endingBody ends with its context. The body of an HTTP/2 response does not, as
// of Go 1.26, while the upload is held up by flow control; closing it ends both.
type endingBody struct {
	io.ReadCloser
	leave func() bool // from the context

	once sync.Once // closes
	err  error
}

func endWith(ctx context.Context, body io.ReadCloser) *endingBody {
	b := &endingBody{ReadCloser: body}
	b.leave = context.AfterFunc(ctx, func() { _ = b.close() })
	return b
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.leave()
	}
	return n, err
}

func (b *endingBody) Close() error {
	b.leave()
	return b.close()
}

func (b *endingBody) close() error {
	b.once.Do(func() { b.err = b.ReadCloser.Close() })
	return b.err
}

// A switchedBody is the connection of a 101. It can be written to, and its Close
// frees the attempt.
type switchedBody struct {
	io.ReadWriteCloser
	a *attempt
}

func (b *switchedBody) Close() error {
	err := b.ReadWriteCloser.Close()
	b.a.release()
	return err
}

// A boundBody is a response's body within the time of its attempt.
type boundBody attempt

// Read reads from the body; an error other than io.EOF is an *Error that is
// Answered, since the response is there.
func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == nil {
		return n, nil
	}
	a := (*attempt)(b)
	if err != io.EOF {
		e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: Answered, StatusCode: int(a.status), Attempts: int(a.number), Err: clean(err), final: a.mutates}
		if a.timedOut() {
			e.Kind, e.Limit, e.Err = ErrTimeout, a.limit, attemptTimeout{}
		} else if ctxErr := a.Context.Err(); ctxErr != nil && !a.over() {
			e.blame(ctxErr)
		}
		err = e
	}
	a.release()
	return n, err
}

// Close closes the body and ends the attempt.
func (b *boundBody) Close() error {
	err := b.body.Close()
	(*attempt)(b).release()
	return err
}
