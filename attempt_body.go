package ampauth

import (
	"context"
	"io"
	"sync"
)

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
	n, err := a.whole.Load().body.Read(p)
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
		case !a.over() && (a.Context.Err() == nil || a.timedOut()):
			e.repeat = always // nobody left or closed it
		}
		if a.timedOut() {
			e.Kind, e.Limit, e.Err = ErrTimeout, a.limit, attemptTimeout{}
		} else if !a.over() {
			e.blame(a.Context)
		}
		err = e
	}
	a.release()
	return n, err
}

// Close closes the body and ends the attempt.
func (b *boundBody) Close() error {
	a := (*attempt)(b)
	err := a.whole.Load().body.Close()
	a.release()
	return err
}
