package ampauth

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// A witness sees the calls that RetryTransports make in one Send or Find of [Once], by
// whatever client. It is in the context of that, and not in those of the layers below a call:
// what they send on the way is part of the call. A nil witness sees nothing.
type witness struct {
	outer *witness // of a Once whose Send this one is a part of

	mu       sync.Mutex // guards what follows; never held while talking to the network
	open     int        // calls that have not ended
	doubts   int        // calls that may have performed something, reads too
	changes  int        // calls that are no reads
	furthest callEnd    // of those that are no reads
	answered bool       // one that is no read, with success or a redirect
	succeeds bool       // a mutation was answered with success
	blind    int        // calls whose end does not show what is there
	blindest callEnd    // the last of them
}

// A callEnd is how far a call got.
type callEnd struct {
	outcome    Outcome
	status     int
	retryAfter time.Duration
	err        error // in place of an answer
}

// showsWhatIsThere reports whether a call that ended so has shown what there is, and that
// there is no more.
func (e callEnd) showsWhatIsThere() bool {
	switch e.status {
	case http.StatusNotModified, http.StatusNotFound, http.StatusGone:
		return e.err == nil
	}
	return e.err == nil && e.status/100 == 2
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

// extent orders the ends of calls by what may have been performed.
func (e callEnd) extent() int {
	if e.provesNothingDone() {
		return int(e.outcome)
	}
	return int(Answered) + 1
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
		if !end.showsWhatIsThere() {
			w.blind++
			w.blindest = end
		}
		if !end.provesNothingDone() {
			w.doubts++
		}
		if op == SafeOperation { // which says nothing of the others
			return
		}
		w.changes++
		w.answered = w.answered || end.err == nil && end.status < 400
		w.succeeds = w.succeeds || op == MutatingOperation && end.outcome == Answered && end.err == nil && end.status/100 == 2
		retryAfter := max(w.furthest.retryAfter, end.retryAfter)
		if end.extent() >= w.furthest.extent() || w.changes == 1 {
			w.furthest = end
		}
		w.furthest.retryAfter = retryAfter
	})
}

// brokeOff notes that an answer broke off. Of what was performed it says no less.
func (w *witness) brokeOff(end callEnd) {
	w.note(func(w *witness) {
		w.blind++
		w.blindest = end
	})
}

// followed notes that a redirect, which a read was answered with, is followed: it counts by
// where it leads.
func (w *witness) followed() {
	w.note(func(w *witness) {
		w.doubts--
		w.blind--
	})
}

// A testimony is what a witness has seen.
type testimony struct {
	doubt    bool // something may have been performed
	proof    bool // nothing was, by what could have
	fails    bool // by what could have performed it
	succeeds bool
	furthest callEnd
}

func (w *witness) testify() testimony {
	w.mu.Lock()
	defer w.mu.Unlock()
	doubt := w.open > 0 || w.doubts > 0
	return testimony{
		doubt:    doubt,
		proof:    !doubt && w.changes > 0,
		fails:    !w.answered && (w.open > 0 || w.changes > 0),
		succeeds: w.succeeds,
		furthest: w.furthest,
	}
}

// blindRead returns how a call ended after which what was not found may be there all the same.
func (w *witness) blindRead() (end callEnd, found bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind > 0 {
		return w.blindest, true
	}
	return callEnd{}, w.open > 0
}
