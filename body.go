package ampauth

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// What is read of a response that nobody wants, so that its connection can be
// used again: at most so much, for at most so long.
const (
	maxDrain  = 64 << 10
	drainTime = 250 * time.Millisecond
)

// discard drains and closes the body of a response that nobody wants, within d. The
// attempt it belongs to, if any, is over then.
func discard(a *attempt, body io.ReadCloser, d time.Duration) {
	defer a.release()
	if body == http.NoBody {
		return
	}
	ahead := readAhead(body, maxDrain, d)
	if !ahead.finished() && a != nil && a.cancel != nil {
		// A stalled read ends by its context, so that no body of a layer's is closed
		// while it is read, unless it does not heed that.
		a.release()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ahead.done:
		case <-timer.C:
		}
	}
	_ = ahead.Close()
}

// readAhead reads up to n bytes of body, for at most d. What it returns reads as
// the whole body all the same, and closes it.
func readAhead(body io.ReadCloser, n int64, d time.Duration) *aheadBody {
	ahead := &aheadBody{rest: body, limit: int(n), done: make(chan struct{})}
	go func() {
		defer close(ahead.done)
		defer func() { ahead.panicked = recover() }()
		ahead.err = io.ErrUnexpectedEOF // unless the reading comes to an end
		ahead.prefix, ahead.err = io.ReadAll(io.LimitReader(body, n))
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ahead.done:
		if ahead.panicked != nil {
			_ = body.Close()
		}
		ahead.passOn()
	case <-timer.C:
	}
	return ahead
}

// An aheadBody is a body of which a first part was read before the caller asked.
type aheadBody struct {
	rest  io.ReadCloser
	limit int

	done     chan struct{} // closed when the reading ahead is over; then these are set:
	prefix   []byte
	err      error
	panicked any // a panic of the body, which belongs to whoever reads it

	offset int
}

func (b *aheadBody) passOn() {
	if b.panicked != nil {
		panic(b.panicked)
	}
}

// finished reports whether the reading ahead is over.
func (b *aheadBody) finished() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// whole returns the body if all of it was read ahead.
func (b *aheadBody) whole() (content []byte, ok bool) {
	if !b.finished() || b.err != nil || len(b.prefix) == b.limit {
		return nil, false
	}
	return b.prefix, true
}

func (b *aheadBody) Read(p []byte) (int, error) {
	<-b.done
	b.passOn()
	if b.offset < len(b.prefix) {
		n := copy(p, b.prefix[b.offset:])
		b.offset += n
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.rest.Read(p)
}

func (b *aheadBody) Close() error { return b.rest.Close() }

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

// emptyBody stands in for the body of a mutation that has none. net/http repeats
// requests without a body by itself; it does not repeat this one.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// A sentBody is the body of a request that is not safe. It notes whether anybody began to read it.
type sentBody struct {
	io.ReadCloser
	begun atomic.Bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	before := b.begun.Swap(true) // not later: net/http may send the header while it waits for this
	n, err := b.ReadCloser.Read(p)
	if n == 0 && err == http.ErrBodyReadAfterClose {
		b.begun.Store(before)
	}
	return n, err
}

// masked returns req in the form that net/http does not repeat by itself: with a
// body, and nothing to make it anew. It may be so already, unless a layer between
// has changed it.
func masked(req *http.Request) *http.Request {
	if req.GetBody == nil && hasBody(req) {
		return req
	}
	req = req.WithContext(req.Context())
	req.GetBody = nil
	if !hasBody(req) {
		req.Body = emptyBody{}
	}
	return req
}

// unmasked is the body of req, which belongs to the attempt, without an emptyBody that
// masks it. A layer between may have put something around that.
func (a *attempt) unmasked(req *http.Request) io.ReadCloser {
	switch {
	case req.Body == emptyBody{}:
		return nil
	case req.ContentLength != 0 || !hasBody(req) || hasBody(a.caller):
		return req.Body
	}
	var first [1]byte
	n, err := io.ReadFull(req.Body, first[:])
	if err == io.EOF {
		_ = req.Body.Close()
		return nil
	}
	return &startedBody{io.MultiReader(bytes.NewReader(first[:n]), req.Body), req.Body}
}

// A startedBody is a body of which the beginning was read.
type startedBody struct {
	io.Reader
	io.Closer
}

// A bodySource yields the request's body for each attempt: first the caller's
// own, then fresh ones from GetBody. Without GetBody the caller's own can be
// sent again only as long as nothing was read from it.
type bodySource struct {
	req  *http.Request
	used bool
	once *onceBody // only for a body without GetBody
}

func newBodySource(req *http.Request) bodySource {
	s := bodySource{req: req}
	if hasBody(req) && req.GetBody == nil {
		s.once = &onceBody{base: req.Body}
	}
	return s
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// next returns the body for the next attempt, or an error if there is none.
func (s *bodySource) next() (io.ReadCloser, error) {
	first := !s.used
	s.used = true
	switch {
	case !hasBody(s.req):
		return s.req.Body, nil
	case s.once != nil:
		return s.once.lend()
	case first:
		return s.req.Body, nil
	}
	return s.req.GetBody()
}

// canRepeat reports whether next will have a whole body once more.
func (s *bodySource) canRepeat() bool {
	return s.once == nil || s.once.reclaim()
}

// done says that there will be no further attempt.
func (s *bodySource) done() {
	if s.once != nil {
		s.once.letGo()
	}
}

// unused closes the caller's body if no attempt took it.
func (s *bodySource) unused() {
	if !s.used && s.req.Body != nil {
		_ = s.req.Body.Close()
	}
}

var errBodyConsumed = errors.New("the request's body was read and has no GetBody")

// An onceBody guards a body that exists once. It is lent to one attempt after
// the other while nothing was read from it; the Close of an attempt is held back
// so long, and passed on when there will be no other attempt.
type onceBody struct {
	base io.ReadCloser

	mu     sync.Mutex // guards all below; never held while reading or closing base
	holder *loan
	read   bool // a read began: the body is that attempt's for good
	closed bool // the holder has closed it
	final  bool // nobody will borrow it again
	gone   bool // base is closed, or being closed
}

type loan struct{ of *onceBody }

func (b *onceBody) lend() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read || b.gone {
		return nil, errBodyConsumed
	}
	b.holder, b.closed = &loan{b}, false
	return b.holder, nil
}

// reclaim takes the body back from its holder, whose reads fail from then on.
func (b *onceBody) reclaim() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read || b.gone {
		return false
	}
	// Whoever takes it back owes the Close that the holder may already have made.
	b.holder, b.closed = nil, true
	return true
}

func (b *onceBody) letGo() {
	b.mu.Lock()
	b.final = true
	closing := b.closed && !b.gone
	b.gone = b.gone || closing
	b.mu.Unlock()
	if closing {
		_ = b.base.Close()
	}
}

func (l *loan) Read(p []byte) (int, error) {
	b := l.of
	b.mu.Lock()
	if b.holder != l || b.closed {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	b.mu.Unlock()
	return b.base.Read(p)
}

func (l *loan) Close() error {
	b := l.of
	b.mu.Lock()
	if b.holder != l || b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	closing := b.read || b.final
	b.gone = b.gone || closing
	b.mu.Unlock()
	if closing {
		return b.base.Close()
	}
	return nil
}
