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

	Waits  uint64        // waits for a backoff, a Retry-After or the limiter
	Waited time.Duration // their sum
}

// RetryStats counts retries by the reason for them.
type RetryStats struct {
	NotSent     uint64 // no connection came about
	Unprocessed uint64 // 421, 425, 417 to an Expect, or REFUSED_STREAM
	RateLimited uint64 // 429
	ServerError uint64 // 408, 500, 502, 503, 504
	Timeout     uint64 // the attempt's time ran out
	Broken      uint64 // the connection broke before the answer
}

// Total is the sum of all reasons.
func (s RetryStats) Total() uint64 {
	return s.NotSent + s.Unprocessed + s.RateLimited + s.ServerError + s.Timeout + s.Broken
}

type tokenCounters struct {
	obtains, obtainFailures, refreshes, refreshFailures, renewals, adoptions atomic.Uint64
}

type retryCounters struct {
	notSent, unprocessed, rateLimited, serverError, timeout, broken atomic.Uint64

	replays, waits atomic.Uint64
	waited         atomic.Int64 // nanoseconds
}

// reason is the counter of a retry, and the word for it in a log.
func (c *retryCounters) reason(r result) (*atomic.Uint64, string) {
	switch {
	case r.outcome == NotSent:
		return &c.notSent, "not sent"
	case r.outcome == Unprocessed:
		return &c.unprocessed, "unprocessed"
	case r.outcome == Rejected:
		return &c.rateLimited, "rate limited"
	case r.outcome == Answered:
		return &c.serverError, "server error"
	case r.timedOut:
		return &c.timeout, "timeout"
	}
	return &c.broken, "broken connection"
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
	s.Retries.NotSent += c.notSent.Load()
	s.Retries.Unprocessed += c.unprocessed.Load()
	s.Retries.RateLimited += c.rateLimited.Load()
	s.Retries.ServerError += c.serverError.Load()
	s.Retries.Timeout += c.timeout.Load()
	s.Retries.Broken += c.broken.Load()
	s.Replays += c.replays.Load()
	s.Waits += c.waits.Load()
	s.Waited += time.Duration(c.waited.Load())
}
