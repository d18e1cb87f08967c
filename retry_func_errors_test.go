package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

type verdictOf struct {
	error
	again bool
}

func (v *verdictOf) Retryable() bool { return v.again }
func (v *verdictOf) Unwrap() error   { return v.error }

// Retryable that says no is a verdict, whatever else the error is.
func TestRetryHeedsAnErrorThatIsNotRetryable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{
			&verdictOf{&ampauth.Error{Kind: ampauth.ErrTimeout}, false},
			&verdictOf{stubNetError{timeout: true}, false},
			&ampauth.Error{Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent, Err: &verdictOf{io.EOF, false}},
		} {
			calls := 0
			_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) { calls++; return 0, err })
			if calls != 1 {
				t.Errorf("%v was tried %d times", err, calls)
			}
		}
		calls := 0
		_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
			calls++
			<-ctx.Done() // Retry's own clock
			return 0, &verdictOf{ctx.Err(), false}
		})
		if calls != 1 {
			t.Errorf("tried %d times", calls)
		}
	})
}

func TestRetryHeedsEveryErrorThatIsJoined(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.CutBody}))
	defer s.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	calls := 0
	_, _ = ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (int, error) {
		calls++
		_, notSent := rt.RoundTrip(stubRequestTo(ctx, "http://"+hostile.ClosedAddr, ampauth.SafeOperation, nil))
		resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), ampauth.MutatingOperation, []byte("x")))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		return 0, errors.Join(notSent, err)
	})
	if calls != 1 {
		t.Errorf("a mutation whose answer broke off was sent %d times", calls)
	}
}

// A timeout leaves open whether a mutation was performed.
func TestRetryDoesNotRepeatADoubtfulOutcomeThatTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
			calls++
			<-ctx.Done()
			return 0, &ampauth.Error{Op: "request", Kind: ampauth.ErrAmbiguous, Err: ctx.Err()}
		})
		if calls != 1 || !errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("got %v after %d calls, want ErrAmbiguous after 1", err, calls)
		}
	})
}

func TestRetryDoesNotRepeatAMutationWhoseAnswerBreaks(t *testing.T) {
	for name, answered := range map[string]func(ctx context.Context) (*http.Response, error){
		"stalled 200": func(ctx context.Context) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: untilDone{ctx}}, nil
		},
		"broken 500": func(context.Context) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Header: http.Header{}, ContentLength: 9, Body: io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))}, nil
		},
	} {
		for clock, cfg := range map[string]ampauth.RetryConfig{"of Retry": {}, "of the transport": {Timeout: -1}} {
			t.Run(name+", clock "+clock, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					effects := 0
					rt := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						effects++
						_ = req.Body.Close()
						return answered(req.Context())
					})}
					_, err := ampauth.Retry(t.Context(), cfg, func(ctx context.Context) ([]byte, error) {
						req, _ := http.NewRequestWithContext(ctx, "POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
						resp, err := rt.RoundTrip(req)
						if err != nil {
							return nil, err
						}
						defer resp.Body.Close()
						return io.ReadAll(resp.Body)
					})
					if err == nil || effects != 1 {
						t.Errorf("%d effects, %v; want one and an error", effects, err)
					}
				})
			})
		}
	}
}

// The answer to a read that breaks off is read again, as one that stalls is; that to a
// mutation is not.
func TestRetryRepeatsAReadWhoseAnswerBreaksOff(t *testing.T) {
	for _, do := range []hostile.Action{hostile.CutBody, hostile.TruncatedChunk, hostile.StallBody} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: do}, hostile.Step{Body: "whole"}))
			cfg := stubQuick
			cfg.Timeout, cfg.MutationTimeout = 200*time.Millisecond, 200*time.Millisecond
			rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: cfg}
			text, err := ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (string, error) {
				resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), op, []byte("x")))
				if err != nil {
					return "", err
				}
				defer resp.Body.Close()
				content, err := io.ReadAll(resp.Body)
				return string(content), err
			})
			if safe := op == ampauth.SafeOperation; safe && text != "whole" || !safe && (err == nil || len(s.Log()) != 1) {
				t.Errorf("%v, %v: %q, %v after %d requests", do, op, text, err, len(s.Log()))
			}
			s.Close()
		}
	}
}

// What a read of the caller's own making ends in is not repeated as a broken answer.
func TestRetryDoesNotRepeatAReadThatItsCallerEnded(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Do: hostile.StallBody}))
	defer s.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	for name, end := range map[string]func(cancel func(), resp *http.Response){
		"cancelled": func(cancel func(), _ *http.Response) { cancel() },
		"closed":    func(_ func(), resp *http.Response) { _ = resp.Body.Close() },
	} {
		calls := 0
		_, err := ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (int, error) {
			calls++
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), ampauth.SafeOperation, nil))
			if err != nil {
				return 0, err
			}
			defer resp.Body.Close()
			end(cancel, resp)
			_, err = io.ReadAll(resp.Body)
			return 0, err
		})
		if err == nil || calls != 1 {
			t.Errorf("%s: %d calls, %v", name, calls, err)
		}
	}
}

// An oddError can be compared by its type, and panics when it is.
type oddError struct{ v any }

func (oddError) Error() string { return "an odd one" }

// A nilError is one whose Error method panics.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestOddErrorsOfOthersDoNotPanic(t *testing.T) {
	for name, odd := range map[string]error{"not comparable": oddError{[]int{1}}, "a nil pointer": (*nilError)(nil)} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			t.Run(fmt.Sprint(name, ", ", op), func(t *testing.T) {
				for _, base := range []http.RoundTripper{
					stubScript(stubFail(odd)), stubScript(stubUnconnected(odd)), stubScript(stubBreak(odd)), stubScript(stubStall()),
				} {
					ctx, cancel := context.WithCancelCause(t.Context())
					time.AfterFunc(20*time.Millisecond, func() { cancel(odd) })
					_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(ctx, op, []byte("x")))
					if stubError(t, err).Error() == "" {
						t.Error("no text")
					}
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(odd)
				_, err := (&ampauth.RetryTransport{Base: stubScript(stubAnswer(200))}).RoundTrip(stubRequest(ctx, op, nil))
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}
