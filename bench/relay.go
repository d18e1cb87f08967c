package bench

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// A relay passes connections on to a server, as if that were a round trip away. It
// delays what goes through it, both ways, and limits nothing: what was read waits in
// a queue.
type relay struct {
	net.Listener
	target string
	rtt    time.Duration

	wg sync.WaitGroup // of all goroutines

	mu    sync.Mutex // guards conns
	conns map[*net.TCPConn]bool
}

// startRelay starts a relay in front of the address target. Close it.
func startRelay(target string, rtt time.Duration) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{Listener: listener, target: target, rtt: rtt, conns: make(map[*net.TCPConn]bool)}
	r.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			accepted := time.Now()
			r.wg.Go(func() { r.pass(client.(*net.TCPConn), accepted) })
		}
	})
	return r, nil
}

// Close ends the relay and its connections.
func (r *relay) Close() error {
	err := r.Listener.Close()
	r.mu.Lock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil // whatever comes now is closed
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

// keep notes conn for Close, and reports whether that is still to come.
func (r *relay) keep(conn *net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		return false
	}
	r.conns[conn] = true
	return true
}

func (r *relay) forget(conn *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}

// pass serves one connection. The client took it for open at once; over a real link
// that takes a round trip, so that what it sends first is as much later.
func (r *relay) pass(client *net.TCPConn, accepted time.Time) {
	defer client.Close()
	conn, err := net.Dial("tcp", r.target)
	if err != nil {
		abort(client)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	if !r.keep(client) || !r.keep(server) {
		return
	}
	defer r.forget(client)
	defer r.forget(server)
	var both sync.WaitGroup
	both.Go(func() { r.carry(server, client, accepted.Add(r.rtt)) })
	both.Go(func() { r.carry(client, server, time.Time{}) })
	both.Wait()
}

// A chunk is what was read at a time, or how the reading ended.
type chunk struct {
	due  time.Time
	data []byte
	err  error
}

// carry carries what arrives at from on to the connection to, and then its end: a FIN
// as a FIN, anything else as a reset. Nothing counts as sent before the link opens.
func (r *relay) carry(to, from *net.TCPConn, opens time.Time) {
	oneWay := r.rtt / 2
	queue := make(chan chunk, 1<<12)
	r.wg.Go(func() {
		defer close(queue)
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			sent := time.Now()
			if sent.Before(opens) {
				sent = opens
			}
			if n > 0 {
				queue <- chunk{due: sent.Add(oneWay), data: bytes.Clone(buffer[:n])}
			}
			if err != nil {
				queue <- chunk{due: sent.Add(oneWay), err: err}
				return
			}
		}
	})
	for c := range queue {
		time.Sleep(time.Until(c.due))
		switch {
		case c.err == io.EOF:
			_ = to.CloseWrite()
		case c.err != nil:
			abort(to)
		default:
			if _, err := to.Write(c.data); err != nil {
				time.Sleep(oneWay) // the reset has to come back
				abort(from)
			}
		}
	}
}
