package hostile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what should come; what should not come
// gets less.
const patience = 20 * time.Second

// start starts a server that ends, down to its last goroutine, with the test.
func start(t *testing.T, p Protocol, script Script) *Server {
	t.Helper()
	s := New(p, script)
	t.Cleanup(func() {
		s.Close()
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, receiver := range []string{"(*Server).accept", "(*conn)", "(*http2Conn)", "(*stream)", "(*exchange)"} {
			if bytes.Contains(stacks, []byte("/internal/hostile."+receiver)) {
				t.Errorf("a goroutine of the server is left in %s:\n%s", receiver, stacks)
			}
		}
		if t.Failed() {
			for _, e := range s.Log() {
				t.Log(e)
			}
		}
	})
	return s
}

// newClient returns a client that retries nothing above net/http.
func newClient(t *testing.T, s *Server) *http.Client {
	base := &http.Transport{
		TLSClientConfig:   s.TLSConfig(),
		DialContext:       s.DialContext,
		ForceAttemptHTTP2: s.protocol >= HTTP2,
	}
	t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: base, Timeout: patience}
}

// post sends an operation, and reads what comes back to its end. The body
// cannot be sent again, so net/http repeats nothing by itself.
func post(c *http.Client, s *Server, id, body string) (*http.Response, []byte, error) {
	req, err := http.NewRequest("POST", s.URL()+"/op?secret=1", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return nil, nil, err
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("X-Operation-Id", id)
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, nil, nil // a connection now, which no timeout of the client ends
	}
	// net/http does not look at its context while an HTTP/2 upload waits for flow
	// control, not even to end the reading of the body. Close does.
	timer := time.AfterFunc(c.Timeout, func() { resp.Body.Close() })
	defer timer.Stop()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

// dial connects to the server, with TLS if it speaks that.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if config := s.TLSConfig(); config != nil {
		config.ServerName = "127.0.0.1"
		conn = tls.Client(conn, config)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until it is true.
func eventually(t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !isTrue(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

var protocols = map[string]Protocol{"HTTP1": HTTP1, "HTTP1TLS": HTTP1TLS, "HTTP2": HTTP2}

func TestLogTellsWhatWasDone(t *testing.T) {
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			s := start(t, p, ByID(map[string][]Step{
				"a": {{Name: "busy", Status: 429}, {Perform: true, Status: 201, Body: "made"}},
				"":  {{Status: 204}},
			}))
			c := newClient(t, s)
			for i, want := range []string{"429 ", "201 made", "201 made", "204 "} {
				id := "a"
				if i == 3 {
					id = "b"
				}
				resp, got, err := post(c, s, id, "body")
				if err != nil {
					t.Fatal(err)
				}
				if text := fmt.Sprintf("%d %s", resp.StatusCode, got); text != want {
					t.Errorf("answer %d is %q, want %q", i+1, text, want)
				}
			}

			if n := s.Effects("a"); n != 2 {
				t.Errorf("a was performed %d times, want 2", n)
			}
			if n := s.Effects("b"); n != 0 {
				t.Errorf("b was performed %d times, want 0", n)
			}
			if ids := s.Repeated(); len(ids) != 1 || ids[0] != "a" {
				t.Errorf("repeated %q, want a", ids)
			}
			if s.Conns() != 1 || s.Requests() != 4 {
				t.Errorf("%d requests over %d connections, want 4 over 1", s.Requests(), s.Conns())
			}
			e := s.Log()[1]
			if e.Attempt != 2 || e.Request != 2 || e.OnConn != 2 || e.FirstOnConn() || e.Step != "Answer" || e.Method != "POST" || e.Path != "/op" {
				t.Errorf("entry is %+v", e)
			}
			if !e.Whole || e.Length != 4 || e.Sum != sha256.Sum256([]byte("body")) {
				t.Errorf("body is whole %v, length %d, digest %x", e.Whole, e.Length, e.Sum)
			}
			if first := s.Log()[0]; first.Step != "busy" || first.Performed || !first.FirstOnConn() {
				t.Errorf("first entry is %+v", first)
			}
		})
	}
}

func TestScriptGetsTheHeader(t *testing.T) {
	s := start(t, HTTP1, Script{Step: func(x Exchange) Step {
		x.Header.Set("X-Operation-Id", "changed by the script")
		return Step{Body: x.Header.Get("Authorization")}
	}})
	conn := dial(t, s)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Token t\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(got), "Connection: close\r\n\r\nToken t") {
		t.Errorf("got %q, %v", got, err)
	}
	if e := s.Log()[0]; e.Header.Get("X-Operation-Id") != "" || e.Header.Get("Authorization") == "" {
		t.Errorf("the log has header %v", e.Header)
	}
}

func TestHeadAndNoContentHaveNoBody(t *testing.T) {
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			s := start(t, p, Sequence(Step{Body: "long"}, Step{Status: 204, Body: "none"}, Step{Body: "long"}))
			c := newClient(t, s)
			for i, method := range []string{"HEAD", "GET", "GET"} {
				req, _ := http.NewRequest(method, s.URL(), nil)
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := []string{"", "", "long"}[i]; err != nil || string(got) != want {
					t.Errorf("%s %d: got %q, %v", method, i+1, got, err)
				}
				if i == 0 && resp.ContentLength != 4 {
					t.Errorf("HEAD: length %d, want 4", resp.ContentLength)
				}
			}
			if s.Conns() != 1 {
				t.Errorf("%d connections, want 1", s.Conns())
			}
		})
	}
}

func TestDelayAndPace(t *testing.T) {
	const delay, pace = 30 * time.Millisecond, 2 * time.Millisecond
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			s := start(t, p, Sequence(Step{Delay: delay, Pace: pace, Body: strings.Repeat("x", 100), Chunked: true}))
			began := time.Now()
			resp, got, err := post(newClient(t, s), s, "a", "")
			if err != nil || len(got) != 100 || resp.ContentLength >= 0 {
				t.Errorf("%d bytes of %d, %v", len(got), resp.ContentLength, err)
			}
			if took := time.Since(began); took < delay+14*pace {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	s := start(t, HTTP1, Script{})
	kept := dial(t, s)
	eventually(t, "the connection is accepted", func() bool { return s.Conns() == 1 })
	for range 3 {
		s.Refuse()
		if conn, err := net.Dial("tcp", s.Addr()); !isRefused(err) {
			t.Errorf("got %v, %v, want a refused dial", conn, err)
		}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		conn := dial(t, s)
		send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Error(err)
		}
	}
	send(t, kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(kept), nil); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
}

func TestRefuseDials(t *testing.T) {
	s := start(t, HTTP1, Sequence(Step{Perform: true}))
	s.RefuseDials(2)
	c := newClient(t, s)
	for i := range 3 {
		_, _, err := post(c, s, "a", "body")
		if refused := isRefused(err); refused != (i < 2) {
			t.Errorf("dial %d: %v", i+1, err)
		}
	}
	if s.Dials() != 3 || s.Conns() != 1 || s.Effects("a") != 1 {
		t.Errorf("%d dials, %d connections, %d effects", s.Dials(), s.Conns(), s.Effects("a"))
	}
}

func TestTruncatedUploadIsNeverPerformed(t *testing.T) {
	for name, p := range protocols {
		for _, length := range []int64{100, -1} {
			t.Run(fmt.Sprint(name, length), func(t *testing.T) {
				s := start(t, p, Sequence(Step{Perform: true}))
				r, w := io.Pipe()
				req, _ := http.NewRequest("POST", s.URL(), r)
				req.ContentLength = length
				req.Header.Set("X-Operation-Id", "a")
				failed := make(chan struct{})
				go func() {
					defer close(failed)
					if resp, err := newClient(t, s).Do(req); err == nil {
						resp.Body.Close()
						t.Error("an answer to half a request")
					}
				}()
				io.WriteString(w, "half")
				eventually(t, "the request is there", func() bool { return s.Requests() == 1 })
				w.CloseWithError(errors.New("there is no more"))
				<-failed
				s.Close()
				if e := s.Log()[0]; e.Performed || e.Whole {
					t.Errorf("the log has %v", e)
				}
			})
		}
	}
}

func TestCloseReleasesStalls(t *testing.T) {
	for name, p := range protocols {
		for _, do := range []Action{StallHeaders, StallBody, EndlessBody} {
			t.Run(name+do.String(), func(t *testing.T) {
				s := start(t, p, Sequence(Step{Perform: true, Do: do}))
				c := newClient(t, s)
				failed := make(chan error)
				go func() {
					req, _ := http.NewRequest("GET", s.URL(), nil)
					req.Header.Set("X-Operation-Id", "a")
					resp, err := c.Do(req)
					if err == nil {
						defer resp.Body.Close()
						_, err = io.Copy(io.Discard, resp.Body)
					}
					failed <- err
				}()
				eventually(t, "the operation is performed", func() bool { return s.Effects("a") == 1 })
				select {
				case err := <-failed:
					t.Errorf("it did not stall: %v", err)
				case <-time.After(30 * time.Millisecond):
				}
				s.Close()
				if err := <-failed; err == nil {
					t.Error("no error")
				}
			})
		}
	}
}

// A storm exercises everything at once, for the race detector and for Close.
func TestStorm(t *testing.T) {
	for _, p := range []Protocol{HTTP1, HTTP1TLS, HTTP2, HTTP2AndHTTP1} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			s := start(t, p, Script{
				Conn: func(int) ConnAction { return ConnAction(max(0, rand.IntN(40)-32)) },
				Step: func(x Exchange) Step {
					return Step{
						Perform: true,
						Do:      Action(rand.IntN(int(GoAwayThenClose) + 1)),
						Upload:  Upload(rand.IntN(int(ReadNever) + 1)),
						Delay:   rand.N(2 * time.Millisecond),
						Reset:   rand.IntN(2) == 0,
						Chunked: rand.IntN(2) == 0,
						Code:    rand.Uint32N(14),
						Last:    -LastStream(rand.IntN(3)),
						Body:    strings.Repeat("x", rand.IntN(100<<10)),
					}
				},
			})
			c := newClient(t, s)
			c.Timeout = 60 * time.Millisecond
			var clients sync.WaitGroup
			for i := range 12 {
				clients.Go(func() {
					for n := range 8 {
						post(c, s, fmt.Sprintf("%d.%d", i, n), strings.Repeat("y", rand.IntN(300<<10)))
					}
				})
			}
			clients.Wait()
			s.Close()
			if ids := s.Repeated(); len(ids) > 0 {
				t.Errorf("performed more than once though nobody repeats: %q", ids)
			}
		})
	}
}
