package bench

import "time"

// Options say how much to measure.
type Options struct {
	Quick bool // so little that the times mean nothing, and the counts all the same

	// Progress is told how far a piece of work has got. If nil, nobody is.
	Progress func(done, of int)
}

// pick returns full, or quick for a quick run.
func pick[T any](o Options, full, quick T) T {
	if o.Quick {
		return quick
	}
	return full
}

// rounds is how often each contestant is timed.
func (o Options) rounds() int { return pick(o, 21, 3) }

// roundTime is for how long, each time.
func (o Options) roundTime() time.Duration { return pick(o, 100*time.Millisecond, time.Millisecond) }

func (o Options) progress(done, of int) {
	if o.Progress != nil {
		o.Progress(done, of)
	}
}
