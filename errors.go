package ampauth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The kinds of failure. Every error of this package is an [*Error] of one of these
// kinds, or several of them joined for a faulty configuration. It also Is what caused
// it, which may be an error of another kind: ask in this order.
//
//	errors.Is(err, ErrAmbiguous)          // a mutation may have been performed: find out by reading
//	errors.Is(err, ErrCredentialsRefused) // user name and password are wrong
//	errors.Is(err, ErrObtainFailed)       // no token: the request was not sent
//	errors.Is(err, ErrClosed)             // the client was closed
//	errors.Is(err, context.Canceled)      // the caller left
//	errors.Is(err, ErrTimeout)            // time ran out; Outcome says how far it got
//	errors.Is(err, ErrRateLimited)        // the limiter failed, or a wait would outlast the deadline
//
// An http.Client returns them within a *url.Error. One with a Timeout that [NewClient] did
// not make may replace the error of a read by a text of its own; that of a mutation stays.
var (
	// ErrAmbiguous is met when a mutation was cut off: bytes of it may have left and no
	// answer came. Do not send it again; find out by reading whether it was performed, as
	// [Once] does. An answer of 408 or 5xx to a mutation is no error of a RetryTransport's,
	// and leaves that just as open; [ResponseError] makes an ErrAmbiguous of it.
	ErrAmbiguous = errors.New("ampauth: outcome unknown")

	// ErrObtainFailed is met when there is no token for a request, which was then not
	// sent: the login failed, is paused after a failure, or was not waited for.
	ErrObtainFailed = errors.New("ampauth: token obtain failed")

	// ErrCredentialsRefused is no kind but a cause, of an error whose Kind is
	// ErrObtainFailed: the API does not take user name and password. Another try will
	// not help until they are changed there, or here by [TokenManager.SetCredentials].
	ErrCredentialsRefused = errors.New("ampauth: the credentials were refused")

	// ErrRefreshFailed is met in the chain of an ErrObtainFailed, where the login behind
	// a refresh failed as well, and in the log.
	ErrRefreshFailed = errors.New("ampauth: token refresh failed")

	// ErrRequestFailed is met when all attempts ended in errors, when the answer broke
	// off, and when the caller cancelled its context.
	ErrRequestFailed = errors.New("ampauth: request failed")

	// ErrTimeout is met when the time of the last attempt, of the caller's context, or
	// of the http.Client ran out. A mutation's ErrAmbiguous Is ErrTimeout as well then.
	ErrTimeout = errors.New("ampauth: request timeout")

	// ErrRateLimited is met when a Retry-After would hold the request back beyond the
	// deadline of its context, and when the [Limiter] does not let it pass: for the same reason,
	// which then Is context.DeadlineExceeded, or for one of its own, which is in the chain.
	// [Retry] passes on that of its function. [ResponseError] returns it for a 429.
	ErrRateLimited = errors.New("ampauth: rate limited")

	// ErrSerialization is met in the chain of an ErrObtainFailed: the answer to a login
	// holds no token.
	ErrSerialization = errors.New("ampauth: serialization error")

	// ErrConfig is met at once: from NewClient, NewTokenManager and what reads the
	// environment, and at the first request of a layer that is a struct with a fault.
	ErrConfig = errors.New("ampauth: configuration")

	// ErrClosed is met after Close.
	ErrClosed = errors.New("ampauth: closed")

	// ErrStore is met from [TokenManager.Clear] and from a store that is used directly. A
	// request goes on without its store.
	ErrStore = errors.New("ampauth: token store")

	// ErrDestroyed is what a [Secret] returns after Destroy.
	ErrDestroyed = errors.New("ampauth: secret was destroyed")
)

// An Error says what failed, how far it got, and after how many attempts.
//
// Its text carries no query, header, body, token or password. (An http.Client
// wraps it in a *url.Error, whose text does carry the URL.)
type Error struct {
	Op         string        // "config", "obtain", "refresh", "request" or "store"
	Kind       error         // one of the sentinels of this package; errors.Is(err, Kind) holds
	Outcome    Outcome       // how far the request got; see Outcome
	StatusCode int           // HTTP status of the last answer, 0 if there was none
	Attempts   int           // attempts made, 0 if none was
	RetryAfter time.Duration // how long the server, or this package, asks to wait; 0 if unknown
	Limit      time.Duration // the timeout that ran out, 0 if none did
	Err        error         // cause, may be nil

	repeat   repeat
	where    string // the login or refresh that failed: POST /user/obtain_token at amp.example
	withheld bool   // the request that the token was for was not sent
	absent   bool   // reading has shown that it was not performed
}

// A repeat is what Retry may do about an error, where the fields do not tell.
type repeat int8

const (
	byFields repeat = iota
	never           // a mutation was answered, or nothing could ever be sent
	always          // the answer of a read broke off
)

// Error implements error.
func (e *Error) Error() string {
	return strings.Join(slices.Concat([]string{prefix + e.text(false)}, e.advice()), "; ")
}

const prefix = "ampauth: "

// text is the message without the prefix, so that a chain carries it once. As the cause of
// another error it leaves out that a request failed, if it says more.
func (e *Error) text(isCause bool) string {
	details := e.details()
	if isCause && e.Kind == ErrRequestFailed && e.Attempts == 0 && details != "" {
		return details
	}
	return strings.TrimSuffix(e.heading()+": "+details, ": ")
}

// details is the message behind the heading. What its cause says in its own words, it
// does not say.
func (e *Error) details() string {
	cause := ""
	switch e.Err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		when := " before the end of the answer"
		if e.Outcome == NotSent {
			when = "" // to no request
		}
		cause = fmt.Sprintf("the connection was closed%s (%v)", when, e.Err)
	default:
		// Ours may stand within somebody else's words, which then have the prefix.
		cause = strings.ReplaceAll(causeText(e.Err), prefix, "")
	}
	var parts []string
	say := func(part string) {
		if part != "" && !strings.Contains(cause, part) {
			parts = append(parts, part)
		}
	}
	say(e.where)
	if e.RetryAfter > 0 {
		say(fmt.Sprintf("retry after %v", e.RetryAfter.Round(time.Millisecond)))
	}
	if e.StatusCode != 0 {
		say(strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.StatusCode, http.StatusText(e.StatusCode))))
	}
	if cause != "" {
		parts = append(parts, cause)
	}
	return strings.Join(parts, ": ")
}

// heading is the kind, and how often it was tried.
func (e *Error) heading() string {
	heading := "failure"
	switch {
	case e.Kind == ErrRequestFailed && e.Outcome == Answered && e.StatusCode/100 == 2:
		heading = "answer broke off" // the request has succeeded
	case e.Kind != nil:
		heading = strings.TrimPrefix(e.Kind.Error(), prefix)
	}
	if _, told := errors.AsType[ownClock](e.Err); e.Limit > 0 && e.Kind == ErrTimeout && !told {
		heading += fmt.Sprintf(" after %v", e.Limit)
	}
	if e.Attempts == 1 {
		heading += " after 1 attempt"
	} else if e.Attempts > 1 {
		heading += fmt.Sprintf(" after %d attempts", e.Attempts)
	}
	return heading
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool { return e.Kind != nil && target == e.Kind }

// Timeout reports whether time ran out: that of an attempt, the caller's, or that of a
// layer below, whose error is then a net.Error that says so.
func (e *Error) Timeout() bool {
	return e.Kind == ErrTimeout || timedOut(e.Err)
}

type timeoutError interface {
	error
	Timeout() bool
}

// timedOut reports whether err tells that time ran out, now and not before.
func timedOut(err error) bool {
	for {
		row, ok := err.(*sequence)
		if !ok || row.joint != beforeThatJoint {
			break
		}
		err = row.first
	}
	e, ok := errors.AsType[timeoutError](err)
	return ok && e.Timeout()
}

// ErrorType names the kind in one word of a small fixed vocabulary, for the
// error.type attribute of OpenTelemetry's semantic conventions.
func (e *Error) ErrorType() string {
	switch e.Kind {
	case ErrConfig:
		return "config"
	case ErrObtainFailed:
		return "obtain_failed"
	case ErrRefreshFailed:
		return "refresh_failed"
	case ErrRequestFailed:
		return "request_failed"
	case ErrRateLimited:
		return "rate_limited"
	case ErrTimeout:
		return "timeout"
	case ErrSerialization:
		return "serialization"
	case ErrClosed:
		return "closed"
	case ErrStore:
		return "store"
	case ErrAmbiguous:
		return "ambiguous"
	}
	return "_OTHER"
}
