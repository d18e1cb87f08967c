// Package retryafter reads the Retry-After header field of a response.
package retryafter

import (
	"math"
	"net/http"
	"strings"
	"time"
)

// Parse returns how long the server asks to wait, and whether it said so in a
// usable form. The wait is never negative, and 0 where ok is false.
//
// Both forms of RFC 9110, section 10.2.3, are understood. A number of seconds
// is digits and nothing else; one that does not fit a [time.Duration] becomes
// the longest there is. A date, in any of the three forms of section 5.6.7, is
// measured against the response's own Date field, so that a server whose clock
// is wrong still gets the wait it meant, and against now where there is no
// usable Date. A date in the past is a wait of 0.
//
// The field should come once. Of several, the longest usable one counts: to
// be late is harmless, to be earlier than told is not.
func Parse(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	for _, value := range h.Values("Retry-After") {
		value = trim(value)
		w, usable := parseSeconds(value)
		if !usable {
			w, usable = parseDate(value, h, now)
		}
		if usable {
			wait, ok = max(wait, w), true // 0 for a past date, where w is negative
		}
	}
	return wait, ok
}

// parseSeconds does not use strconv: that takes a sign, which the grammar does
// not have, and allocates an error for every date it is shown.
func parseSeconds(value string) (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Second) // whole seconds in a Duration
	if value == "" {
		return 0, false
	}
	seconds := int64(0)
	for i := range len(value) {
		digit := value[i] - '0' // wraps around below '0'
		if digit > 9 {
			return 0, false
		}
		// Held just above most, so that no number of digits can overflow it.
		seconds = min(seconds*10+int64(digit), most+1)
	}
	if seconds > most {
		return math.MaxInt64, true
	}
	return time.Duration(seconds) * time.Second, true
}

// parseDate returns a negative duration for a date in the past.
func parseDate(value string, h http.Header, now time.Time) (time.Duration, bool) {
	until, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(trim(h.Get("Date"))); err == nil {
		now = sent
	}
	return until.Sub(now), true // Sub saturates by itself
}

// trim removes optional whitespace as RFC 9110, section 5.6.3, defines it.
// net/http does so for what came over the wire, not for what a test or another
// RoundTripper put into the header.
func trim(value string) string { return strings.Trim(value, " \t") }
