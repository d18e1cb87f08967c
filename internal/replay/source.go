// Package replay has the bodies of requests that are sent more than once, keeps net/http
// from sending the others again, and reads answers ahead.
package replay

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// A Source yields the body of a request for each attempt: first the caller's own, then
// fresh ones from GetBody. Without GetBody the caller's own can be sent again only as
// long as nothing was read from it.
type Source struct {
	req  *http.Request
	used bool
	once *onceBody // only for a body without GetBody
}

// NewSource returns the Source of the request's body.
func NewSource(req *http.Request) Source {
	s := Source{req: req}
	if HasBody(req) && req.GetBody == nil {
		s.once = &onceBody{base: req.Body}
	}
	return s
}

// Started reports whether Next was called.
func (s *Source) Started() bool { return s.used }

// ExistsOnce reports whether there is a body that GetBody cannot make anew.
func (s *Source) ExistsOnce() bool { return s.once != nil }

// Next returns the body for the next attempt, or an error if there is none.
func (s *Source) Next() (io.ReadCloser, error) {
	first := !s.used
	s.used = true
	switch {
	case !HasBody(s.req):
		return s.req.Body, nil
	case s.once != nil:
		return s.once.lend()
	case first:
		return s.req.Body, nil
	}
	return s.req.GetBody()
}

// CanRepeat reports whether Next will have a whole body once more.
func (s *Source) CanRepeat() bool {
	return s.once == nil || s.once.reclaim()
}

// Done says that there will be no further attempt.
func (s *Source) Done() {
	if s.once != nil {
		s.once.letGo()
	}
}

// Unused closes the caller's body if no attempt took it. It may be called again.
func (s *Source) Unused() {
	if !s.used && s.req.Body != nil {
		_ = s.req.Body.Close()
	}
	s.used = true
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
