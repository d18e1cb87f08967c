package ampauth_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

// stubHangs answers with a status and the first half of a body, and then nothing
// until the client leaves.
func stubHangs(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func stubSilent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestTimeoutBoundsEachAttempt(t *testing.T) {
	for _, test := range []struct {
		name     string
		op       ampauth.Operation
		config   ampauth.RetryConfig
		limit    time.Duration
		attempts int
	}{
		{"safe by default", ampauth.SafeOperation, ampauth.RetryConfig{}, 10 * time.Second, 3},
		{"idempotent by default", ampauth.IdempotentOperation, ampauth.RetryConfig{}, 10 * time.Second, 3},
		{"mutation by default", ampauth.MutatingOperation, ampauth.RetryConfig{}, 60 * time.Second, 1},
		{"safe", ampauth.SafeOperation, ampauth.RetryConfig{Timeout: 3 * time.Second, MutationTimeout: time.Hour}, 3 * time.Second, 3},
		{"mutation", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: 3 * time.Second, MutationTimeout: 4 * time.Second}, 4 * time.Second, 1},
		{"mutation, never below Timeout by default", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: 2 * time.Minute}, 2 * time.Minute, 1},
		{"mutation, by default even when Timeout is off", ampauth.MutatingOperation, ampauth.RetryConfig{Timeout: -1}, time.Minute, 1},
		{"safe, by default even when MutationTimeout is off", ampauth.SafeOperation, ampauth.RetryConfig{MutationTimeout: -1}, 10 * time.Second, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				var began []time.Time
				layer := stubLayer(func(req *http.Request) (*http.Response, error) {
					began = append(began, time.Now())
					return base.RoundTrip(req)
				})
				rt := &ampauth.RetryTransport{Base: layer, Retry: test.config}
				_, err := rt.RoundTrip(stubRequestTo(t.Context(), url, test.op, []byte("x")))
				e := stubError(t, err)
				if len(began) != test.attempts || e.Attempts != test.attempts {
					t.Fatalf("%d attempts, and the error says %d; want %d", len(began), e.Attempts, test.attempts)
				}
				if took := time.Since(began[len(began)-1]); took != test.limit {
					t.Errorf("the last attempt took %v, want %v", took, test.limit)
				}
				if e.Limit != test.limit || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrTimeout) {
					t.Errorf("got %v with the limit %v, want a timeout after %v", err, e.Limit, test.limit)
				}
				if errors.Is(err, ampauth.ErrAmbiguous) != (test.op == ampauth.MutatingOperation) {
					t.Errorf("%v says the wrong thing about being ambiguous", err)
				}
			})
		})
	}
}

func TestNegativeTimeoutIsNone(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(24 * time.Hour)
		}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1}}
			start := time.Now()
			if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, op, []byte("x"))); status != 200 || time.Since(start) != 24*time.Hour {
				t.Errorf("status %d after %v, want 200 after a day", status, time.Since(start))
			}
		})
	}
}

// The caller's deadline is no fault of the attempt's clock, and the other way.
func TestCallersDeadlineIsToldFromTheAttempts(t *testing.T) {
	for _, test := range []struct {
		name     string
		deadline time.Duration
		took     time.Duration
		limit    time.Duration
	}{
		{"the caller's comes first", 3 * time.Second, 3 * time.Second, 0},
		{"the attempt's comes first", 11 * time.Second, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
				defer cancel()
				start := time.Now()
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MutationTimeout: 10 * time.Second}}
				_, err := rt.RoundTrip(stubRequestTo(ctx, url, ampauth.MutatingOperation, []byte("x")))
				e := stubError(t, err)
				if took := time.Since(start); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if alive := ctx.Err() == nil; alive != (test.limit > 0) {
					t.Errorf("the caller's context: %v", ctx.Err())
				}
				if e.Limit != test.limit || e.Kind != ampauth.ErrAmbiguous || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ampauth.ErrTimeout) {
					t.Errorf("got %v with the limit %v, want an ambiguous timeout with the limit %v", err, e.Limit, test.limit)
				}
				if !strings.HasPrefix(err.Error(), "ampauth: outcome unknown") {
					t.Errorf("the text is %q", err)
				}
			})
		})
	}
}

func TestTimeoutCoversTheBody(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			stubBubble(t, stubHangs(200), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: 5 * time.Second, MutationTimeout: 5 * time.Second}}
				start := time.Now()
				resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, op, []byte("x")))
				if err != nil || time.Since(start) != 0 {
					t.Fatalf("got %v after %v, want the response at once", err, time.Since(start))
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if took := time.Since(start); took != 5*time.Second || string(text) != "first" {
					t.Errorf("read %q in %v, want the first half in 5 s", text, took)
				}
				e := stubError(t, err)
				if e.Kind != ampauth.ErrTimeout || e.Limit != 5*time.Second || e.Outcome != ampauth.Answered || e.StatusCode != 200 || e.Attempts != 1 || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v (%v), want an answered timeout after 5 s", err, e.Outcome)
				}
				// The response is there: that the operation was performed is not in doubt.
				if errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("%v is ambiguous", err)
				}
			})
		})
	}
}

// A body that was given back must not be cut by a clock that nobody needs any more.
func TestSlowReaderHasTheWholeTimeout(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 9 {
			_, _ = fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		start := time.Now()
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		if text := stubText(t, resp); text != "012345678" || time.Since(start) != 9*time.Second {
			t.Errorf("read %q in %v", text, time.Since(start))
		}
	})
}

// Over HTTP/2 net/http does not look at the context while an upload waits for the
// server to take more, and an answer that came early stalls.
func TestTimeoutCoversTheBodyOfAnEarlyAnswerOverHTTP2(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.IdempotentOperation, ampauth.MutatingOperation} {
		for _, test := range []struct {
			name              string
			timeout, deadline time.Duration // of the attempt, of the caller
			leaves            bool
			is, kind          error
		}{
			{"attempt's time", 50 * time.Millisecond, time.Hour, false, context.DeadlineExceeded, ampauth.ErrTimeout},
			{"caller's deadline", -1, 50 * time.Millisecond, false, context.DeadlineExceeded, ampauth.ErrTimeout},
			{"caller leaves", time.Hour, time.Hour, true, context.Canceled, ampauth.ErrRequestFailed},
		} {
			t.Run(test.name+", "+op.String(), func(t *testing.T) {
				s := hostile.New(hostile.HTTP2, hostile.Sequence(hostile.Step{Do: hostile.StallBody, Upload: hostile.ReadNever}))
				defer s.Close()
				base := stubPooled(t)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
				var resp *http.Response
				var err error
				leave := func() {}
				// On a busy machine the header may take longer than the time.
				for factor := time.Duration(1); factor <= 1000 && (resp == nil || err != nil); factor *= 10 {
					leave()
					var ctx context.Context
					ctx, leave = context.WithTimeout(t.Context(), test.deadline*factor)
					config := ampauth.RetryConfig{Timeout: test.timeout * factor, MutationTimeout: test.timeout * factor, MaxAttempts: 1}
					resp, err = (&ampauth.RetryTransport{Base: base, Retry: config}).RoundTrip(stubRequestTo(ctx, s.URL(), op, make([]byte, 1<<20)))
				}
				defer leave()
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if test.leaves {
					time.AfterFunc(50*time.Millisecond, leave)
				}
				_, err = io.ReadAll(resp.Body)
				if e := stubError(t, err); e.Kind != test.kind || e.Outcome != ampauth.Answered || !errors.Is(err, test.is) {
					t.Errorf("the body ends in %v, want %v that is Answered and Is %v", err, test.kind, test.is)
				}
			})
		}
	}
}

func TestReadAfterCloseIsNotBlamedOnTheCaller(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Body: "body"}))
	defer s.Close()
	resp, err := (&ampauth.RetryTransport{Base: stubPooled(t)}).RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.SafeOperation, nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("reading a closed body gives %v", err)
	}
}

func TestClockIsReleasedWithTheBody(t *testing.T) {
	ends := map[string]func(io.ReadCloser){
		"read to its end": func(b io.ReadCloser) { _, _ = io.ReadAll(b) },
		"closed unread":   func(b io.ReadCloser) { _ = b.Close() },
		"closed half-way": func(b io.ReadCloser) { _, _ = b.Read(make([]byte, 1)); _ = b.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(200))
				resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err != nil {
					t.Fatal(err)
				}
				ctx := base.seen()[0].request.Context()
				if ctx.Err() != nil {
					t.Fatal("the attempt's context ended before its body")
				}
				end(resp.Body)
				if ctx.Err() != context.Canceled {
					t.Errorf("afterwards the attempt's context says %v, want context.Canceled", ctx.Err())
				}
				time.Sleep(time.Hour) // a clock that still ran would fire now
				if cause := context.Cause(ctx); cause != context.Canceled {
					t.Errorf("the attempt's context ended by %v", cause)
				}
				_ = resp.Body.Close()
			})
		})
	}
}

func TestResponseWithoutABodyReleasesTheClockAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
		})
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if base.seen()[0].request.Context().Err() == nil {
			t.Error("the attempt's context lives on")
		}
	})
}

func TestFailedAttemptsAreReleased(t *testing.T) {
	for name, step := range map[string]stubStep{"errors": stubRefuse(), "responses": stubAnswer(503)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(step)
				resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err == nil {
					stubText(t, resp)
				}
				for i, c := range base.seen() {
					if c.request.Context().Err() == nil {
						t.Errorf("the context of attempt %d lives on", i+1)
					}
				}
			})
		})
	}
}

func TestEarlierAttemptsAreReleasedBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503, "Retry-After", "30"), stubAnswer(200))
		time.AfterFunc(time.Second, func() {
			if calls := base.seen(); len(calls) != 1 || calls[0].request.Context().Err() == nil {
				t.Error("during the wait the first attempt's context lives on")
			}
		})
		stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	})
}

func TestSwitchedProtocolOutlivesTheClock(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		ping := make([]byte, 4)
		_, _ = io.ReadFull(buffered, ping)
		_, _ = conn.Write(ping)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			attempt := t.Context()
			rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Timeout: time.Second, MutationTimeout: time.Second}}
			if op == ampauth.SafeOperation {
				rt.Base = stubLayer(func(req *http.Request) (*http.Response, error) {
					attempt = req.Context()
					return base.RoundTrip(req)
				})
			}
			req := stubRequestTo(t.Context(), url, op, nil)
			req.Header.Set("Connection", "upgrade")
			req.Header.Set("Upgrade", "echo")
			resp, err := rt.RoundTrip(req)
			if err != nil || resp.StatusCode != 101 {
				t.Fatalf("%v: got (%v, %v), want 101", op, resp, err)
			}
			time.Sleep(time.Minute)
			if attempt.Err() != nil {
				t.Errorf("%v: the context ended: %v", op, context.Cause(attempt))
			}
			both, ok := resp.Body.(io.ReadWriteCloser)
			if !ok {
				t.Fatalf("%v: the body is %T and cannot be written to", op, resp.Body)
			}
			buffer := make([]byte, 4)
			if _, err := io.WriteString(both, "ping"); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(both, buffer); err != nil || string(buffer) != "ping" {
				t.Errorf("%v: the echo is %q, %v", op, buffer, err)
			}
			_ = both.Close()
		}
	})
}

// A body that breaks was answered, whatever the operation: nothing repeats it.
func TestBodyThatBreaksIsAnswered(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		for _, config := range []ampauth.RetryConfig{{}, {Timeout: -1, MutationTimeout: -1}} {
			t.Run(fmt.Sprintf("%v, timeout %v", op, config.Timeout), func(t *testing.T) {
				requests := 0
				stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
					requests++
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Length", "10")
					_, _ = io.WriteString(w, "first")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
					rt := &ampauth.RetryTransport{Base: base, Retry: config}
					resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, op, []byte("x")))
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					text, err := io.ReadAll(resp.Body)
					if string(text) != "first" || !errors.Is(err, io.ErrUnexpectedEOF) || requests != 1 {
						t.Errorf("read %q, %v in %d requests; want the first half and io.ErrUnexpectedEOF in 1", text, err, requests)
					}
					if e := stubError(t, err); e.Outcome != ampauth.Answered || e.StatusCode != 200 || errors.Is(err, ampauth.ErrAmbiguous) {
						t.Errorf("got %v (%v), want Answered", err, e.Outcome)
					}
				})
			})
		}
	}
}

// A closed connection ends a body short; a reset one says so.
func TestMutationWhoseAnswerBreaksOffIsAnswered(t *testing.T) {
	for _, p := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("protocol %d, reset %v", p, reset), func(t *testing.T) {
				s := hostile.New(p, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.CutBody, Reset: reset, Body: "what was made"}))
				defer s.Close()
				base := stubPooled(t)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
				resp, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
				if err != nil && reset && errors.Is(err, ampauth.ErrAmbiguous) && s.Requests() == 1 {
					return // the reset may overtake the header
				}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				_, err = io.ReadAll(resp.Body)
				if e := stubError(t, err); e.Outcome != ampauth.Answered || e.StatusCode != 200 || s.Requests() != 1 {
					t.Errorf("the body ends in %v (%v) after %d requests, want Answered after one", err, e.Outcome, s.Requests())
				}
				if !strings.HasSuffix(err.Error(), "do not send it again") {
					t.Errorf("the error does not say what to do: %v", err)
				}
				if short := errors.Is(err, io.ErrUnexpectedEOF); !reset && !short {
					t.Errorf("the body ends in %v, want io.ErrUnexpectedEOF", err)
				}
			})
		}
	}
}

// The time of an attempt covers its body: one that comes in time comes whole, one
// that goes on beyond it does not, even while it moves.
func TestTrickledBodyHasTheTimeOfItsAttempt(t *testing.T) {
	for took, whole := range map[time.Duration]bool{9 * time.Second: true, 11 * time.Second: false} {
		t.Run(took.String(), func(t *testing.T) {
			const size, pieces = 1 << 20, 64
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				for range pieces {
					_, _ = w.Write(make([]byte, size/pieces))
					_ = http.NewResponseController(w).Flush()
					time.Sleep(took / pieces)
				}
			}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				start := time.Now()
				content, err := io.ReadAll(resp.Body)
				switch {
				case whole && (err != nil || len(content) != size):
					t.Errorf("%d bytes, %v; want all %d", len(content), err, size)
				case !whole && (!errors.Is(err, ampauth.ErrTimeout) || time.Since(start) != 10*time.Second):
					t.Errorf("the body ends in %v after %v, want ErrTimeout after the 10 s of the attempt", err, time.Since(start))
				}
			})
		})
	}
}

func TestCallerWhoLeavesWhileReadingIsLetGo(t *testing.T) {
	stubBubble(t, stubHangs(200), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		time.AfterFunc(time.Second, cancel)
		_, err = io.ReadAll(resp.Body)
		if e := stubError(t, err); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second || e.Timeout() || e.Outcome != ampauth.Answered {
			t.Errorf("got %v after %v, want context.Canceled after 1 s", err, time.Since(start))
		}
	})
}

// The deadline of the caller ends the reading with the kind that it has elsewhere.
func TestCallersDeadlineWhileReadingIsATimeout(t *testing.T) {
	stubBubble(t, stubHangs(200), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		e := stubError(t, err)
		if !errors.Is(err, context.DeadlineExceeded) || !e.Timeout() || e.Limit != 0 {
			t.Errorf("got %v with the limit %v, want the caller's deadline", err, e.Limit)
		}
		if e.Kind != ampauth.ErrTimeout {
			t.Errorf("the kind is %v, want ErrTimeout, as for a deadline before the response", e.Kind)
		}
	})
}

func TestClientTimeoutBoundsTheWholeCall(t *testing.T) {
	stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		client := &http.Client{Transport: &ampauth.RetryTransport{Base: base}, Timeout: 300 * time.Millisecond}
		start := time.Now()
		_, err := client.Do(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		timeout, ok := errors.AsType[net.Error](err)
		if !ok || !timeout.Timeout() || time.Since(start) != 300*time.Millisecond {
			t.Errorf("got %v after %v, want a timeout after 300 ms", err, time.Since(start))
		}
	})
}

func TestResponseOverALongBodyIsReadWhole(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		out := bufio.NewWriter(w)
		for range 1 << 10 {
			_, _ = out.Write(make([]byte, 1<<10))
		}
		_ = out.Flush()
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		for range 3 {
			resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(stubText(t, resp)); n != 1<<20 {
				t.Errorf("read %d bytes, want 1 MiB", n)
			}
			synctest.Wait()
		}
		if l.Dials() != 1 {
			t.Errorf("%d connections, want 1", l.Dials())
		}
	})
}

func TestMutationOfALayerBelowIsMaskedWhereverItGoes(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"same URL":     func(*http.Request) {},
		"copy of URL":  func(r *http.Request) { u := *r.URL; r.URL = &u },
		"other path":   func(r *http.Request) { u := *r.URL; u.Path = "/api/assets/issue"; r.URL = &u },
		"other host":   func(r *http.Request) { u := *r.URL; u.Host = "other.test"; r.URL = &u },
		"other scheme": func(r *http.Request) { u := *r.URL; u.Scheme = "http"; r.URL = &u },
	} {
		t.Run(name, func(t *testing.T) {
			masked := false
			inner := &ampauth.RetryTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					masked = req.GetBody == nil && req.Body != nil
					return answer(200, "", ""), nil
				}),
				Classify: func(*http.Request) ampauth.Operation { return ampauth.MutatingOperation },
			}
			method := "GET" // the other's
			if name == "same URL" || name == "copy of URL" {
				method = "POST"
			}
			outer := &ampauth.RetryTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					post := req.WithContext(req.Context())
					post.Method, post.Body = "POST", io.NopCloser(strings.NewReader("{}"))
					post.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("{}")), nil }
					if method == "GET" {
						post.Method = req.Method
					}
					change(post)
					return inner.RoundTrip(post)
				}),
				Classify: func(*http.Request) ampauth.Operation { return ampauth.SafeOperation },
			}
			req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
			if _, err := outer.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
			if !masked {
				t.Error("the layer's mutation went out as net/http may repeat it")
			}
		})
	}
}

func TestWithoutRetryIsNotForWhatTheSourceSends(t *testing.T) {
	vault := stubScript(stubAnswer(503), stubAnswer(200))
	source := sourceFunc(func(ctx context.Context) (ampauth.Token, error) {
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://vault.test/", nil)
		rt := &ampauth.RetryTransport{Base: vault, Classify: ampauth.ClassifyHTTP, Retry: stubQuick}
		if status := stubStatus(t, rt, req); status != 200 {
			return ampauth.Token{}, io.EOF
		}
		return oneToken("t")
	})
	rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: source, Origin: "https://api.test"}}
	status := stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(t.Context()), ampauth.MutatingOperation, nil))
	if status != 200 || vault.attempts() != 2 {
		t.Errorf("status %d after %d requests of the source, want 200 after 2", status, vault.attempts())
	}
}

func TestWantOfATokenForALayersRepeatDoesNotUndoTheFirst(t *testing.T) {
	tokens := 0
	source := sourceFunc(func(context.Context) (ampauth.Token, error) {
		if tokens++; tokens > 1 {
			return ampauth.Token{}, io.EOF
		}
		return oneToken("t")
	})
	auth := &ampauth.AuthTransport{Base: stubScript(stubBreak(errStubReset)), Source: source, Origin: "https://api.test"}
	repeats := stubLayer(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			return resp, nil
		}
		return auth.RoundTrip(req)
	})
	_, err := (&ampauth.RetryTransport{Base: repeats, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || !errors.Is(err, ampauth.ErrAmbiguous) || tokens != 2 {
		t.Errorf("got %v (%v) after %d tokens, want it ambiguous after 2", err, e.Outcome, tokens)
	}
}

func TestRefusalOfALayerThatHadNoTokenIsReturned(t *testing.T) {
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stubNoToken(io.EOF), Origin: "https://api.test"}
	layer := stubLayer(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			return resp, nil
		}
		return stubResponse(401, "please log in"), nil
	})
	resp, err := (&ampauth.RetryTransport{Base: layer}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err != nil || resp.StatusCode != 401 || stubText(t, resp) != "please log in" {
		t.Errorf("got (%v, %v), want the layer's own 401", resp, err)
	}
}

func TestClockOfAnOuterAttemptIsNotTakenForAnInnerOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := stubScript(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: untilDone{req.Context()}}, nil
		})
		inner := &ampauth.RetryTransport{Base: hangs, Retry: ampauth.RetryConfig{Timeout: time.Hour}}
		var innerErr error
		outer := &ampauth.RetryTransport{Retry: ampauth.RetryConfig{Timeout: time.Second, MaxAttempts: 1}, Base: stubLayer(func(req *http.Request) (*http.Response, error) {
			other := stubRequestTo(req.Context(), "https://other.test/", ampauth.SafeOperation, nil)
			resp, err := inner.RoundTrip(other)
			if err != nil {
				return nil, err
			}
			_, innerErr = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			return nil, innerErr
		})}
		_, err := outer.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if e := stubError(t, innerErr); e.Limit != 0 {
			t.Errorf("the inner error is %v with the limit %v, yet its hour is not over", innerErr, e.Limit)
		}
		if e := stubError(t, err); e.Limit != time.Second {
			t.Errorf("the outer error is %v with the limit %v, want a second", err, e.Limit)
		}
	})
}

func TestClosedSwitchedProtocolReleasesItsAttempt(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	var attempt context.Context
	rt := &ampauth.RetryTransport{Base: stubLayer(func(req *http.Request) (*http.Response, error) {
		attempt = req.Context()
		return &http.Response{StatusCode: 101, Header: http.Header{}, Body: here}, nil
	})}
	resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err != nil {
		t.Fatal(err)
	}
	if attempt.Err() != nil {
		t.Errorf("the context ended before the connection: %v", attempt.Err())
	}
	_ = resp.Body.Close()
	if attempt.Err() == nil {
		t.Error("the context of the attempt outlives its connection")
	}
}

// closedOnceBody stalls until it is closed.
type closedOnceBody struct {
	stubBody
	done chan struct{}
	once sync.Once
}

func (b *closedOnceBody) Read([]byte) (int, error) { <-b.done; return 0, http.ErrBodyReadAfterClose }
func (b *closedOnceBody) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.stubBody.Close()
}

func TestBodyOverHTTP2ThatTimesOutIsClosedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &closedOnceBody{done: make(chan struct{})}
		rt := &ampauth.RetryTransport{Base: stubLayer(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ProtoMajor: 2, Header: http.Header{}, ContentLength: -1, Body: body}, nil
		})}
		resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, ampauth.ErrTimeout) {
			t.Errorf("reading ends in %v, want a timeout", err)
		}
		_ = resp.Body.Close()
		synctest.Wait()
		if n := body.closed.Load(); n != 1 {
			t.Errorf("the body was closed %d times, want once", n)
		}
	})
}
