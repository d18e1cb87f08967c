package ampauth

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// A deadlineError is a net.Error that Is context.DeadlineExceeded, as that itself is.
type deadlineError struct{}

// An ownClock is the error of a clock that this package has started, and says which.
type ownClock interface {
	error
	ownClock()
}

func (deadlineError) Timeout() bool        { return true }
func (deadlineError) Temporary() bool      { return true }
func (deadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// attemptTimeout is the cause of an attempt's context when its own clock ran
// out, which is not the caller's deadline. As a cause it carries whose clock it was;
// in an error it does not.
type attemptTimeout struct {
	deadlineError
	limit   time.Duration
	setting string // that the limit is from
	of      any
}

func (e attemptTimeout) Error() string {
	return fmt.Sprintf("no complete answer within %v (%s, for one attempt)", e.limit, e.setting)
}

func (attemptTimeout) ownClock() {}

// ofNobody is the timeout as an error.
func (e attemptTimeout) ofNobody() attemptTimeout {
	e.of = nil
	return e
}

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
	return fmt.Sprintf("the http.Client's Timeout of %v ran out", e.limit)
}

func (clientTimeout) ownClock() {}

// tooLongAWait is why a call ends although its context is alive: a wait would outlast it.
type tooLongAWait struct {
	deadlineError
	wait string // for what
}

func (e tooLongAWait) Error() string { return e.wait + " would end after the deadline" }

func (tooLongAWait) ownClock() {}

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
		return cause.ofNobody()
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

// anyOf asks about err and what it wraps or joins.
func anyOf(err error, ask func(error) (found, deeper bool)) bool {
	for err != nil {
		found, deeper := ask(err)
		if found || !deeper {
			return found
		}
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			return slices.ContainsFunc(several.Unwrap(), func(err error) bool { return anyOf(err, ask) })
		}
		err = errors.Unwrap(err)
	}
	return false
}
