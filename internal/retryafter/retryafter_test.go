package retryafter

import (
	"math"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

const longest = time.Duration(math.MaxInt64)

// now is the instant of RFC 9110's examples: Sun, 06 Nov 1994 08:49:37 GMT.
var now = time.Date(1994, time.November, 6, 8, 49, 37, 0, time.UTC)

func TestParseSeconds(t *testing.T) {
	tests := []struct {
		name  string
		value string
		want  time.Duration
		ok    bool
	}{
		{"zero", "0", 0, true},
		{"one", "1", time.Second, true},
		{"minutes", "120", 2 * time.Minute, true},
		{"leading zeros", "007", 7 * time.Second, true},
		{"spaces around", " 2 ", 2 * time.Second, true},
		{"tabs around", "\t2\t", 2 * time.Second, true},
		{"the most that fits", "9223372036", 9223372036 * time.Second, true},
		{"one more than fits", "9223372037", longest, true},
		{"2 to the 63", "9223372036854775808", longest, true},
		{"2 to the 64", "18446744073709551616", longest, true},
		{"twenty nines", strings.Repeat("9", 20), longest, true},
		{"a thousand nines", strings.Repeat("9", 1000), longest, true},
		{"a thousand zeros", strings.Repeat("0", 1000), 0, true},

		{"empty", "", 0, false},
		{"only spaces", "  ", 0, false},
		{"fraction", "1.5", 0, false},
		{"negative", "-5", 0, false},
		{"plus sign", "+3", 0, false},
		{"hexadecimal", "0x10", 0, false},
		{"exponent", "1e3", 0, false},
		{"underscore", "1_000", 0, false},
		{"unit", "5s", 0, false},
		{"space within", "1 2", 0, false},
		{"list", "5, 10", 0, false},
		{"letter after a number that saturates", strings.Repeat("9", 20) + "x", 0, false},
		{"digits of another script", "٣", 0, false},
		{"no-break space", "\u00a02", 0, false},
		{"new line", "2\n", 0, false},
		{"word", "soon", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, http.Header{"Retry-After": {tt.value}}, tt.want, tt.ok)
		})
	}
}

func TestParseDate(t *testing.T) {
	const serverAhead = "Sun, 06 Nov 1994 09:49:37 GMT" // an hour after now
	tests := []struct {
		name  string
		value string
		date  string // of the response; none if empty
		want  time.Duration
		ok    bool
	}{
		{"IMF-fixdate", "Sun, 06 Nov 1994 08:49:47 GMT", "", 10 * time.Second, true},
		{"RFC 850", "Sunday, 06-Nov-94 08:49:47 GMT", "", 10 * time.Second, true},
		{"asctime", "Sun Nov  6 08:49:47 1994", "", 10 * time.Second, true},
		{"spaces around", " Sun, 06 Nov 1994 08:49:47 GMT ", "", 10 * time.Second, true},
		{"now", "Sun, 06 Nov 1994 08:49:37 GMT", "", 0, true},
		{"past", "Sun, 06 Nov 1994 08:49:36 GMT", "", 0, true},
		{"further away than a Duration reaches", "Fri, 31 Dec 9999 23:59:59 GMT", "", longest, true},

		{"server's clock ahead", "Sun, 06 Nov 1994 09:49:47 GMT", serverAhead, 10 * time.Second, true},
		{"server's clock behind", "Sun, 06 Nov 1994 07:49:47 GMT", "Sun, 06 Nov 1994 07:49:37 GMT", 10 * time.Second, true},
		{"past by the server's clock only", "Sun, 06 Nov 1994 08:49:47 GMT", serverAhead, 0, true},
		{"Date in another form", "Sun, 06 Nov 1994 09:49:47 GMT", " Sunday, 06-Nov-94 09:49:37 GMT ", 10 * time.Second, true},
		{"Date unusable", "Sun, 06 Nov 1994 08:49:47 GMT", "yesterday", 10 * time.Second, true},
		{"seconds need no Date", "10", serverAhead, 10 * time.Second, true},

		{"no zone", "Sun, 06 Nov 1994 08:49:47", "", 0, false},
		{"RFC 3339", "1994-11-06T08:49:47Z", "", 0, false},
		{"no such day", "Sun, 31 Nov 1994 08:49:47 GMT", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"Retry-After": {tt.value}}
			if tt.date != "" {
				h.Set("Date", tt.date)
			}
			check(t, h, tt.want, tt.ok)
		})
	}
}

func TestParseTakesTheLongestOfSeveral(t *testing.T) {
	const inTenSeconds = "Sun, 06 Nov 1994 08:49:47 GMT"
	tests := []struct {
		name   string
		values []string
		want   time.Duration
		ok     bool
	}{
		{"none", nil, 0, false},
		{"longest first", []string{"7", "3"}, 7 * time.Second, true},
		{"longest last", []string{"3", "7"}, 7 * time.Second, true},
		{"seconds and a date", []string{"3", inTenSeconds}, 10 * time.Second, true},
		{"unusable first", []string{"soon", "3"}, 3 * time.Second, true},
		{"unusable last", []string{"3", "-5"}, 3 * time.Second, true},
		{"zero and unusable", []string{"0", ""}, 0, true},
		{"all unusable", []string{"soon", "1.5"}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, http.Header{"Retry-After": tt.values}, tt.want, tt.ok)
		})
	}
}

func TestParseOfNoHeader(t *testing.T) {
	check(t, nil, 0, false)
	check(t, http.Header{}, 0, false)
}

func TestParseSecondsAllocatesNothing(t *testing.T) {
	h := http.Header{"Retry-After": {" 120 "}}
	if n := testing.AllocsPerRun(1000, func() { Parse(h, now) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func check(t *testing.T, h http.Header, want time.Duration, ok bool) {
	t.Helper()
	if got, gotOK := Parse(h, now); got != want || gotOK != ok {
		t.Errorf("Parse(%v) = %v, %v; want %v, %v", h, got, gotOK, want, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, value, second, date string) {
		parse := func(values ...string) (time.Duration, bool) {
			wait, ok := Parse(http.Header{"Retry-After": values, "Date": {date}}, now)
			if wait < 0 || !ok && wait != 0 {
				t.Fatalf("%q, Date %q: %v, %v", values, date, wait, ok)
			}
			return wait, ok
		}
		wait, ok := parse(value)

		if digits := strings.Trim(value, " \t"); digits != "" && strings.Trim(digits, "0123456789") == "" {
			if want := seconds(t, digits); !ok || wait != want {
				t.Errorf("%q: %v, %v; want %v, true", value, wait, ok, want)
			}
			if more, ok := parse(digits + "0"); !ok || more < wait {
				t.Errorf("%q and a zero: %v, %v; want no less than %v", value, more, ok, wait)
			}
		}

		// Another field must not make anybody come earlier.
		other, otherOK := parse(second)
		if both, bothOK := parse(value, second); both != max(wait, other) || bothOK != (ok || otherOK) {
			t.Errorf("%q and %q: %v, %v; alone %v, %v and %v, %v", value, second, both, bothOK, wait, ok, other, otherOK)
		}
	})
}

// seconds is parseSeconds without a limit to think of.
func seconds(t *testing.T, digits string) time.Duration {
	t.Helper()
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		t.Fatalf("not a number: %q", digits)
	}
	n.Mul(n, big.NewInt(int64(time.Second)))
	if !n.IsInt64() {
		return longest
	}
	return time.Duration(n.Int64())
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct{ name, value string }{
		{"seconds", "120"},
		{"date", "Sun, 06 Nov 1994 08:49:47 GMT"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			h := http.Header{"Retry-After": {bb.value}}
			b.ReportAllocs()
			for b.Loop() {
				Parse(h, now)
			}
		})
	}
}
