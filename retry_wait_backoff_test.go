package ampauth_test

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestBackoffIsExponentialWithFullJitterAndCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const draws = 1000
		base := stubScript(stubAnswer(503))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{
			MaxAttempts: draws + 6, BaseDelay: time.Second, MaxDelay: 20 * time.Second, Budget: -1,
		}}
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 503 {
			t.Errorf("status %d", status)
		}
		waits := base.waits()
		if len(waits) != draws+5 {
			t.Fatalf("%d waits, want %d", len(waits), draws+5)
		}
		ceilings := []time.Duration{1, 2, 4, 8, 16}
		var quarters [4]int
		for i, wait := range waits {
			ceiling := 20 * time.Second
			if i < len(ceilings) {
				ceiling = ceilings[i] * time.Second
			} else {
				quarters[min(max(int(4*wait/ceiling), 0), 3)]++
			}
			if wait < 0 || wait >= ceiling {
				t.Errorf("wait %d is %v, want one of [0, %v)", i+1, wait, ceiling)
			}
		}
		for i, n := range quarters { // 250 each, with a deviation of 14
			if n < 150 || n > 350 {
				t.Errorf("%d of %d waits are in quarter %d of the range: not full jitter (%v)", n, draws, i+1, quarters)
			}
		}
	})
}

func TestFirstWaitsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sums [3]time.Duration
		for range 400 {
			base := stubScript(stubRefuse())
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: 4, BaseDelay: time.Second}}
			_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
			for i, wait := range base.waits() {
				if ceiling := time.Second << i; wait >= ceiling {
					t.Errorf("wait %d is %v, want less than %v", i+1, wait, ceiling)
				}
				sums[i] += wait
			}
		}
		for i, sum := range sums {
			mean, want := sum/400, time.Second<<i/2
			if mean < want*8/10 || mean > want*12/10 {
				t.Errorf("the mean of wait %d is %v, want about %v", i+1, mean, want)
			}
		}
	})
}

func TestRetryAfterIsAFloorThatIsJitteredUpwards(t *testing.T) {
	for _, status := range []int{429, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const draws, base = 1000, 500 * time.Millisecond
				script := stubScript(stubAnswer(status, "Retry-After", "7"))
				rt := &ampauth.RetryTransport{Base: script, Retry: ampauth.RetryConfig{MaxAttempts: draws + 1, BaseDelay: base, Budget: -1}}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				low, high := time.Duration(math.MaxInt64), time.Duration(0)
				for _, wait := range script.waits() {
					low, high = min(low, wait), max(high, wait)
				}
				if low < 7*time.Second || high > 7*time.Second+base {
					t.Errorf("waits of %v to %v, want 7 s and at most %v more", low, high, base)
				}
				if high-low < base/2 {
					t.Errorf("waits of %v to %v are not spread", low, high)
				}
			})
		})
	}
}

func TestRetryAfterForms(t *testing.T) {
	const start = "Sat, 01 Jan 2000 00:00:00 GMT" // where a bubble's clock starts
	const atOnce = time.Duration(-1)
	backoff := time.Duration(0) // no floor
	tests := []struct {
		name   string
		header []string
		floor  time.Duration
	}{
		{"seconds", []string{"Retry-After", "2"}, 2 * time.Second},
		{"seconds within white space", []string{"Retry-After", " \t2 "}, 2 * time.Second},
		{"zero", []string{"Retry-After", "0"}, backoff},
		{"empty", []string{"Retry-After", ""}, backoff},
		{"fraction", []string{"Retry-After", "1.5"}, backoff},
		{"negative", []string{"Retry-After", "-5"}, backoff},
		{"words", []string{"Retry-After", "soon"}, backoff},
		{"as long as the cap", []string{"Retry-After", "60"}, time.Minute},
		{"above the cap", []string{"Retry-After", "61"}, atOnce},
		{"overflow of nanoseconds", []string{"Retry-After", "9223372037"}, atOnce},
		{"twenty nines", []string{"Retry-After", strings.Repeat("9", 20)}, atOnce},
		{"a date", []string{"Retry-After", "Sat, 01 Jan 2000 00:00:09 GMT"}, 9 * time.Second},
		{"a date of RFC 850", []string{"Retry-After", "Saturday, 01-Jan-00 00:00:09 GMT"}, 9 * time.Second},
		{"a date of asctime", []string{"Retry-After", "Sat Jan  1 00:00:09 2000"}, 9 * time.Second},
		{"a date in the past", []string{"Retry-After", "Fri, 31 Dec 1999 23:59:00 GMT"}, backoff},
		{"a date by a clock that is fast", []string{"Retry-After", "Sat, 01 Jan 2000 01:00:05 GMT", "Date", "Sat, 01 Jan 2000 01:00:00 GMT"}, 5 * time.Second},
		{"a date by a clock that is slow", []string{"Retry-After", start, "Date", "Fri, 31 Dec 1999 23:59:53 GMT"}, 7 * time.Second},
		{"a date far away", []string{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}, atOnce},
		{"two fields", []string{"Retry-After", "2", "Retry-After", "3"}, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(429, test.header...), stubAnswer(200))
				rt := &ampauth.RetryTransport{Base: base}
				status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
				waits := base.waits()
				switch {
				case test.floor == atOnce:
					if status != 429 || len(waits) != 0 || time.Since(base.seen()[0].at) != 0 {
						t.Errorf("status %d after the waits %v, want the 429 at once", status, waits)
					}
				case status != 200 || len(waits) != 1:
					t.Errorf("status %d after the waits %v, want 200 after one", status, waits)
				case waits[0] < test.floor || waits[0] >= test.floor+time.Second:
					t.Errorf("waited %v, want at least %v and less than 1 s more", waits[0], test.floor)
				case test.floor == backoff && waits[0] == 0:
					t.Error("no wait at all: this loops hot")
				}
			})
		})
	}
}

func TestRetryAfterOfOtherAnswersIsNoFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(500, "Retry-After", "50"), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if w := base.waits(); len(w) != 1 || w[0] >= time.Second {
			t.Errorf("waits %v, want one below 1 s", w)
		}
	})
}

func TestRetryAfterCapIsSettable(t *testing.T) {
	for _, test := range []struct {
		name   string
		cap    time.Duration
		after  string
		waited bool
	}{
		{"below", 5 * time.Second, "5", true},
		{"above", 5 * time.Second, "6", false},
		{"none", -1, "86400", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(503, "Retry-After", test.after), stubAnswer(200))
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxRetryAfter: test.cap}}
				stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if waited := base.attempts() == 2; waited != test.waited {
					t.Errorf("a Retry-After of %s s with a cap of %v: waited is %v", test.after, test.cap, waited)
				}
			})
		})
	}
}
