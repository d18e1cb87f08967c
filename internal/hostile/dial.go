package hostile

import (
	"context"
	"net"
)

// Refuse closes the listening socket: from now on the system refuses dials to
// the server. Connections that were accepted go on.
func (s *Server) Refuse() {
	s.mu.Lock()
	listener := s.listener
	s.listener = nil
	s.mu.Unlock()
	if listener != nil {
		listener.Close()
	}
}

// Listen ends what [Server.Refuse] began. It fails if another process has taken
// the port meanwhile.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	s.listener = listener
	s.running.Go(func() { s.accept(listener) })
	return nil
}

// ClosedAddr is where nobody listens: the port of tcpmux (RFC 1078), which is
// gone, and too low for the system to hand out.
const ClosedAddr = "127.0.0.1:1"

// DialContext is for the field of that name of an [http.Transport]. It dials
// addr, but a port that refuses it as often as [Server.RefuseDials] said. It
// counts the dials.
func (s *Server) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	s.dials++
	if s.refusals > 0 {
		s.refusals--
		addr = ClosedAddr
	}
	s.mu.Unlock()
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, addr)
}

// RefuseDials lets the next n dials of [Server.DialContext] be refused.
func (s *Server) RefuseDials(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals = n
}

// Dials returns the number of dials of [Server.DialContext], refused or not.
func (s *Server) Dials() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}
