package ampauth

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of what a [Client] did since it was made. Counters only
// grow. A request that succeeds at once is not counted, so that it costs nothing.
type Stats struct {
	Obtains         uint64 // logins that gave a token
	ObtainFailures  uint64 // logins that failed, all their attempts included
	Refreshes       uint64 // refreshes that gave a token
	RefreshFailures uint64
	Renewals        uint64 // logins made because the API refused a token
	Adoptions       uint64 // tokens taken from the store

	Retries RetryStats // of requests; the attempts of a login are in the log
	Replays uint64     // requests sent again with a new token

	Waits  uint64        // waits for a backoff, a Retry-After or, from 1 ms, the limiter
	Waited time.Duration // their sum
}

// RetryStats counts retries by the reason for them.
type RetryStats struct {
	NotSent     uint64 // no connection came about
	Unprocessed uint64 // 421, 425, 417 to an Expect, or REFUSED_STREAM
	RateLimited uint64 // 429
	ServerError uint64 // 408, or 5xx but 501, 505, 511
	Timeout     uint64 // the attempt's time ran out
	Broken      uint64 // the connection broke before the answer
}

// Total is the sum of all reasons.
func (s RetryStats) Total() uint64 {
	return s.NotSent + s.Unprocessed + s.RateLimited + s.ServerError + s.Timeout + s.Broken
}

// A retryReason is why a request was sent again.
type retryReason int

const (
	reasonNotSent retryReason = iota
	reasonUnprocessed
	reasonRateLimited
	reasonServerError
	reasonTimeout
	reasonBroken
)

// String is the word for the reason in a log.
func (r retryReason) String() string {
	return [...]string{"not sent", "unprocessed", "rate limited", "server error", "timeout", "broken connection"}[r]
}

type tokenCounters struct {
	obtains, obtainFailures, refreshes, refreshFailures, renewals, adoptions atomic.Uint64
}

type retryCounters struct {
	retries        [reasonBroken + 1]atomic.Uint64
	replays, waits atomic.Uint64
	waited         atomic.Int64 // nanoseconds
}

func (c *retryCounters) addWait(d time.Duration) {
	c.waits.Add(1)
	c.waited.Add(int64(d))
}

func (c *tokenCounters) addTo(s *Stats) {
	s.Obtains += c.obtains.Load()
	s.ObtainFailures += c.obtainFailures.Load()
	s.Refreshes += c.refreshes.Load()
	s.RefreshFailures += c.refreshFailures.Load()
	s.Renewals += c.renewals.Load()
	s.Adoptions += c.adoptions.Load()
}

func (c *retryCounters) addTo(s *Stats) {
	for reason, field := range [...]*uint64{
		&s.Retries.NotSent, &s.Retries.Unprocessed, &s.Retries.RateLimited,
		&s.Retries.ServerError, &s.Retries.Timeout, &s.Retries.Broken,
	} {
		*field += c.retries[reason].Load()
	}
	s.Replays += c.replays.Load()
	s.Waits += c.waits.Load()
	s.Waited += time.Duration(c.waited.Load())
}
