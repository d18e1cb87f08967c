package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"sync"
	"time"
)

// A link is a network device that sends back what it gets, late, with its addresses
// exchanged: a client that connects to the far address reaches a listener at the near
// one, and the kernel's TCP is at both ends.
type link struct {
	device    io.ReadWriteCloser
	near, far net.IP
	oneWay    time.Duration
}

// A packet is on its way.
type packet struct {
	due  time.Time
	size int
	data [2048]byte
}

// packets are those that are not on their way.
var packets = sync.Pool{New: func() any { return new(packet) }}

// openLink makes a link. It takes Linux, and root. Close it.
func openLink(rtt time.Duration) (*link, error) {
	device, name, err := openTUN()
	if err != nil {
		return nil, err
	}
	// RFC 2544 sets 198.18.0.0/15 apart for benchmarks. Others may run at this time.
	a, b, c := byte(18+rand.N(2)), byte(rand.N(256)), byte(4*rand.N(64))
	l := &link{device: device, near: net.IPv4(198, a, b, c+1), far: net.IPv4(198, a, b, c+2), oneWay: rtt / 2}
	for _, args := range [][]string{
		{"address", "add", l.near.String() + "/30", "dev", name},
		{"link", "set", name, "up", "txqueuelen", "10000"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			_ = device.Close()
			return nil, fmt.Errorf("ip %s: %w: %s", args[0], err, out)
		}
	}
	queue := make(chan *packet, 1<<16)
	go l.receive(queue)
	go l.sendBack(queue)
	return l, nil
}

// Close ends the link, and its device.
func (l *link) Close() error { return l.device.Close() }

// listen returns a listener at the near end.
func (l *link) listen() (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort(l.near.String(), "0"))
}

// beyond is the address of a listener, seen from over the link.
func (l *link) beyond(listener net.Listener) string {
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return net.JoinHostPort(l.far.String(), port)
}

// receive reads what the kernel sends, until the device is closed. A packet that finds
// the queue full is lost, as on any link.
func (l *link) receive(queue chan<- *packet) {
	defer close(queue)
	const source, destination, payload = 12, 16, 20 // in an IPv4 header
	for {
		p := packets.Get().(*packet)
		n, err := l.device.Read(p.data[:])
		if err != nil {
			return
		}
		p.due, p.size = time.Now().Add(l.oneWay), n
		data := p.data[:n]
		if n < payload || data[0]>>4 != 4 {
			packets.Put(p)
			continue
		}
		// The checksums are sums, so that they stay right.
		var sender [4]byte
		copy(sender[:], data[source:])
		copy(data[source:destination], data[destination:payload])
		copy(data[destination:payload], sender[:])
		select {
		case queue <- p:
		default:
			packets.Put(p)
		}
	}
}

func (l *link) sendBack(queue <-chan *packet) {
	for p := range queue {
		time.Sleep(time.Until(p.due))
		_, _ = l.device.Write(p.data[:p.size])
		packets.Put(p)
	}
}

// watch measures round trips over the link, on a connection of its own, until it is
// stopped. They are in seconds.
func (l *link) watch() (stop func() ([]float64, error), err error) {
	listener, err := l.listen()
	if err != nil {
		return nil, err
	}
	echo := make(chan struct{})
	go func() {
		defer close(echo)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	conn, err := net.Dial("tcp4", l.beyond(listener))
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	var trips []float64
	var fault error
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for fault == nil {
			began := time.Now()
			if _, fault = conn.Write([]byte{1}); fault == nil {
				_, fault = conn.Read(make([]byte, 1))
			}
			if fault == nil {
				trips = append(trips, time.Since(began).Seconds())
			}
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() ([]float64, error) {
		close(quit)
		<-done
		_, _ = conn.Close(), listener.Close()
		<-echo
		return trips, fault
	}, nil
}
