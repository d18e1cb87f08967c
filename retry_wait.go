package ampauth

import (
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// wait is how long to wait before the next retry.
func (c *call) wait(r *result) time.Duration {
	d := c.config.backoff(c.retries+1, r.retryAfter)
	return max(d, c.gated(true))
}

// gated is how long the host's gate holds this call back. Without a limiter
// those who waited are spread, so that they do not leave as a herd.
func (c *call) gated(isRetry bool) time.Duration {
	d := c.t.gates.Remaining(c.req.URL, isRetry)
	if d <= 0 || c.t.queue != nil {
		return d
	}
	width := c.config.BaseDelay
	if deadline, ok := c.ctx.Deadline(); ok {
		width = min(width, time.Until(deadline)-d)
	}
	return pace.Add(d, pace.Jitter(width))
}

// admit waits until the gate and the limiter let the next attempt pass.
func (c *call) admit() *Error {
	for {
		if err := ended(c.ctx); err != nil {
			return c.endedBetween(err)
		}
		if d := c.gated(c.retries > 0); d > 0 {
			if !pace.Fits(c.ctx, d) {
				c.gaveUp = outOfTime
				return c.waitTooLong(d)
			}
			if err := c.sleep(d); err != nil {
				return err
			}
			continue
		}
		if c.t.queue == nil {
			return nil
		}
		if limited := c.t.queue.wait(c.ctx); limited != nil {
			if c.ctx.Err() == nil {
				c.gaveUp = notLetPass
			}
			e := c.endedBetween(limited.Err)
			e.Kind = limited.Kind
			return e
		}
		if c.t.gates.Remaining(c.req.URL, c.retries > 0) == 0 {
			return nil // otherwise the gate has shut meanwhile
		}
	}
}

func (c *call) sleep(d time.Duration) *Error {
	if d <= 0 {
		return nil
	}
	began := time.Now()
	slept := pace.Sleep(c.ctx, d)
	c.t.counters.addWait(time.Since(began))
	if !slept {
		return c.endedBetween(ended(c.ctx))
	}
	return nil
}
