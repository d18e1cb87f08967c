package ampauth_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

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

func TestBodyOverHTTP2ThatTimesOutIsClosedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newStubAwaited()
		body.Reader = stubReader(func([]byte) (int, error) { <-body.done; return 0, http.ErrBodyReadAfterClose })
		rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
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
