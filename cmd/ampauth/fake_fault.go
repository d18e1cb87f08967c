package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// faultFlags collects the values of -fault.
type faultFlags []fakeamp.Fault

// String implements flag.Value.
func (*faultFlags) String() string { return "" }

// Set implements flag.Value.
func (f *faultFlags) Set(text string) error {
	fault, wrong := parseFault(text)
	if wrong != "" {
		return errors.New(wrong)
	}
	*f = append(*f, fault)
	return nil
}

// parseFault reads a fault in the form that fakeUsage describes, or returns which part
// of it is wrong.
func parseFault(text string) (f fakeamp.Fault, wrong string) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return f, `needs a colon between ROUTE and WHAT, as in "/assets:503"`
	}
	f.Name = text
	f.Route, wrong = fakeamp.KnownRoute(text[:colon])
	if wrong != "" {
		return f, wrong
	}
	what, times, found := strings.Cut(text[colon+1:], "x")
	if found {
		if f.Times, wrong = parseTimes(times); wrong != "" {
			return f, wrong
		}
	}
	if what == "" {
		return f, "WHAT is empty: give a status, reset or delay=2s"
	}
	for part := range strings.SplitSeq(what, ",") {
		if wrong = parsePart(&f, part); wrong != "" {
			return f, wrong
		}
	}
	return f, contradiction(f)
}

func parseTimes(text string) (times int, wrong string) {
	if text == "all" {
		return -1, ""
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Sprintf("TIMES is %q; it is a number from 1, or all", text)
	}
	return int(n), ""
}

// parsePart sets what one of the WHATs asks for.
func parsePart(f *fakeamp.Fault, part string) (wrong string) {
	name, value, hasValue := strings.Cut(part, "=")
	switch {
	case part == "reset":
		f.Do = fakeamp.Reset
	case part == "after":
		f.When = fakeamp.After
	case name == "delay" && hasValue:
		delay, err := time.ParseDuration(value)
		if err != nil || delay <= 0 {
			return fmt.Sprintf("delay is %q; it is a time above zero with its unit, such as 2s", value)
		}
		f.Delay = delay
	case name == "retry-after" && hasValue:
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return fmt.Sprintf("retry-after is %q; it is whole seconds", value)
		}
		f.Header = http.Header{"Retry-After": {value}}
	default:
		status, err := strconv.Atoi(part)
		if err != nil {
			return fmt.Sprintf("WHAT is %q; it is a status, reset, delay=2s, retry-after=2 or after", part)
		}
		if status < 200 || status > 599 || status/100 == 3 {
			return fmt.Sprintf("the status is %d; it must be from 200 to 299 or from 400 to 599", status)
		}
		f.Status = status
	}
	return ""
}

// contradiction says which parts of a fault do not go together, "" if all do.
func contradiction(f fakeamp.Fault) string {
	switch {
	case f.Do == fakeamp.Reset && f.Status != 0:
		return "reset and a status exclude each other: a connection that breaks brings no answer"
	case f.Header != nil && f.Status < 400:
		return "retry-after needs a status, such as 429 or 503"
	case f.When == fakeamp.After && fakeamp.SaysNotPerformed(f.Status):
		return fmt.Sprintf("after and the status %d exclude each other: that answer says that nothing was performed", f.Status)
	case f.Status == 0 && f.Delay == 0 && f.Do == fakeamp.None:
		return "after alone changes nothing: give a status, reset or delay=2s as well"
	}
	return ""
}
