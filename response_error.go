package ampauth

import (
	"errors"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/retryafter"
)

// ResponseError is the error that an answer stands for: nil for a 2xx, otherwise an *Error
// with its status. It is for those who hold a response, as in the Send of a [Mutation] or
// in what [Retry] calls; it neither reads nor closes the body.
//
// A 408 or 5xx to a mutation Is [ErrAmbiguous]: a gateway may have passed it on before it
// answered, and a server may have failed behind the deed. Otherwise the error's Outcome is
// Unprocessed for 421 and 425, Rejected for 429, which Is [ErrRateLimited], and else
// Answered. The Retry-After of a 429 or 503 is in RetryAfter.
//
// What the request is, its context says ([WithOperation]), or else [ClassifyAMP]. A
// response without a Request answers a mutation.
func ResponseError(resp *http.Response) error {
	if resp == nil {
		return &Error{Op: "request", Kind: ErrAmbiguous, Err: errors.New("there is no response")}
	}
	code := resp.StatusCode
	if code/100 == 2 {
		return nil
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, StatusCode: code}
	e.Outcome = statusOutcome(resp, func() bool { return false })
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		e.RetryAfter, _ = retryafter.Parse(resp.Header, time.Now())
	}
	switch {
	case code == http.StatusTooManyRequests:
		e.Kind = ErrRateLimited
	case (code == http.StatusRequestTimeout || code/100 == 5) && mutates(resp.Request):
		e.Kind, e.Outcome = ErrAmbiguous, Ambiguous
	}
	return e
}

// mutates reports whether req is a mutation, as one is of which nothing is known.
func mutates(req *http.Request) bool {
	return req == nil || req.URL == nil || operationOf(nil, req) == MutatingOperation
}
