package ampauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// A RetryConfig says how often, how fast and how long to try. The zero value is
// [DefaultRetryConfig].
type RetryConfig struct {
	// MaxAttempts is the number of attempts in all, the first included.
	// If zero, 3. The one replay after a refused token does not count.
	MaxAttempts int

	// BaseDelay and MaxDelay shape the backoff: before retry n the wait is drawn
	// evenly from 0 to min(MaxDelay, BaseDelay << (n-1)) (full jitter).
	// If zero, 1 s and 30 s, or BaseDelay if that is longer.
	BaseDelay time.Duration
	MaxDelay  time.Duration

	// Timeout bounds one attempt of anything but a mutation, the response's body
	// included. If zero, 10 s. If negative, there is no bound. At least 1 ms otherwise.
	Timeout time.Duration

	// MutationTimeout bounds one attempt of a mutation. On-chain calls are slow,
	// and an early cut leaves a doubtful outcome. If zero, 60 s, or Timeout if
	// that is longer. If negative, there is no bound. At least 1 ms otherwise.
	MutationTimeout time.Duration

	// MaxRetryAfter is the longest Retry-After that is waited for; above it the
	// response is returned at once. If zero, 60 s. If negative, there is no cap.
	MaxRetryAfter time.Duration

	// Budget is how many retries a RetryTransport may be ahead of its successes,
	// so that an outage is not multiplied: each retry takes 1, each success gives
	// 0.1 back, and so do 10 s give 1. A retry that waited for the Retry-After of a 429
	// takes nothing. If zero, 100. If negative, there is no budget.
	Budget int
}

// DefaultRetryConfig returns 3 attempts, 1 s to 30 s of backoff, 10 s for an
// attempt and 60 s for that of a mutation.
func DefaultRetryConfig() RetryConfig {
	return RetryConfig{
		MaxAttempts:     3,
		BaseDelay:       time.Second,
		MaxDelay:        30 * time.Second,
		Timeout:         10 * time.Second,
		MutationTimeout: 60 * time.Second,
		MaxRetryAfter:   60 * time.Second,
		Budget:          100,
	}
}

// RetryConfigForTests returns a configuration that fails fast: 2 attempts,
// 100 ms to 1 s of backoff, 5 s for any attempt.
func RetryConfigForTests() RetryConfig {
	c := DefaultRetryConfig()
	c.MaxAttempts = 2
	c.BaseDelay, c.MaxDelay = 100*time.Millisecond, time.Second
	c.Timeout, c.MutationTimeout = 5*time.Second, 5*time.Second
	return c
}

// WithTimeout returns c with another Timeout. A positive MutationTimeout that is shorter
// becomes as long, as it is by default: mutations have no less time than the rest.
func (c RetryConfig) WithTimeout(d time.Duration) RetryConfig {
	c.Timeout = d
	if c.MutationTimeout > 0 {
		c.MutationTimeout = max(c.MutationTimeout, d)
	}
	return c
}

// Validate returns every fault of c, joined, or nil. Each Is [ErrConfig].
func (c RetryConfig) Validate() error {
	return errors.Join(c.faults()...)
}

func (c RetryConfig) faults() []error {
	var faults []error
	fault := func(field, variable, rule string) {
		faults = append(faults, configFault("Retry."+field, variable, rule))
	}
	if c.MaxAttempts < 0 {
		fault("MaxAttempts", envMaxAttempts, "must not be negative")
	}
	if c.BaseDelay < 0 {
		fault("BaseDelay", envBaseDelay, "must not be negative")
	}
	if c.MaxDelay < 0 {
		fault("MaxDelay", envMaxDelay, "must not be negative")
	}
	if c.MaxDelay > 0 && c.MaxDelay < c.resolved().BaseDelay {
		fault("MaxDelay", envMaxDelay, fmt.Sprintf("must not be below Retry.BaseDelay (%s)", envBaseDelay))
	}
	if rule := tooShort(c.Timeout, "10*time.Second"); rule != "" {
		fault("Timeout", "", rule)
	}
	if rule := tooShort(c.MutationTimeout, "time.Minute"); rule != "" {
		fault("MutationTimeout", "", rule)
	}
	return faults
}

// resolved returns c with its zero fields replaced by the defaults.
func (c RetryConfig) resolved() RetryConfig {
	d := DefaultRetryConfig()
	if c.MaxAttempts == 0 {
		c.MaxAttempts = d.MaxAttempts
	}
	if c.BaseDelay == 0 {
		c.BaseDelay = d.BaseDelay
	}
	if c.MaxDelay == 0 {
		c.MaxDelay = max(d.MaxDelay, c.BaseDelay)
	}
	if c.Timeout == 0 {
		c.Timeout = d.Timeout
	}
	if c.MutationTimeout == 0 {
		c.MutationTimeout = max(d.MutationTimeout, c.Timeout)
	}
	if c.MaxRetryAfter == 0 {
		c.MaxRetryAfter = d.MaxRetryAfter
	}
	if c.Budget == 0 {
		c.Budget = d.Budget
	}
	return c
}

// timeoutOf is the bound of one attempt of op, 0 if there is none.
func (c RetryConfig) timeoutOf(op Operation) time.Duration {
	if op == MutatingOperation {
		return max(c.MutationTimeout, 0)
	}
	return max(c.Timeout, 0)
}

// tooLong reports whether a Retry-After is above the cap.
func (c RetryConfig) tooLong(retryAfter time.Duration) bool {
	return c.MaxRetryAfter >= 0 && retryAfter > c.MaxRetryAfter
}

// backoff draws the wait before retry n, which counts from 1.
func (c RetryConfig) backoff(n int, retryAfter time.Duration) time.Duration {
	return pace.Backoff(n, c.BaseDelay, c.MaxDelay, retryAfter)
}
