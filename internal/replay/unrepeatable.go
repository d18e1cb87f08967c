package replay

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
)

// HasBody reports whether a request has a body, which may turn out to be empty.
func HasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// An Empty body stands in for the body of a request that has none. net/http repeats
// requests without a body by itself; it does not repeat this one.
type Empty struct{}

// Read implements io.Reader.
func (Empty) Read([]byte) (int, error) { return 0, io.EOF }

// Close does nothing.
func (Empty) Close() error { return nil }

// MakeUnrepeatable gives req the form that net/http does not repeat by itself: with a
// body, and nothing to make it anew.
func MakeUnrepeatable(req *http.Request) {
	req.GetBody = nil
	if !HasBody(req) {
		req.Body = Empty{}
	}
}

// Unrepeatable returns req in that form: a copy, unless it has it already.
func Unrepeatable(req *http.Request) *http.Request {
	if req.GetBody != nil || !HasBody(req) {
		req = req.WithContext(req.Context())
		MakeUnrepeatable(req)
	}
	return req
}

// Restore returns the body of req without what MakeUnrepeatable has put in the place of
// none. Somebody may have put something around that; callerHas says that there was a body.
func Restore(req *http.Request, callerHas bool) io.ReadCloser {
	switch {
	case req.Body == Empty{}:
		return nil
	case req.ContentLength != 0 || !HasBody(req) || callerHas:
		return req.Body
	}
	var first [1]byte
	n, err := io.ReadFull(req.Body, first[:])
	if err == io.EOF {
		_ = req.Body.Close()
		return nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:n]), req.Body), req.Body}
}

// A Watched body notes whether anybody began to read it.
type Watched struct {
	io.ReadCloser
	begun atomic.Bool
}

// Begun reports whether somebody began to read the body, or to make it anew.
func (b *Watched) Begun() bool { return b.begun.Load() }

// Begin says that somebody does.
func (b *Watched) Begin() { b.begun.Store(true) }

// Read implements io.Reader.
func (b *Watched) Read(p []byte) (int, error) {
	before := b.begun.Swap(true) // not later: net/http may send the header while it waits for this
	n, err := b.ReadCloser.Read(p)
	if n == 0 && err == http.ErrBodyReadAfterClose {
		b.begun.Store(before)
	}
	return n, err
}
