package ampauth

import (
	"math"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
	"golang.org/x/time/rate"
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
	if d <= 0 || c.t.Limiter != nil {
		return d
	}
	width := c.config.BaseDelay
	if deadline, ok := c.ctx.Deadline(); ok {
		width = min(width, time.Until(deadline)-d)
	}
	return pace.Add(d, pace.Jitter(width))
}

// admit waits until the gate and the limiter let the next attempt pass.
func (c *call) admit(last *result) error {
	for {
		if err := ended(c.ctx); err != nil {
			return c.endedBetween(last, err)
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
		if c.t.gates.Remaining(c.req.URL, c.retries > 0) == 0 {
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
	if pace.Fits(c.ctx, d) {
		return 0
	}
	return d
}

// sleepIfFits sleeps for d, unless the caller's deadline comes first: then it
// fails at once.
func (c *call) sleepIfFits(d time.Duration, last *result) error {
	if d > 0 && !pace.Fits(c.ctx, d) {
		return c.waitTooLong(last, d)
	}
	return c.sleep(d, last)
}

func (c *call) sleep(d time.Duration, last *result) error {
	if d <= 0 {
		return nil
	}
	began := time.Now()
	slept := pace.Sleep(c.ctx, d)
	c.t.counters.addWait(time.Since(began))
	if !slept {
		return c.endedBetween(last, ended(c.ctx))
	}
	return nil
}
