package hostile

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const request1 = "POST /op HTTP/1.1\r\nHost: x\r\nX-Operation-Id: a\r\nContent-Length: 4\r\n\r\nbody"

// What a raw client reads of an answer, and how that ends.
func TestHTTP1Actions(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name string
		step Step
		want string
		end  func(error) bool
	}{
		{"Reset", Step{Do: Reset}, "", isReset},
		{"Close", Step{Do: Close}, "", isEOF},
		{"AnswerThenClose", Step{Do: AnswerThenClose, Body: "b"}, ok + "Content-Length: 1\r\n\r\nb", isEOF},
		{"AnswerThenClose by reset", Step{Do: AnswerThenClose, Body: "b", Reset: true}, ok + "Content-Length: 1\r\n\r\nb", isReset},
		{"Close header", Step{Close: true}, ok + "Content-Length: 0\r\nConnection: close\r\n\r\n", isEOF},
		{"CutHeaders", Step{Do: CutHeaders, Body: "b"}, ok + "Co", isEOF},
		{"CutHeaders by reset", Step{Do: CutHeaders, Body: "b", Reset: true}, ok + "Co", isReset},
		{"CutBody", Step{Do: CutBody, Body: "abcd"}, ok + "Content-Length: 4\r\n\r\nab", isEOF},
		{"CutBody by reset", Step{Do: CutBody, Body: "abcd", Reset: true}, ok + "Content-Length: 4\r\n\r\nab", isReset},
		{"CutBody by code", Step{Do: CutBody, Body: "abcd", Code: 2}, ok + "Content-Length: 4\r\n\r\nab", isReset},
		{"CutBody chunked", Step{Do: CutBody, Body: "abcd", Chunked: true}, ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", isEOF},
		{"TruncatedChunk", Step{Do: TruncatedChunk, Body: "abcd"}, ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1f", isEOF},
		{"StallHeaders", Step{Do: StallHeaders}, "", isTimeout},
		{"StallBody", Step{Do: StallBody, Body: "abcd"}, ok + "Content-Length: 4\r\n\r\nab", isTimeout},
		{"GarbageStatus", Step{Do: GarbageStatus}, "no HTTP/1.1 200 OK\r\n\r\n", isEOF},
		{"GarbageStatus of one's own", Step{Do: GarbageStatus, Body: "HTTP/1.1 2OO OK\r\n\r\n"}, "HTTP/1.1 2OO OK\r\n\r\n", isEOF},
		{"ResetStream", Step{Do: ResetStream, Code: 7}, "", isReset},
		{"GoAway", Step{Do: GoAway}, "", isEOF},
		{"GoAwayThenClose", Step{Do: GoAwayThenClose}, "", isEOF},
		{"Informational", Step{Informational: []int{103, 103}, Close: true}, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 2) + ok + "Content-Length: 0\r\nConnection: close\r\n\r\n", isEOF},
		{"raw header", Step{Header: http.Header{"retry-after": {" 2 ", "3"}, "Content-Length": {"9"}}, Body: "b", Do: AnswerThenClose}, ok + "Content-Length: 9\r\nretry-after:  2 \r\nretry-after: 3\r\n\r\nb", isEOF},
	}
	for _, test := range tests {
		for _, p := range []Protocol{HTTP1, HTTP1TLS} {
			t.Run(fmt.Sprint(test.name, p), func(t *testing.T) {
				test.step.Perform = true
				s := start(t, p, Sequence(test.step))
				conn := dial(t, s)
				send(t, conn, request1)
				eventually(t, "the operation is performed", func() bool { return s.Effects("a") == 1 })
				got := make([]byte, len(test.want))
				n, err := io.ReadFull(conn, got)
				got = got[:n]
				if err == nil {
					if test.step.Do == StallHeaders || test.step.Do == StallBody {
						conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
					}
					var rest []byte
					rest, err = io.ReadAll(conn)
					got = append(got, rest...)
				}
				if err == nil {
					err = io.EOF
				}
				if string(got) != test.want {
					t.Errorf("got %q\nwant %q", got, test.want)
				}
				if !test.end(err) {
					t.Errorf("it ended with %v", err)
				}
			})
		}
	}
}

func TestSwitchProtocolsEchoes(t *testing.T) {
	for _, p := range []Protocol{HTTP1, HTTP1TLS} {
		s := start(t, p, Sequence(Step{Do: SwitchProtocols}))
		req, _ := http.NewRequest("GET", s.URL(), nil)
		// A Client with a Timeout would hide the Write of the body.
		resp, err := newClient(t, s).Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		conn, ok := resp.Body.(io.ReadWriteCloser)
		if resp.StatusCode != 101 || !ok {
			t.Fatalf("status %d, body %T", resp.StatusCode, resp.Body)
		}
		got := make([]byte, 4)
		io.WriteString(conn, "ping")
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
		s.Close() // before the next one starts
	}
}

// EndlessBody counts what the sockets took: little from a client that does not
// read, and ever more from one that does.
func TestEndlessBodyIsCounted(t *testing.T) {
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			s := start(t, p, Sequence(Step{Do: EndlessBody}))
			req, _ := http.NewRequest("GET", s.URL(), nil)
			resp, err := newClient(t, s).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var before int64
			eventually(t, "the server cannot send more", func() bool {
				before = s.Sent()
				time.Sleep(50 * time.Millisecond)
				return s.Sent() == before
			})
			if before > 8<<20 {
				t.Errorf("%d bytes are under way though nobody reads", before)
			}
			if n, err := io.CopyN(io.Discard, resp.Body, 16<<20); err != nil {
				t.Errorf("the body ended after %d bytes: %v", n, err)
			}
			eventually(t, "what was read is counted", func() bool { return s.Sent() >= 16<<20 })
		})
	}
}

// The answer is there while the client still has most of its upload to send.
func TestEarlyAnswer(t *testing.T) {
	const half = 2 << 20
	for _, test := range []struct {
		upload Upload
		chunk  bool
	}{{ReadAfter, false}, {ReadAfter, true}, {ReadSlowly, false}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			size := half
			if test.upload == ReadSlowly {
				size = 16 << 10
			}
			s := start(t, HTTP1, Sequence(Step{Status: 503, Upload: test.upload}, Step{Perform: true}))
			conn := dial(t, s)
			piece := strings.Repeat("x", size)
			if test.chunk {
				piece = fmt.Sprintf("%x\r\n%s\r\n", size, piece)
				send(t, conn, "POST /op HTTP/1.1\r\nHost: x\r\nX-Operation-Id: a\r\nTransfer-Encoding: chunked\r\n\r\n")
			} else {
				send(t, conn, fmt.Sprintf("POST /op HTTP/1.1\r\nHost: x\r\nX-Operation-Id: a\r\nContent-Length: %d\r\n\r\n", 2*size))
			}
			if s.Sent() != 0 {
				t.Error("there is an answer before the upload has begun")
			}
			send(t, conn, piece)
			r := bufio.NewReader(conn)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 503 {
				t.Fatalf("got %v, %v", resp, err)
			}
			if e := s.Log()[0]; e.Whole || e.Performed {
				t.Errorf("half a body is %v", e)
			}
			began := time.Now()
			send(t, conn, piece)
			if test.chunk {
				send(t, conn, "0\r\n\r\n")
			}
			send(t, conn, request1)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
				t.Fatalf("got %v, %v", resp, err)
			}
			e := s.Log()[0]
			if !e.Whole || e.Length != int64(2*size) || e.Performed {
				t.Errorf("the entry is %v, length %d", e, e.Length)
			}
			if test.upload == ReadSlowly && time.Since(began) < 30*time.Millisecond {
				t.Errorf("read in %v", time.Since(began))
			}
			if s.Effects("a") != 1 {
				t.Errorf("%d effects, want that of the second request", s.Effects("a"))
			}
		})
	}
}

func TestReadNeverLeavesTheUploadWhereItIs(t *testing.T) {
	s := start(t, HTTP1, Sequence(Step{Upload: ReadNever, Perform: true}))
	conn := dial(t, s)
	send(t, conn, "POST /op HTTP/1.1\r\nHost: x\r\nX-Operation-Id: a\r\nContent-Length: 1000000000\r\n\r\nx")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var err error
	for piece := make([]byte, 1<<20); err == nil; {
		_, err = conn.Write(piece)
	}
	if !isTimeout(err) {
		t.Errorf("writing ended with %v", err)
	}
	if e := s.Log()[0]; e.Whole || !e.Performed {
		t.Errorf("the entry is %v", e)
	}
}

func TestExpectContinue(t *testing.T) {
	tests := []struct {
		name      string
		step      Step
		continued bool
		status    int // 0: a reset
	}{
		{"100 and the answer", Step{Status: 201, Perform: true}, true, 201},
		{"417 instead", Step{Status: 417, Upload: ReadAfter}, false, 417},
		{"401 instead, and the connection is stuck", Step{Status: 401, Upload: ReadNever}, false, 401},
		{"100 and a reset", Step{Do: Reset, Perform: true}, true, 0},
		{"100 and a reset before the body", Step{Do: Reset, Upload: ReadNever, Informational: []int{100}}, true, 0},
	}
	for _, test := range tests {
		for name, p := range protocols {
			t.Run(test.name+name, func(t *testing.T) {
				s := start(t, p, Sequence(test.step))
				c := newClient(t, s)
				c.Transport.(*http.Transport).ExpectContinueTimeout = patience
				var continued atomic.Bool // a reset ends the call, not the reading
				trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
					if code == 100 {
						continued.Store(true)
					}
					return nil
				}}
				req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", s.URL(), io.NopCloser(strings.NewReader("body")))
				req.ContentLength = 4
				req.Header.Set("Expect", "100-continue")
				req.Header.Set("X-Operation-Id", "a")
				resp, err := c.Do(req)
				if err == nil {
					resp.Body.Close()
				}
				switch {
				case test.status == 0 && err == nil:
					t.Errorf("got %d, want a reset", resp.StatusCode)
				case test.status != 0 && (err != nil || resp.StatusCode != test.status):
					t.Errorf("got %v, %v, want %d", resp, err, test.status)
				}
				if test.continued {
					eventually(t, "the 100 is there", continued.Load)
				} else if continued.Load() {
					t.Error("there was a 100")
				}
				e := s.Log()[0]
				// Over HTTP/1, net/http may send the body after the answer.
				undecided := test.step.Upload == ReadAfter
				if whole := test.step.Upload == ReadBefore; e.Whole != whole && !undecided || e.Performed != test.step.Perform {
					t.Errorf("the entry is %v", e)
				}
				if e.Whole && e.Sum != sha256.Sum256([]byte("body")) {
					t.Errorf("another body, of length %d", e.Length)
				}
			})
		}
	}
}
