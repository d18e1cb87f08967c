package atmostonce_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/hostile"
)

// A scriptedConn is a connection whose Reads and Writes a test decides.
type scriptedConn struct {
	net.Conn
	read  func(p []byte) (int, error)
	write func(p []byte) (int, error)
	end   func() // called by Close, if it is set
}

func (c *scriptedConn) Read(p []byte) (int, error)  { return c.read(p) }
func (c *scriptedConn) Write(p []byte) (int, error) { return c.write(p) }

func (c *scriptedConn) Close() error {
	if c.end != nil {
		c.end()
	}
	return c.Conn.Close()
}

// over is a Transport for s whose connections are wrapped by the test.
func over(s *hostile.Server, wrap func(net.Conn) net.Conn) *atmostonce.Transport {
	return &atmostonce.Transport{Idle: time.Minute, Base: &http.Transport{
		TLSClientConfig: s.TLSConfig(),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return wrap(conn), nil
		},
	}}
}

func post(t *testing.T, url, id string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Operation-Id", id)
	return req
}

// send returns the error of a request, and reads its answer.
func send(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}

// A Write that says that it has written nothing may all the same have handed something on.
func TestWriteCountsFromItsBeginningWhateverItReturns(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Close}))
	defer s.Close()
	broke := errors.New("broke")
	tr := over(s, func(c net.Conn) net.Conn {
		return &scriptedConn{Conn: c, read: c.Read, write: func(p []byte) (int, error) {
			_, _ = c.Write(p)
			return 0, broke
		}}
	})
	defer tr.CloseIdleConnections()
	err := send(tr, post(t, s.URL(), "m", strings.NewReader("x")))
	if _, unsent := errors.AsType[*atmostonce.UnsentError](err); err == nil || unsent {
		t.Errorf("got %v (an UnsentError: %v), want an error that proves nothing", err, unsent)
	}
}

// The same while the Write has not returned when the caller leaves.
func TestWriteThatIsUnderWayCounts(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true}))
	defer s.Close()
	ctx, leave := context.WithCancel(t.Context())
	blocked := make(chan struct{})
	tr := over(s, func(c net.Conn) net.Conn {
		return &scriptedConn{Conn: c, read: c.Read, write: func(p []byte) (int, error) {
			leave()
			<-blocked
			return c.Write(p)
		}}
	})
	defer tr.CloseIdleConnections()
	time.AfterFunc(100*time.Millisecond, func() { close(blocked) }) // RoundTrip waits for the write
	err := send(tr, post(t, s.URL(), "m", strings.NewReader("x")).WithContext(ctx))
	if _, unsent := errors.AsType[*atmostonce.UnsentError](err); err == nil || unsent {
		t.Errorf("got %v (an UnsentError: %v), want an error that proves nothing", err, unsent)
	}
}

// net/http hands the body of a file to the connection's ReadFrom, if it has one.
func TestBodyOfAFileIsCounted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(name, []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Reset}))
	defer s.Close()
	tr := over(s, func(c net.Conn) net.Conn { return c })
	defer tr.CloseIdleConnections()
	req := post(t, s.URL(), "m", file)
	req.ContentLength = 1 << 20
	err = send(tr, req)
	if _, unsent := errors.AsType[*atmostonce.UnsentError](err); err == nil || unsent || s.Effects("m") != 1 {
		t.Errorf("got %v (an UnsentError: %v) after %d effects, want an error that proves nothing after 1", err, unsent, s.Effects("m"))
	}
}

// Once a Read has failed before the request, nothing is written, not even close_notify.
func TestNothingIsWrittenAfterTheServerHasGone(t *testing.T) {
	for name, protocol := range map[string]hostile.Protocol{"in clear": hostile.HTTP1, "over TLS": hostile.HTTP1TLS} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(protocol, hostile.Sequence(hostile.Step{Perform: true}))
			defer s.Close()
			var gone atomic.Bool
			var writes atomic.Int32
			closed := make(chan struct{})
			tr := over(s, func(c net.Conn) net.Conn {
				return &scriptedConn{Conn: c, read: c.Read,
					write: func(p []byte) (int, error) {
						if gone.Load() {
							writes.Add(1)
						}
						return c.Write(p)
					},
					end: sync.OnceFunc(func() { close(closed) })}
			})
			if err := send(tr, post(t, s.URL(), "first", strings.NewReader("x"))); err != nil {
				t.Fatal(err)
			}
			// The server goes when the request has the connection and nothing is written yet.
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
				gone.Store(true)
				s.Close()
				<-closed // net/http has met the end
			}})
			err := send(tr, post(t, s.URL(), "m", strings.NewReader("x")).WithContext(ctx))
			unsent, ok := errors.AsType[*atmostonce.UnsentError](err)
			if !ok || !unsent.Stale || writes.Load() != 0 {
				t.Errorf("got %v (an UnsentError: %v) after %d writes, want a stale connection and none", err, ok, writes.Load())
			}
		})
	}
}

// After a 101 the connection is the caller's, who may go on writing when the server has
// said that it has nothing more to say.
func TestSwitchedConnectionIsTransparent(t *testing.T) {
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		line, _ := bufio.NewReader(buffered).ReadString('\n')
		got <- line
	}))
	defer server.Close()
	tr := &atmostonce.Transport{Base: new(http.Transport), Idle: time.Minute}
	defer tr.CloseIdleConnections()
	req := post(t, server.URL, "m", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	conn := resp.Body.(io.ReadWriteCloser)
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the server's end: %v", err)
	}
	if _, err := io.WriteString(conn, "still here\n"); err != nil {
		t.Fatal(err)
	}
	if line := <-got; line != "still here\n" {
		t.Errorf("the server got %q", line)
	}
}

// An answer that was there before the request is none: a server may say 408 before it
// closes an idle connection.
func TestAnswerBeforeTheRequestIsNone(t *testing.T) {
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		var bytesAfter atomic.Int32
		serving.Go(func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.WriteString(conn, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			n, _ := conn.Read(make([]byte, 100))
			bytesAfter.Store(int32(n))
		})
		tr := &atmostonce.Transport{Base: new(http.Transport), Idle: time.Minute}
		url := "http://" + l.Addr().String()
		if err := send(tr, post(t, url, "first", http.NoBody)); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		resp, err := tr.RoundTrip(post(t, url, "m", http.NoBody))
		tr.CloseIdleConnections()
		serving.Wait()
		unsent, _ := errors.AsType[*atmostonce.UnsentError](err)
		switch {
		case unsent != nil && bytesAfter.Load() == 0:
		case unsent == nil && bytesAfter.Load() > 0: // it was sent before that came
		default:
			t.Errorf("got %v, %v, and the server %d bytes of the request", resp, err, bytesAfter.Load())
		}
	}
}

// What nobody can count proves nothing: net/http must see what a TLS dialer of the user's
// returns as it is.
func TestConnectionOfATLSDialerProvesNothing(t *testing.T) {
	s := hostile.New(hostile.HTTP1TLS, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Close}))
	defer s.Close()
	tr := &atmostonce.Transport{Idle: time.Minute, Base: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&tls.Dialer{Config: s.TLSConfig()}).DialContext(ctx, network, address)
		},
	}}
	err := send(tr, post(t, s.URL(), "m", strings.NewReader("x")))
	if _, unsent := errors.AsType[*atmostonce.UnsentError](err); err == nil || unsent || s.Effects("m") != 1 {
		t.Errorf("got %v (an UnsentError: %v) after %d effects", err, unsent, s.Effects("m"))
	}
	s.Close()
	err = send(tr, post(t, s.URL(), "m", strings.NewReader("x")))
	if _, unsent := errors.AsType[*atmostonce.UnsentError](err); !unsent {
		t.Errorf("got %v of a connection that did not come about, want an UnsentError", err)
	}
}
