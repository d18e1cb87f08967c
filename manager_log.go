package ampauth

import (
	"context"
	"log/slog"
	"sync"
)

// flightRecords are what a flight has to log. A Logger is somebody else's code: it
// may take its time, or call the manager, so they are kept until the flight has
// landed.
type flightRecords struct {
	mu      sync.Mutex // guards all below; never held while calling the Logger
	kept    []func()
	written bool
}

// keep keeps a record and reports true, unless the flight has landed.
func (r *flightRecords) keep(record func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.written {
		r.kept = append(r.kept, record)
	}
	return !r.written
}

// write gives the Logger what was kept. One that panics loses that record.
func (r *flightRecords) write() {
	r.mu.Lock()
	kept := r.kept
	r.kept, r.written = nil, true
	r.mu.Unlock()
	for _, record := range kept {
		func() {
			defer func() { _ = recover() }()
			record()
		}()
	}
}

type flightRecordsKey struct{}

// logsOf returns a context in which what is logged is kept by f.
func (f *flight) logsOf(ctx context.Context) context.Context {
	return context.WithValue(ctx, flightRecordsKey{}, &f.records)
}

// A flightLog keeps the records that are made in the context of a flight, and hands
// on all others. It asks the Handler nothing before it hands on.
type flightLog struct{ slog.Handler }

// flightLogger returns l, with what flights log kept; nil stands for no Logger.
func flightLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(flightLog{l.Handler()})
}

// Enabled implements slog.Handler.
func (h flightLog) Enabled(ctx context.Context, level slog.Level) bool {
	return ctx.Value(flightRecordsKey{}) != nil || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h flightLog) Handle(ctx context.Context, record slog.Record) error {
	records, ok := ctx.Value(flightRecordsKey{}).(*flightRecords)
	if !ok {
		return h.Handler.Handle(ctx, record)
	}
	ctx = context.Background() // a flight's holds nothing for a Handler, and has ended by then
	write := func() {
		if h.Handler.Enabled(ctx, record.Level) {
			_ = h.Handler.Handle(ctx, record)
		}
	}
	if !records.keep(write) {
		write()
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h flightLog) WithAttrs(attributes []slog.Attr) slog.Handler {
	return flightLog{h.Handler.WithAttrs(attributes)}
}

// WithGroup implements slog.Handler.
func (h flightLog) WithGroup(name string) slog.Handler { return flightLog{h.Handler.WithGroup(name)} }
