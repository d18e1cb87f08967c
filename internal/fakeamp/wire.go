package fakeamp

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/http"
	"strconv"
	"time"
)

// abort closes the connection (over HTTP/2: resets the stream) without
// another byte. The server of net/http takes this panic for just that and
// prints nothing.
func abort() { panic(http.ErrAbortHandler) }

// pause waits as long as a fault wants, and drops the request if the client
// leaves or the fake is closed meanwhile.
func (s *Server) pause(r *http.Request, delay time.Duration) {
	if delay <= 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		abort()
	case <-s.closed:
		abort()
	}
}

// stall keeps the client waiting until it leaves or the fake is closed.
func (s *Server) stall(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closed:
	}
	abort()
}

// send writes an answer, or does to the connection what a fault wants.
func (s *Server) send(w http.ResponseWriter, r *http.Request, a answer, do Action) {
	switch do {
	case Reset:
		reset(w)
	case Close:
		abort()
	case StallHeaders:
		s.stall(r)
	case StallBody:
		writeHalf(w, a)
		s.stall(r)
	case CutBody:
		writeHalf(w, a)
		abort()
	case EndlessBody:
		s.writeEndless(w, r, a)
	default:
		write(w, a)
	}
}

func writeHeader(w http.ResponseWriter, a answer, withLength bool) {
	header := w.Header()
	maps.Copy(header, a.header)
	// A 204 has no body, and net/http no length for it.
	if withLength && a.status != http.StatusNoContent && header.Get("Content-Length") == "" {
		header.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
}

func write(w http.ResponseWriter, a answer) {
	writeHeader(w, a, true)
	w.Write(a.body)
}

// writeHalf announces the whole body and sends half of it.
func writeHalf(w http.ResponseWriter, a answer) {
	writeHeader(w, a, true)
	w.Write(a.body[:len(a.body)/2])
	http.NewResponseController(w).Flush()
}

// writeEndless repeats the body until nobody takes it any more.
func (s *Server) writeEndless(w http.ResponseWriter, r *http.Request, a answer) {
	control := http.NewResponseController(w)
	// A client that neither reads nor leaves blocks the write; Close must end
	// that as well.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.closed:
			control.SetWriteDeadline(time.Now())
		case <-ctx.Done():
		}
	}()

	writeHeader(w, a, false)
	chunk := bytes.Repeat(append(a.body, '\n'), 4096/(len(a.body)+1)+1)
	for {
		if _, err := w.Write(chunk); err != nil || control.Flush() != nil {
			abort()
		}
	}
}

// answerEarly answers before the request's body has arrived.
func (s *Server) answerEarly(w http.ResponseWriter, r *http.Request, f Fault) {
	if f.Status == 0 {
		f.Status = http.StatusRequestEntityTooLarge
	}
	// Otherwise net/http reads some of the body before it sends an answer.
	// HTTP/2 needs no switch for that, and says so with an error.
	http.NewResponseController(w).EnableFullDuplex()
	a := f.amend(answer{}, r)
	if r.ProtoMajor == 1 {
		// Who leaves a body unread cannot read another request. In this mode net/http
		// tries, while it still reads for the end of the body, and panics.
		a.header.Set("Connection", "close")
	}
	write(w, a)
}

// reset ends the connection so that its peer reads "connection reset" rather
// than an orderly end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/2: reset the stream.
		abort()
	}
	// TLS would say good-bye before it closes.
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
