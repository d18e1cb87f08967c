package ampauth

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// A Mutation is what must be performed exactly once, and the way to find out whether it
// was. See [Once].
type Mutation[T any] struct {
	// Send performs it. Required. Every error of it leaves in doubt whether the mutation
	// was performed, unless it proves that it was not: see [Once]. All that it sends goes
	// through one client, in no goroutine that outlives it, and nothing below repeats a
	// mutation by itself. What can fail before anything is sent (a body that is encoded)
	// is best done before Once.
	Send func(ctx context.Context) (T, error)

	// Find reads whether the mutation was performed, and returns what Send would have.
	// Required. It looks for something that this mutation alone has, and that its caller
	// has chosen, and kept, before it was sent for the first time: a ticker, a name, a
	// number in a memo. What others may have done as well (an amount, a count that others
	// change) proves nothing. ok false says that it read all there is, and the mutation is
	// not there: what could not be read is an error. It reads where Send writes, and no
	// replica that lags by more than Settle.
	Find func(ctx context.Context) (found T, ok bool, err error)

	// Settle is how long after a doubtful end (a broken connection, a timeout, a 5xx) the
	// server, and whatever is on the way to it, may still perform the mutation. Until then
	// nothing is sent again, however often it is not found. If zero, 60 s.
	Settle time.Duration

	// FindFirst has Once read before it sends, as after a crash: it may have been sent
	// before. That it is not there counts only Settle after Once began.
	FindFirst bool
}

// defaultSettle is the Settle of a [Mutation] that has none.
const defaultSettle = 60 * time.Second

// Once has a mutation performed exactly once, by reading where nothing else tells. It
// sends it, at most cfg.MaxAttempts times, and each time but the first only after it has
// found that those before have done nothing.
//
// Send that returns no error has performed it. Its error proves that nothing was performed
// if all calls that a [RetryTransport] made for it, whoever's client that is below, ended
// in an [Outcome] of NotSent, Unprocessed or Rejected, or in a 4xx but 408. One that has
// succeeded, a read too, proves nothing; nor do reads alone. Where no call was seen, the
// error proves it that is, or wraps, an *Error with such an Outcome: [ResponseError] makes
// one of a response, and a failed login is one. An error that Is [ErrAmbiguous] proves
// nothing, whatever else it is, and neither does anybody else's.
//
// A proof of 4xx, or what [Retry] calls final, ends it; after any other (NotSent, 421, 425,
// 429) it waits as Retry does, heeds a RetryAfter, and sends again.
//
// In doubt it reads, at once and then with cfg's backoff, until Find has found the mutation.
// It sends again if Find, in a read that began later than Settle after the doubtful end,
// has not. A read that fails is no answer. Nor is one that finds nothing after Send was
// answered with success: that is never sent again. A 4xx that follows a doubt may say that
// the mutation is there already (a name that is taken): then it reads once more.
//
// It holds, if three things do: Find sees within Settle what was performed; what is still
// on its way after Settle is never performed; one caller at a time runs it, in all
// processes together. Otherwise it may be performed twice.
//
// Send's time is cfg.MutationTimeout, Find's is cfg.Timeout. What they return must not
// depend on their contexts, which have ended by then: read a response's body in them. Once
// starts no goroutine; a panic of theirs passes through, and leaves it in doubt.
//
// An error Is ErrAmbiguous if, and only if, the mutation may have been performed: the
// caller left while it was in doubt, a wait would not fit its deadline or RetryAfter is
// above the cap, reading has failed for as long again as Settle and cfg.MaxAttempts times, or
// what was answered with success is not found. Find out before it is sent again: by Once with FindFirst. With any
// other error it was not performed. That of a first Send is returned as it is, any
// other is an *Error, whose Attempts are the Sends. Errors of Send and Find, and the end of ctx,
// are in its chain.
func Once[T any](ctx context.Context, cfg RetryConfig, m Mutation[T]) (T, error) {
	if err := errors.Join(append(cfg.faults(), m.faults()...)...); err != nil {
		var zero T
		return zero, err
	}
	if m.Settle == 0 {
		m.Settle = defaultSettle
	}
	o := once[T]{ctx: ctx, cfg: cfg.resolved(), m: m, maybe: m.FindFirst}
	return o.run()
}

func (m Mutation[T]) faults() (faults []error) {
	if m.Send == nil {
		faults = append(faults, configFault("Mutation.Send", "", "is required"))
	}
	if m.Find == nil {
		faults = append(faults, configFault("Mutation.Find", "", "is required"))
	}
	if m.Settle < 0 {
		faults = append(faults, configFault("Mutation.Settle", "", "must not be negative"))
	}
	return faults
}

// A once is a call of Once.
type once[T any] struct {
	ctx context.Context
	cfg RetryConfig
	m   Mutation[T]

	sends  int
	maybe  bool  // there was a doubt before the last Send, if only as to another process
	last   error // of the last Send
	end    sendEnd
	before error // of those before it that were in doubt, which reading has settled
}

// A sendEnd is what the error of a Send says.
type sendEnd struct {
	callEnd
	doubt    bool // it may have been performed
	succeeds bool // it was answered with success
	again    bool // sending again can help, once there is no doubt
}

// run is the whole of it: read while there is a doubt, and send while there is none.
func (o *once[T]) run() (T, error) {
	var zero T
	if o.maybe {
		if value, known, err := o.find(time.Now().Add(o.m.Settle)); known {
			return value, err
		}
	}
	for {
		if end := ended(o.ctx); end != nil {
			return zero, o.notPerformed(end)
		}
		value, err := o.send()
		if err == nil {
			return value, nil
		}
		switch {
		case o.end.doubt:
			o.maybe = true
			if value, known, err := o.find(time.Now().Add(o.m.Settle)); known {
				return value, err
			}
			switch {
			case o.end.succeeds:
				return zero, o.unknown(nil, errNotFoundAfterSuccess)
			case !o.end.again || o.sends >= o.cfg.MaxAttempts:
				return zero, o.notPerformed(nil)
			}
			o.before, o.last = o.settled(), nil
		case o.end.again:
			if err := o.backoff(); err != nil {
				return zero, err
			}
		case o.maybe && o.end.outcome == Answered: // it may say that the mutation is there already
			if value, known, err := o.find(time.Time{}); known {
				return value, err
			}
			return zero, o.proved(ended(o.ctx))
		default:
			return zero, o.proved(ended(o.ctx))
		}
	}
}

// send makes one Send and judges how it ended.
func (o *once[T]) send() (T, error) {
	w := new(witness)
	ctx, cancel := context.WithCancel(seenBy(o.ctx, w))
	defer cancel() // what it has left running ends with it
	value, err := withinTime(ctx, o.cfg.MutationTimeout, o.m.Send)
	o.sends++
	if err != nil {
		o.last, o.end = err, judge(err, w.testify())
	}
	return value, err
}

// judge says what is known after a Send that ended in err.
func judge(err error, seen testimony) sendEnd {
	proof, proved := seen.furthest, seen.proof
	if !seen.doubt && !proved { // nothing was seen that could have performed it
		proof, proved = proofOf(err)
	}
	if !proved || errors.Is(err, ErrAmbiguous) {
		return sendEnd{doubt: true, succeeds: seen.succeeds, again: !hopeless(err)}
	}
	return sendEnd{callEnd: proof, again: proof.turnedAway() && !final(err)}
}

// proofOf is what err proves by itself: it is, or wraps in a single line, an *Error that says
// that nothing was performed. One that joins several does so if each of them does.
func proofOf(err error) (proof callEnd, proved bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(*Error); ok {
			proof = callEnd{e.Outcome, e.StatusCode, e.RetryAfter}
			if e.Kind == ErrObtainFailed {
				proof.outcome = NotSent // the Outcome is that of the login
			}
			return proof, proof.provesNothingDone()
		}
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			for _, one := range several.Unwrap() {
				p, ok := proofOf(one)
				if !ok {
					return p, false
				}
				if proved = true; p.outcome >= proof.outcome {
					proof = p
				}
			}
			return proof, proved
		}
	}
	return callEnd{}, false
}

// find reads until it is known what came of the mutation: it was found, or the error says why
// nothing can tell. known is false if it is not there, by a read that began after settled.
func (o *once[T]) find(settled time.Time) (value T, known bool, err error) {
	type finding struct {
		value T
		ok    bool
	}
	giveUp := time.Now() // if reading fails: as long again as the mutation had
	if settled.After(giveUp) {
		giveUp = settled
	}
	giveUp = giveUp.Add(o.m.Settle)
	var failed error // what the last read ended in
	for n, late := 1, 0; ; n++ {
		if end := ended(o.ctx); end != nil {
			return value, true, o.unknown(end, readingFailed(failed))
		}
		isLate := time.Now().After(settled)
		found, err := withinTime(unseen(o.ctx), o.cfg.Timeout, func(ctx context.Context) (f finding, err error) {
			f.value, f.ok, err = o.m.Find(ctx)
			if err == nil && !f.ok {
				err = ended(ctx) // who was cut off has not read all there is
			}
			return f, err
		})
		var retryAfter time.Duration
		switch {
		case err == nil && found.ok:
			return found.value, true, nil
		case err == nil && isLate:
			return value, false, nil
		case err != nil:
			if isLate {
				late++
			}
			if e, ok := errors.AsType[*Error](err); ok {
				retryAfter = e.RetryAfter
			}
			exhausted := late >= o.cfg.MaxAttempts && time.Now().After(giveUp)
			if exhausted || errors.Is(err, ErrClosed) || errors.Is(err, ErrConfig) || o.cfg.tooLong(retryAfter) {
				return value, true, o.unknown(ended(o.ctx), readingFailed(err))
			}
		}
		failed = err
		wait := o.cfg.backoff(n, retryAfter)
		if left := time.Until(settled); left >= 0 && retryAfter == 0 {
			wait = min(wait, pace.Add(left, 1)) // the first moment that counts
		}
		if !pace.Fits(o.ctx, wait) {
			return value, true, o.unknown(tooLongAWait{wait: "the wait for another read"}, readingFailed(failed))
		}
		pace.Sleep(o.ctx, wait)
	}
}

// backoff waits before another Send after one that has proved that it did nothing.
func (o *once[T]) backoff() error {
	retryAfter := o.end.retryAfter
	if e, ok := errors.AsType[*Error](o.last); ok {
		retryAfter = max(retryAfter, e.RetryAfter)
	}
	wait := o.cfg.backoff(o.sends, retryAfter)
	if o.sends >= o.cfg.MaxAttempts || o.cfg.tooLong(retryAfter) || !pace.Fits(o.ctx, wait) || !pace.Sleep(o.ctx, wait) {
		return o.proved(ended(o.ctx))
	}
	return nil
}

var (
	errNotFound             = errors.New("it is not there")
	errReading              = errors.New("reading failed")
	errNotFoundAfterSuccess = errors.New("it is not there, though it was answered with success")
)

// unknown is the error where nothing can tell whether it was performed: the caller left, or
// reading failed, or contradicts.
func (o *once[T]) unknown(end, reading error) error {
	e := &Error{Op: "request", Kind: ErrAmbiguous, Attempts: o.sends, Err: o.causes()}
	if ours, ok := errors.AsType[*Error](o.last); ok {
		e.StatusCode = ours.StatusCode
	}
	switch {
	case reading == nil:
	case e.Err == nil:
		e.Err = reading
	default:
		e.Err = &sequence{e.Err, "; then ", reading}
	}
	return e.endedBy(end)
}

// readingFailed is err as that of the last read; nil if that found nothing too early.
func readingFailed(err error) error {
	if err == nil {
		return nil
	}
	return &sequence{errReading, ": ", inWords(err)}
}

// notPerformed is the error where nothing was: the last read has not found it, or nothing was
// sent.
func (o *once[T]) notPerformed(end error) error {
	if o.last != nil && !o.end.doubt {
		return o.proved(end)
	}
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: NotSent, Attempts: o.sends}
	if o.sends > 0 {
		e.Outcome, e.Err = Unprocessed, beforeThat(errNotFound, o.settled())
	}
	return e.endedBy(end)
}

// proved is the error where the last Send has proved that it performed nothing.
func (o *once[T]) proved(end error) error {
	if o.sends == 1 && end == nil {
		return o.last
	}
	e := &Error{
		Op: "request", Kind: ErrRequestFailed, Outcome: o.end.outcome, StatusCode: o.end.status,
		RetryAfter: o.end.retryAfter, Attempts: o.sends, Err: o.causes(),
	}
	if ours, ok := errors.AsType[*Error](o.last); ok {
		e.Kind, e.Limit = ours.Kind, ours.Limit
	}
	if e.Outcome == NotSent && o.before != nil {
		e.Outcome = Unprocessed // an earlier one was sent
	}
	return e.endedBy(end)
}

// causes are the errors of all Sends that count, the last one first.
func (o *once[T]) causes() error {
	if o.last == nil {
		return o.before
	}
	return beforeThat(inWords(o.last), o.before)
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

// inWords is err, without what an error around it says as well.
func inWords(err error) error {
	cause := err
	if u, ok := err.(*url.Error); ok {
		cause = u.Err
	}
	e, ok := cause.(*Error)
	if !ok {
		return clean(err)
	}
	said := *e
	said.Attempts, said.RetryAfter = 0, 0
	text := said.text(true)
	switch e.Kind {
	case ErrAmbiguous, ErrRequestFailed, ErrRateLimited: // the error around it has a kind as well
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
