package ampauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// sendable returns why net/http would never send req, in words that show no value; nil
// if it would try. What it does with a scheme other than http and https depends on
// what is registered there. And it returns what else there is to know of the header.
func sendable(req *http.Request) (headerFacts, error) {
	switch u := req.URL; {
	case u == nil || req.Header == nil:
		return headerFacts{}, errors.New("the request has no URL or no header map")
	case !speaksHTTP(u):
		return factsOf(req.Header), nil
	case u.Host == "":
		return headerFacts{}, errors.New("the request's URL has no host")
	case req.Method != "" && !isWord(req.Method):
		return headerFacts{}, errors.New("the request's method is not one (RFC 9110 5.6.2)")
	case req.Body == nil && req.ContentLength > 0:
		return headerFacts{}, errors.New("the request has a ContentLength and no Body")
	case hasControl(u.RawQuery), hasControl(u.Opaque), strings.Contains(u.RawQuery, "\t"), strings.Contains(u.Opaque, "\t"):
		return headerFacts{}, errors.New("the request's URL holds a control character")
	}
	if len(req.Trailer) > 0 {
		if _, err := readHeader("trailer", req.Trailer); err != nil {
			return headerFacts{}, err
		}
		for name := range req.Trailer {
			switch http.CanonicalHeaderKey(name) {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return headerFacts{}, fmt.Errorf("the trailer field %s is not one that may come there (RFC 9110 6.5.1)", name)
			}
		}
	}
	return readHeader("header", req.Header)
}

// headerFacts are what one look at a header shows; to go through a map takes its time.
type headerFacts struct {
	authorization bool // there is such a field, however it is spelt
	spare         bool // a field has room behind its values, into which an append would write
}

func (f *headerFacts) add(name string, values []string) {
	f.authorization = f.authorization || isAuthorization(name)
	f.spare = f.spare || len(values) < cap(values)
}

func factsOf(h http.Header) (facts headerFacts) {
	for name, values := range h {
		facts.add(name, values)
	}
	return facts
}

// readHeader looks at a header, or trailer, and returns what net/http would turn away.
func readHeader(what string, h http.Header) (facts headerFacts, err error) {
	for name, values := range h {
		if !isWord(name) {
			return facts, fmt.Errorf("the name of a %s field is not one (RFC 9110 5.1)", what)
		}
		if slices.ContainsFunc(values, hasControl) {
			return facts, fmt.Errorf("the value of the %s field %s holds a line break or another control character (RFC 9110 5.5)", what, name)
		}
		facts.add(name, values)
	}
	return facts, nil
}

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

// unknownScheme reports whether err is what net/http says when nothing is registered
// for the request's scheme. Its error has no type, so it is asked for the words.
func unknownScheme(req *http.Request, err error) bool {
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
