package ampauth

import (
	"context"
	"math"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// jitter draws a duration from [0, d).
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

func saturatingAdd(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// sleep waits for d, or until ctx ends and then returns why.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ended(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// wait is how long to wait before the next retry.
func (c *call) wait(r *result) time.Duration {
	d := c.config.backoff(c.retries+1, r.retryAfter)
	return max(d, c.gated(true))
}

// gated is how long the host's gate holds this call back. Without a limiter
// those who waited are spread, so that they do not leave as a herd.
func (c *call) gated(isRetry bool) time.Duration {
	d := c.t.gates.remaining(c.req.URL, isRetry)
	if d <= 0 || c.t.Limiter != nil {
		return d
	}
	width := c.config.BaseDelay
	if deadline, ok := c.ctx.Deadline(); ok {
		width = min(width, time.Until(deadline)-d)
	}
	return saturatingAdd(d, jitter(width))
}

// admit waits until the gate and the limiter let the next attempt pass.
func (c *call) admit(last *result) error {
	for {
		if err := ended(c.ctx); err != nil {
			return c.left(last, err)
		}
		if d := c.gated(c.retries > 0); d > 0 {
			if err := c.sleepIfFits(d, last); err != nil {
				return err
			}
			continue
		}
		if c.t.Limiter == nil {
			return nil
		}
		reservation := c.t.Limiter.Reserve()
		if !reservation.OK() {
			c.closeBody()
			return configFault("Limiter", "", "has no burst, so that nothing ever passes")
		}
		if err := c.sleepIfFits(reservation.Delay(), last); err != nil {
			reservation.Cancel()
			return err
		}
		if c.t.gates.remaining(c.req.URL, c.retries > 0) == 0 {
			return nil // otherwise the gate has shut meanwhile
		}
	}
}

// limiterBlocks returns how long the limiter would hold another attempt back, if
// that is beyond the caller's deadline, as far as can be told now.
func (c *call) limiterBlocks() time.Duration {
	limiter := c.t.Limiter
	if limiter == nil || limiter.Limit() == rate.Inf {
		return 0
	}
	// Not by a reservation: to cancel one does not always give the token back.
	missing := 1 - limiter.Tokens()
	if missing <= 0 {
		return 0
	}
	d := time.Duration(math.MaxInt64) // nothing more is given out
	if seconds := missing / float64(limiter.Limit()); seconds < d.Seconds() {
		d = time.Duration(seconds * float64(time.Second))
	}
	if fits(c.ctx, d) {
		return 0
	}
	return d
}

// sleepIfFits sleeps for d, unless the caller's deadline comes first: then it
// fails at once.
func (c *call) sleepIfFits(d time.Duration, last *result) error {
	if d > 0 && !fits(c.ctx, d) {
		return c.heldBack(last, d)
	}
	return c.sleep(d, last)
}

func (c *call) sleep(d time.Duration, last *result) error {
	if d <= 0 {
		return nil
	}
	began := time.Now()
	err := sleep(c.ctx, d)
	c.t.counters.addWait(time.Since(began))
	if err != nil {
		return c.left(last, err)
	}
	return nil
}

// gates hold requests back from hosts that asked for it by Retry-After. The
// zero value holds nothing back.
type gates struct {
	shut atomic.Bool // whether byHost may hold anything; spares the lock otherwise

	mu     sync.Mutex      // guards byHost
	byHost map[string]gate // by scheme, host and port in normal form
}

// A gate opens at two times: after a 429 nothing may pass, after a 503 no retry.
type gate struct{ everything, retries time.Time }

// hold shuts the gate of a host for a while; retriesOnly lets first attempts pass.
func (g *gates) hold(u *url.URL, d time.Duration, retriesOnly bool) {
	host := gateKey(u)
	until := time.Now().Add(d)
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := g.byHost[host]
	if until.After(entry.retries) {
		entry.retries = until
	}
	if !retriesOnly && until.After(entry.everything) {
		entry.everything = until
	}
	if g.byHost == nil {
		g.byHost = make(map[string]gate)
	}
	g.byHost[host] = entry
	g.shut.Store(true)
}

// remaining is the time until the gate of a host opens, 0 if it is open.
func (g *gates) remaining(u *url.URL, isRetry bool) time.Duration {
	if !g.shut.Load() {
		return 0
	}
	host := gateKey(u)
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for h, entry := range g.byHost {
		if !entry.retries.After(now) && !entry.everything.After(now) {
			delete(g.byHost, h)
		}
	}
	if len(g.byHost) == 0 {
		g.shut.Store(false)
		return 0
	}
	until := g.byHost[host].everything
	if isRetry {
		until = g.byHost[host].retries
	}
	return max(until.Sub(now), 0)
}

func gateKey(u *url.URL) string {
	o, _ := originOf(u.Scheme, u.Host)
	return o.String()
}

// A budget bounds how far retries may run ahead of successes. The zero value is
// full. It counts what was spent, in tenths, so that its size can be a setting.
type budget struct {
	spent atomic.Int64 // tenths of a retry; only take raises it

	mu       sync.Mutex // guards refilled and the raising of spent
	refilled time.Time
}

const (
	retryCost     = 10
	successRefund = 1
	refillEvery   = 10 * time.Second // one whole retry
)

// take spends one retry, if there is one left of size.
func (b *budget) take(size int) bool {
	if size < 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if steps := int64(now.Sub(b.refilled) / refillEvery); b.spent.Load() == 0 || steps > int64(size) {
		b.spent.Store(0)
		b.refilled = now
	} else if steps > 0 {
		b.giveBack(steps * retryCost)
		b.refilled = b.refilled.Add(time.Duration(steps) * refillEvery)
	}
	if (b.spent.Load()+retryCost-1)/retryCost >= int64(size) {
		return false
	}
	b.spent.Add(retryCost)
	return true
}

// success gives a little back. While nothing is spent it writes nothing.
func (b *budget) success() {
	if b.spent.Load() > 0 {
		b.giveBack(successRefund)
	}
}

func (b *budget) giveBack(n int64) {
	for {
		old := b.spent.Load()
		if old <= 0 || b.spent.CompareAndSwap(old, max(old-n, 0)) {
			return
		}
	}
}
