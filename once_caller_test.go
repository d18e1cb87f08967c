package ampauth_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

var errOnceLeft = errors.New("the caller has something better to do")

// Whenever its caller leaves, the error says that, and whether the mutation may be there.
func TestOnceTellsACallerThatLeavesWhatIsKnown(t *testing.T) {
	for _, test := range []struct {
		name    string
		script  onceScript
		leaves  time.Duration
		doubt   bool
		outcome ampauth.Outcome
		sends   int
	}{
		{"before the first Send", onceScript{send: []error{nil}}, 0, false, ampauth.NotSent, 0},
		{"before the first read", onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}}, 0, true, ampauth.Ambiguous, 0},
		{"in the first Send", onceScript{send: []error{nil}, took: time.Hour}, time.Second, true, ampauth.Ambiguous, 1},
		{"in the wait for another Send", onceScript{send: []error{onceStatus(429, "Retry-After", "30")}}, time.Second, false, ampauth.Rejected, 1},
		{"between two reads", onceScript{send: []error{errOnceDoubt}}, 30 * time.Second, true, ampauth.Ambiguous, 1},
		{"in a read", onceScript{send: []error{errOnceDoubt}, find: func(time.Duration) (bool, error) {
			time.Sleep(20 * time.Second)
			return false, nil
		}}, 50 * time.Second, true, ampauth.Ambiguous, 1},
		{"while reading fails", onceScript{send: []error{errOnceDoubt}, find: failingUntil(forEver)}, 90 * time.Second, true, ampauth.Ambiguous, 1},
		{"in the second Send", onceScript{send: []error{errOnceDoubt}, took: 30 * time.Second}, 100 * time.Second, true, ampauth.Ambiguous, 2},
		{"behind the read that counts", onceScript{send: []error{errOnceDoubt}, find: func(at time.Duration) (bool, error) {
			if at == onceSettled {
				return false, errOnceRead
			}
			return false, nil
		}}, onceSettled, true, ampauth.Ambiguous, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			for kind, end := range map[string]error{"cancelled": context.Canceled, "too late": context.DeadlineExceeded} {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancelCause(t.Context())
					if kind == "too late" {
						var end func()
						ctx, end = context.WithTimeoutCause(ctx, test.leaves, errOnceLeft)
						defer end()
					} else {
						time.AfterFunc(test.leaves, func() { cancel(errOnceLeft) })
					}
					defer cancel(nil)
					if test.leaves == 0 {
						synctest.Wait()
					}
					s := test.script
					_, err := s.run(ctx, onceWaits)
					if kind == "too late" && test.outcome == ampauth.Rejected {
						// The wait does not fit, and its reason says more.
						if took := time.Since(s.began); took != 0 || err != s.send[0] {
							t.Errorf("got %v after %v, want the 429 at once", err, took)
						}
						return
					}
					if !errors.Is(err, end) || !errors.Is(err, errOnceLeft) && !fitsNot(err) {
						t.Errorf("%s: the error is not that of the context: %v", kind, err)
					}
					if errors.Is(err, ampauth.ErrAmbiguous) != test.doubt || stubError(t, err).Outcome != test.outcome {
						t.Errorf("%s: got %v, %v", kind, stubError(t, err).Outcome, err)
					}
					if errors.Is(err, ampauth.ErrTimeout) != (kind == "too late") {
						t.Errorf("%s: a timeout: %v", kind, err)
					}
					if len(s.sends) != test.sends {
						t.Errorf("%s: %d Sends, want %d", kind, len(s.sends), test.sends)
					}
					if took := time.Since(s.began); took > test.leaves+20*time.Second {
						t.Errorf("%s: it took %v", kind, took)
					}
				})
			}
		})
	}
}

// The caller's deadline comes before Settle is over, and the waits are long: reading goes on
// until there is just the time for a read.
func TestOnceReadsOnceMoreBeforeTheDeadline(t *testing.T) {
	const lasts = 50 * time.Second
	for _, test := range []struct {
		name   string
		settle time.Duration
		took   time.Duration // by a read
		find   func(time.Duration) (bool, error)
		last   time.Duration // the earliest moment of the last read
		found  bool
	}{
		{"there, just before it", time.Minute, 0, foundAfter(lasts - time.Second), lasts - time.Second, true},
		{"never there", time.Minute, 0, foundAfter(forEver), lasts - time.Second, false},
		{"reads that take a while", time.Minute, 5 * time.Second, foundAfter(lasts - 10*time.Second), lasts - 10*time.Second, true},
		{"reading fails", time.Minute, 0, failingUntil(forEver), lasts - time.Second, false},
		{"Settle is over in the last second", lasts - time.Second/2, 0, foundAfter(lasts - time.Second/2), lasts - time.Second/2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 20 { // the waits are drawn
				synctest.Test(t, func(t *testing.T) {
					s := onceScript{Mutation: ampauth.Mutation[string]{Settle: test.settle}, send: []error{errOnceDoubt}}
					s.find = func(at time.Duration) (bool, error) {
						time.Sleep(test.took)
						return test.find(at)
					}
					_, err := s.run(ampWithin(t, lasts), ampauth.RetryConfig{BaseDelay: 30 * time.Second})
					if (err == nil) != test.found || s.reads[len(s.reads)-1] < test.last {
						t.Errorf("the last read at %v, then %v", s.reads[len(s.reads)-1], err)
					}
					if !test.found && (!errors.Is(err, ampauth.ErrAmbiguous) || !errors.Is(err, context.DeadlineExceeded)) {
						t.Errorf("got %v, want a doubt, and that the time is over", err)
					}
					if took := time.Since(s.began); took >= lasts+test.took || len(s.sends) != 1 {
						t.Errorf("%d Sends in %v", len(s.sends), took)
					}
				})
			}
		})
	}
	// Reads that take long, and end with their context, begin as long before it.
	synctest.Test(t, func(t *testing.T) {
		const took = 5 * time.Second
		began := time.Now()
		_, err := ampauth.Once(ampWithin(t, lasts), ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour}, ampauth.Mutation[int]{
			Send: func(context.Context) (int, error) { return 0, io.EOF },
			Find: func(ctx context.Context) (int, bool, error) {
				if time.Since(began) == 0 {
					return 0, !onceSleep(ctx, took), ctx.Err()
				}
				return 0, onceSleep(ctx, took-time.Second), ctx.Err()
			},
		})
		if end := time.Since(began); err != nil || end > lasts {
			t.Errorf("after %v: %v", end, err)
		}
	})
	// A server that asks for more time than there is gets no read before that.
	synctest.Test(t, func(t *testing.T) {
		s := onceScript{send: []error{errOnceDoubt}, find: func(time.Duration) (bool, error) {
			return false, &ampauth.Error{Kind: ampauth.ErrRateLimited, Outcome: ampauth.Rejected, RetryAfter: 30 * time.Second}
		}}
		if _, err := s.run(ampWithin(t, 20*time.Second), onceWaits); len(s.reads) != 1 || !errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("read at %v, then %v", s.reads, err)
		}
	})
}

// A Send that has proved something has, although its caller left meanwhile.
func TestOnceBelievesAProofOfACallerThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := ampauth.Once(ctx, onceWaits, ampauth.Mutation[int]{
			Send: func(context.Context) (int, error) { cancel(errOnceLeft); return 0, errOnceNotSent },
			Find: func(context.Context) (int, bool, error) { return 0, false, nil },
		})
		if errors.Is(err, ampauth.ErrAmbiguous) || !errors.Is(err, errOnceLeft) || !errors.Is(err, context.Canceled) || stubError(t, err).Outcome != ampauth.NotSent {
			t.Errorf("got %v, want that it was not sent, and that the caller left", err)
		}
	})
}

// fitsNot reports whether a call ended since a wait would not fit its deadline.
func fitsNot(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// Send has the time of a mutation, Find that of a read; what runs on then ends.
func TestOnceBoundsSendAndFind(t *testing.T) {
	for _, test := range []struct {
		cfg        ampauth.RetryConfig
		send, find time.Duration // 0: no bound
	}{
		{ampauth.RetryConfig{}, 60 * time.Second, 10 * time.Second},
		{ampauth.RetryConfig{Timeout: 3 * time.Second, MutationTimeout: 20 * time.Second}, 20 * time.Second, 3 * time.Second},
		{ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			bound := func(ctx context.Context) (left time.Duration) {
				if deadline, ok := ctx.Deadline(); ok {
					left = time.Until(deadline)
				}
				return left
			}
			var contexts []context.Context
			_, _ = ampauth.Once(t.Context(), test.cfg, ampauth.Mutation[int]{
				Send: func(ctx context.Context) (int, error) {
					contexts = append(contexts, ctx)
					if got := bound(ctx); got != test.send {
						t.Errorf("Send has %v, want %v", got, test.send)
					}
					return 0, io.EOF
				},
				Find: func(ctx context.Context) (int, bool, error) {
					if got := bound(ctx); got != test.find {
						t.Errorf("Find has %v, want %v", got, test.find)
					}
					if ctx := contexts[len(contexts)-1]; ctx.Err() == nil {
						t.Error("the context of Send lives on")
					}
					return 0, true, nil
				},
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := onceScript{send: []error{nil}, took: time.Hour, find: failingUntil(forEver)}
		_, err := s.run(t.Context(), onceWaits)
		if !errors.Is(err, ampauth.ErrAmbiguous) || !errors.Is(err, ampauth.ErrTimeout) || len(s.reads) == 0 || s.reads[0] != time.Minute {
			t.Errorf("read at %v, then %v; want ErrAmbiguous that Is ErrTimeout, and reads from 1m0s", s.reads, err)
		}
	})
}

// A read tells of the moment at which it began: what it has not found may be there when it
// ends, and when Settle is over.
func TestOnceCountsAReadFromItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const effect = 55 * time.Second
		cfg := onceWaits.WithTimeout(30 * time.Second)
		sends, began := 0, time.Now()
		value, err := ampauth.Once(t.Context(), cfg, ampauth.Mutation[string]{
			Send: func(context.Context) (string, error) { sends++; return "", io.EOF },
			Find: func(context.Context) (string, bool, error) {
				at := time.Since(began)
				if at > 50*time.Second && at < effect {
					time.Sleep(15 * time.Second)
				}
				return "found", at >= effect, nil
			},
		})
		if value != "found" || err != nil || sends != 1 {
			t.Errorf("%q, %v after %d Sends, want it found after one", value, err, sends)
		}
	})
}

// A read that begins at the very end of Settle is one too early.
func TestOnceDoesNotCountAReadThatBeginsAtTheEndOfSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sends []time.Duration
		began := time.Now()
		_, err := ampauth.Once(t.Context(), ampauth.RetryConfig{BaseDelay: 1, MaxDelay: 1}, ampauth.Mutation[int]{
			Send: func(context.Context) (int, error) {
				if sends = append(sends, time.Since(began)); len(sends) > 1 {
					return 0, nil
				}
				return 0, io.EOF
			},
			Find: func(context.Context) (int, bool, error) { time.Sleep(5 * time.Second); return 0, false, nil },
		})
		if err != nil || sends[1] != 70*time.Second {
			t.Errorf("sent at %v, %v; want the second behind a read that began at 1m5s", sends, err)
		}
	})
}

// However long a read takes to fail: MaxAttempts of them that count are made.
func TestOnceGivesUpReadingAfterMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, reads := onceWaits, 0
		cfg.MaxAttempts = 5
		_, err := ampauth.Once(t.Context(), cfg, ampauth.Mutation[int]{
			Send:   func(context.Context) (int, error) { return 0, io.EOF },
			Find:   func(ctx context.Context) (int, bool, error) { reads++; <-ctx.Done(); return 0, false, ctx.Err() },
			Settle: time.Second,
		})
		if reads != 6 || !errors.Is(err, ampauth.ErrAmbiguous) { // the first one began too early
			t.Errorf("%d reads, then %v", reads, err)
		}
	})
}

// Who was cut off, and says that nothing is there, has not read all there is.
func TestOnceDoesNotBelieveAReadThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sends := 0
		_, err := ampauth.Once(t.Context(), ampauth.RetryConfig{}, ampauth.Mutation[int]{
			Send: func(context.Context) (int, error) { sends++; return 0, io.EOF },
			Find: func(ctx context.Context) (int, bool, error) {
				<-ctx.Done() // a loop over pages, say
				return 0, false, nil
			},
		})
		if sends != 1 || !errors.Is(err, ampauth.ErrAmbiguous) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d Sends, then %v", sends, err)
		}
	})
}

func TestOncePassesAPanicOn(t *testing.T) {
	for _, where := range []string{"Send", "Find"} {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if got := recover(); got != where {
					t.Errorf("recovered %v, want the panic of %s", got, where)
				}
			}()
			_, _ = ampauth.Once(t.Context(), onceWaits, ampauth.Mutation[int]{
				Send: func(context.Context) (int, error) {
					if where == "Send" {
						panic(where)
					}
					return 0, io.EOF
				},
				Find: func(context.Context) (int, bool, error) { panic(where) },
			})
		})
	}
}

// What Once returns can be asked about as any error of the package.
func TestErrorsOfOnceShowNoMoreThanOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, find := range []func(time.Duration) (bool, error){nil, func(time.Duration) (bool, error) {
			return false, errors.New("GET /assets: \"" + canaryToken + "\"")
		}} {
			s := onceScript{send: []error{errors.New("POST /assets/issue: \"" + canaryToken + "\"")}, find: find}
			_, err := s.run(t.Context(), onceWaits)
			if len(leaks(err.Error())) > 0 || !errors.Is(err, s.send[0]) {
				t.Error("the error shows a secret, or not its cause")
			}
		}
	})
}
