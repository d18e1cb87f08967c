package replay

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

const patience = 250 * time.Millisecond

func TestBodyReadAheadReadsAsBefore(t *testing.T) {
	fault := errors.New("the connection is gone")
	for _, test := range []struct {
		name    string
		body    io.Reader
		n       int64
		content string
		err     error
		whole   bool
	}{
		{"whole", strings.NewReader("answer"), 7, "answer", nil, true},
		{"exactly n, so there may be more", strings.NewReader("answer"), 6, "answer", nil, false},
		{"longer than n", strings.NewReader("answer"), 3, "answer", nil, false},
		{"nothing", strings.NewReader(""), 3, "", nil, true},
		{"byte by byte", iotest.OneByteReader(strings.NewReader("answer")), 7, "answer", nil, true},
		{"end together with the content", iotest.DataErrReader(strings.NewReader("answer")), 7, "answer", nil, true},
		{"fault within n", io.MultiReader(strings.NewReader("ans"), iotest.ErrReader(fault)), 6, "ans", fault, false},
		{"fault at once", iotest.ErrReader(fault), 6, "", fault, false},
		{"fault behind n", io.MultiReader(strings.NewReader("answer"), iotest.ErrReader(fault)), 3, "answer", fault, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &countedBody{Reader: test.body, fault: errors.New("not closed well")}
			ahead := ReadAhead(body, test.n, time.Minute)
			if content, ok := ahead.Whole(); !ahead.Finished() || ok != test.whole || ok && string(content) != test.content {
				t.Errorf("finished: %t; whole: %q, %t, want %t", ahead.Finished(), content, ok, test.whole)
			}
			for range 2 { // what ended a body ends it for good
				content, err := io.ReadAll(iotest.OneByteReader(ahead))
				if string(content) != test.content || err != test.err {
					t.Errorf("reads %q, %v, want %q, %v", content, err, test.content, test.err)
				}
				test.content = ""
			}
			if err := ahead.Close(); err != body.fault || body.closed != 1 {
				t.Errorf("closed %d times: %v", body.closed, err)
			}
		})
	}
}

func TestReadingAheadTakesNoMoreThanItsTimeAndLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, feed := io.Pipe()
		start := time.Now()
		ahead := ReadAhead(body, 6, patience)
		if d := time.Since(start); d != patience {
			t.Errorf("took %v, want %v", d, patience)
		}
		if _, whole := ahead.Whole(); whole || ahead.Finished() {
			t.Error("a stalled body counts as read")
		}
		go func() {
			time.Sleep(time.Minute)
			_, _ = io.WriteString(feed, "answer")
			time.Sleep(time.Minute)
			_, _ = io.WriteString(feed, "!")
			_ = feed.Close()
		}()
		p := make([]byte, 10)
		if n, err := ahead.Read(p); string(p[:n]) != "answer" || err != nil || time.Since(start) != patience+time.Minute {
			t.Errorf("reads %q, %v after %v", p[:n], err, time.Since(start))
		}
		if !ahead.Finished() {
			t.Error("n bytes are read, and it goes on")
		}
		if n, err := ahead.Read(p); string(p[:n]) != "!" || err != nil || time.Since(start) != patience+2*time.Minute {
			t.Errorf("then reads %q, %v after %v", p[:n], err, time.Since(start))
		}
	})
}

func TestCloseEndsAStalledReadingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, _ := io.Pipe()
		ahead := ReadAhead(body, 6, patience)
		_ = ahead.Close()
		if _, err := ahead.Read(make([]byte, 1)); err != io.ErrClosedPipe {
			t.Errorf("reads %v", err)
		}
	})
}

func TestBodyThatIsGivenUpIsClosedAndReadsAsFarAsItWasRead(t *testing.T) {
	fault, givenUp := errors.New("the connection is gone"), errors.New("given up")
	for _, test := range []struct {
		name    string
		body    io.Reader
		content string
		err     error
	}{
		{"whole", strings.NewReader("short"), "short", nil},
		{"nothing", strings.NewReader(""), "", nil},
		{"longer", strings.NewReader("answers"), "answer", givenUp},
		{"broken", io.MultiReader(strings.NewReader("ans"), iotest.ErrReader(fault)), "ans", fault},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &countedBody{Reader: test.body}
			part := ReadAhead(body, 6, time.Minute).GiveUp(time.Minute, func() { t.Error("a read that does not stall was stopped") }, givenUp)
			for range 2 { // to be closed early changes nothing
				if body.closed != 1 {
					t.Errorf("the body was closed %d times", body.closed)
				}
				_ = part.Close()
			}
			for range 2 {
				content, err := io.ReadAll(iotest.OneByteReader(part))
				if string(content) != test.content || err != test.err {
					t.Errorf("reads %q, %v, want %q, %v", content, err, test.content, test.err)
				}
				test.content = ""
			}
		})
	}
}

func TestStalledBodyThatIsGivenUpIsStopped(t *testing.T) {
	givenUp := errors.New("given up")
	for _, test := range []struct {
		name    string
		heeds   bool // the read heeds stop
		content string
		took    time.Duration
	}{
		{"a read that ends", true, "ans", 0},
		{"a read that does not", false, "", patience},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				body := &countedBody{Reader: io.MultiReader(strings.NewReader("ans"), readerFunc(func([]byte) (int, error) {
					<-ended
					return 0, io.ErrClosedPipe
				}))}
				ahead := ReadAhead(body, 6, patience)
				start := time.Now()
				part := ahead.GiveUp(patience, func() {
					if test.heeds {
						close(ended)
					}
				}, givenUp)
				if took := time.Since(start); took != test.took || body.closed != 1 {
					t.Errorf("took %v, and the body was closed %d times", took, body.closed)
				}
				if content, err := io.ReadAll(part); string(content) != test.content || err != givenUp {
					t.Errorf("reads %q, %v", content, err)
				}
				if !test.heeds {
					close(ended)
				}
			})
		})
	}
}

func TestStalledBodyThatNothingStopsIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, feed := io.Pipe()
		go func() { _, _ = io.WriteString(feed, "ans") }()
		ahead := ReadAhead(body, 6, patience)
		start, givenUp := time.Now(), errors.New("given up")
		part := ahead.GiveUp(patience, nil, givenUp)
		if content, err := io.ReadAll(part); string(content) != "ans" || err != givenUp || time.Since(start) != 0 {
			t.Errorf("reads %q, %v after %v", content, err, time.Since(start))
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// recovered returns what f panics with.
func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestPanicOfABodyGoesToWhoeverReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &countedBody{Reader: readerFunc(func([]byte) (int, error) { panic("broken body") })}
		if got := recovered(func() { ReadAhead(body, 6, patience) }); got != "broken body" || body.closed != 1 {
			t.Errorf("in time: panicked with %v, and the body was closed %d times", got, body.closed)
		}
		body = &countedBody{Reader: readerFunc(func([]byte) (int, error) {
			time.Sleep(time.Minute)
			panic("broken body")
		})}
		ahead := ReadAhead(body, 6, patience)
		if got := recovered(func() { _, _ = ahead.Read(make([]byte, 1)) }); got != "broken body" || body.closed != 0 {
			t.Errorf("later: panicked with %v, and the body was closed %d times", got, body.closed)
		}
	})
}

// A fake body of a test may call t.FailNow.
func TestBodyThatEndsItsGoroutineIsNoWholeBody(t *testing.T) {
	ahead := ReadAhead(&countedBody{Reader: readerFunc(func([]byte) (int, error) {
		runtime.Goexit()
		return 0, nil
	})}, 6, time.Minute)
	_, whole := ahead.Whole()
	if _, err := ahead.Read(make([]byte, 1)); whole || err != io.ErrUnexpectedEOF {
		t.Errorf("whole: %t; reads %v", whole, err)
	}
}

func TestDiscardDrainsNoMoreThanItsLimit(t *testing.T) {
	for _, test := range []struct {
		name string
		size int64
		want int64
	}{
		{"empty", 0, 0},
		{"small", 1000, 1000},
		{"endless", 1 << 40, MaxDrain},
	} {
		t.Run(test.name, func(t *testing.T) {
			rest := &io.LimitedReader{R: readerFunc(func(p []byte) (int, error) { return len(p), nil }), N: test.size}
			body := &countedBody{Reader: rest}
			Discard(body, time.Minute, func() { t.Error("a read that does not stall was stopped") })
			if drained := test.size - rest.N; drained != test.want || body.closed != 1 {
				t.Errorf("drained %d bytes, want %d, and closed %d times", drained, test.want, body.closed)
			}
		})
	}
}

func TestDiscardOfNoBodyDoesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Discard(http.NoBody, time.Minute, nil) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestDiscardEndsAStalledRead(t *testing.T) {
	for _, test := range []struct {
		name           string
		stops          bool          // there is a stop
		heeds          time.Duration // it ends the read after so long
		lasts          time.Duration
		closedByReader bool
	}{
		{"heeds stop at once", true, 0, patience, false},
		{"heeds stop later", true, patience - 1, 2*patience - 1, false},
		{"does not heed stop", true, time.Hour, 2 * patience, true},
		{"no stop", false, 0, patience, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipe, feed := io.Pipe()
				body := &stalledBody{PipeReader: pipe}
				stops := 0
				var stop func()
				if test.stops {
					stop = func() {
						if stops++; body.closed != 0 {
							t.Error("closed before it was stopped")
						}
						time.AfterFunc(test.heeds, func() { _ = feed.CloseWithError(errors.New("stopped")) })
					}
				}
				start := time.Now()
				Discard(body, patience, stop)
				if d := time.Since(start); d != test.lasts {
					t.Errorf("took %v, want %v", d, test.lasts)
				}
				if body.closed != 1 || body.closedWhileRead != test.closedByReader || test.stops != (stops == 1) {
					t.Errorf("closed %d times, while it was read: %t, want %t; stopped %d times", body.closed, body.closedWhileRead, test.closedByReader, stops)
				}
				time.Sleep(2 * time.Hour) // until nothing runs
			})
		})
	}
}

// A stalledBody notes whether it is closed while somebody reads it.
type stalledBody struct {
	*io.PipeReader
	reading         atomic.Bool
	closedWhileRead bool
	closed          int
}

func (b *stalledBody) Read(p []byte) (int, error) {
	b.reading.Store(true)
	n, err := b.PipeReader.Read(p)
	b.reading.Store(false)
	return n, err
}

func (b *stalledBody) Close() error {
	b.closed++
	b.closedWhileRead = b.reading.Load()
	return b.PipeReader.Close()
}
