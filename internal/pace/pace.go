// Package pace says when something may be sent: after which backoff, once the host no
// longer asks to be left alone, and while there is a budget for it.
package pace

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Jitter draws a duration from [0, d).
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// Add returns the sum of two durations that are not negative, or the longest there is.
func Add(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Backoff draws the wait before retry n, which counts from 1: from 0 to base, doubled with
// each retry and at most longest (full jitter). A Retry-After is a floor: it is jittered
// upwards, by at most base, and never shortened.
func Backoff(n int, base, longest, retryAfter time.Duration) time.Duration {
	if retryAfter > 0 {
		return Add(retryAfter, Jitter(base))
	}
	ceiling := base
	for i := 1; i < n && ceiling < longest; i++ {
		ceiling = Add(ceiling, ceiling)
	}
	return Jitter(min(ceiling, longest))
}

// Fits reports whether a wait of d ends before ctx does.
func Fits(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > d
}

// Sleep waits for d, and reports whether ctx was alive all the time.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
