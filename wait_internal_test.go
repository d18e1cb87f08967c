package ampauth

import (
	"math"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

func FuzzBackoffStaysWithinItsBounds(f *testing.F) {
	f.Add(int64(time.Second), int64(30*time.Second), 1, int64(0))
	f.Add(int64(time.Second), int64(30*time.Second), 100, int64(0))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), math.MaxInt, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, base, most int64, n int, retryAfter int64) {
		c := RetryConfig{BaseDelay: time.Duration(base), MaxDelay: time.Duration(most)}
		if c.Validate() != nil || n < 1 {
			t.Skip()
		}
		c = c.resolved()
		wait, floor := c.backoff(n, time.Duration(retryAfter)), time.Duration(retryAfter)
		switch {
		case floor > 0 && (wait < floor || wait-floor > c.BaseDelay):
			t.Errorf("a Retry-After of %v is waited for %v, want at most %v more", floor, wait, c.BaseDelay)
		case floor <= 0 && (wait < 0 || wait >= c.MaxDelay):
			t.Errorf("the backoff is %v, want one of [0, %v)", wait, c.MaxDelay)
		case floor <= 0 && n == 1 && wait >= c.BaseDelay:
			t.Errorf("the first backoff is %v, want less than %v", wait, c.BaseDelay)
		}
	})
}

func TestRetryAfterIsJitteredBeforeAnyGate(t *testing.T) {
	c := RetryConfig{BaseDelay: time.Second}.resolved()
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		wait := c.backoff(1, 7*time.Second)
		low, high = min(low, wait), max(high, wait)
	}
	if low < 7*time.Second || high > 8*time.Second || high-low < 900*time.Millisecond {
		t.Errorf("waits of %v to %v, want them spread from 7 s to 8 s", low, high)
	}
}

// The gates of hosts that were shut once are not kept for ever.
func TestGatesForgetHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gates
		a, c := &url.URL{Scheme: "https", Host: "a"}, &url.URL{Scheme: "https", Host: "c"}
		g.hold(a, time.Minute, false)
		g.hold(&url.URL{Scheme: "https", Host: "b"}, time.Minute, false)
		g.hold(c, time.Minute, true)
		if d := g.remaining(a, false); d != time.Minute {
			t.Errorf("a is held for %v, want 1 min", d)
		}
		if first, retry := g.remaining(c, false), g.remaining(c, true); first != 0 || retry != time.Minute {
			t.Errorf("c is held for %v and %v, want 0 and 1 min", first, retry)
		}
		time.Sleep(time.Minute)
		if d := g.remaining(a, false); d != 0 || len(g.byHost) != 0 || g.shut.Load() {
			t.Errorf("after a minute a is held for %v, and %d hosts are remembered", d, len(g.byHost))
		}
	})
}

func TestBudgetUnderContentionGivesNoMoreThanItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		given := make(chan bool)
		for range 500 {
			go func() { given <- b.take(100) }()
		}
		n := 0
		for range 500 {
			if <-given {
				n++
			}
		}
		if n != 100 {
			t.Errorf("%d retries were given, want 100", n)
		}
	})
}

// A clock that went on would keep the request and the response in memory.
func TestReleaseStopsTheClock(t *testing.T) {
	req := &http.Request{URL: new(url.URL), Header: http.Header{}}
	c := &call{t: new(RetryTransport), req: req, ctx: t.Context(), config: &RetryConfig{MutationTimeout: time.Hour}, operation: MutatingOperation}
	a := newAttempt(c)
	a.release()
	a.release()
	if a.timer.Stop() {
		t.Error("the clock of a released attempt was running")
	}
	if a.timedOut() || a.Err() == nil {
		t.Errorf("the attempt timed out: %v, its context says %v", a.timedOut(), a.Err())
	}
}
