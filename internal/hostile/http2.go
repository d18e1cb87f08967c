package hostile

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// initialWindow is the flow-control window before anybody says otherwise (RFC
// 9113 6.9.2). The server leaves its own at that.
const initialWindow = 65535

// An http2Conn is an HTTP/2 connection. Its own goroutine reads frames; each
// stream has another, which answers.
type http2Conn struct {
	*conn
	ended chan struct{} // closed when the connection is over

	// writing is held while a frame is written, so that frames do not mix. It
	// guards the framer's writing side, the encoder and its block.
	writing sync.Mutex
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer

	mu        sync.Mutex // guards what follows, and the same part of the streams
	changed   chan struct{}
	streams   map[uint32]*stream
	newest    uint32 // id of the latest stream
	performed uint32 // highest id of a stream whose operation was performed
	leaving   bool   // streams after last do not count, as a GOAWAY mostly said
	last      uint32
	window    int64 // what may be sent on the connection
	initial   int64 // what may be sent on a new stream
}

func (c *conn) serveHTTP2() {
	r := bufio.NewReader(c)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(r, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	s := &http2Conn{
		conn:    c,
		ended:   make(chan struct{}),
		framer:  http2.NewFramer(c, r),
		changed: make(chan struct{}),
		streams: make(map[uint32]*stream),
		window:  initialWindow,
		initial: initialWindow,
	}
	s.encoder = hpack.NewEncoder(&s.block)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if s.frame(func() error {
		return s.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 250})
	}) != nil {
		return
	}

	var answering sync.WaitGroup
	defer answering.Wait()
	defer close(s.ended)
	defer s.hangUp(false)
	for {
		frame, err := s.framer.ReadFrame()
		if broken, ok := errors.AsType[http2.StreamError](err); ok {
			err = s.frame(func() error { return s.framer.WriteRSTStream(broken.StreamID, broken.Code) })
		} else if err == nil {
			err = s.handle(frame, &answering)
		}
		if err != nil {
			return
		}
	}
}

// frame writes a frame while no other is written.
func (s *http2Conn) frame(write func() error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return write()
}

// handle does what a frame from the client asks for.
func (s *http2Conn) handle(frame http2.Frame, answering *sync.WaitGroup) error {
	id := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if t := s.admit(f); t != nil {
			answering.Go(t.answer)
		}
	case *http2.DataFrame:
		s.change(id, func(t *stream) {
			t.unread = append(t.unread, f.Data()...)
			t.complete = t.complete || f.StreamEnded()
		})
		// The connection's window is always given back; a stream's when its body is
		// read, so that an upload can be stalled without the others.
		if f.Length > 0 {
			return s.frame(func() error { return s.framer.WriteWindowUpdate(0, f.Length) })
		}
	case *http2.RSTStreamFrame:
		s.change(id, func(t *stream) { t.reset = true })
	case *http2.WindowUpdateFrame:
		if id == 0 {
			s.grow(func() { s.window += int64(f.Increment) })
		} else {
			s.change(id, func(t *stream) { t.window += int64(f.Increment) })
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return s.settle(f)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.frame(func() error { return s.framer.WritePing(true, f.Data) })
		}
	}
	return nil
}

// settle obeys the client's settings and says so.
func (s *http2Conn) settle(f *http2.SettingsFrame) error {
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		s.grow(func() {
			for _, t := range s.streams {
				t.window += int64(v) - s.initial
			}
			s.initial = int64(v)
		})
	}
	return s.frame(func() error {
		if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
			s.encoder.SetMaxDynamicTableSize(min(v, 4096))
		}
		return s.framer.WriteSettingsAck()
	})
}

// admit makes a stream of a request's header. It returns nil for trailers, and
// for requests after the last that counts.
func (s *http2Conn) admit(f *http2.MetaHeadersFrame) *stream {
	if f.StreamID <= s.newest {
		s.change(f.StreamID, func(t *stream) { t.complete = true })
		return nil
	}
	s.newest = f.StreamID
	t := &stream{http2Conn: s, id: f.StreamID, declared: -1, complete: f.StreamEnded()}
	s.mu.Lock()
	if s.leaving && t.id > s.last {
		s.mu.Unlock()
		return nil
	}
	t.window = s.initial
	s.streams[t.id] = t
	s.mu.Unlock()

	header := make(http.Header)
	for _, field := range f.RegularFields() {
		header.Add(field.Name, field.Value)
	}
	path := f.PseudoValue("path")
	if u, err := url.ParseRequestURI(path); err == nil {
		path = u.Path
	}
	if n, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64); err == nil {
		t.declared = n
	}
	s.requests++
	t.entry = &Entry{
		Exchange: Exchange{
			Conn:   s.number,
			OnConn: s.requests,
			Proto:  "HTTP/2.0",
			Method: f.PseudoValue("method"),
			Path:   path,
			Header: header,
		},
		Whole: f.StreamEnded(),
	}
	s.server.enter(t.entry)
	return t
}

// grow changes the connection's state and wakes those who wait for it.
func (s *http2Conn) grow(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// change changes the state of a stream, if it is still there.
func (s *http2Conn) change(id uint32, change func(*stream)) {
	s.grow(func() {
		if t := s.streams[id]; t != nil {
			change(t)
		}
	})
}

// encode returns a header block. It is called, and the block used, under frame.
func (s *http2Conn) encode(status string, header http.Header) []byte {
	s.block.Reset()
	s.encoder.WriteField(hpack.HeaderField{Name: ":status", Value: status})
	for name, values := range header {
		for _, value := range values {
			s.encoder.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
		}
	}
	return s.block.Bytes()
}
