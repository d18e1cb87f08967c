// Package keptlog keeps what is logged in a context until somebody has it written.
//
// A Logger is somebody else's code: it may take its time, or call whoever logs.
package keptlog

import (
	"context"
	"log/slog"
	"sync"
)

// Records are what is logged in one context, until Write.
type Records struct {
	mu      sync.Mutex // guards all below; never held while calling the Logger
	kept    []func()
	written bool
}

// keep keeps a record and reports true, unless Write was called.
func (r *Records) keep(record func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.written {
		r.kept = append(r.kept, record)
	}
	return !r.written
}

// Write gives the Logger what was kept; from then on nothing is. A Logger that panics
// loses that record.
func (r *Records) Write() {
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

type recordsKey struct{}

// In returns ctx as one in which a Logger of this package keeps what it is given.
func (r *Records) In(ctx context.Context) context.Context {
	return context.WithValue(ctx, recordsKey{}, r)
}

// New returns l as a Logger that heeds [Records.In]; nil stands for none.
func New(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(handler{l.Handler()})
}

// A handler keeps the records of a context that has Records, and hands on all others. It
// asks the Handler below nothing before it hands on.
type handler struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return ctx.Value(recordsKey{}) != nil || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, record slog.Record) error {
	records, ok := ctx.Value(recordsKey{}).(*Records)
	if !ok {
		return h.Handler.Handle(ctx, record)
	}
	ctx = context.Background() // the record's may hold nothing for a Handler, and have ended by then
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
func (h handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attributes)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
