package pace

import (
	"math"
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
		if base <= 0 || most < base || n < 1 {
			t.Skip()
		}
		least, longest, floor := time.Duration(base), time.Duration(most), time.Duration(retryAfter)
		wait := Backoff(n, least, longest, floor)
		switch {
		case floor > 0 && (wait < floor || wait-floor > least):
			t.Errorf("a Retry-After of %v is waited for %v, want at most %v more", floor, wait, least)
		case floor <= 0 && (wait < 0 || wait >= longest):
			t.Errorf("the backoff is %v, want one of [0, %v)", wait, longest)
		case floor <= 0 && n == 1 && wait >= least:
			t.Errorf("the first backoff is %v, want less than %v", wait, least)
		}
	})
}

func TestRetryAfterIsJitteredBeforeAnyGate(t *testing.T) {
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		wait := Backoff(1, time.Second, 30*time.Second, 7*time.Second)
		low, high = min(low, wait), max(high, wait)
	}
	if low < 7*time.Second || high > 8*time.Second || high-low < 900*time.Millisecond {
		t.Errorf("waits of %v to %v, want them spread from 7 s to 8 s", low, high)
	}
}

// The gates of hosts that were shut once are not kept for ever.
func TestGatesForgetHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		a, c := &url.URL{Scheme: "https", Host: "a"}, &url.URL{Scheme: "https", Host: "c"}
		g.Hold(a, time.Minute, false)
		g.Hold(&url.URL{Scheme: "https", Host: "b"}, time.Minute, false)
		g.Hold(c, time.Minute, true)
		if d := g.Remaining(a, false); d != time.Minute {
			t.Errorf("a is held for %v, want 1 min", d)
		}
		if first, retry := g.Remaining(c, false), g.Remaining(c, true); first != 0 || retry != time.Minute {
			t.Errorf("c is held for %v and %v, want 0 and 1 min", first, retry)
		}
		time.Sleep(time.Minute)
		if d := g.Remaining(a, false); d != 0 || len(g.byHost) != 0 || g.shut.Load() {
			t.Errorf("after a minute a is held for %v, and %d hosts are remembered", d, len(g.byHost))
		}
	})
}

func TestBudgetUnderContentionGivesNoMoreThanItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		given := make(chan bool)
		for range 500 {
			go func() { given <- b.Take(100) }()
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
