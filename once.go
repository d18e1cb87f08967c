package ampauth

import (
	"context"
	"errors"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// A Mutation is what must be performed exactly once, and the way to find out whether it
// was. See [Once].
type Mutation[T any] struct {
	// Send performs it. Required. It returns an error for every answer but a success: see
	// [ResponseError]. Each error leaves in doubt whether the mutation was performed, unless
	// it proves that it was not: see [Once]. Send uses one client, since a call of another
	// one is not seen; no goroutine of it goes on when it has returned; and nothing below
	// repeats a mutation by itself. What can fail before anything is sent (the encoding of a
	// body) is best done before Once.
	Send func(ctx context.Context) (T, error)

	// Find reads whether the mutation was performed, and returns what Send would have.
	// Required. It looks for something that this mutation alone has, and that its caller
	// has chosen, and kept, before it was sent for the first time: a ticker, a name, a
	// number in a memo. What others may have done as well (an amount, a count that others
	// change) proves nothing. ok false says that it read all there is, and the mutation is
	// not there: what could not be read is an error. It reads where Send writes, and no
	// replica that lags by more than Settle. It changes nothing.
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
// sends it at most cfg.MaxAttempts times, and again only after it has found that the Sends
// before have done nothing.
//
// A Send without an error has performed it. An error proves that nothing was performed in
// two cases:
//
//   - A [RetryTransport] made calls for Send, whatever client is above it. Each of them
//     ended in an [Outcome] of NotSent, Unprocessed or Rejected, or in a 4xx but 408, and at
//     least one of them was no read.
//   - No call was seen, or reads alone, which failed; and the error is, or wraps, an *Error
//     with such an Outcome. [ResponseError] makes one of a response, and a failed login is
//     one.
//
// Everything else is doubt: an error that Is [ErrAmbiguous]; the error of somebody else's
// client; a call that has succeeded, even a read, beside the one that failed; and a Send
// without an error whose calls, but for reads, were all seen to fail.
//
// After a proof, a 4xx, or what [Retry] calls final, ends it. After NotSent, 421, 425 or 429
// it waits as Retry does, and sends again.
//
// In doubt it reads, at once and then with cfg's backoff, until Find has found the mutation.
// It sends again after a read that began later than Settle after the doubtful end, and has
// not found it. But "not there" does not count
//
//   - if some call of that Find was seen to end otherwise than in a 2xx, 304, 404 or 410
//     that came whole (a redirect that is followed counts by its end, and an attempt that
//     was repeated does not count);
//   - if a RetryTransport saw that Send was answered with success: that is never sent again.
//
// An error of Find does not count either. A 4xx that follows a doubt may say that the
// mutation is there already (a name that is taken): then it reads once more. Before it sends
// again it waits for a RetryAfter, also that of a Send in doubt; reading goes on meanwhile.
//
// Three things must hold: Find sees within Settle what was performed; what is still on its
// way after Settle is never performed; one caller at a time runs it, in all processes
// together. Otherwise it may be performed twice.
//
// Send's time is cfg.MutationTimeout, Find's is cfg.Timeout. What they return must not
// depend on their contexts, which have ended by then: read a response's body in them. Once
// starts no goroutine. A panic in Send or Find passes through, and leaves it in doubt.
//
// An error Is ErrAmbiguous if, and only if, the mutation may have been performed. That is so
// if
//
//   - the caller left while it was in doubt. Before a deadline Once reads a last time, a
//     second ahead of it, or as long as a read took;
//   - the RetryAfter of a read is above the cap, or ends after the deadline;
//   - reading has failed for as long again as Settle, and cfg.MaxAttempts times;
//   - what was answered with success is not found.
//
// Find out before it is sent again: by Once with FindFirst. With any other error it was not
// performed. That of a first Send is returned as it is, any other is an *Error, whose
// Attempts are the Sends. Errors of Send and Find, and the end of ctx, are in its chain.
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

// A sendEnd is what a Send that has failed says.
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
		if value, known, err := o.find(time.Now().Add(o.m.Settle), time.Time{}); known {
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
		next := time.Now() // when it may be sent again
		settled := next.Add(o.m.Settle)
		again := o.end.again && o.sends < o.cfg.MaxAttempts && !o.cfg.tooLong(o.end.retryAfter)
		if again && (!o.end.doubt || o.end.retryAfter > 0) {
			next = next.Add(o.cfg.backoff(o.sends, o.end.retryAfter))
		}
		if !o.end.doubt {
			settled = time.Time{}
		}
		if o.end.doubt || o.maybeTaken() {
			if value, known, err := o.find(settled, next); known {
				return value, err
			}
			o.maybe = true
		}
		wait := time.Until(next)
		switch {
		case o.end.succeeds:
			return zero, o.unknown(nil, errNotFoundAfterSuccess)
		case !again || !pace.Fits(o.ctx, wait):
			return zero, o.notPerformed(ended(o.ctx))
		case o.end.doubt:
			o.before, o.last = o.settled(), nil
		}
		pace.Sleep(o.ctx, wait)
	}
}

// maybeTaken reports whether a 4xx may say that a Send before it was performed.
func (o *once[T]) maybeTaken() bool {
	return o.maybe && !o.end.doubt && !o.end.again && o.end.outcome == Answered
}

// send makes one Send and judges how it ended.
func (o *once[T]) send() (T, error) {
	w := new(witness)
	ctx, cancel := context.WithCancel(seenBy(o.ctx, w))
	defer cancel() // what it has left running ends with it
	value, err := withinTime(ctx, o.cfg.MutationTimeout, "Retry.MutationTimeout", o.m.Send)
	o.sends++
	seen := w.testify()
	hides := err == nil && seen.fails
	if hides {
		err = seen.furthest.hiddenBy("Send")
	}
	if err != nil {
		o.last, o.end = err, judge(err, seen)
		o.end.doubt = o.end.doubt || hides // Send says that it was performed
	}
	return value, err
}

// judge says what is known after a Send that ended in err.
func judge(err error, seen testimony) sendEnd {
	end, proved := seen.furthest, seen.proof
	if !seen.doubt && !proved { // nothing was seen that could have performed it
		end, proved = proofOf(err)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		end.retryAfter = max(end.retryAfter, e.RetryAfter)
		if end.status == 0 {
			end.status = e.StatusCode
		}
	}
	if !proved || errors.Is(err, ErrAmbiguous) {
		end.outcome = Ambiguous
		return sendEnd{callEnd: end, doubt: true, succeeds: seen.succeeds, again: !hopeless(err)}
	}
	return sendEnd{callEnd: end, again: end.turnedAway() && !final(err)}
}

// proofOf is what err proves by itself: it is, or wraps in a single line, an *Error that says
// that nothing was performed. One that joins several does so if each of them does.
func proofOf(err error) (proof callEnd, proved bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(*Error); ok {
			proof = callEnd{outcome: e.Outcome, status: e.StatusCode, retryAfter: e.RetryAfter}
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

// minReadTime is the least that the caller's deadline leaves to a last read.
const minReadTime = time.Second

// find reads until it is known what came of the mutation: it was found, or the error says why
// nothing can tell. known is false if it is not there, by a read that began after settled; then
// reading goes on until the next Send, as far as it can.
func (o *once[T]) find(settled, next time.Time) (value T, known bool, err error) {
	giveUp := time.Now() // if reading fails: as long again as the mutation had
	if settled.After(giveUp) {
		giveUp = settled
	}
	giveUp = giveUp.Add(o.m.Settle)
	var (
		zero    T
		absent  bool          // by a read that began after settled
		reading error         // what the last read came to
		longest time.Duration // that a read took
	)
	tell := func(end error) (T, bool, error) {
		if absent {
			return zero, false, nil
		}
		return zero, true, o.unknown(end, reading)
	}
	for n, late := 1, 0; ; n++ {
		if end := ended(o.ctx); end != nil {
			return tell(end)
		}
		began := time.Now()
		isLate := began.After(settled)
		found, ok, err := o.read()
		longest = max(longest, time.Since(began))
		var retryAfter time.Duration
		switch {
		case err == nil && ok:
			return found, true, nil
		case err == nil:
			absent, reading = absent || isLate, errNotFoundYet
		case ended(o.ctx) != nil: // which is why
			continue
		default:
			if isLate {
				late++
			}
			if e, ok := errors.AsType[*Error](err); ok {
				retryAfter = e.RetryAfter
			}
			reading = &sequence{errReading, ": ", inWords(err, true)}
			exhausted := late >= o.cfg.MaxAttempts && time.Now().After(giveUp)
			if exhausted || errors.Is(err, ErrClosed) || errors.Is(err, ErrConfig) || o.cfg.tooLong(retryAfter) {
				return tell(ended(o.ctx))
			}
		}
		counts := settled // the moment from which on the next read tells more
		if absent {
			if counts = next; !time.Now().Before(next) {
				return zero, false, nil
			}
		}
		wait := o.cfg.backoff(n, retryAfter)
		if retryAfter == 0 {
			if left := time.Until(counts); left >= 0 {
				wait = min(wait, pace.Add(left, 1))
			}
			if deadline, ok := o.ctx.Deadline(); ok {
				if left := time.Until(deadline) - max(longest, minReadTime); left > 0 {
					wait = min(wait, left)
				}
			}
		}
		if !pace.Fits(o.ctx, wait) {
			return tell(tooLongAWait{wait: "the wait for another read"})
		}
		pace.Sleep(o.ctx, wait)
	}
}

// read makes one Find. That it is not there, it says only if it has read all there is.
func (o *once[T]) read() (value T, ok bool, err error) {
	w := new(witness)
	value, err = withinTime(seenBy(unseen(o.ctx), w), o.cfg.Timeout, "Retry.Timeout", func(ctx context.Context) (T, error) {
		found, there, err := o.m.Find(ctx)
		if ok = there; err == nil && !ok {
			if err = ended(ctx); err == nil {
				if end, blind := w.blindRead(); blind {
					err = end.hiddenBy("Find")
				}
			}
		}
		return found, err
	})
	return value, ok, err
}
