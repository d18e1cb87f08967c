package ampauth

import (
	"context"
	"sync"
	"time"
)

// A witness sees the calls that RetryTransports make in one Send of [Once], by whatever
// client. It is in Send's context, and not in those of the layers below a call: what they
// send on the way is part of the call. A nil witness sees nothing.
type witness struct {
	outer *witness // of a Once whose Send this one is a part of

	mu       sync.Mutex // guards what follows; never held while talking to the network
	open     int        // calls that have not ended
	doubts   int        // calls that may have performed something
	changes  int        // calls that performed nothing, and could have: all but reads
	furthest callEnd    // of those that performed nothing
	succeeds bool       // a mutation was answered with success
}

// A callEnd is how far a call got.
type callEnd struct {
	outcome    Outcome
	status     int
	retryAfter time.Duration
}

// provesNothingDone reports whether a call that ended so has performed nothing.
func (e callEnd) provesNothingDone() bool {
	switch e.outcome {
	case NotSent, Unprocessed, Rejected:
		return true
	case Answered:
		return e.status/100 == 4 && e.status != 408
	}
	return false
}

// turnedAway reports whether what ended so was not looked at, so that it may be another time.
// A token that is refused after its renewal is refused again.
func (e callEnd) turnedAway() bool {
	return e.outcome != Answered && e.status != 401 && e.status != 403 || e.status == 429
}

type witnessKey struct{}

func witnessOf(ctx context.Context) *witness {
	w, _ := ctx.Value(witnessKey{}).(*witness)
	return w
}

// seenBy returns a context whose calls w sees, and so does the witness of ctx.
func seenBy(ctx context.Context, w *witness) context.Context {
	w.outer = witnessOf(ctx)
	return context.WithValue(ctx, witnessKey{}, w)
}

// unseen returns ctx for what is no part of a Send.
func unseen(ctx context.Context) context.Context {
	if witnessOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, witnessKey{}, (*witness)(nil))
}

// note changes what w and its outer witnesses have seen.
func (w *witness) note(change func(*witness)) {
	for ; w != nil; w = w.outer {
		w.mu.Lock()
		change(w)
		w.mu.Unlock()
	}
}

// began notes that a call has begun. One that panics never ends.
func (w *witness) began() { w.note(func(w *witness) { w.open++ }) }

// ended notes how far a call got.
func (w *witness) ended(end callEnd, op Operation) {
	w.note(func(w *witness) {
		w.open--
		switch {
		case !end.provesNothingDone():
			w.doubts++
			w.succeeds = w.succeeds || op == MutatingOperation && end.outcome == Answered && end.status/100 == 2
			return
		case op != SafeOperation:
			w.changes++
		}
		if end.outcome >= w.furthest.outcome {
			w.furthest = end
		}
	})
}

// followed notes that a redirect, which a read was answered with, is followed: it counts by
// where it leads.
func (w *witness) followed() { w.note(func(w *witness) { w.doubts-- }) }

// A testimony is what a witness has seen.
type testimony struct {
	doubt    bool // something may have been performed
	proof    bool // nothing was, by what could have
	succeeds bool
	furthest callEnd
}

func (w *witness) testify() testimony {
	w.mu.Lock()
	defer w.mu.Unlock()
	doubt := w.open > 0 || w.doubts > 0
	return testimony{doubt, !doubt && w.changes > 0, w.succeeds, w.furthest}
}
