package replay

import (
	"io"
	"net/http"
	"time"
)

// What is read of an answer that nobody wants, so that its connection can be used again:
// at most so much, for at most so long.
const (
	MaxDrain  = 64 << 10
	DrainTime = 250 * time.Millisecond
)

// Discard drains and closes the body of an answer that nobody wants, within d. A stalled
// read ends as [Ahead.Discard] says.
func Discard(body io.ReadCloser, d time.Duration, stop func()) {
	if body == http.NoBody {
		return
	}
	ReadAhead(body, MaxDrain, d).Discard(d, stop)
}

// ReadAhead reads up to n bytes of body, for at most d. What it returns reads as
// the whole body all the same, and closes it.
func ReadAhead(body io.ReadCloser, n int64, d time.Duration) *Ahead {
	ahead := &Ahead{rest: body, limit: int(n), done: make(chan struct{})}
	go func() {
		defer close(ahead.done)
		defer func() { ahead.panicked = recover() }()
		ahead.err = io.ErrUnexpectedEOF // unless the reading comes to an end
		ahead.prefix, ahead.err = io.ReadAll(io.LimitReader(body, n))
	}()
	if ahead.wait(d); ahead.Finished() {
		if ahead.panicked != nil {
			_ = body.Close()
		}
		ahead.passOn()
	}
	return ahead
}

// An Ahead is a body of which a first part was read before the caller asked.
type Ahead struct {
	rest  io.ReadCloser
	limit int

	done     chan struct{} // closed when the reading ahead is over; then these are set:
	prefix   []byte
	err      error
	panicked any // a panic of the body, which belongs to whoever reads it

	offset int
}

func (b *Ahead) passOn() {
	if b.panicked != nil {
		panic(b.panicked)
	}
}

// Finished reports whether the reading ahead is over.
func (b *Ahead) Finished() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// Whole returns the body if all of it was read ahead.
func (b *Ahead) Whole() (content []byte, ok bool) {
	if !b.Finished() || b.err != nil || len(b.prefix) == b.limit {
		return nil, false
	}
	return b.prefix, true
}

// GiveUp closes the body, so that its connection is free, and returns what was read ahead.
// Unless that is all, or the reading ended in an error of its own, err comes behind it. A
// stalled read ends as [Ahead.Discard] says.
func (b *Ahead) GiveUp(d time.Duration, stop func(), err error) io.ReadCloser {
	stalled := !b.Finished()
	b.Discard(d, stop)
	if stop == nil {
		b.wait(d) // for a read that Close has ended
	}
	part := &Ahead{rest: io.NopCloser(failing{err}), done: make(chan struct{})}
	close(part.done)
	if content, ok := b.Whole(); ok && !stalled {
		part.prefix, part.err = content, io.EOF
	} else if b.Finished() {
		part.prefix = b.prefix
		if !stalled {
			part.err = b.err
		}
	}
	return part
}

// wait waits for the reading ahead, for at most d.
func (b *Ahead) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
	}
}

// failing is a reader of nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Read implements io.Reader.
func (b *Ahead) Read(p []byte) (int, error) {
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

// Discard closes the body. A reading ahead that is not over ends by stop, so that no body is
// closed while somebody reads it, and where it does not heed that within d, or stop is nil,
// by Close.
func (b *Ahead) Discard(d time.Duration, stop func()) {
	if !b.Finished() && stop != nil {
		stop()
		b.wait(d)
	}
	_ = b.Close()
}

// Close closes the body.
func (b *Ahead) Close() error { return b.rest.Close() }
