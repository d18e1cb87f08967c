package ampauth

import (
	"context"
	"errors"
	"net"
	"time"
)

// Retry calls op until it succeeds, at most cfg.MaxAttempts times, with the same
// backoff as a [RetryTransport]. It is for work that is not one HTTP request. op
// gets a context that ends after cfg.Timeout, and must be safe to repeat.
//
// It repeats an *Error whose Outcome is NotSent, Refused or Rejected, that is a
// timeout, or that holds a status of 500 and above; a net.Error that timed out;
// and whatever has a method Retryable() bool that says true. It never repeats
// [ErrAmbiguous], [ErrConfig], a failed login (those were repeated already), nor
// anything once ctx ended. A RetryAfter is waited for; one that is above the cap
// or beyond ctx's deadline ends it at once.
//
// What op returns must not depend on its context, which has ended by then: read a
// response's body in op.
//
// The last error is returned, as it is after a first attempt that is not
// repeated, otherwise as an *Error that says how many attempts there were.
func Retry[T any](ctx context.Context, cfg RetryConfig, op func(context.Context) (T, error)) (T, error) {
	var zero T
	if err := cfg.Validate(); err != nil {
		return zero, err
	}
	cfg = cfg.resolved()
	var last error
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return zero, leftAfter(n-1, err, last)
		}
		value, err := once(ctx, cfg.Timeout, op)
		if err == nil {
			return value, nil
		}
		if !retryable(err) || ctx.Err() != nil {
			if n == 1 {
				return zero, err
			}
			return zero, afterAttempts(n, err)
		}
		var retryAfter time.Duration
		if e, ok := errors.AsType[*Error](err); ok {
			retryAfter = e.RetryAfter
		}
		wait := cfg.backoff(n, retryAfter)
		if n >= cfg.MaxAttempts || cfg.tooLong(retryAfter) || !fits(ctx, wait) {
			return zero, afterAttempts(n, err)
		}
		if ctxErr := sleep(ctx, wait); ctxErr != nil {
			return zero, leftAfter(n, ctxErr, err)
		}
		last = err
	}
}

// leftAfter is the error of a caller that left after n attempts, of which the last
// ended in err.
func leftAfter(n int, ctxErr, err error) error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Attempts: n, Err: ctxErr}
	if n > 0 {
		last, ok := errors.AsType[*Error](err)
		if e.Outcome = Ambiguous; ok {
			e.Outcome, e.StatusCode, e.RetryAfter = last.Outcome, last.StatusCode, last.RetryAfter
		}
		e.Err = beforeThat(ctxErr, clean(err))
	}
	return e
}

// once makes one attempt within its time.
func once[T any](ctx context.Context, timeout time.Duration, op func(context.Context) (T, error)) (T, error) {
	if timeout <= 0 {
		return op(ctx)
	}
	cause := attemptTimeout{new(int8)}
	attemptCtx, cancel := context.WithTimeoutCause(ctx, timeout, cause)
	defer cancel()
	value, err := op(attemptCtx)
	if err != nil && ctx.Err() == nil && !isFinal(err) && context.Cause(attemptCtx) == error(cause) {
		return value, &Error{Op: "request", Kind: ErrTimeout, Limit: timeout, Err: clean(err)}
	}
	return value, err
}

// isFinal reports whether err tells of a mutation that was answered.
func isFinal(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.final
}

type retryableError interface {
	error
	Retryable() bool
}

func retryable(err error) bool {
	for _, never := range []error{ErrAmbiguous, ErrConfig, ErrClosed, ErrObtainFailed, ErrRefreshFailed} {
		if errors.Is(err, never) {
			return false
		}
	}
	if untrusted(err) || isFinal(err) {
		return false
	}
	if e, ok := errors.AsType[retryableError](err); ok && e.Retryable() {
		return true
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Outcome == NotSent || e.Outcome == Refused || e.Outcome == Rejected ||
			e.Timeout() || e.StatusCode >= 500
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// afterAttempts says how often it was tried.
func afterAttempts(n int, err error) error {
	if e, ok := err.(transient); ok {
		err = e.error
	}
	if e, ok := err.(*Error); ok {
		counted := *e
		counted.Attempts = n
		return &counted
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, Attempts: n, Err: clean(err)}
	if wrapped, ok := errors.AsType[*Error](err); ok {
		e.Outcome, e.StatusCode, e.RetryAfter = wrapped.Outcome, wrapped.StatusCode, wrapped.RetryAfter
	}
	return e
}
