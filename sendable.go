package ampauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// sendable returns why net/http would never send req, in words that show no value; nil
// if it would try. What it does with a scheme other than http and https depends on
// what is registered there.
func sendable(req *http.Request) error {
	switch {
	case req.URL == nil || req.Header == nil:
		return errors.New("the request has no URL or no header map")
	case !speaksHTTP(req.URL):
		return nil
	case req.URL.Host == "":
		return errors.New("the request's URL has no host")
	case req.Method != "" && !isWord(req.Method):
		return errors.New("the request's method is not one (RFC 9110 5.6.2)")
	case req.Body == nil && req.ContentLength != 0:
		return errors.New("the request has a ContentLength and no Body")
	case hasControl(req.URL.RawQuery) || hasControl(req.URL.Opaque):
		return errors.New("the request's URL holds a control character")
	}
	if err := sendableFields("header", req.Header); err != nil {
		return err
	}
	return sendableFields("trailer", req.Trailer)
}

func speaksHTTP(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "http" }

func sendableFields(of string, h http.Header) error {
	for name, values := range h {
		if !isWord(name) {
			return fmt.Errorf("the name of a %s field is not one (RFC 9110 5.1)", of)
		}
		for _, v := range values {
			if hasControl(v) && strings.IndexFunc(v, isControl) >= 0 {
				return fmt.Errorf("the value of the %s field %s holds a line break or another control character (RFC 9110 5.5)", of, name)
			}
		}
	}
	return nil
}

// isControl reports whether no field value can hold r.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

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
