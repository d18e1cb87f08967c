// Package memnet is an in-memory network of one listener, for tests inside a
// testing/synctest bubble.
//
// A real socket cannot be used there: a goroutine that waits on one is not
// durably blocked, so the bubble's clock stands still. The connections here
// are both ends of a [net.Pipe], which waits on channels only and honours
// deadlines. Create the Listener inside the bubble that uses it.
package memnet

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// A Listener is a [net.Listener] that only its own DialContext reaches. It is
// made by [Listen] and safe for concurrent use.
type Listener struct {
	conns     chan net.Conn // unbuffered: a dial ends when Accept has taken the connection
	closed    chan struct{}
	closeOnce sync.Once

	mu     sync.Mutex // guards dials, refuse
	dials  int
	refuse int
}

// Listen returns a listener that accepts connections.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for the next dial. After Close it returns [net.ErrClosed].
func (l *Listener) Accept() (net.Conn, error) {
	// With both ready, select chooses at random; closed comes first.
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close refuses all dials from now on, those that wait included. Connections
// that were accepted stay open. It may be called more than once.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

// Addr returns a fixed address that looks like loopback, so that a client
// which allows plain http for loopback alone may be pointed at it.
func (l *Listener) Addr() net.Addr { return addr() }

func addr() *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
}

// DialContext connects to the listener, whatever address is asked for. It fits
// http.Transport.DialContext. It waits until Accept takes the connection, the
// listener is closed, or ctx ends; every error is a [*net.OpError] whose Op is
// "dial", as a [net.Dialer] returns it.
func (l *Listener) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	if l.countDial() {
		return nil, dialError(network, errRefused())
	}
	// As in Accept: an end that came first is not left to chance.
	if err := ctx.Err(); err != nil {
		return nil, dialError(network, err)
	}
	select {
	case <-l.closed:
		return nil, dialError(network, errRefused())
	default:
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, dialError(network, errRefused())
	case <-ctx.Done():
		return nil, dialError(network, ctx.Err())
	}
}

// countDial counts a dial and reports whether Refuse asked for its failure.
func (l *Listener) countDial() (refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dials++
	if l.refuse == 0 {
		return false
	}
	l.refuse--
	return true
}

// Dials returns how often DialContext was called, failed dials included.
func (l *Listener) Dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// Refuse makes the next n dials fail as if nobody listened. A later call
// replaces the number; 0 or less ends the refusals.
func (l *Listener) Refuse(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = max(n, 0)
}

// errRefused has the shape of the kernel's refusal, so that code which looks
// for the type or for the errno sees what it sees on a real network.
func errRefused() error { return os.NewSyscallError("connect", syscall.ECONNREFUSED) }

func dialError(network string, err error) error {
	return &net.OpError{Op: "dial", Net: network, Addr: addr(), Err: err}
}
