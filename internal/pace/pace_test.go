package pace

import (
	"context"
	"math"
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

// drawn returns the shortest and longest of so many waits that they span all but about
// 1 % of what can be drawn.
func drawn(draw func() time.Duration) (shortest, longest time.Duration) {
	shortest = math.MaxInt64
	for range 3000 {
		d := draw()
		shortest, longest = min(shortest, d), max(longest, d)
	}
	return shortest, longest
}

func TestBackoffIsDrawnFromZeroToACeilingThatDoubles(t *testing.T) {
	for _, test := range []struct {
		name                         string
		n                            int
		base, most, retryAfter, want time.Duration
	}{
		{"first", 1, time.Second, 30 * time.Second, 0, time.Second},
		{"second", 2, time.Second, 30 * time.Second, 0, 2 * time.Second},
		{"third", 3, time.Second, 30 * time.Second, 0, 4 * time.Second},
		{"last below the longest", 5, time.Second, 30 * time.Second, 0, 16 * time.Second},
		{"first above the longest", 6, time.Second, 30 * time.Second, 0, 30 * time.Second},
		{"far above the longest", math.MaxInt, time.Second, 30 * time.Second, 0, 30 * time.Second},
		{"base above the longest", 1, time.Minute, 30 * time.Second, 0, 30 * time.Second},
		{"doubled beyond what there is", 3, math.MaxInt64/2 + 1, math.MaxInt64, 0, math.MaxInt64},
		{"Retry-After below zero", 2, time.Second, 30 * time.Second, -time.Hour, 2 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			shortest, longest := drawn(func() time.Duration { return Backoff(test.n, test.base, test.most, test.retryAfter) })
			if shortest < 0 || shortest > test.want/50 || longest >= test.want || longest < test.want/50*49 {
				t.Errorf("waits of %v to %v, want them spread over [0, %v)", shortest, longest, test.want)
			}
		})
	}
}

func TestRetryAfterIsNeverShortened(t *testing.T) {
	for _, test := range []struct {
		name                         string
		base, most, retryAfter, want time.Duration
	}{
		{"without a base", 0, 30 * time.Second, 7 * time.Second, 7 * time.Second},
		{"above the longest backoff", 0, 30 * time.Second, time.Hour, time.Hour},
		{"the least there is", 1, 30 * time.Second, 1, 1},
		{"as long as there is", time.Second, 30 * time.Second, math.MaxInt64, math.MaxInt64},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Backoff(1, test.base, test.most, test.retryAfter); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestJitterOfNothingIsNothing(t *testing.T) {
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1} {
		if got := Jitter(d); got != 0 {
			t.Errorf("a jitter of %v gave %v", d, got)
		}
	}
}

func TestSumOfDurationsDoesNotOverflow(t *testing.T) {
	for _, test := range []struct{ a, b, want time.Duration }{
		{0, 0, 0},
		{time.Second, time.Minute, 61 * time.Second},
		{math.MaxInt64 - 1, 1, math.MaxInt64},
		{math.MaxInt64, 1, math.MaxInt64},
		{1, math.MaxInt64, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64},
	} {
		if got := Add(test.a, test.b); got != test.want {
			t.Errorf("%d + %d gave %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestWaitFitsOnlyIfItEndsBeforeTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !Fits(t.Context(), math.MaxInt64) {
			t.Error("a wait does not fit into a context without a deadline")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for d, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Minute + 1: false} {
			if got := Fits(ctx, d); got != want {
				t.Errorf("a wait of %v fits into a minute: %t, want %t", d, got, want)
			}
		}
		time.Sleep(time.Minute)
		if Fits(ctx, 0) {
			t.Error("no wait at all fits into a context whose deadline is now")
		}
	})
}

func TestSleepEndsWithTheTimeOrTheContext(t *testing.T) {
	const never = -1
	for _, test := range []struct {
		name           string
		d, ends, lasts time.Duration
		alive          bool
	}{
		{"zero", 0, never, 0, true},
		{"below zero", -time.Second, never, 0, true},
		{"zero, ended before", 0, 0, 0, false},
		{"below zero, ended before", -time.Second, 0, 0, false},
		{"whole", time.Minute, never, time.Minute, true},
		{"context ends later", time.Minute, time.Minute + 1, time.Minute, true},
		{"context ends during it", time.Minute, 20 * time.Second, 20 * time.Second, false},
		{"ended before", time.Minute, 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.ends == 0 {
					cancel()
				} else if test.ends > 0 {
					time.AfterFunc(test.ends, cancel)
				}
				start := time.Now()
				alive := Sleep(ctx, test.d)
				if lasted := time.Since(start); alive != test.alive || lasted != test.lasts {
					t.Errorf("lasted %v and reports %t, want %v and %t", lasted, alive, test.lasts, test.alive)
				}
			})
		})
	}
}
