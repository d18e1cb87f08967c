// Package sendable knows what net/http turns away before it sends anything.
package sendable

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Check returns why net/http would never send req, in words that show no value; nil if
// it would try. What it does with a scheme other than http and https depends on what is
// registered there. The same look at the header gives its Facts.
func Check(req *http.Request) (Facts, error) {
	switch u := req.URL; {
	case u == nil || req.Header == nil:
		return 0, errors.New("the request has no URL or no header map")
	case !speaksHTTP(u):
		return FactsOf(req.Header), nil
	case u.Host == "":
		return 0, errors.New("the request's URL has no host")
	case req.Method != "" && !IsWord(req.Method):
		return 0, errors.New("the request's method is not one (RFC 9110 5.6.2)")
	case req.Body == nil && req.ContentLength != 0:
		return 0, errors.New("the request has a ContentLength and no Body")
	case hasControl(u.RawQuery), hasControl(u.Opaque), strings.Contains(u.RawQuery, "\t"), strings.Contains(u.Opaque, "\t"):
		return 0, errors.New("the request's URL holds a control character")
	}
	if len(req.Trailer) > 0 {
		if _, err := checkHeader("trailer", req.Trailer); err != nil {
			return 0, err
		}
		for name := range req.Trailer {
			switch http.CanonicalHeaderKey(name) {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return 0, fmt.Errorf("the trailer field %s is not one that may come there (RFC 9110 6.5.1)", name)
			}
		}
	}
	return checkHeader("header", req.Header)
}

// Facts are flags of what one look at a header shows; to go through a map takes its time.
type Facts uint8

const (
	Authorization Facts = 1 << iota // there is such a field, however it is spelt
	Spare                           // a field has room behind its values, into which an append would write
)

func (f *Facts) add(name string, values []string) {
	if IsAuthorization(name) {
		*f |= Authorization
	}
	if len(values) < cap(values) {
		*f |= Spare
	}
}

// FactsOf looks at a header alone.
func FactsOf(h http.Header) (facts Facts) {
	for name, values := range h {
		facts.add(name, values)
	}
	return facts
}

// checkHeader looks at a header, or trailer, and returns what net/http would turn away.
func checkHeader(what string, h http.Header) (facts Facts, err error) {
	for name, values := range h {
		if !IsWord(name) {
			return facts, fmt.Errorf("the name of a %s field is not one (RFC 9110 5.1)", what)
		}
		if slices.ContainsFunc(values, hasControl) {
			return facts, fmt.Errorf("the value of the %s field %s holds a line break or another control character (RFC 9110 5.5)", what, name)
		}
		facts.add(name, values)
	}
	return facts, nil
}

// IsAuthorization reports whether a field of this name is Authorization, however it is
// spelt.
func IsAuthorization(name string) bool {
	const authorization = "Authorization"
	return len(name) == len(authorization) && strings.EqualFold(name, authorization)
}

// IsWord reports whether s is a token of RFC 9110 5.6.2, such as a method.
func IsWord(s string) bool { return s != "" && kindsOf(s)&notInWord == 0 }

func speaksHTTP(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "http" }

func hasControl(s string) bool { return kindsOf(s)&control != 0 }

// The kinds of bytes that a request cannot have everywhere.
const (
	notInWord = 1 << iota // no byte of a token of RFC 9110 5.6.2
	control               // a control character other than a tab
)

// kindsOf returns which of them there are in s. It is for each field of each request, so
// it looks each byte up and does not branch.
func kindsOf(s string) (kinds uint8) {
	for i := range len(s) {
		kinds |= kindOf[s[i]]
	}
	return kinds
}

var kindOf = func() (of [256]uint8) {
	for c := range of {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, byte(c)) >= 0 {
			of[c] |= notInWord
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			of[c] |= control
		}
	}
	return of
}()

// UnknownScheme reports whether err is what net/http says when nothing is registered
// for the request's scheme. Its error has no type, so it is asked for the words.
func UnknownScheme(req *http.Request, err error) bool {
	if speaksHTTP(req.URL) {
		return false
	}
	nowhere := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: req.URL.Scheme, Host: "nowhere.invalid"}, Header: make(http.Header)}
	_, refusal := new(http.Transport).RoundTrip(nowhere)
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == refusal.Error() {
			return true
		}
	}
	return false
}
