package hostile

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
)

// Protocol is what a server speaks.
type Protocol int

// The protocols of a [Server]. Over TLS, a client that offers protocols none of
// which is the server's gets the alert no_application_protocol (RFC 7301 3.2).
const (
	HTTP1         Protocol = iota // HTTP/1.1 on a bare socket
	HTTP1TLS                      // HTTP/1.1 over TLS
	HTTP2                         // HTTP/2 over TLS, and nothing else
	HTTP2AndHTTP1                 // what the client chooses by ALPN, HTTP/2 if both will do
)

// A Server listens on a port of 127.0.0.1 and does what its script says. Its
// methods may be called at any time and from any goroutine.
type Server struct {
	protocol  Protocol
	script    Script
	addr      string
	trusted   tls.Certificate
	untrusted tls.Certificate
	roots     *x509.CertPool

	done    chan struct{} // closed by Close
	running sync.WaitGroup
	sent    atomic.Int64

	mu       sync.Mutex // guards what follows; never held while talking to the network
	closed   bool
	listener net.Listener // nil while dials are refused
	open     map[*conn]bool
	conns    int
	dials    int
	refusals int // dials yet to be refused
	log      []*Entry
	attempts map[string]int // requests seen, by operation id
}

// New starts a server. Like those of net/http/httptest it panics if it cannot,
// and the caller closes it.
func New(p Protocol, script Script) *Server {
	s := &Server{
		protocol: p,
		script:   script,
		done:     make(chan struct{}),
		open:     make(map[*conn]bool),
		attempts: make(map[string]int),
	}
	if p != HTTP1 {
		s.trusted, s.untrusted = newCertificate(), newCertificate()
		s.roots = x509.NewCertPool()
		s.roots.AddCert(s.trusted.Leaf)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("hostile: " + err.Error())
	}
	s.addr = listener.Addr().String()
	s.listener = listener
	s.running.Go(func() { s.accept(listener) })
	return s
}

// URL returns the base URL of the server, without a slash at its end.
func (s *Server) URL() string {
	if s.protocol == HTTP1 {
		return "http://" + s.addr
	}
	return "https://" + s.addr
}

// Addr returns the server's host and port. They stay the same for its life.
func (s *Server) Addr() string { return s.addr }

// Conns returns the number of connections that were accepted.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Sent returns the number of bytes that the server's sockets have accepted so
// far, on all connections, TLS and headers included. It counts whole writes, of
// some 16 KiB, when they are done. Of that, the buffers of the two sockets hold
// a few hundred KiB that the client did not read yet, or what a client takes in
// ahead, which is 4 MiB for the HTTP/2 of net/http.
func (s *Server) Sent() int64 { return s.sent.Load() }

// Close ends all connections, whatever they are in the middle of, and returns
// when every goroutine of the server has ended.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	listener := s.listener
	s.listener = nil
	var open []*conn
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()

	if listener != nil {
		listener.Close()
	}
	for _, c := range open {
		c.socket.Close()
	}
	s.running.Wait()
}

func (s *Server) accept(listener net.Listener) {
	for {
		accepted, err := listener.Accept()
		if err != nil {
			return
		}
		if c := s.newConn(accepted.(*net.TCPConn)); c != nil {
			s.running.Go(func() {
				defer s.forget(c)
				c.run()
			})
		}
	}
}

// newConn returns nil if the server has closed meanwhile.
func (s *Server) newConn(tcp *net.TCPConn) *conn {
	// What is in the buffer counts as sent, so it should not grow into megabytes.
	tcp.SetWriteBuffer(64 << 10)
	socket := &socket{Conn: tcp, tcp: tcp, sent: &s.sent}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		tcp.Close()
		return nil
	}
	s.conns++
	c := &conn{Conn: socket, socket: socket, server: s, number: s.conns}
	s.open[c] = true
	return c
}

func (s *Server) forget(c *conn) {
	c.hangUp(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}
