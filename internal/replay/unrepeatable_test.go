package replay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// A cutServer answers the first request and cuts the connection at the second.
type cutServer struct {
	unwritten bool // before the first byte of the second, not behind its last
	requests  int  // that arrived whole
	cut       bool // it has cut the connection
}

func (s *cutServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		for input := bufio.NewReader(server); ; {
			req, err := http.ReadRequest(input)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if s.requests++; s.requests == 2 && !s.cut {
				s.cut = true
				return
			}
			_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	return &cutConn{client, s}, nil
}

// A cutConn is the client's end of a connection to a cutServer.
type cutConn struct {
	net.Conn
	server *cutServer
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.server.unwritten && c.server.requests == 1 && !c.server.cut {
		c.server.cut = true
		return 0, errors.New("connection reset")
	}
	return c.Conn.Write(p)
}

func TestUnrepeatableRequestIsNotSentTwiceOverACutConnection(t *testing.T) {
	for _, test := range []struct {
		name, method string
		body         func() io.Reader
		key          string
	}{
		{"GET", http.MethodGet, func() io.Reader { return nil }, ""},
		{"GET with http.NoBody", http.MethodGet, func() io.Reader { return http.NoBody }, ""},
		{"POST with an idempotency key", http.MethodPost, func() io.Reader { return nil }, "k"},
		{"POST with a body made anew", http.MethodPost, func() io.Reader { return strings.NewReader("payload") }, "k"},
	} {
		for _, unwritten := range []bool{false, true} {
			for _, repeatable := range []bool{true, false} {
				t.Run(test.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						server := &cutServer{unwritten: unwritten}
						transport := &http.Transport{DialContext: server.dial}
						defer transport.CloseIdleConnections()
						send := func(unrepeatable bool) error {
							req, err := http.NewRequestWithContext(t.Context(), test.method, "http://api.test", test.body())
							if err != nil {
								t.Fatal(err)
							}
							if test.key != "" {
								req.Header.Set("Idempotency-Key", test.key)
							}
							if unrepeatable {
								MakeUnrepeatable(req)
							}
							resp, err := transport.RoundTrip(req)
							if err == nil {
								_ = resp.Body.Close()
							}
							synctest.Wait()
							return err
						}
						if err := send(false); err != nil {
							t.Fatal(err)
						}
						err := send(!repeatable)
						want := 2
						if !unwritten {
							want++
						}
						if !repeatable {
							want--
						}
						if !server.cut || server.requests != want || (err == nil) != repeatable {
							t.Errorf("cut before the first byte: %t, repeatable: %t: %d requests arrived, want %d: %v", unwritten, repeatable, server.requests, want, err)
						}
					})
				})
			}
		}
	}
}

func TestHasBody(t *testing.T) {
	for body, want := range map[io.ReadCloser]bool{nil: false, http.NoBody: false, Empty{}: true, &countedBody{}: true} {
		if got := HasBody(&http.Request{Body: body}); got != want {
			t.Errorf("%T: %t, want %t", body, got, want)
		}
	}
}

func TestUnrepeatableCopiesOnlyWhatItChanges(t *testing.T) {
	own := &countedBody{Reader: strings.NewReader("payload")}
	anew := func() (io.ReadCloser, error) { return http.NoBody, nil }
	for _, test := range []struct {
		name   string
		body   io.ReadCloser
		anew   func() (io.ReadCloser, error)
		copied bool
		want   io.ReadCloser
	}{
		{"body that exists once", own, nil, false, own},
		{"body made anew", own, anew, true, own},
		{"none", nil, nil, true, Empty{}},
		{"http.NoBody", http.NoBody, nil, true, Empty{}},
		{"http.NoBody made anew", http.NoBody, anew, true, Empty{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := &http.Request{Body: test.body, GetBody: test.anew}
			got := Unrepeatable(req)
			if (got != req) != test.copied || got.GetBody != nil || got.Body != test.want {
				t.Errorf("copied: %t, want %t; the body is %v", got != req, test.copied, got.Body)
			}
			if req.Body != test.body || (req.GetBody == nil) != (test.anew == nil) {
				t.Error("the caller's request was changed")
			}
		})
	}
}

func TestRestoredRequestIsSentAsIfItHadNeverHadABody(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		var sent [3]bytes.Buffer
		for i := range sent {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://api.test", nil)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				MakeUnrepeatable(req)
			}
			if i > 1 {
				req.Body = &countedBody{Reader: req.Body} // by a layer
			}
			if i > 0 {
				req.Body = Restore(req, false)
			}
			if err := req.Write(&sent[i]); err != nil {
				t.Fatal(err)
			}
			if sent[i].String() != sent[0].String() {
				t.Errorf("%s is sent as %q, want %q", method, sent[i].String(), sent[0].String())
			}
		}
	}
}

func TestRestoreLooksIntoABodyOnlyIfNobodyVouchesForIt(t *testing.T) {
	unread := readerFunc(func([]byte) (int, error) { panic("the body was read") })
	for _, test := range []struct {
		name      string
		body      io.ReadCloser
		length    int64
		callerHas bool
		want      io.ReadCloser
	}{
		{"none", nil, 0, false, nil},
		{"http.NoBody", http.NoBody, 0, false, http.NoBody},
		{"stands for none", Empty{}, 0, false, nil},
		{"stands for none, with a length", Empty{}, 7, false, nil},
		{"the caller's", &countedBody{Reader: unread}, 0, true, nil},
		{"with a length", &countedBody{Reader: unread}, 7, false, nil},
		{"with a length that is not known", &countedBody{Reader: unread}, -1, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, counted := test.body.(*countedBody); counted {
				test.want = test.body
			}
			got := Restore(&http.Request{Body: test.body, ContentLength: test.length}, test.callerHas)
			if got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestRestoreFindsWhatALayerPutAroundNoBody(t *testing.T) {
	fault := errors.New("the layer is broken")
	for _, test := range []struct {
		name    string
		body    io.Reader
		content string
		err     error
		none    bool
	}{
		{"empty", Empty{}, "", nil, true},
		{"a byte", strings.NewReader("x"), "x", nil, false},
		{"content", strings.NewReader("payload"), "payload", nil, false},
		{"content with its end", iotest.DataErrReader(strings.NewReader("p")), "p", nil, false},
		{"fault", iotest.ErrReader(fault), "", fault, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &countedBody{Reader: test.body, fault: errors.New("not closed well")}
			got := Restore(&http.Request{Body: body}, false)
			if test.none {
				if got != nil || body.closed != 1 {
					t.Errorf("got %v, and the layer's body was closed %d times", got, body.closed)
				}
				return
			}
			content, err := io.ReadAll(got)
			if string(content) != test.content || err != test.err || body.closed != 0 {
				t.Errorf("reads %q, %v, and was closed %d times", content, err, body.closed)
			}
			if err := got.Close(); err != body.fault || body.closed != 1 {
				t.Errorf("Close gives %v, and the layer's body was closed %d times", err, body.closed)
			}
		})
	}
}

func TestWatchedBodyKnowsWhetherAnybodyBeganToReadIt(t *testing.T) {
	for _, test := range []struct {
		name   string
		begins bool // before the Read
		n      int
		err    error
		want   bool
	}{
		{"content", false, 1, nil, true},
		{"nothing yet", false, 0, nil, true},
		{"end", false, 0, io.EOF, true},
		{"closed before anybody read", false, 0, http.ErrBodyReadAfterClose, false},
		{"closed after somebody began", true, 0, http.ErrBodyReadAfterClose, true},
		{"content of a closed body", false, 1, http.ErrBodyReadAfterClose, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var body Watched
			body.ReadCloser = &countedBody{Reader: readerFunc(func([]byte) (int, error) {
				if !body.Begun() {
					t.Error("it counts as unread while it is read")
				}
				return test.n, test.err
			})}
			if test.begins {
				body.Begin()
			}
			if body.Begun() != test.begins {
				t.Error("it counts as read before it is")
			}
			if n, err := body.Read(make([]byte, 1)); n != test.n || err != test.err {
				t.Errorf("reads %d, %v", n, err)
			}
			if got := body.Begun(); got != test.want {
				t.Errorf("begun: %t, want %t", got, test.want)
			}
		})
	}
}
