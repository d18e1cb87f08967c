package ampauth

import (
	"encoding/json"
	"sync/atomic"
	"time"
)

// Stats is a snapshot of what a [Client], a [RetryTransport] or a [TokenManager] did since
// it was made. Counters only grow. A request that succeeds at once is not counted, so that
// it costs nothing. What is counted is told as an [Event] as well, but for the waits.
//
// As JSON, as package expvar exports it, its names are those of Go in lower case with
// underscores, and the time is waited_seconds, a number.
type Stats struct {
	Obtains         uint64 `json:"obtains"`         // logins that gave a token
	ObtainFailures  uint64 `json:"obtain_failures"` // logins that failed, all their attempts included
	Refreshes       uint64 `json:"refreshes"`       // refreshes that gave a token
	RefreshFailures uint64 `json:"refresh_failures"`
	Renewals        uint64 `json:"renewals"`  // those of Obtains that were made because the API refused a token
	Adoptions       uint64 `json:"adoptions"` // tokens taken from the store

	Retries RetryStats `json:"retries"` // of requests; the attempts of a login are in the log
	Replays uint64     `json:"replays"` // requests sent again with a new token

	// Ambiguous are the calls that were sent and ended in an error that Is ErrAmbiguous. (A
	// mutation that was answered 408 or 5xx has an answer, and is not counted.)
	Ambiguous uint64 `json:"ambiguous"`

	// Exhausted are the calls that were given up although the request could have been sent
	// again: no attempts or budget left, the limiter, a Retry-After above the cap, the
	// caller's deadline, a body that cannot be sent again. See EventExhausted.
	Exhausted uint64 `json:"exhausted"`

	// StoreFaults are the calls of the TokenStore that failed, or found what cannot be
	// trusted, each of them.
	StoreFaults uint64 `json:"store_faults"`

	Waits  uint64        `json:"waits"` // waits for a backoff, a Retry-After or, from 1 ms, the limiter
	Waited time.Duration `json:"-"`     // their sum
}

// MarshalJSON implements json.Marshaler.
func (s Stats) MarshalJSON() ([]byte, error) {
	type fields Stats
	return json.Marshal(struct {
		fields
		Waited float64 `json:"waited_seconds"`
	}{fields(s), s.Waited.Seconds()})
}

// RetryStats counts retries by the reason for them.
type RetryStats struct {
	NotSent     uint64 `json:"not_sent"`     // no connection came about
	Unprocessed uint64 `json:"unprocessed"`  // 421, 425, 417 to an Expect, or REFUSED_STREAM
	RateLimited uint64 `json:"rate_limited"` // 429
	ServerError uint64 `json:"server_error"` // 408, or 5xx but 501, 505, 511
	Timeout     uint64 `json:"timeout"`      // the attempt's time ran out
	Broken      uint64 `json:"broken"`       // the connection broke before the answer
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

// String is the word for the reason in a log or an event.
func (r retryReason) String() string {
	return [...]string{"not sent", "unprocessed", "rate limited", "server error", "timeout", "broken connection"}[r]
}

// counters are what Stats is made of. Events are counted by listener.raise alone.
type counters struct {
	obtains, obtainFailures, refreshes, refreshFailures, renewals, adoptions atomic.Uint64
	replays, ambiguous, exhausted, storeFaults                               atomic.Uint64
	retries                                                                  [reasonBroken + 1]atomic.Uint64

	waits  atomic.Uint64
	waited atomic.Int64 // nanoseconds
}

func (c *counters) addWait(d time.Duration) {
	c.waits.Add(1)
	c.waited.Add(int64(d))
}

func (c *counters) addTo(s *Stats) {
	s.Obtains += c.obtains.Load()
	s.ObtainFailures += c.obtainFailures.Load()
	s.Refreshes += c.refreshes.Load()
	s.RefreshFailures += c.refreshFailures.Load()
	s.Renewals += c.renewals.Load()
	s.Adoptions += c.adoptions.Load()
	for reason, field := range [...]*uint64{
		&s.Retries.NotSent, &s.Retries.Unprocessed, &s.Retries.RateLimited,
		&s.Retries.ServerError, &s.Retries.Timeout, &s.Retries.Broken,
	} {
		*field += c.retries[reason].Load()
	}
	s.Replays += c.replays.Load()
	s.Ambiguous += c.ambiguous.Load()
	s.Exhausted += c.exhausted.Load()
	s.StoreFaults += c.storeFaults.Load()
	s.Waits += c.waits.Load()
	s.Waited += time.Duration(c.waited.Load())
}
