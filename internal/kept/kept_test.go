package kept

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

type valueKey struct{}

// A fakeHandler keeps the message of each record, and calls its functions if they are set.
type fakeHandler struct {
	enabled func(context.Context, slog.Level) bool
	handle  func(ctx context.Context, message string)

	mu       sync.Mutex
	messages []string
}

func (h *fakeHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.enabled == nil || h.enabled(ctx, level)
}

func (h *fakeHandler) Handle(ctx context.Context, record slog.Record) error {
	if h.handle != nil {
		h.handle(ctx, record.Message)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, record.Message)
	return nil
}

func (h *fakeHandler) WithAttrs([]slog.Attr) slog.Handler { panic("not asked for") }
func (h *fakeHandler) WithGroup(string) slog.Handler      { panic("not asked for") }

func (h *fakeHandler) has(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.messages, want) {
		t.Errorf("the Logger has %q, want %q", h.messages, want)
	}
}

func TestRecordsAreKeptInOrderUntilMake(t *testing.T) {
	below := new(fakeHandler)
	log := Logger(slog.New(below))
	var records Calls
	ctx := records.In(t.Context())
	log.InfoContext(ctx, "first")
	log.ErrorContext(ctx, "second")
	below.has(t)
	records.Make()
	below.has(t, "first", "second")
	log.InfoContext(ctx, "third")
	below.has(t, "first", "second", "third")
	records.Make()
	below.has(t, "first", "second", "third")
}

func TestRecordsOfOtherContextsAreNotKept(t *testing.T) {
	below := new(fakeHandler)
	below.handle = func(ctx context.Context, _ string) {
		if ctx.Value(valueKey{}) != "caller's" {
			t.Error("the Logger does not see the caller's context")
		}
	}
	log := Logger(slog.New(below))
	var records, others Calls
	caller := context.WithValue(t.Context(), valueKey{}, "caller's")
	log.InfoContext(records.In(t.Context()), "kept")
	log.InfoContext(others.In(t.Context()), "kept by others")
	log.InfoContext(caller, "direct")
	below.has(t, "direct")
	below.handle = nil
	others.Make()
	below.has(t, "direct", "kept by others")
}

func TestContextOfARecordThatWasKeptHoldsNothingAndNeverEnds(t *testing.T) {
	below := new(fakeHandler)
	below.handle = func(ctx context.Context, message string) {
		if ctx.Err() != nil || ctx.Value(valueKey{}) != nil || ctx.Value(callsKey{}) != nil {
			t.Errorf("%s: the context is %v, %v", message, ctx, ctx.Err())
		}
	}
	log := Logger(slog.New(below))
	var records Calls
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), valueKey{}, "caller's"))
	ctx = records.In(ctx)
	log.InfoContext(ctx, "kept")
	cancel()
	records.Make()
	log.InfoContext(ctx, "afterwards")
	below.has(t, "kept", "afterwards")
}

func TestContextWithRecordsIsTheCallersOtherwise(t *testing.T) {
	var records Calls
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), valueKey{}, "caller's"))
	ctx = records.In(ctx)
	cancel()
	if ctx.Err() == nil || ctx.Value(valueKey{}) != "caller's" {
		t.Errorf("it is %v, %v", ctx, ctx.Err())
	}
}

func TestNoLoggerDiscards(t *testing.T) {
	log := Logger(nil)
	if log.Enabled(t.Context(), slog.LevelError) {
		t.Error("a Logger that is none is enabled")
	}
	var records Calls
	log.ErrorContext(records.In(t.Context()), "nobody reads this")
	records.Make()
}

func TestHandlerThatPanicsLosesThatRecordOnly(t *testing.T) {
	below := new(fakeHandler)
	below.handle = func(_ context.Context, message string) {
		if message == "second" {
			panic("broken Logger")
		}
	}
	log := Logger(slog.New(below))
	var records Calls
	ctx := records.In(t.Context())
	for _, message := range []string{"first", "second", "third"} {
		log.InfoContext(ctx, message)
	}
	records.Make()
	below.has(t, "first", "third")
}

func TestHandlerIsAskedNothingWhileRecordsAreKept(t *testing.T) {
	below, asked := new(fakeHandler), 0
	below.enabled = func(ctx context.Context, level slog.Level) bool {
		asked++
		return level >= slog.LevelInfo
	}
	log := Logger(slog.New(below))
	var records Calls
	ctx := records.In(t.Context())
	log.DebugContext(ctx, "debug")
	log.InfoContext(ctx, "info")
	if !log.Enabled(ctx, slog.LevelDebug) || asked != 0 {
		t.Errorf("the Handler was asked %d times", asked)
	}
	records.Make()
	below.has(t, "info")
	log.DebugContext(ctx, "debug afterwards")
	log.DebugContext(t.Context(), "debug elsewhere")
	log.InfoContext(ctx, "info afterwards")
	below.has(t, "info", "info afterwards")
}

func TestAttributesAndGroupsGoThrough(t *testing.T) {
	var output bytes.Buffer
	log := Logger(slog.New(slog.NewTextHandler(&output, nil))).With("a", 1).WithGroup("g").With("b", 2)
	var records Calls
	log.InfoContext(records.In(t.Context()), "kept", "c", 3)
	log.InfoContext(t.Context(), "direct", "c", 4)
	if got := output.String(); !strings.HasSuffix(got, "msg=direct a=1 g.b=2 g.c=4\n") || strings.Contains(got, "kept") {
		t.Errorf("logged %q", got)
	}
	output.Reset()
	records.Make()
	if got := output.String(); !strings.HasSuffix(got, "msg=kept a=1 g.b=2 g.c=3\n") {
		t.Errorf("logged %q", got)
	}
}

func TestHandlerMayLogAndMakeThemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which a deadlock ends the test
		below := new(fakeHandler)
		log := Logger(slog.New(below))
		var records Calls
		ctx := records.In(t.Context())
		below.handle = func(_ context.Context, message string) {
			if !strings.HasPrefix(message, "again") {
				log.InfoContext(ctx, "again "+message)
				records.Make()
			}
		}
		log.InfoContext(ctx, "kept")
		records.Make()
		below.has(t, "again kept", "kept")
		log.InfoContext(ctx, "direct")
		below.has(t, "again kept", "kept", "again direct", "direct")
	})
}

func TestNoRecordOfManyGoroutinesIsLostOrDoubled(t *testing.T) {
	below := new(fakeHandler)
	log := Logger(slog.New(below))
	var records Calls
	ctx := records.In(t.Context())
	var want []string
	var logging sync.WaitGroup
	for i := range 100 {
		message := fmt.Sprintf("%03d", i)
		want = append(want, message)
		logging.Go(func() { log.InfoContext(ctx, message) })
		if i%40 == 20 {
			logging.Go(records.Make)
		}
	}
	logging.Wait()
	records.Make()
	slices.Sort(below.messages)
	below.has(t, want...)
}

func TestCallIsMadeAtOnceWithItsContextUnlessThatKeeps(t *testing.T) {
	caller := context.WithValue(t.Context(), valueKey{}, "caller's")
	var got []any
	call := func(ctx context.Context) { got = append(got, ctx.Value(valueKey{})) }
	Do(caller, call)
	var calls Calls
	Do(calls.In(caller), call)
	if len(got) != 1 || got[0] != "caller's" {
		t.Errorf("called with %v, want once, with the caller's context", got)
	}
	calls.Make()
	Do(calls.In(caller), call)
	if len(got) != 3 || got[1] != nil || got[2] != nil {
		t.Errorf("called with %v, want twice more, without the caller's context", got)
	}
}

func TestCallsAndRecordsKeepTheirOrder(t *testing.T) {
	below := new(fakeHandler)
	log := Logger(slog.New(below))
	var calls Calls
	ctx := calls.In(t.Context())
	log.InfoContext(ctx, "first")
	Do(ctx, func(context.Context) { log.InfoContext(t.Context(), "second") })
	log.InfoContext(ctx, "third")
	calls.Make()
	below.has(t, "first", "second", "third")
}
