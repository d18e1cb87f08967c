package atmostonce

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// net/http may hand a connection out a moment before it looks at what came behind the last
// answer. A Read that is under way, or the end, shows that it has looked.
func TestKeptConnectionIsUsedWhenNetHTTPHasLookedAtIt(t *testing.T) {
	for name, test := range map[string]struct {
		look  func(*conn)
		after time.Duration
		life  life
	}{
		"it reads on":      {func(c *conn) { _, _ = c.Read(make([]byte, 1)) }, 10 * time.Millisecond, alive},
		"it closes":        {func(c *conn) { _ = c.Close() }, 10 * time.Millisecond, ended},
		"it does not look": {func(*conn) {}, settleTime, ended},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				defer near.Close()
				c := newConn(near, time.Minute)
				go func() {
					time.Sleep(10 * time.Millisecond)
					test.look(c)
				}()
				began := time.Now()
				c.begin(newSending(t.Context()), true)
				if took := time.Since(began); took != test.after || c.life != test.life {
					t.Errorf("it was given away after %v, as %d; want %v, %d", took, c.life, test.after, test.life)
				}
				began = time.Now()
				c.begin(newSending(t.Context()), false)
				if took := time.Since(began); took != 0 {
					t.Errorf("a fresh one was waited for: %v", took)
				}
			})
		})
	}
}

// net/http hands the body of a file to the connection's ReadFrom, which nobody counts.
func TestConnCountsAllThatIsWritten(t *testing.T) {
	if _, ok := any(new(conn)).(io.ReaderFrom); ok {
		t.Error("a conn has a ReadFrom")
	}
}

// The wait ends with the caller's.
func TestWhoLeavesDoesNotWaitForAConnectionToSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
		defer leave()
		began := time.Now()
		newConn(near, time.Minute).begin(newSending(ctx), true)
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("waited %v", took)
		}
	})
}

// A handshake may take longer than a connection is kept, and the clock may be set.
func TestOnlyAConnectionThatHasWaitedIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		c := newConn(near, time.Second)
		c.reading = true
		time.Sleep(2 * time.Second)
		if c.begin(newSending(t.Context()), false); c.life != alive {
			t.Error("a fresh connection counts as too old")
		}
		if c.begin(newSending(t.Context()), true); c.life != ended {
			t.Error("a kept connection does not count as too old")
		}
		c.life, c.heard = alive, time.Now().Add(-time.Hour).Round(0)
		if c.begin(newSending(t.Context()), true); c.life != ended {
			t.Error("a computer that slept keeps its connections")
		}
	})
}
