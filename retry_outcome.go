package ampauth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/replay"
	"github.com/ampauth/ampauth/internal/retryafter"
	"github.com/ampauth/ampauth/internal/sendable"
	"github.com/ampauth/ampauth/internal/viaproxy"
)

var errNoResponse = errors.New("the transport below returned neither a response nor an error")

// A result is how an attempt ended: in a response or an error.
type result struct {
	attempt    *attempt
	resp       *http.Response
	err        error
	outcome    Outcome
	unsent     *atmostonce.UnsentError // the proof that nothing left, or nil
	refusal    *tokenReport            // of the token, by the API; nil if there was none
	timedOut   bool                    // by the attempt's own clock
	final      bool                    // an error that no repetition changes
	retryAfter time.Duration           // 0 if the response has none
	several    bool                    // resp may be to the last of several tries, by what was heard of them
	kept       bool                    // resp is kept until another attempt is admitted
	ahead      *replay.Ahead           // the body of resp if it is kept and was not read whole
}

func (r *result) status() int {
	if r.resp == nil {
		return 0
	}
	return r.resp.StatusCode
}

// findOutcome finds out how far the attempt got.
func (c *call) findOutcome(r *result) {
	a, resp, err := r.attempt, r.resp, r.err
	a.state.Or(stateDecided) // before anything is counted
	switch {
	case err != nil && resp != nil && resp.Body != nil:
		_ = resp.Body.Close()
		fallthrough
	case err != nil:
		r.resp = nil
	case resp == nil:
		r.err, r.final = errNoResponse, true
		return
	default:
		if resp.Body == nil {
			resp.Body = http.NoBody
		}
		if former := followedBelow(resp, c.req); former != nil && (a.mutates || a.is(stateLogin)) {
			// It is the answer to something else.
			_ = resp.Body.Close()
			r.err = &Error{Op: "request", Kind: ErrRequestFailed, Outcome: Answered, StatusCode: former.StatusCode, Attempts: c.number, Err: errFollowsRedirects, repeat: never}
			r.resp, r.outcome, r.final = nil, Answered, true
			return
		}
		a.checkAnswer(resp)
		r.outcome = statusOutcome(resp, c.expects)
		// The report could be of an earlier try, by a layer between that tries again.
		if code := resp.StatusCode; code == http.StatusUnauthorized || code == http.StatusForbidden {
			if r.refusal = a.refusal(); r.refusal != nil {
				r.outcome = Rejected
			}
		}
		if a.traced && !a.answeredOnce(resp) {
			r.several = a.is(stateUntraced) || a.trace() != nil || a.hadTries()
			if a.mutates {
				r.outcome = Answered // it may be to the last of several tries
			}
		}
		c.noteRetryAfter(r)
		return
	}
	begun := c.begun()
	inner, ours := errors.AsType[*Error](err)
	switch none := a.tokenless(); {
	case none != nil, ours && inner.Outcome == NotSent:
		// What could be done about it was done below. It proves nothing of other tries.
		r.final = true
		if !a.connected() && (!begun || wraps(err, none) && !a.is(stateSent)) {
			r.outcome = NotSent
		}
		return
	case errors.Is(err, errNoResponse): // from an AuthTransport below
		r.err, r.final = errNoResponse, true
		return
	case !begun && sendable.UnknownScheme(c.req, err):
		r.outcome, r.final = NotSent, true
		return
	}
	below := err
	if covered, ok := err.(*cleaned); ok {
		below = covered.err() // by the AuthTransport below
	}
	if r.unsent = a.unsent(below); r.unsent != nil {
		r.outcome = NotSent
		if err == error(r.unsent) {
			r.err = r.unsent.Err
		}
	} else {
		r.outcome = a.errorOutcome(below, begun, c.unread())
	}
	r.timedOut = a.timedOut() && c.ctx.Err() == nil
	r.final = final(err)
}

// repeatable is the table of outcome and operation: whether it can be sent again at all.
func (c *call) repeatable(r *result) bool {
	switch {
	case r.final:
		return false
	case r.outcome == NotSent, r.outcome == Unprocessed, r.outcome == Rejected:
		return true
	case c.operation == MutatingOperation:
		return false
	case r.outcome == Ambiguous:
		return true
	}
	return transientStatus(r.resp.StatusCode)
}

// ended is how far the call got, for a witness. What an answer says of its attempt, it says
// of the call only if no other try, of a call that changes something, is in doubt.
func (c *call) ended(resp *http.Response, err error) callEnd {
	end := callEnd{outcome: c.last.outcome, status: c.last.status(), retryAfter: c.last.retryAfter}
	if err != nil {
		end = callEnd{err: err}
		if e, ok := errors.AsType[*Error](err); ok {
			end = callEnd{e.Outcome, e.StatusCode, e.RetryAfter, err}
		}
	}
	if c.operation != SafeOperation && (c.earlier == Ambiguous || resp != nil && c.last.several) {
		end.outcome = Ambiguous
	}
	return end
}

// reason is why it is sent again.
func (r *result) reason() retryReason {
	switch {
	case r.outcome == NotSent:
		return reasonNotSent
	case r.outcome == Unprocessed:
		return reasonUnprocessed
	case r.outcome == Rejected:
		return reasonRateLimited
	case r.outcome == Answered:
		return reasonServerError
	case r.timedOut:
		return reasonTimeout
	}
	return reasonBroken
}

// waitsAsTold reports whether the server turned the request away and said when to come
// back, so that a retry, which waits until then, is none that it has not asked for.
func (r *result) waitsAsTold() bool {
	return r.status() == http.StatusTooManyRequests && r.retryAfter > 0
}

// noteRetryAfter reads a Retry-After and shuts the gate if it is to be honoured.
func (c *call) noteRetryAfter(r *result) {
	code := r.resp.StatusCode
	if code != http.StatusTooManyRequests && code != http.StatusServiceUnavailable {
		return
	}
	d, ok := retryafter.Parse(r.resp.Header, time.Now())
	if !ok || d <= 0 {
		return
	}
	r.retryAfter = d
	if !c.config.tooLong(d) {
		c.t.gates.Hold(c.req.URL, d, code == http.StatusServiceUnavailable)
	}
}

// statusOutcome is the outcome that an answer shows by its status.
func statusOutcome(resp *http.Response, expects func() bool) Outcome {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return Rejected
	case http.StatusMisdirectedRequest, http.StatusTooEarly:
		return Unprocessed
	case http.StatusExpectationFailed:
		if expects() {
			return Unprocessed
		}
	}
	return Answered
}

// transientStatus reports whether an answer says that the same request may succeed a
// moment later: 408 and any 5xx, but those that say what the server, or the network,
// does not do at all.
func transientStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusNetworkAuthenticationRequired:
		return false
	}
	return code/100 == 5
}

// errorOutcome is the outcome of an attempt that ended in err. The type of the error
// tells only of an operation that can be repeated in any case. Of another it takes
// proof: a layer below may have tried more than once, and shows the last error alone.
// begun says that somebody began to read the request's body, or may have; unread that
// it has one, which nobody did, so that the whole of it cannot have been sent.
func (a *attempt) errorOutcome(err error, begun, unread bool) Outcome {
	trace := a.trace()
	switch {
	case !a.traced:
		if refusedStream(err) {
			return Unprocessed
		}
		if neverConnected(err) {
			return NotSent
		}
	case trace == nil: // nobody below asked for it
		if unread && neverConnected(err) {
			return NotSent
		}
	case trace.HadOne() && refusedStream(err):
		return Unprocessed
	case trace.Unsent(err, begun):
		return NotSent
	case unread && trace.Waiting() && a.caller.ContentLength > 0:
		return NotSent // of an unknown length the header may go ahead of the body
	}
	return Ambiguous
}

// begun reports whether somebody below began to read the request's body, or may have.
func (c *call) begun() bool {
	if c.sent == nil {
		return c.operation == IdempotentOperation // which has none to watch
	}
	return c.sent.Begun()
}

// unread reports whether the request has a body that nobody began to read. With an
// Expect field the header goes ahead.
func (c *call) unread() bool {
	return c.sent != nil && !c.sent.Begun() && replay.HasBody(c.req) && !c.expects()
}

// neverConnected reports whether err is of a type that only the making of a
// connection yields.
func neverConnected(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*viaproxy.Refusal](err); ok {
		return true
	}
	return untrusted(err) // not tls.RecordHeaderError, which can come at any time
}

// shutOut reports whether a proxy on the way refuses to connect, in a way that no repetition
// changes.
func shutOut(err error) bool {
	refusal, ok := errors.AsType[*viaproxy.Refusal](err)
	if !ok || refusal.StatusCode/100 != 4 {
		return false
	}
	switch refusal.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return true
}

// untrusted reports whether the server's certificate was not accepted, which no
// repetition changes.
func untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

// streamError has the shape of the HTTP/2 stream error of net/http and of
// golang.org/x/net/http2; both let errors.As fill any such struct.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "http2 stream error" }

func refusedStream(err error) bool {
	const refused = 0x7 // RFC 9113 7, REFUSED_STREAM
	e, ok := errors.AsType[streamError](err)
	return ok && e.Code == refused
}

// final reports whether no repetition changes err, or none may be tried.
func final(err error) bool {
	return errors.Is(err, ErrAmbiguous) || hopeless(err) || anyOf(err, func(err error) (found, deeper bool) {
		e, ours := err.(*Error)
		return ours && e.repeat == never, !ours
	})
}

// hopeless reports whether no repetition changes err, whatever was done before it.
func hopeless(err error) bool {
	for _, kind := range []error{ErrConfig, ErrClosed, ErrObtainFailed, ErrRefreshFailed} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return untrusted(err) || shutOut(err)
}
