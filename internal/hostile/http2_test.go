package hostile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// streamError has the shape of net/http's HTTP/2 stream error, which lets
// errors.As fill any such struct.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

func isStreamError(code uint32) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[streamError](err)
		return ok && e.Code == code
	}
}

func isText(text string) func(error) bool {
	return func(err error) bool { return err != nil && strings.Contains(err.Error(), text) }
}

// isEnd is for a reset of an HTTP/2 connection. The system reports a reset once;
// if it tells it to a write, such as that of an acknowledgement, the reader is
// left with an end of file.
func isEnd(err error) bool { return isReset(err) || isEOF(err) }

// What net/http makes of each action. Requests cannot be repeated by it, since
// their bodies cannot be made again.
func TestHTTP2Actions(t *testing.T) {
	tests := []struct {
		name     string
		step     Step
		answered bool // the header of an answer got through
		end      func(error) bool
		again    bool // the connection is good for another request
	}{
		{"Reset", Step{Do: Reset}, false, isEnd, false},
		{"Close", Step{Do: Close}, false, isEOF, false},
		{"AnswerThenClose", Step{Do: AnswerThenClose, Body: "b"}, true, nil, false},
		{"CutHeaders", Step{Do: CutHeaders}, false, isEOF, false},
		{"CutHeaders by reset", Step{Do: CutHeaders, Reset: true}, false, isEnd, false},
		{"CutBody", Step{Do: CutBody}, true, isEOF, false},
		{"CutBody by reset", Step{Do: CutBody, Reset: true}, true, isEnd, false},
		{"CutBody by code", Step{Do: CutBody, Code: 2}, true, isStreamError(2), true},
		{"TruncatedChunk", Step{Do: TruncatedChunk}, true, isEOF, false},
		{"GarbageStatus", Step{Do: GarbageStatus}, false, isText("malformed"), true},
		{"SwitchProtocols", Step{Do: SwitchProtocols}, false, isStreamError(13), true},
		// net/http would send this one again, and hides the stream error if it cannot.
		{"ResetStream PROTOCOL_ERROR", Step{Do: ResetStream, Code: 1}, false, isText("PROTOCOL_ERROR"), false},
		{"ResetStream INTERNAL_ERROR", Step{Do: ResetStream, Code: 2}, false, isStreamError(2), true},
		{"ResetStream CANCEL", Step{Do: ResetStream, Code: 8}, false, isStreamError(8), true},
		{"GoAwayThenClose", Step{Do: GoAwayThenClose, Code: 2}, false, isText("GOAWAY"), false},
		{"GoAway this", Step{Do: GoAway, Body: "b"}, true, nil, false},
		{"Informational", Step{Informational: []int{103, 103}, Body: "b"}, true, nil, true},
		{"flow of a large body", Step{Body: strings.Repeat("x", 8<<20)}, true, nil, true},
		{"a large header", Step{Header: http.Header{"X": {strings.Repeat("x", 50<<10)}}}, true, nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.step.Perform = true
			s := start(t, HTTP2, Sequence(test.step, Step{}))
			c := newClient(t, s)
			req, _ := http.NewRequest("POST", s.URL()+"/op", io.NopCloser(strings.NewReader("body")))
			req.Header.Set("X-Operation-Id", "a")
			resp, err := c.Do(req)
			if (err == nil) != test.answered {
				t.Fatalf("got %v, %v", resp, err)
			}
			if err == nil {
				var got []byte
				got, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if test.end == nil && string(got) != test.step.Body {
					t.Errorf("got %d bytes, want %d", len(got), len(test.step.Body))
				}
			}
			if test.end == nil && err != nil || test.end != nil && !test.end(err) {
				t.Errorf("it ended with %v (%T)", err, errors.Unwrap(err))
			}
			if s.Effects("a") != 1 || s.Requests() != 1 {
				t.Errorf("%d effects, %d requests", s.Effects("a"), s.Requests())
			}

			if _, _, err := post(c, s, "b", ""); err != nil && test.again {
				t.Fatal(err)
			}
			log := s.Log()
			if again := len(log) == 2 && log[1].Conn == 1; again != test.again {
				t.Errorf("the next request went over the same connection: %v, want %v", again, test.again)
			}
		})
	}
}

// net/http sends again what a GOAWAY or REFUSED_STREAM says was not processed.
func TestUnprocessedRequestsAreSentAgain(t *testing.T) {
	tests := []struct {
		name string
		step Step
		same bool // over the same connection
	}{
		{"REFUSED_STREAM", Step{Do: ResetStream, Code: 7}, true},
		{"GOAWAY of none", Step{Do: GoAway, Last: LastNone}, false},
		{"GOAWAY of the one before", Step{Do: GoAway, Last: LastPrevious}, false},
		{"GOAWAY and close", Step{Do: GoAwayThenClose, Last: LastPrevious}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, HTTP2, Sequence(Step{}, test.step, Step{Perform: true, Body: "done"}))
			c := newClient(t, s)
			if _, _, err := post(c, s, "first", ""); err != nil {
				t.Fatal(err)
			}
			req, _ := http.NewRequest("POST", s.URL(), strings.NewReader("body"))
			req.Header.Set("X-Operation-Id", "a")
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != "done" {
				t.Errorf("got %q, %v", got, err)
			}
			log := s.Log()
			if len(log) != 3 || s.Effects("a") != 1 {
				t.Fatalf("%d requests, %d effects", len(log), s.Effects("a"))
			}
			if same := log[1].Conn == log[2].Conn; same != test.same {
				t.Errorf("sent again over the same connection: %v, want %v", same, test.same)
			}
		})
	}
}

// An explicit last stream may deny an effect, which an honest client repeats.
func TestGoAwayMayLie(t *testing.T) {
	s := start(t, HTTP2, Sequence(Step{}, Step{Perform: true, Do: GoAway, Last: 1}, Step{Perform: true}))
	c := newClient(t, s)
	if _, _, err := post(c, s, "first", ""); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest("POST", s.URL(), strings.NewReader("body"))
	req.Header.Set("X-Operation-Id", "a")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if ids := s.Repeated(); len(ids) != 1 || s.Effects("a") != 2 {
		t.Errorf("repeated %q", ids)
	}
}

// A stream that was performed is covered by a GOAWAY for an earlier one: net/http
// would send it again otherwise.
func TestGoAwayDisownsNoEffect(t *testing.T) {
	performed, gone := make(chan struct{}), make(chan struct{})
	s := start(t, HTTP2, Script{Step: func(x Exchange) Step {
		switch {
		case x.ID == "first":
			<-performed
			return Step{Do: GoAway, Last: LastPrevious, Body: "first"}
		case x.ID == "second" && x.Attempt == 1:
			return Step{Perform: true, Delay: 50 * time.Millisecond, Body: "second"}
		}
		close(gone)
		return Step{Perform: true}
	}})
	c := newClient(t, s)
	var clients sync.WaitGroup
	for i, id := range []string{"first", "second"} {
		clients.Go(func() {
			req, _ := http.NewRequest("POST", s.URL(), strings.NewReader("body"))
			req.Header.Set("X-Operation-Id", id)
			resp, err := c.Do(req)
			if err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			resp.Body.Close()
		})
		eventually(t, "the request is there", func() bool { return s.Requests() == i+1 })
	}
	eventually(t, "the second is performed", func() bool { return s.Effects("second") == 1 })
	close(performed)
	clients.Wait()
	select {
	case <-gone:
		t.Error("a request was sent again")
	default:
	}
	if s.Conns() != 1 {
		t.Errorf("%d connections, want 1", s.Conns())
	}
}

func TestStalledStreamLeavesTheOthers(t *testing.T) {
	s := start(t, HTTP2, ByID(map[string][]Step{
		"headers": {{Do: StallHeaders}},
		"body":    {{Do: StallBody}},
		"upload":  {{Upload: ReadNever, Do: StallHeaders}},
		"fine":    {{Perform: true, Body: "fine"}},
	}))
	c := newClient(t, s)
	var clients sync.WaitGroup
	large := strings.Repeat("x", 1<<20)
	for i, id := range []string{"headers", "body", "upload"} {
		clients.Go(func() {
			if _, _, err := post(c, s, id, large); err == nil {
				t.Errorf("%s: answered", id)
			}
		})
		eventually(t, "the request is there", func() bool { return s.Requests() == i+1 })
	}
	for range 20 {
		if _, got, err := post(c, s, "fine", large); err != nil || string(got) != "fine" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if s.Conns() != 1 {
		t.Errorf("%d connections, want 1", s.Conns())
	}
	s.Close()
	clients.Wait()
	for _, e := range s.Log() {
		if e.Whole == (e.ID == "upload") {
			t.Errorf("the entry is %v", e)
		}
	}
}

func TestHTTP2Uploads(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789"), 800<<10)
	for _, length := range []int64{int64(len(large)), -1} {
		for _, upload := range []Upload{ReadBefore, ReadAfter} {
			t.Run(fmt.Sprint(length, upload), func(t *testing.T) {
				s := start(t, HTTP2, Sequence(Step{Upload: upload, Body: "b"}))
				req, _ := http.NewRequest("POST", s.URL(), io.NopCloser(bytes.NewReader(large)))
				req.ContentLength = length
				resp, err := newClient(t, s).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(got) != "b" {
					t.Errorf("got %q, %v", got, err)
				}
				// The client gives up an upload whose answer is there.
				s.Close()
				e := s.Log()[0]
				if whole := upload == ReadBefore; e.Whole != whole {
					t.Errorf("the entry is %v, %d bytes", e, e.Length)
				}
				if e.Whole && e.Sum != sha256.Sum256(large) {
					t.Errorf("another body, of length %d", e.Length)
				}
			})
		}
	}
}

// A client that chooses HTTP/1.1 by ALPN gets that from the same port.
func TestBothProtocolsOnOnePort(t *testing.T) {
	s := start(t, HTTP2AndHTTP1, Sequence(Step{Perform: true}))
	for i, h2 := range []bool{true, false} {
		c := newClient(t, s)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		if _, _, err := post(c, s, "a", "body"); err != nil {
			t.Fatal(err)
		}
		if want := []string{"HTTP/2.0", "HTTP/1.1"}[i]; s.Log()[i].Proto != want {
			t.Errorf("got %s, want %s", s.Log()[i].Proto, want)
		}
	}
}
