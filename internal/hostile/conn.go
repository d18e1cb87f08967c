package hostile

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
)

// A socket is a TCP connection that counts what it accepts for sending.
type socket struct {
	net.Conn
	tcp  *net.TCPConn
	sent *atomic.Int64
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.sent.Add(int64(n))
	return n, err
}

// A conn is a connection that the server accepted.
type conn struct {
	net.Conn // the socket, or TLS over it
	socket   *socket
	server   *Server
	number   int
	requests int // so far; of its reading goroutine
}

// run does with the connection what the script says, to its end.
func (c *conn) run() {
	action := Serve
	if c.server.script.Conn != nil {
		action = c.server.script.Conn(c.number)
	}
	switch action {
	case ResetAtAccept:
		c.hangUp(true)
		return
	case CloseAtAccept:
		c.hangUp(false)
		return
	case Serve, UntrustedCertificate:
		c.serve(action == UntrustedCertificate)
		return
	}
	if c.readHello() != nil {
		return
	}
	switch action {
	case ResetInHandshake:
		c.hangUp(true)
	case CloseInHandshake:
		c.hangUp(false)
	case GarbageInHandshake:
		io.WriteString(c, "neither TLS nor HTTP\r\n")
	case StallInHandshake:
		io.Copy(io.Discard, c)
	}
}

// readHello reads the client's first TLS record to its end: a connection that
// is closed with something unread is reset instead. Of HTTP it reads a piece.
func (c *conn) readHello() error {
	if c.server.protocol == HTTP1 {
		_, err := c.Read(make([]byte, 64<<10))
		return err
	}
	var head [5]byte // type, version, length: RFC 8446 5.1
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(head[3:])))
	return err
}

func (c *conn) serve(untrusted bool) {
	if c.server.protocol == HTTP1 {
		c.serveHTTP1()
		return
	}
	certificate := c.server.trusted
	if untrusted {
		certificate = c.server.untrusted
	}
	secured := tls.Server(c.socket, c.server.serverTLS(certificate))
	if secured.Handshake() != nil {
		return
	}
	c.Conn = secured
	if c.server.protocol == HTTP2 || secured.ConnectionState().NegotiatedProtocol == "h2" {
		c.serveHTTP2()
		return
	}
	c.serveHTTP1()
}

// hangUp ends the connection, as TLS wants it (close_notify) or with a reset.
// Further calls do nothing.
func (c *conn) hangUp(reset bool) {
	if !reset {
		c.Conn.Close()
		return
	}
	// Without time to linger, the system resets where it would close.
	c.socket.tcp.SetLinger(0)
	c.socket.tcp.Close()
}
