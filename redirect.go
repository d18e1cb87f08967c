package ampauth

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/amproutes"
)

const maxRedirects = 10

var (
	errTooManyRedirects = errors.New("stopped after 10 redirects")
	errNotFollowed      = errors.New("a redirect that is not followed, so that nothing was sent there: give the http.Client ampauth.CheckRedirect to get the answer itself")
)

// CheckRedirect is for the field of that name in an http.Client over a [RetryTransport].
// It has at most 10 redirects in a row followed. The caller gets the redirect itself, and
// nothing more is sent, where it answers a mutation (307 and 308 too: http.Client would
// perform the mutation again for each), where it would change the method (http.Client
// follows a 301, 302 or 303 to a PUT by a GET, whose success then looks like that of the
// PUT), and where it would lead a read to a mutation.
//
// What a request is, the Classify of the RetryTransport says ([ClassifyAMP] while
// http.Client has a Timeout of its own, which hides the other). What [WithOperation] says
// counts for the first request alone.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	var classify func(*http.Request) Operation
	if former := redirectOf(req); former != nil {
		classify = former.classify
	}
	return checkRedirect(classify, nil, req, via)
}

// checkRedirect is CheckRedirect for another Classify. What may be followed at all is
// for next to decide, if it is given.
func checkRedirect(classify func(*http.Request) Operation, next func(*http.Request, []*http.Request) error, req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > 0 && !mayFollow(classify, via[len(via)-1], req):
		return http.ErrUseLastResponse
	case next != nil:
		return next(req, via)
	case len(via) > maxRedirects: // via holds the first request as well
		return notFollowed(req, errTooManyRedirects)
	}
	return nil
}

func notFollowed(req *http.Request, why error) *Error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: Answered, Err: why}
	if req.Response != nil {
		e.StatusCode = req.Response.StatusCode
	}
	return e
}

// mayFollow reports whether the answer to one request may lead to another.
func mayFollow(classify func(*http.Request) Operation, from, to *http.Request) bool {
	if from.URL == nil || to.URL == nil || methodOf(from) != methodOf(to) {
		return false
	}
	if *from.URL != (url.URL{}) && operationOf(classify, from) == MutatingOperation { // without a URL it was never sent
		return false
	}
	if classify != nil {
		return operationOf(classify, to) != MutatingOperation
	}
	return !amproutes.Mutates(methodOf(to), to.URL)
}

// refuseRedirect is for a stack whose http.Client does not ask CheckRedirect: it is an
// error if req follows from a redirect that should not be followed.
func refuseRedirect(classify func(*http.Request) Operation, req *http.Request) error {
	if !isHop(req) {
		return nil
	}
	from := req.Response.Request
	if body := redirectOf(req); from == nil && body != nil { // a layer above has made the response anew
		from = body.from
	}
	if from == nil && !isRead(req) || from != nil && !mayFollow(classify, from, req) {
		return notFollowed(req, errNotFollowed)
	}
	return nil
}

func isRead(req *http.Request) bool {
	return methodOf(req) == http.MethodGet || methodOf(req) == http.MethodHead
}

// isHop reports whether http.Client sends req because a redirect led to it. One that
// was sent so before, and is sent again by its caller, is a request of its own.
func isHop(req *http.Request) bool {
	if req.Response == nil {
		return false
	}
	body := redirectOf(req)
	return body == nil || !body.followed.Load()
}

// followedBelow returns the first redirect that a layer below has followed by itself to
// get resp as the answer to req, or nil.
func followedBelow(resp *http.Response, req *http.Request) *http.Response {
	var first *http.Response
	for at := resp.Request; at != nil && at.Response != nil && at.Response != req.Response; at = at.Response.Request {
		first = at.Response
	}
	return first
}

var errFollowsRedirects = errors.New("a layer below follows redirects by itself, which takes a request where it must not go: have it return them, as CheckRedirect does with http.ErrUseLastResponse")

// A redirectBody is the body of a redirect. http.Client gives it to the request that
// follows, within Request.Response, so that this one learns what it is a part of.
type redirectBody struct {
	io.ReadCloser
	from     *http.Request
	classify func(*http.Request) Operation
	deadline time.Time
	witness  *witness    // that saw it, if it answers a read
	followed atomic.Bool // by a request that it may lead to
}

func redirectOf(req *http.Request) *redirectBody {
	if req.Response == nil {
		return nil
	}
	body, _ := req.Response.Body.(*redirectBody)
	return body
}

// noteRedirect has a redirect, the answer to c, tell what it is a part of.
func noteRedirect(resp *http.Response, c *call) {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.Header.Get("Location") != "" {
		body := &redirectBody{ReadCloser: resp.Body, from: c.req, classify: c.t.Classify, deadline: c.deadline}
		if c.operation == SafeOperation {
			body.witness = witnessOf(c.ctx)
		}
		resp.Body = body
	}
}
