package atmostonce

import (
	"context"
	"net"
	"sync"
	"time"
)

// A conn is a connection of a Transport, below TLS. It knows whether a byte of the
// request that it is given was handed to it.
//
// net/http gives it one request at a time: from GotConn on, until RoundTrip has returned
// or another request has it.
type conn struct {
	net.Conn
	idle time.Duration // it must not be used after so long without a byte

	mu    sync.Mutex // guards all below; never held while reading or writing
	user  *sending   // whose request it carries
	life  life
	heard time.Time // when the last byte came, or it was made

	reading bool          // a Read is under way
	waiting chan struct{} // closed when one begins, or none will; nil if nobody waits
}

// What may still be written to a conn.
type life int

const (
	alive  life = iota // anything
	ended              // no further request: the other side ended it, it has waited for too long, or it was retired
	sealed             // nothing
)

func newConn(c net.Conn, idle time.Duration) *conn {
	return &conn{Conn: c, idle: idle, heard: time.Now()}
}

// NetConn returns the connection below, as that of a *tls.Conn does.
func (c *conn) NetConn() net.Conn { return c.Conn }

// KeepsItsOwnCount tells a trace that what was sent over the connection is known without it.
func (c *conn) KeepsItsOwnCount() {}

// begin gives the connection to s, before anything of its request is written. kept says
// that it has waited for that.
func (c *conn) begin(s *sending, kept bool) {
	if kept {
		c.settle(s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = s
	if kept && c.life == alive && c.idle > 0 && c.waited() > c.idle {
		c.life = ended
	}
}

// settleTime is how long net/http has to look at a connection that is idle.
const settleTime = 50 * time.Millisecond

// settle waits until net/http has looked at what came behind the last answer, which ends
// the connection: it may hand the connection out a moment before, and what came would be
// taken for the answer to the next request. Nearly always it has, and waits in a Read.
func (c *conn) settle(ctx context.Context) {
	c.mu.Lock()
	if c.reading || c.life != alive {
		c.mu.Unlock()
		return
	}
	waiting := make(chan struct{})
	c.waiting = waiting
	c.mu.Unlock()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-waiting:
	case <-ctx.Done():
	case <-timer.C:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.life = max(c.life, ended)
	}
}

// settled wakes who waits for the connection to settle. The caller holds mu.
func (c *conn) settled() {
	if c.waiting != nil {
		close(c.waiting)
		c.waiting = nil
	}
}

// waited is how long nothing was heard, also while the computer slept, for which the
// monotonic clock may stand still. The caller holds mu.
func (c *conn) waited() time.Duration {
	now := time.Now()
	return max(now.Sub(c.heard), now.Round(0).Sub(c.heard.Round(0)))
}

// end takes the connection from s, if s still has it. If its request failed, nothing is
// written any more.
func (c *conn) end(s *sending, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user != s {
		return
	}
	c.user = nil
	if failed {
		c.life = sealed
	}
}

// retire has no further request written, unless another one than that of s has it already.
func (c *conn) retire(s *sending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user != nil && c.user != s {
		return false
	}
	c.life = max(c.life, ended)
	return true
}

// seal has everything refused that still wants to be written.
func (c *conn) seal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life = sealed
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.reading = true
	c.settled()
	c.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 {
		c.heard = time.Now()
	}
	if err != nil {
		c.life = max(c.life, ended)
	}
	return n, err
}

// Write implements net.Conn. A Write counts from its beginning, and whatever it returns.
// Not even the end of TLS is written where a request would not be: its bytes would look
// like some of the request's.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	clean := c.user != nil && !c.user.handed.Load()
	if c.life == sealed || c.life == ended && clean {
		c.mu.Unlock()
		return 0, errClosed
	}
	if clean {
		c.user.handed.Store(true)
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	c.life = max(c.life, ended)
	c.settled()
	c.mu.Unlock()
	return c.Conn.Close()
}
