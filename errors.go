package ampauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// The kinds of failure. Every error of this package is an [*Error] (or, for a
// faulty configuration, several of them joined) that Is exactly one of these,
// and also Is whatever caused it. What a store has no token for Is [ErrNoToken].
var (
	ErrConfig        = errors.New("ampauth: configuration")
	ErrObtainFailed  = errors.New("ampauth: token obtain failed")
	ErrRefreshFailed = errors.New("ampauth: token refresh failed")
	ErrRequestFailed = errors.New("ampauth: request failed")
	ErrRateLimited   = errors.New("ampauth: rate limited")
	ErrTimeout       = errors.New("ampauth: request timeout")
	ErrSerialization = errors.New("ampauth: serialization error")
	ErrClosed        = errors.New("ampauth: closed")
	ErrStore         = errors.New("ampauth: token store")

	// ErrAmbiguous is the kind of an error that leaves open whether a mutation
	// was performed: bytes of it may have left and no answer came. Find out by
	// reading before you send it again.
	ErrAmbiguous = errors.New("ampauth: outcome unknown")

	// ErrCredentialsRefused is no kind but a cause, of an error whose Kind is
	// [ErrObtainFailed]: the API does not take user name and password. Ask for it
	// first; another try will not help until they are changed there, or here by
	// [TokenManager.SetCredentials].
	ErrCredentialsRefused = errors.New("ampauth: the credentials were refused")

	// ErrDestroyed is what a [Secret] answers after Destroy.
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

	final bool // Retry must not repeat what it is the error of
}

// Error implements error.
func (e *Error) Error() string {
	if advice := e.advice(); advice != "" {
		return prefix + e.text() + "; " + advice
	}
	return prefix + e.text()
}

const prefix = "ampauth: "

// text is the message without the prefix, so that a chain carries it once.
func (e *Error) text() string {
	var b strings.Builder
	kind := "failure"
	if e.Kind != nil {
		kind = strings.TrimPrefix(e.Kind.Error(), prefix)
	}
	b.WriteString(kind)
	if e.Limit > 0 && e.Kind == ErrTimeout {
		fmt.Fprintf(&b, " after %v", e.Limit)
	}
	if e.Attempts == 1 {
		b.WriteString(" after 1 attempt")
	} else if e.Attempts > 1 {
		fmt.Fprintf(&b, " after %d attempts", e.Attempts)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, ": retry after %v", e.RetryAfter.Round(time.Millisecond))
	}
	// A nested error of ours with the same status says it in its own words.
	if inner, ok := e.Err.(*Error); e.StatusCode != 0 && (!ok || inner.StatusCode != e.StatusCode) {
		b.WriteString(strings.TrimSpace(fmt.Sprintf(": HTTP %d %s", e.StatusCode, http.StatusText(e.StatusCode))))
	}
	if e.Err != nil {
		b.WriteString(": ")
		// Ours may stand within somebody else's words, which then have the prefix.
		b.WriteString(strings.ReplaceAll(causeText(e.Err), prefix, ""))
	}
	return b.String()
}

// advice is what the outcome of a request means for whoever made it.
func (e *Error) advice() string {
	switch {
	case e.Kind == ErrAmbiguous:
		return "it may have been performed: find out by reading before you send it again"
	case e.Op != "request":
		return ""
	case e.Outcome == NotSent:
		return "it was not sent"
	case e.Outcome == Refused, e.Outcome == Rejected:
		return "it was not performed"
	case e.final:
		return "it was answered, and only the rest of the answer is missing: do not send it again"
	}
	return ""
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool { return e.Kind != nil && target == e.Kind }

// Timeout reports whether time ran out: that of an attempt, or the caller's.
func (e *Error) Timeout() bool {
	return e.Kind == ErrTimeout || errors.Is(e.Err, context.DeadlineExceeded)
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

// attemptTimeout is the cause of an attempt's context when its own clock ran
// out. It Is context.DeadlineExceeded, yet it is not the caller's deadline. As a
// cause it carries whose clock it was; in an error it carries nothing.
type attemptTimeout struct{ of any }

func (attemptTimeout) Error() string        { return "no answer in time" }
func (attemptTimeout) Timeout() bool        { return true }
func (attemptTimeout) Is(target error) bool { return target == context.DeadlineExceeded }

// clean returns err, or, when its text may show what a server or a layer below
// put into it, an error that is still all that err is but says less.
func clean(err error) error {
	if err == nil || causeText(err) == err.Error() {
		return err
	}
	if _, ours := err.(*Error); ours {
		return err
	}
	return hidden(causeText(err), err)
}

// cleaned hides the text of an error and keeps its identity. It has no Unwrap,
// and a closure in place of the error: whoever prints a chain link by link, or
// field by field, must not reach that text.
type cleaned struct {
	text string
	err  func() error
}

func hidden(text string, err error) error {
	return &cleaned{text: text, err: func() error { return err }}
}

func (c *cleaned) Error() string        { return c.text }
func (c *cleaned) Is(target error) bool { return errors.Is(c.err(), target) }
func (c *cleaned) As(target any) bool   { return errors.As(c.err(), target) }

// A sequence is two errors in one: it is both, and its text names both.
type sequence struct {
	first  error
	joint  string
	second error
}

// beforeThat is the error err, which came after an earlier one.
func beforeThat(err, earlier error) error {
	return &sequence{err, "; before that: ", earlier}
}

func (s *sequence) Error() string   { return causeText(s.first) + s.joint + causeText(s.second) }
func (s *sequence) Unwrap() []error { return []error{s.first, s.second} }

// causeText is the part of a foreign error's text that cannot hold a secret.
// net/http quotes what a server sent and what a URL holds, so the text ends where a
// quotation or query begins. The exceptions are textproto.ProtocolError, and what a
// proxy says when it refuses a CONNECT.
func causeText(err error) string {
	if e, ok := err.(*Error); ok {
		return e.text()
	}
	if e, ok := err.(*url.Error); ok {
		return causeText(e.Err)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return "malformed answer"
	}
	// What net/http advises there, this package has undone on purpose.
	text, _, _ := strings.Cut(err.Error(), "; define Request.GetBody")
	if i := strings.IndexAny(text, "\"?\r\n"); i >= 0 {
		return strings.TrimSpace(text[:i]) + " ..."
	}
	return text
}
