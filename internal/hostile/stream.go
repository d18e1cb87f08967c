package hostile

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
)

// A stream is a request on an [http2Conn], and the peer of HTTP/2. It reads as the
// body of that request.
type stream struct {
	*http2Conn
	id       uint32
	entry    *Entry
	declared int64

	// Guarded by the connection's mu.
	unread   []byte // of the body
	complete bool   // END_STREAM was received
	reset    bool   // by the client
	window   int64  // what may be sent
}

// errGone is what a stream meets when its client has left it.
var errGone = errors.New("the client is gone")

// maxFrame is what every client takes (RFC 9113 4.2).
const maxFrame = 16 << 10

// answer carries out the script's step for the stream.
func (t *stream) answer() {
	defer t.grow(func() { delete(t.streams, t.id) })
	x := &exchange{
		server:   t.server,
		peer:     t,
		entry:    t.entry,
		body:     bufio.NewReader(t),
		declared: t.declared,
		expects:  expectsContinue(t.entry.Header),
	}
	x.play()
}

// wait waits until ready, or until the client leaves, and reports which. It
// returns with the connection's mu held, under which ready is called.
func (t *stream) wait(ready func() bool) bool {
	t.mu.Lock()
	for !ready() {
		if t.reset {
			return false
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
			t.mu.Lock()
		case <-t.ended:
			t.mu.Lock()
			return ready() // the body may be complete all the same
		}
	}
	return true
}

// Read reads from the request's body and lets the client send as much again.
func (t *stream) Read(p []byte) (int, error) {
	ok := t.wait(func() bool { return len(t.unread) > 0 || t.complete })
	n := copy(p, t.unread)
	t.unread = t.unread[n:]
	complete := t.complete
	t.mu.Unlock()
	switch {
	case !ok:
		return 0, io.ErrUnexpectedEOF
	case n == 0:
		return 0, io.EOF
	case !complete:
		// That the client is gone is for the next Read to find.
		t.frame(func() error { return t.framer.WriteWindowUpdate(t.id, uint32(n)) })
	}
	return n, nil
}

func (t *stream) claim(perform bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaving && t.id > t.last {
		return false
	}
	if perform {
		t.performed = max(t.performed, t.id)
	}
	return true
}

func (t *stream) seal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.leaving = t.lastHonest(LastThis), true
}

func (t *stream) inform(status int) error {
	return t.headers(strconv.Itoa(status), nil, false)
}

func (t *stream) header(step Step, length int, last bool) error {
	header := maps.Clone(step.Header)
	if length >= 0 && header["Content-Length"] == nil && !bodiless(step.status()) {
		if header == nil {
			header = make(http.Header)
		}
		header["Content-Length"] = []string{strconv.Itoa(length)}
	}
	return t.headers(strconv.Itoa(step.status()), header, last)
}

func (t *stream) headers(status string, header http.Header, last bool) error {
	return t.frame(func() error {
		block := t.encode(status, header)
		n := min(len(block), maxFrame)
		err := t.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID:      t.id,
			BlockFragment: block[:n],
			EndStream:     last,
			EndHeaders:    n == len(block),
		})
		for block = block[n:]; err == nil && len(block) > 0; block = block[n:] {
			n = min(len(block), maxFrame)
			err = t.framer.WriteContinuation(t.id, n == len(block), block[:n])
		}
		return err
	})
}

// write sends the body within the client's flow control.
func (t *stream) write(p []byte) error {
	for len(p) > 0 {
		ok := t.wait(func() bool { return t.reset || min(t.window, t.http2Conn.window) > 0 })
		if !ok || t.reset {
			t.mu.Unlock()
			return errGone
		}
		n := int(min(int64(len(p)), maxFrame, t.window, t.http2Conn.window))
		t.window -= int64(n)
		t.http2Conn.window -= int64(n)
		t.mu.Unlock()
		if err := t.frame(func() error { return t.framer.WriteData(t.id, false, p[:n]) }); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (t *stream) finish() error {
	return t.frame(func() error { return t.framer.WriteData(t.id, true, nil) })
}

// cutHeader hangs up itself, before another frame can follow.
func (t *stream) cutHeader(step Step) {
	t.frame(func() error {
		block := t.encode(strconv.Itoa(step.status()), step.Header)
		t.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID:      t.id,
			BlockFragment: block[:(len(block)+1)/2],
		})
		t.hangUp(step.Reset)
		return nil
	})
}

// cutChunk sends a frame that promises 31 bytes and has two.
func (t *stream) cutChunk() {
	t.frame(func() error {
		_, err := t.http2Conn.Write([]byte{0, 0, 31, byte(http2.FrameData), 0,
			byte(t.id >> 24), byte(t.id >> 16), byte(t.id >> 8), byte(t.id), 'c', 'u'})
		return err
	})
}

func (t *stream) garbage(step Step) bool {
	status := step.Body
	if status == "" {
		status = "garbage"
	}
	return t.headers(status, nil, true) == nil
}

func (t *stream) switchProtocols(Step) { t.resetStream(uint32(http2.ErrCodeHTTP11Required)) }

func (t *stream) resetStream(code uint32) {
	t.frame(func() error { return t.framer.WriteRSTStream(t.id, http2.ErrCode(code)) })
}

func (t *stream) goAway(code uint32, want LastStream) bool {
	t.mu.Lock()
	last := uint32(want)
	if want <= 0 {
		last = t.lastHonest(want)
	}
	t.leaving, t.last = true, last
	t.mu.Unlock()
	t.frame(func() error { return t.framer.WriteGoAway(last, http2.ErrCode(code), nil) })
	return t.id <= last
}

// lastHonest is the id that a constant stands for; mu is held. It is no less
// than that of a stream that was performed, and no more than what the client
// was told before (RFC 9113 6.8).
func (t *stream) lastHonest(want LastStream) uint32 {
	var last uint32
	switch {
	case want == LastThis:
		last = t.id
	case want == LastPrevious && t.id > 2:
		last = t.id - 2
	}
	last = max(last, t.performed)
	if t.leaving {
		last = min(last, t.last)
	}
	return last
}

// stall needs not drain anything: frames are read whatever a stream does.
func (t *stream) stall(bool) {
	t.wait(func() bool { return t.reset })
	t.mu.Unlock()
}
