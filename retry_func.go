package ampauth

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/amproutes"
	"github.com/ampauth/ampauth/internal/pace"
)

// Retry calls op until it succeeds, at most cfg.MaxAttempts times, with the same
// backoff as a [RetryTransport]. It is for work that is not one HTTP request; for a mutation
// there is [Once]. op gets a context that ends after cfg.Timeout, and must be safe to repeat.
//
// It repeats an *Error whose Outcome is NotSent, Unprocessed or Rejected, that is a
// timeout, that tells of a read whose answer broke off, or that holds the status 408 or
// 5xx (but 501, 505, 511); and a net.Error that timed out. A method Retryable() bool goes before
// these. It never repeats [ErrAmbiguous], [ErrConfig], a failed login (those were
// repeated already), a request that could never be sent, nor anything once ctx ended.
// A timeout that an http.Client reports counts as ErrAmbiguous, since it hides what was
// cut off, unless it is that of a GET or HEAD of a route that AMP does not list as a
// mutation, or ctx says so ([WithOperation]). A RetryAfter is waited for; one that is
// above the cap or beyond ctx's deadline ends it at once.
//
// What op returns must not depend on its context, which has ended by then: read a
// response's body in op.
//
// The last error is returned: unchanged if the first attempt is not repeated, otherwise
// as an *Error that says how many attempts there were.
func Retry[T any](ctx context.Context, cfg RetryConfig, op func(context.Context) (T, error)) (T, error) {
	var zero T
	if err := cfg.Validate(); err != nil {
		return zero, err
	}
	cfg = cfg.resolved()
	var last error
	for n := 1; ; n++ {
		if err := ended(ctx); err != nil {
			return zero, leftAfter(n-1, err, last)
		}
		value, err := withinTime(ctx, cfg.Timeout, "Retry.Timeout", op)
		if err == nil {
			return value, nil
		}
		if !retryable(err) || ctx.Err() != nil {
			if n == 1 {
				return zero, err
			}
			return zero, afterAttempts(n, err, last)
		}
		var retryAfter time.Duration
		if e, ok := errors.AsType[*Error](err); ok {
			retryAfter = e.RetryAfter
		}
		wait := cfg.backoff(n, retryAfter)
		if n >= cfg.MaxAttempts || cfg.tooLong(retryAfter) || !pace.Fits(ctx, wait) {
			return zero, afterAttempts(n, err, last)
		}
		if !pace.Sleep(ctx, wait) {
			return zero, leftAfter(n, ended(ctx), err)
		}
		last = err
	}
}

// leftAfter is the error of a caller that left after n attempts, of which the last
// ended in err.
func leftAfter(n int, ctxErr, err error) error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Attempts: n, Err: ctxErr}
	if errors.Is(ctxErr, context.DeadlineExceeded) {
		e.Kind = ErrTimeout
	}
	if n > 0 {
		last, ok := errors.AsType[*Error](err)
		if e.Outcome = Ambiguous; ok {
			e.Outcome, e.StatusCode, e.RetryAfter = last.Outcome, last.StatusCode, last.RetryAfter
		}
		e.Err = beforeThat(ctxErr, clean(err))
	}
	return e
}

// withinTime makes one attempt, which has so much time by a setting.
func withinTime[T any](ctx context.Context, timeout time.Duration, setting string, op func(context.Context) (T, error)) (T, error) {
	attemptCtx := ctx
	cause := attemptTimeout{limit: timeout, setting: setting, of: new(int8)}
	if timeout > 0 {
		var cancel context.CancelFunc
		attemptCtx, cancel = context.WithTimeoutCause(ctx, timeout, cause)
		defer cancel()
	}
	value, err := op(attemptCtx)
	switch {
	case err == nil, final(err):
	case inDoubt(ctx, err):
		err = &Error{Op: "request", Kind: ErrAmbiguous, Err: clean(err)}
	case ctx.Err() == nil && context.Cause(attemptCtx) == error(cause):
		late := &Error{Op: "request", Kind: ErrTimeout, Limit: timeout, Err: cause.ofNobody()}
		switch {
		case err == context.DeadlineExceeded, err == error(cause):
		case strings.Contains(causeText(err), cause.Error()): // once is enough
			late.Err = hidden(cause.Error(), err)
		default:
			late.Err = &sequence{late.Err, ": ", clean(err)}
		}
		err = late
	}
	return value, err
}

// inDoubt reports whether err is, or joins, a timeout of an http.Client that may have cut
// off a mutation. It puts a text in place of whatever the layers below said: a
// *url.Error with the method while it waited for the answer, and then a bare net.Error
// while the answer was read. ctx may say that a repeat does no harm.
func inDoubt(ctx context.Context, err error) bool {
	op, said := ctx.Value(operationKey{}).(Operation)
	if said && (op == SafeOperation || op == IdempotentOperation) {
		return false
	}
	return anyOf(err, func(err error) (found, deeper bool) {
		switch e := err.(type) {
		case *Error: // it tells more
			return false, false
		case *url.Error:
			if _, ours := errors.AsType[*Error](e.Err); ours {
				return false, false
			}
			method := strings.ToUpper(e.Op)
			u, parseErr := url.Parse(e.URL)
			reads := (method == http.MethodGet || method == http.MethodHead) && parseErr == nil && !amproutes.Mutates(method, u)
			return e.Timeout() && (said || !reads), false
		case net.Error:
			bare := errors.Unwrap(e) == nil
			return bare && e.Timeout() && errors.Is(e, context.DeadlineExceeded) && err != context.DeadlineExceeded, false
		}
		return false, true
	})
}

type retryableError interface {
	error
	Retryable() bool
}

// transient marks an error as one that another attempt may not have.
type transient struct{ error }

func (t transient) Error() string { return causeText(t.error) }
func (transient) Retryable() bool { return true }
func (t transient) Unwrap() error { return t.error }

func retryable(err error) bool {
	if final(err) {
		return false
	}
	if e, ok := errors.AsType[retryableError](err); ok {
		return e.Retryable()
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Outcome == NotSent || e.Outcome == Unprocessed || e.Outcome == Rejected ||
			e.repeat == always || e.Timeout() || transientStatus(e.StatusCode)
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// afterAttempts says how often it was tried, and what came of it before the time ran out.
func afterAttempts(n int, err, before error) error {
	if e, ok := err.(transient); ok {
		err = e.error
	}
	if e, ok := err.(*Error); ok {
		counted := *e
		counted.Attempts = n
		if e.Timeout() {
			counted.Err = beforeThat(e.Err, causeOf(before))
		}
		return &counted
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, Attempts: n, Err: clean(err)}
	if timedOut(err) {
		e.Err = beforeThat(e.Err, causeOf(before))
	}
	if wrapped, ok := errors.AsType[*Error](err); ok {
		e.Outcome, e.StatusCode, e.RetryAfter, e.repeat = wrapped.Outcome, wrapped.StatusCode, wrapped.RetryAfter, wrapped.repeat
	}
	return e
}

// causeOf is what stands behind an earlier error, whose own words would repeat those of
// the last one.
func causeOf(err error) error {
	if e, ok := err.(transient); ok {
		err = e.error
	}
	if e, ok := err.(*Error); ok && e.Err != nil {
		return e.Err
	}
	return clean(err)
}
