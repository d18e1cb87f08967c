// Package kept keeps the calls of somebody else's code that are made in a context, until
// they may be made.
//
// A Logger, or whoever else is told of something, may take its time, or call whoever
// tells it.
package kept

import (
	"context"
	"log/slog"
	"sync"
)

// Calls are what is to be called in one context, until Make.
type Calls struct {
	mu   sync.Mutex // guards all below; never held while making a call
	kept []func(context.Context)
	made bool
}

// keep keeps a call and reports true, unless Make was called.
func (c *Calls) keep(call func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		c.kept = append(c.kept, call)
	}
	return !c.made
}

// Make makes the calls that were kept, in their order; from then on none is kept. One that
// panics is over.
func (c *Calls) Make() {
	c.mu.Lock()
	calls := c.kept
	c.kept, c.made = nil, true
	c.mu.Unlock()
	for _, call := range calls {
		func() {
			defer func() { _ = recover() }()
			call(context.Background())
		}()
	}
}

type callsKey struct{}

// In returns ctx as one in which calls are kept.
func (c *Calls) In(ctx context.Context) context.Context {
	return context.WithValue(ctx, callsKey{}, c)
}

// Do makes a call, at once and with ctx, unless ctx is one of [Calls.In]. Then it is kept
// until Make, and gets a context that holds nothing and does not end: that of the calls may
// have ended by then.
func Do(ctx context.Context, call func(context.Context)) {
	calls, keeps := ctx.Value(callsKey{}).(*Calls)
	switch {
	case !keeps:
		call(ctx)
	case !calls.keep(call):
		call(context.Background())
	}
}

// Logger returns l as a Logger whose records are calls that can be kept; nil stands for
// none.
func Logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(handler{l.Handler()})
}

// A handler asks the Handler below nothing before it hands a record on.
type handler struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return ctx.Value(callsKey{}) != nil || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, record slog.Record) error {
	if ctx.Value(callsKey{}) == nil { // it was asked whether it is enabled
		return h.Handler.Handle(ctx, record)
	}
	Do(ctx, func(ctx context.Context) {
		if h.Handler.Enabled(ctx, record.Level) {
			_ = h.Handler.Handle(ctx, record)
		}
	})
	return nil
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attributes)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
