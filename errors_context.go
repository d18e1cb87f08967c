package ampauth

import (
	"context"
	"errors"
	"reflect"
	"time"
)

// A deadlineError is a net.Error that Is context.DeadlineExceeded, as that itself is.
type deadlineError struct{}

func (deadlineError) Timeout() bool        { return true }
func (deadlineError) Temporary() bool      { return true }
func (deadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// attemptTimeout is the cause of an attempt's context when its own clock ran
// out, which is not the caller's deadline. As a cause it carries whose clock it was;
// in an error it carries nothing.
type attemptTimeout struct {
	deadlineError
	of any
}

func (attemptTimeout) Error() string { return "no answer in time" }

// clientTimeout is the cause of a call's context when the Timeout of an http.Client
// ran out. The limit is 0 where it is not known.
type clientTimeout struct {
	deadlineError
	limit time.Duration
}

func (e clientTimeout) Error() string {
	if e.limit == 0 {
		return "the http.Client's Timeout, or the context's deadline, is about to run out"
	}
	return "the http.Client's Timeout ran out"
}

// tooLongAWait is why a call ends although its context is alive: a wait would outlast it.
type tooLongAWait struct{ deadlineError }

func (tooLongAWait) Error() string { return "the wait would end after the deadline" }

// ended returns why ctx ended, nil while it is alive. It Is the context's error and
// the cause that its owner gave.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx).(type) {
	case nil:
		return err
	case attemptTimeout:
		return attemptTimeout{}
	case clientTimeout:
		return cause
	default:
		if is(cause, err) && is(err, cause) {
			return err
		}
		return &sequence{err, ": ", clean(cause)}
	}
}

// is is errors.Is for a target that may not be comparable: that is nothing but itself.
func is(err, target error) bool {
	return target != nil && reflect.ValueOf(target).Comparable() && errors.Is(err, target)
}

// withEnd returns err as that of somebody who left because ctx ended, which comes
// first. While ctx is alive, and where err says it already, that is err.
func withEnd(ctx context.Context, err error) error {
	end := ended(ctx)
	if end == nil || errors.Is(err, ctx.Err()) && is(err, context.Cause(ctx)) {
		return err
	}
	late := ctx.Err() == context.DeadlineExceeded
	if err == nil || is(end, err) || late && errors.Is(err, context.Canceled) { // nobody cancelled it
		return end
	}
	return &sequence{end, ": ", err}
}

// addEnd makes e the error of a caller that left, if ctx has ended.
func (e *Error) addEnd(ctx context.Context) {
	if ctx.Err() == context.DeadlineExceeded {
		e.Kind = ErrTimeout
		if own, ok := context.Cause(ctx).(clientTimeout); ok {
			e.Limit = own.limit
		}
	}
	e.Err = withEnd(ctx, e.Err)
}

// wraps reports whether err is cause, or wraps it in a single line.
func wraps(err, cause error) bool {
	for ; err != nil && cause != nil; err = errors.Unwrap(err) {
		if err == cause {
			return true
		}
	}
	return false
}
