package ampauth

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/kept"
)

// An EventName says what an [Event] tells of.
type EventName string

const (
	// EventObtain is a login that ended, well or not, with all its attempts. Attempt is how
	// many there were, Elapsed its time with the waits between them, and Err why it failed.
	// Reason is "refused" if the API had refused the token before, and "" otherwise.
	// There is none for a login that is not tried, as in a pause, or is ended by Clear,
	// SetCredentials or Close.
	EventObtain EventName = "obtain"

	// EventRefresh is the same of a refresh. One that failed is followed by an EventObtain.
	EventRefresh EventName = "refresh"

	// EventAdopt is a token that was taken from the store, to be used or refreshed.
	EventAdopt EventName = "adopt"

	// EventRetry is a request that is sent again, which comes just before that. Attempt is
	// the attempt that failed, from 1, Err what it ended in, and Wait how long was waited
	// since: the backoff or Retry-After, and the limiter. Reason is one of "not sent",
	// "unprocessed", "rate limited", "server error", "timeout" and "broken connection"; see
	// [RetryStats]. The attempts of a login are not told of one by one.
	EventRetry EventName = "retry"

	// EventReplay is a request that is sent again with a new token, since the API refused
	// the first. The fields are those of EventRetry, without a Reason. Wait is without the
	// login, which has an event of its own.
	EventReplay EventName = "replay"

	// EventAmbiguous is a call that ended in an error that Is [ErrAmbiguous], which is Err,
	// after so many attempts as Attempt says. Somebody has to find out by reading.
	EventAmbiguous EventName = "ambiguous"

	// EventExhausted is a call that was given up although its request could have been
	// sent, or sent again. Attempt is how many attempts there were, and Err the error that
	// the caller gets, or one that tells of the answer that it gets. The Reason is why:
	//
	//	"attempts"     Retry.MaxAttempts were made
	//	"budget"       the budget of retries is spent
	//	"limiter"      the Limiter let no attempt pass
	//	"retry after"  the server asked for a wait longer than Retry.MaxRetryAfter
	//	"deadline"     the caller's deadline came, or comes before the end of the wait
	//	"body"         the request's body cannot be sent again
	//
	// There is none for a caller who cancelled, or asked for [WithoutRetry].
	EventExhausted EventName = "exhausted"

	// EventStore is a call of the [TokenStore] that failed, or found something that cannot be
	// trusted; the request goes on without. Err says what is wrong, and what to do about it
	// if that is known. The Reason is the call: "load", "save", "delete", "lock", "pause" or
	// "watch". Each fault is told, also one that the log had before; while the store is left
	// alone after one there are none.
	EventStore EventName = "store"
)

// An Event is something that was done besides what a caller asked for, or what became of
// that. It holds no secret. A field that its [EventName] does not mention is zero.
//
// OnEvent is called with it synchronously, with no lock held, and with the context of the
// call that it belongs to; a login is shared by its callers and belongs to none of
// them, so that its events have a context of their own, and come, in their order, once its
// waiters have the result. OnEvent may be called by several goroutines at once, and may use
// the client. One that does not return holds the call that it belongs to, and nobody else;
// a panic in it is recovered.
//
// Every event is counted in [Stats], whether somebody is told of it or not.
type Event struct {
	Name    EventName
	Reason  string        // one of the few words that the EventName lists
	Attempt int           // from 1; 0 if there was none
	Elapsed time.Duration // how long a login or refresh took
	Wait    time.Duration // how long was waited before a request is sent again
	Err     error         // an *Error; nil if it went well
}

// ErrorType names what went wrong in one word of a small fixed vocabulary, as [Error] does,
// for the labels of metrics; "" if it went well. Of a login or refresh, whose Kind says no
// more than that it failed, it names why: the word of the first cause, or "credentials_refused".
func (e Event) ErrorType() string {
	err, ours := e.Err.(*Error)
	switch {
	case e.Err == nil:
		return ""
	case !ours:
		return new(Error).ErrorType()
	case err.Kind != ErrObtainFailed && err.Kind != ErrRefreshFailed:
		return err.ErrorType()
	}
	if errors.Is(err, ErrCredentialsRefused) {
		return "credentials_refused"
	}
	for cause, ok := errors.AsType[*Error](err.Err); ok; cause, ok = errors.AsType[*Error](err.Err) {
		err = cause
	}
	return err.ErrorType()
}

// A listener is told of events and counts them, so that both agree. Without a function it
// counts, and no more.
type listener struct {
	onEvent func(context.Context, Event)
	*counters
}

// raise counts an event and tells of it. Err is made only if somebody listens, where there
// is a function for it.
func (l listener) raise(ctx context.Context, e Event, makeErr func() error) {
	l.count(e)
	if l.onEvent == nil {
		return
	}
	if makeErr != nil {
		e.Err = makeErr()
	}
	l.tell(ctx, e)
}

// tell is apart from raise, so that an event that nobody hears of stays off the heap.
func (l listener) tell(ctx context.Context, e Event) {
	onEvent := l.onEvent
	kept.Do(ctx, func(ctx context.Context) {
		defer func() { _ = recover() }()
		onEvent(ctx, e)
	})
}

// reasonRefused is that of a login in place of a token that the API refused.
const reasonRefused = "refused"

// count adds an event to the counter that it has.
func (c *counters) count(e Event) {
	failed := e.Err != nil
	var counter *atomic.Uint64
	switch {
	case e.Name == EventObtain && failed:
		counter = &c.obtainFailures
	case e.Name == EventObtain:
		counter = &c.obtains
		if e.Reason == reasonRefused {
			c.renewals.Add(1)
		}
	case e.Name == EventRefresh && failed:
		counter = &c.refreshFailures
	case e.Name == EventRefresh:
		counter = &c.refreshes
	case e.Name == EventAdopt:
		counter = &c.adoptions
	case e.Name == EventReplay:
		counter = &c.replays
	case e.Name == EventAmbiguous:
		counter = &c.ambiguous
	case e.Name == EventExhausted:
		counter = &c.exhausted
	case e.Name == EventStore:
		counter = &c.storeFaults
	default: // EventRetry
		for reason := range c.retries {
			if e.Reason == retryReason(reason).String() {
				counter = &c.retries[reason]
			}
		}
	}
	counter.Add(1)
}
