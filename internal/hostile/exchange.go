package hostile

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// A peer is how one request is answered in a protocol. An error of its methods
// means that the client is not there any more.
type peer interface {
	// claim reports whether the request still counts; if it is to be performed,
	// it does from then on. A GOAWAY may have disowned it.
	claim(perform bool) bool
	// seal makes the request the last of its connection that counts.
	seal()

	inform(status int) error
	// header sends the header of the answer. The length is that of the body, or
	// negative if it is not announced; last says that no body follows.
	header(step Step, length int, last bool) error
	write(p []byte) error
	finish() error // after the body

	cutHeader(step Step) // sends half of it
	cutChunk()           // begins a chunk and does not finish it
	garbage(step Step) (again bool)
	switchProtocols(step Step)
	resetStream(code uint32)
	goAway(code uint32, last LastStream) (covered bool)

	stall(drain bool) // until the client leaves; drain reads what it sends meanwhile
	hangUp(reset bool)
}

// An exchange is a request while its step is carried out.
type exchange struct {
	server   *Server
	peer     peer
	entry    *Entry
	step     Step
	body     *bufio.Reader
	declared int64 // length of the body, or -1
	expects  bool  // 100-continue
	received bool  // the body was read to its end
}

// expectsContinue reports whether the client waits for a 100 (RFC 9110 10.1.1).
func expectsContinue(h http.Header) bool { return h.Get("Expect") == "100-continue" }

// play asks the script and does what it says. It reports whether the request
// was answered and, for HTTP/1, the connection is good for another one.
func (x *exchange) play() (again bool) {
	if x.server.script.Step != nil {
		// The script gets a header of its own, since the log's goes to others.
		asked := x.entry.Exchange
		asked.Header = asked.Header.Clone()
		x.step = x.server.script.Step(asked)
	}
	x.server.amend(x.entry, func(e *Entry) { e.Step = x.step.name() })
	x.received = x.entry.Whole

	if !x.read() || !x.perform() || !x.pause(x.step.Delay) {
		return false
	}
	for _, status := range x.step.Informational {
		if x.peer.inform(status) != nil {
			return false
		}
	}
	return x.do() && x.readRest()
}

// read reads of the body what is read before everything else. It reports
// whether there is something to go on with.
func (x *exchange) read() bool {
	if x.received {
		return true
	}
	if x.step.Upload == ReadBefore {
		if x.expects && x.peer.inform(http.StatusContinue) != nil {
			return false
		}
		return x.receive(0)
	}
	if x.expects {
		return true // it comes only when it was asked for
	}
	_, err := x.body.Peek(1)
	return err == nil || errors.Is(err, io.EOF)
}

// readRest reads what the step left of the body.
func (x *exchange) readRest() bool {
	switch {
	case x.received:
		return true
	case x.step.Upload == ReadNever:
		x.peer.stall(false)
		return false
	case x.step.Upload == ReadSlowly:
		return x.receive(10 * time.Millisecond)
	}
	return x.receive(0)
}

// receive reads the body to its end, 4 KiB in each pause, notes what it was,
// and reports whether it was whole.
func (x *exchange) receive(pause time.Duration) bool {
	digest := sha256.New()
	var length int64
	var err error
	for err == nil && x.pause(pause) {
		var n int64
		n, err = io.CopyN(digest, x.body, 4<<10)
		length += n
	}
	whole := errors.Is(err, io.EOF) && (x.declared < 0 || length == x.declared)
	x.received = whole
	x.server.amend(x.entry, func(e *Entry) {
		e.Length, e.Whole = length, whole
		digest.Sum(e.Sum[:0])
	})
	return whole
}

func (x *exchange) perform() bool {
	if !x.peer.claim(x.step.Perform) {
		return false
	}
	if x.step.Perform {
		x.server.amend(x.entry, func(e *Entry) { e.Performed, e.At = true, time.Now() })
	}
	return true
}

// pause waits. It reports false when the server closes meanwhile.
func (x *exchange) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.server.done:
		return false
	}
}

// do carries out the step's action. It reports whether the request was
// answered and the connection goes on.
func (x *exchange) do() bool {
	p, step := x.peer, x.step
	switch step.Do {
	case Answer:
		return x.answer()
	case AnswerThenClose:
		p.seal() // or a quick client gets another request in
		x.answer()
		p.hangUp(step.Reset)
	case Reset:
		p.hangUp(true)
	case Close:
		p.hangUp(false)
	case CutHeaders:
		p.cutHeader(step)
		p.hangUp(step.Reset)
	case CutBody:
		x.half()
		if step.Code != 0 {
			p.resetStream(step.Code)
		} else {
			p.hangUp(step.Reset)
		}
	case TruncatedChunk:
		x.step.Chunked = true
		if x.half() {
			p.cutChunk()
		}
		p.hangUp(step.Reset)
	case StallHeaders:
		p.stall(x.received)
	case StallBody:
		if x.half() {
			p.stall(x.received)
		}
	case EndlessBody:
		x.endless()
	case GarbageStatus:
		return p.garbage(step)
	case SwitchProtocols:
		p.switchProtocols(step)
	case ResetStream:
		p.resetStream(step.Code)
	case GoAway:
		return p.goAway(step.Code, step.Last) && x.answer()
	case GoAwayThenClose:
		p.goAway(step.Code, step.Last)
		p.hangUp(step.Reset)
	}
	return false
}

// bodiless reports whether an answer of that status has no body and no length
// (RFC 9110 8.6).
func bodiless(status int) bool {
	return status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// announced is the length that the header states.
func (x *exchange) announced() int {
	if x.step.Chunked {
		return -1
	}
	return len(x.step.body())
}

func (x *exchange) answer() bool {
	body := x.step.body()
	if x.entry.Method == http.MethodHead || bodiless(x.step.status()) || body == "" && !x.step.Chunked {
		return x.peer.header(x.step, x.announced(), true) == nil
	}
	if x.peer.header(x.step, x.announced(), false) != nil {
		return false
	}
	size := len(body)
	if x.step.Pace > 0 {
		size = (size + 15) / 16
	}
	for rest := []byte(body); len(rest) > 0; {
		n := min(size, len(rest))
		if x.peer.write(rest[:n]) != nil {
			return false
		}
		if rest = rest[n:]; len(rest) > 0 && !x.pause(x.step.Pace) {
			return false
		}
	}
	return x.peer.finish() == nil
}

// half sends the header and half of the body.
func (x *exchange) half() bool {
	body := x.step.body()
	return x.peer.header(x.step, x.announced(), false) == nil &&
		x.peer.write([]byte(body[:(len(body)+1)/2])) == nil
}

func (x *exchange) endless() {
	x.step.Chunked = true
	if x.peer.header(x.step, -1, false) != nil {
		return
	}
	body := []byte(x.step.body())
	piece := slices.Repeat(body, 16<<10/len(body)+1)
	for x.pause(x.step.Pace) && x.peer.write(piece) == nil {
	}
}
