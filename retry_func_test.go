package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestRetryRepeatsWhatMayHelp(t *testing.T) {
	ours := func(e ampauth.Error) error {
		if e.Kind == nil {
			e.Kind = ampauth.ErrRequestFailed
		}
		return &e
	}
	tests := []struct {
		name  string
		err   error
		again bool
	}{
		{"not sent", ours(ampauth.Error{Outcome: ampauth.NotSent}), true},
		{"refused", ours(ampauth.Error{Outcome: ampauth.Unprocessed}), true},
		{"rejected", ours(ampauth.Error{Outcome: ampauth.Rejected, StatusCode: 429}), true},
		{"timeout", ours(ampauth.Error{Kind: ampauth.ErrTimeout}), true},
		{"timeout by its cause", ours(ampauth.Error{Err: context.DeadlineExceeded}), true},
		{"status 408", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 408}), true},
		{"status 501", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 501}), false},
		{"status 505", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 505}), false},
		{"status 511", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 511}), false},
		{"status 520", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 520}), true},
		{"status 500", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 500}), true},
		{"status 503, wrapped", fmt.Errorf("listing: %w", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 503})), true},
		{"network timeout", stubNetError{timeout: true}, true},
		{"network timeout, wrapped", fmt.Errorf("dialing: %w", stubNetError{timeout: true}), true},
		{"says so itself", stubVerdict(true), true},
		{"says so itself, wrapped", fmt.Errorf("queue: %w", stubVerdict(true)), true},

		{"status 404", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 404}), false},
		{"status 400", ours(ampauth.Error{Outcome: ampauth.Answered, StatusCode: 400}), false},
		{"broken connection", ours(ampauth.Error{Err: io.EOF}), false},
		{"ambiguous", ours(ampauth.Error{Kind: ampauth.ErrAmbiguous}), false},
		{"ambiguous timeout", ours(ampauth.Error{Kind: ampauth.ErrAmbiguous, Err: ours(ampauth.Error{Kind: ampauth.ErrTimeout})}), false},
		{"ambiguous, and says retryable", errors.Join(stubVerdict(true), ampauth.ErrAmbiguous), false},
		{"configuration, not sent", ours(ampauth.Error{Kind: ampauth.ErrConfig, Outcome: ampauth.NotSent}), false},
		{"closed, not sent", ours(ampauth.Error{Kind: ampauth.ErrClosed, Outcome: ampauth.NotSent}), false},
		{"login that failed", ours(ampauth.Error{Kind: ampauth.ErrObtainFailed, Outcome: ampauth.NotSent}), false},
		{"network, no timeout", stubNetError{}, false},
		{"says no itself", stubVerdict(false), false},
		{"anything else", io.ErrUnexpectedEOF, false},
		{"a cancellation of its own", context.Canceled, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				value, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{MaxAttempts: 4}, func(context.Context) (string, error) {
					calls++
					return "half a value", test.err
				})
				if value != "" || !errors.Is(err, test.err) && !test.again {
					t.Errorf("got (%q, %v)", value, err)
				}
				if !test.again {
					if calls != 1 || err != test.err {
						t.Errorf("got %v after %d calls, want the very error after 1", err, calls)
					}
					return
				}
				if calls != 4 {
					t.Errorf("%d calls, want 4", calls)
				}
				if e := stubError(t, err); e.Attempts != 4 {
					t.Errorf("the error says %d attempts, want 4", e.Attempts)
				}
				if cause, ok := errors.AsType[*ampauth.Error](test.err); ok && !errors.Is(err, cause.Kind) || !ok && !errors.Is(err, test.err) {
					t.Errorf("%v is not %v", err, test.err)
				}
			})
		})
	}
}

// What the last attempt's outcome was is told, also when somebody has wrapped it.
func TestRetryKeepsTheOutcomeOfAWrappedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := fmt.Errorf("listing: %w", &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent})
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) { return 0, cause })
		if e := stubError(t, err); e.Attempts != 3 || e.Outcome != ampauth.NotSent || !errors.Is(err, cause) {
			t.Errorf("got %v (%v) after %d attempts, want NotSent after 3", err, e.Outcome, e.Attempts)
		}
	})
}

func TestRetryReturnsTheFirstSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		value, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) {
			if calls++; calls < 3 {
				return 0, stubVerdict(true)
			}
			return 42, nil
		})
		if value != 42 || err != nil || calls != 3 {
			t.Errorf("got (%d, %v) after %d calls, want 42 after 3", value, err, calls)
		}
	})
}

func TestRetryEndsInTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) {
			if calls++; calls < 2 {
				return 0, stubVerdict(true)
			}
			return 0, io.ErrUnexpectedEOF
		})
		if e := stubError(t, err); e.Attempts != 2 || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, stubVerdict(true)) {
			t.Errorf("got %v, want the second error and that there were 2 attempts", err)
		}
	})
}

func TestRetryWaitsLikeTheTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const draws = 1000
		var at []time.Time
		_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{MaxAttempts: draws, BaseDelay: time.Second, MaxDelay: 4 * time.Second}, func(context.Context) (int, error) {
			at = append(at, time.Now())
			return 0, stubVerdict(true)
		})
		if len(at) != draws {
			t.Fatalf("%d calls, want %d", len(at), draws)
		}
		low, high := time.Hour, time.Duration(0)
		for i := 1; i < len(at); i++ {
			wait := at[i].Sub(at[i-1])
			if ceiling := min(time.Second<<min(i-1, 2), 4*time.Second); wait < 0 || wait >= ceiling {
				t.Errorf("wait %d is %v, want less than %v", i, wait, ceiling)
			}
			low, high = min(low, wait), max(high, wait)
		}
		if low > 200*time.Millisecond || high < 3800*time.Millisecond {
			t.Errorf("waits of %v to %v, want them spread from 0 to 4 s", low, high)
		}
	})
}

func TestRetryHonoursRetryAfter(t *testing.T) {
	limited := func(d time.Duration) error {
		return &ampauth.Error{Op: "request", Kind: ampauth.ErrRateLimited, Outcome: ampauth.Rejected, RetryAfter: d}
	}
	for _, test := range []struct {
		name     string
		asked    time.Duration
		deadline time.Duration
		waited   bool
	}{
		{"a wait within the cap", 60 * time.Second, 0, true},
		{"a wait above the cap", 60*time.Second + 1, 0, false},
		{"a wait beyond the deadline", 5 * time.Second, 4 * time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				start := time.Now()
				calls := 0
				_, err := ampauth.Retry(ctx, ampauth.RetryConfig{MaxAttempts: 2}, func(context.Context) (int, error) {
					calls++
					return 0, limited(test.asked)
				})
				took := time.Since(start)
				if e := stubError(t, err); e.RetryAfter != test.asked || e.Attempts != calls || !errors.Is(err, ampauth.ErrRateLimited) {
					t.Errorf("got %v (retry after %v, %d attempts)", err, e.RetryAfter, e.Attempts)
				}
				if test.waited && (calls != 2 || took < test.asked || took >= test.asked+time.Second) {
					t.Errorf("%d calls in %v, want 2 with at least %v between them", calls, took, test.asked)
				}
				if !test.waited && (calls != 1 || took != 0) {
					t.Errorf("%d calls in %v, want 1 at once", calls, took)
				}
			})
		})
	}
}

func TestRetryBoundsEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took []time.Duration
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{Timeout: 3 * time.Second}, func(ctx context.Context) (int, error) {
			start := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(start))
			return 0, ctx.Err()
		})
		e := stubError(t, err)
		if fmt.Sprint(took) != "[3s 3s 3s]" || !errors.Is(err, ampauth.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || e.Limit != 3*time.Second || e.Attempts != 3 {
			t.Errorf("got %v (limit %v, %d attempts) after attempts of %v", err, e.Limit, e.Attempts, took)
		}
	})
}

func TestRetryWithoutATimeoutDoesNotBoundAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{Timeout: -1}, func(ctx context.Context) (int, error) {
			select {
			case <-time.After(24 * time.Hour):
				return 42, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		if value != 42 || err != nil {
			t.Errorf("got (%d, %v), want 42 after a day", value, err)
		}
	})
}

func TestRetryReleasesTheContextOfEachAttempt(t *testing.T) {
	var attempt context.Context
	_, _ = ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
		attempt = ctx
		return 0, nil
	})
	if attempt.Err() == nil {
		t.Error("the context of the attempt lives on")
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Run("before the first attempt", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		calls := 0
		_, err := ampauth.Retry(ctx, ampauth.RetryConfig{}, func(context.Context) (int, error) { calls++; return 0, nil })
		if e := stubError(t, err); calls != 0 || !errors.Is(err, context.Canceled) || e.Attempts != 0 || e.Outcome != ampauth.NotSent {
			t.Errorf("got %v after %d calls, want context.Canceled after none", err, calls)
		}
	})
	t.Run("during an attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			calls := 0
			start := time.Now()
			_, err := ampauth.Retry(ctx, ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
				calls++
				<-ctx.Done()
				return 0, ctx.Err()
			})
			if calls != 1 || time.Since(start) != time.Second || err != context.DeadlineExceeded {
				t.Errorf("got %v after %d calls and %v, want the context's error after 1 and 1 s", err, calls, time.Since(start))
			}
		})
	})
	t.Run("during a wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			_, err := ampauth.Retry(ctx, ampauth.RetryConfig{BaseDelay: 1 << 62, MaxDelay: 1 << 62}, func(context.Context) (int, error) {
				return 0, stubVerdict(true)
			})
			if e := stubError(t, err); time.Since(start) != time.Second || !errors.Is(err, context.Canceled) || !errors.Is(err, stubVerdict(true)) || e.Attempts != 1 {
				t.Errorf("got %v after %v, want both the cancellation and the last error after 1 s", err, time.Since(start))
			}
		})
	})
}

func TestRetryTellsACallerWhoLeftHowFarItGot(t *testing.T) {
	for _, test := range []struct {
		err  error
		want ampauth.Outcome
	}{
		{&ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout}, ampauth.Ambiguous},
		{&ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent}, ampauth.NotSent},
		{os.ErrDeadlineExceeded, ampauth.Ambiguous}, // a net.Error, of which nothing is known
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := ampauth.Retry(ctx, ampauth.RetryConfig{}, func(context.Context) (int, error) {
				cancel()
				return 0, test.err
			})
			if errors.Is(err, context.Canceled) {
				t.Fatal("it left before the wait") // the first error is returned then
			}
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			_, err = ampauth.Retry(ctx, ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour}, func(context.Context) (int, error) {
				time.AfterFunc(1, cancel)
				return 0, test.err
			})
			if e := stubError(t, err); e.Outcome != test.want || !errors.Is(err, context.Canceled) {
				t.Errorf("after %v: got %v (%v), want %v", test.err, err, e.Outcome, test.want)
			}
		})
	}
}

func TestRetryWithAFaultyConfigurationDoesNothing(t *testing.T) {
	calls := 0
	_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{MaxAttempts: -1}, func(context.Context) (int, error) { calls++; return 0, nil })
	if calls != 0 || !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), "MaxAttempts") {
		t.Errorf("got %v after %d calls, want ErrConfig that names MaxAttempts after none", err, calls)
	}
}
