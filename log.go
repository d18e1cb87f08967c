package ampauth

import (
	"net/http"
	"net/url"
	"strconv"
)

// logged are the attributes of a log record about a call: where it went and how it ended,
// by the names of OpenTelemetry where it has one. status is 0 without an answer, and err
// nil where that is no error.
func logged(method string, u *url.URL, outcome Outcome, status int, err error) []any {
	attributes := []any{"http.request.method", method, "server.address", u.Hostname()}
	if port, err := strconv.Atoi(u.Port()); err == nil {
		attributes = append(attributes, "server.port", port)
	}
	attributes = append(attributes, "url.path", u.EscapedPath(), "outcome", outcome.String())
	if status != 0 {
		attributes = append(attributes, "http.response.status_code", status)
	}
	switch ours, ok := err.(*Error); {
	case ok:
		attributes = append(attributes, "error.type", ours.ErrorType(), "error", ours.Error())
	case err != nil:
		kind := ErrRequestFailed
		if timedOut(err) {
			kind = ErrTimeout
		}
		attributes = append(attributes, "error.type", (&Error{Kind: kind}).ErrorType(), "error", causeText(err))
	case status >= http.StatusBadRequest:
		attributes = append(attributes, "error.type", strconv.Itoa(status))
	}
	return attributes
}
