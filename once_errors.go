package ampauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

var (
	errNotFound             = errors.New("reading did not find it")
	errNotFoundYet          = errors.New("reading has not found it yet")
	errReading              = errors.New("reading failed")
	errNotFoundAfterSuccess = errors.New("reading does not find what was answered with success: check what Find looks for, and where it reads")
)

// unknown is the error where nothing can tell whether it was performed: the caller left, or
// reading failed, or contradicts.
func (o *once[T]) unknown(end, reading error) error {
	e := &Error{Op: "request", Kind: ErrAmbiguous, StatusCode: o.end.status, Attempts: o.sends, Err: o.causes()}
	if reading != nil {
		e.Err = beforeThat(reading, e.Err)
	}
	return e.endedBy(end)
}

// notPerformed is the error where nothing was: nothing was sent, or the last Send has proved
// it, or reading has not found it.
func (o *once[T]) notPerformed(end error) error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Attempts: o.sends, Err: o.before}
	switch {
	case o.sends == 0:
		return e.endedBy(end)
	case o.last == nil, o.end.doubt:
		e.Outcome, e.Err = Unprocessed, beforeThat(errNotFound, o.settled())
	case o.sends == 1 && end == nil:
		return o.last
	default:
		if e.Err = o.causes(); o.maybeTaken() {
			e.Err, e.absent = beforeThat(errNotFound, e.Err), true
		}
		if e.Outcome = o.end.outcome; e.Outcome == NotSent && o.before != nil {
			e.Outcome = Unprocessed // an earlier one was sent
		}
		if ours, ok := errors.AsType[*Error](o.last); ok {
			e.Kind, e.Limit = ours.Kind, ours.Limit
		}
	}
	e.StatusCode, e.RetryAfter = o.end.status, o.end.retryAfter
	return e.endedBy(end)
}

// hiddenBy is the error where Send or Find has none for a call that ended so.
func (e callEnd) hiddenBy(who string) error {
	missing := errors.New(who + " must return an error for that")
	hidden := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: e.outcome, StatusCode: e.status, RetryAfter: e.retryAfter, Err: missing}
	switch {
	case e.err != nil:
		hidden.Err = &sequence{inWords(e.err, true), ": ", missing}
	case e.status == 0:
		hidden.Err = errors.New(who + " returned before its calls had ended")
	case e.status == http.StatusTooManyRequests:
		hidden.Kind = ErrRateLimited
	}
	return hidden
}

// causes are the errors of all Sends that count, the last one first.
func (o *once[T]) causes() error {
	if o.last == nil {
		return o.before
	}
	return beforeThat(inWords(o.last, false), o.before)
}

// settled are the causes once the doubt is over.
func (o *once[T]) settled() error {
	causes := o.causes()
	if causes == nil {
		return nil
	}
	return &settledError{cleaned{causes.Error(), func() error { return causes }}}
}

// A settledError is what left a doubt that is over: all that it was but ErrAmbiguous.
type settledError struct{ cleaned }

func (s *settledError) Is(target error) bool { return target != ErrAmbiguous && s.cleaned.Is(target) }

// inWords is err, without what an error around it says as well: its kind, and the wait, unless
// that is of another.
func inWords(err error, waits bool) error {
	cause := err
	if u, ok := err.(*url.Error); ok {
		cause = u.Err
	}
	e, ok := cause.(*Error)
	if !ok {
		return clean(err)
	}
	said := *e
	if said.Attempts = 0; !waits {
		said.RetryAfter = 0
	}
	text := said.text(true)
	switch e.Kind {
	case ErrAmbiguous, ErrRequestFailed, ErrRateLimited, ErrTimeout, ErrObtainFailed:
		if details := said.details(); details != "" {
			text = details
		}
	}
	return hidden(text, err)
}

// endedBy makes e the error of a caller that left, or has no time left, unless end is nil.
func (e *Error) endedBy(end error) *Error {
	if end == nil {
		return e
	}
	if !is(e.Err, end) {
		e.Err = beforeThat(end, e.Err)
	}
	switch {
	case !errors.Is(end, context.DeadlineExceeded):
	case e.Kind == ErrAmbiguous:
		e.Err = &Error{Op: e.Op, Kind: ErrTimeout, Err: e.Err}
	default:
		e.Kind = ErrTimeout
	}
	return e
}
