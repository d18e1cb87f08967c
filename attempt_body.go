package ampauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/ampauth/ampauth/internal/replay"
)

// keep readies a response for the caller: the clock runs until its body is
// closed or read to the end.
func (a *attempt) keep(resp *http.Response) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The connection is the caller's now. Cancelling the context could end it.
		a.stopClock()
	}
	conn, writable := resp.Body.(io.ReadWriteCloser)
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols && writable:
		resp.Body = &switchedBody{hiddenConn{hideBody(conn), func() io.Writer { return conn }}, a}
	case resp.Body == http.NoBody:
		a.release()
	default:
		a.sending.Load().body, a.status = resp.Body, int16(resp.StatusCode)
		if resp.ProtoMajor == 2 && replay.HasBody(a.caller) && a.Done() != nil {
			a.sending.Load().body = endWith(a, resp.Body)
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
	hiddenConn
	a *attempt
}

func (b *switchedBody) Close() error {
	err := b.hiddenConn.Close()
	b.a.release()
	return err
}

// A boundBody is a response's body within the time of its attempt.
type boundBody attempt

// Read reads from the body; an error other than io.EOF is an *Error that is
// Answered, since the response is there.
func (b *boundBody) Read(p []byte) (int, error) {
	a := (*attempt)(b)
	n, err := a.sending.Load().body.Read(p)
	if notes := a.notes.Load(); notes != nil && n > 0 {
		if pool := notes.pool.Load(); pool != nil {
			pool.Arrived()
		}
	}
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: Answered, StatusCode: int(a.status), Attempts: int(a.number), Err: clean(err)}
		switch {
		case a.mutates:
			e.repeat = never
		case err == errRestGivenUp: // another attempt would meet the refusal again
		case !a.is(stateReleased) && (a.Context.Err() == nil || a.timedOut()):
			e.repeat = always // nobody left or closed it
		}
		if a.timedOut() {
			e.Kind, e.Limit, e.Err = ErrTimeout, a.limit, a.timeout().ofNobody()
		} else if !a.is(stateReleased) {
			e.addEnd(a.Context)
		}
		err = e
		witnessOf(a.caller.Context()).brokeOff(callEnd{Answered, e.StatusCode, 0, e})
	}
	a.release()
	return n, err
}

// Close closes the body and ends the attempt.
func (b *boundBody) Close() error {
	a := (*attempt)(b)
	err := a.sending.Load().body.Close()
	a.release()
	return err
}

// A hiddenBody is a body that no printer gets into: behind that of net/http are the
// buffers that a request with its token was written through.
type hiddenBody struct{ body func() io.ReadCloser }

func hideBody(body io.ReadCloser) hiddenBody {
	return hiddenBody{func() io.ReadCloser { return body }}
}

func (h hiddenBody) Read(p []byte) (int, error) { return h.body().Read(p) }
func (h hiddenBody) Close() error               { return h.body().Close() }

// A hiddenConn is the same of the connection of a 101.
type hiddenConn struct {
	hiddenBody
	writer func() io.Writer
}

func (h hiddenConn) Write(p []byte) (int, error) { return h.writer().Write(p) }

// hideInside hides the body of a response.
func hideInside(resp *http.Response) {
	body := resp.Body
	if reflect.TypeOf(body).Size() == 0 {
		return // there is nothing in it, as in http.NoBody
	}
	if conn, ok := body.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = hiddenConn{hideBody(body), func() io.Writer { return conn }}
		return
	}
	resp.Body = hideBody(body)
}

// maxRefusalBody is how much of a refusal's body is kept for the caller while its token is
// renewed, in bytes: more than that of any page, and it is kept only until then.
const maxRefusalBody = 256 << 10

var errRestGivenUp = errors.New("the rest of the refusal was given up, so that the login need not wait for its connection")

// giveUpRest frees the connection of a refusal, and returns what was read of its body.
func (a *attempt) giveUpRest(body io.ReadCloser) io.ReadCloser {
	ahead := replay.ReadAhead(body, maxRefusalBody+1, replay.DrainTime)
	return ahead.GiveUp(replay.DrainTime, a.stop(), errRestGivenUp)
}

// discard closes the body of an answer to the attempt that nobody wants. One that is still
// read ends by the attempt's end, or within d.
func (a *attempt) discard(body *replay.Ahead, d time.Duration) { body.Discard(d, a.stop()) }

// stop returns what ends a read of the attempt's answer, or nil if only Close does.
func (a *attempt) stop() func() {
	if a.cancel == nil {
		return nil
	}
	return a.release
}
