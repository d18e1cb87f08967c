package ampauth_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/google/go-cmp/cmp"
)

// onceSettled is the first moment after a doubtful end at which what is not there is not done.
const onceSettled = time.Minute + 1

// onceWaits are waits of less than a second.
var onceWaits = ampauth.RetryConfig{BaseDelay: time.Second, MaxDelay: time.Second}

// An onceScript is a mutation that does what the test says, and what Once did with it.
type onceScript struct {
	ampauth.Mutation[string]
	send []error                                   // what the nth Send ends in, and all later ones in the last
	find func(at time.Duration) (ok bool, _ error) // what a read finds that begins then; nil: nothing
	took time.Duration                             // by each Send

	began        time.Time
	sends, reads []time.Duration // when they began
}

// run has Once perform it.
func (s *onceScript) run(ctx context.Context, cfg ampauth.RetryConfig) (string, error) {
	s.began = time.Now()
	s.Send = func(ctx context.Context) (string, error) {
		s.sends = append(s.sends, time.Since(s.began))
		if !onceSleep(ctx, s.took) {
			return "", ctx.Err()
		}
		n := min(len(s.sends), len(s.send))
		if n == 0 || len(s.sends) > 20 || s.send[n-1] == nil {
			return "sent", nil
		}
		return "half a value", s.send[n-1]
	}
	s.Find = func(context.Context) (string, bool, error) {
		at := time.Since(s.began)
		s.reads = append(s.reads, at)
		if s.find == nil {
			return "", false, nil
		}
		ok, err := s.find(at)
		return "found", ok, err
	}
	return ampauth.Once(ctx, cfg, s.Mutation)
}

func onceSleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// onceStatus is the error of an answer to a mutation.
func onceStatus(status int, header ...string) error {
	resp := stubResponse(status, "", header...)
	resp.Request, _ = http.NewRequest("POST", "https://amp.test/api/assets/issue", nil)
	return ampauth.ResponseError(resp)
}

// after finds the mutation from a moment on.
func foundAfter(from time.Duration) func(time.Duration) (bool, error) {
	return func(at time.Duration) (bool, error) { return at >= from, nil }
}

// failingUntil fails to read until a moment, and then finds nothing.
func failingUntil(end time.Duration) func(time.Duration) (bool, error) {
	return func(at time.Duration) (bool, error) {
		if at < end {
			return false, errOnceRead
		}
		return false, nil
	}
}

var (
	errOnceRead    = errors.New("the read broke")
	errOnceForeign = errors.New("a generated client's own")
	errOnceNotSent = &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent, Err: errStubDial}
	errOnceDoubt   = &ampauth.Error{Op: "request", Kind: ampauth.ErrAmbiguous, Attempts: 1, Err: io.EOF}
)

const forEver = 24 * time.Hour

// Every path, to the moment. Reads and Sends take no time here.
func TestOnceSendsAgainOnlyWhatIsNotThere(t *testing.T) {
	const soon = -1 // within a second
	tests := []struct {
		name      string
		script    onceScript
		want      string          // the value; "": an error
		sends     []time.Duration // when they begin
		firstRead time.Duration   // if there are reads
		lastRead  time.Duration   // 0: there is none, unless it is the first
		is        []error         // the error
		ambiguous bool
		outcome   ampauth.Outcome
		same      bool // the error of Send itself
	}{
		{name: "performed", script: onceScript{send: []error{nil}}, want: "sent", sends: []time.Duration{0}},
		{name: "in doubt, and there", script: onceScript{send: []error{errOnceDoubt}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "in doubt, and there later", script: onceScript{send: []error{errOnceDoubt}, find: foundAfter(time.Minute)},
			want: "found", sends: []time.Duration{0}, lastRead: onceSettled},
		{name: "in doubt, and not there", script: onceScript{send: []error{errOnceDoubt, nil}},
			want: "sent", sends: []time.Duration{0, onceSettled}, lastRead: onceSettled},
		{name: "another Settle", script: onceScript{Mutation: ampauth.Mutation[string]{Settle: 5 * time.Second}, send: []error{io.EOF, nil}},
			want: "sent", sends: []time.Duration{0, 5*time.Second + 1}, lastRead: 5*time.Second + 1},
		{name: "a Settle without an end", script: onceScript{Mutation: ampauth.Mutation[string]{Settle: math.MaxInt64}, send: []error{io.EOF}, find: foundAfter(time.Hour)},
			want: "found", sends: []time.Duration{0}, lastRead: soon},
		{name: "counted from the end of Send", script: onceScript{send: []error{errOnceDoubt, nil}, took: 20 * time.Second},
			want: "sent", sends: []time.Duration{0, 20*time.Second + onceSettled}, firstRead: 20 * time.Second, lastRead: 20*time.Second + onceSettled},
		{name: "never there", script: onceScript{send: []error{errOnceDoubt}},
			sends: []time.Duration{0, onceSettled, 2 * onceSettled}, lastRead: 3 * onceSettled, is: []error{io.EOF}, outcome: ampauth.Unprocessed},
		{name: "a foreign error is a doubt", script: onceScript{send: []error{errOnceForeign, nil}}, want: "sent", sends: []time.Duration{0, onceSettled}, lastRead: onceSettled},
		{name: "a 500 is a doubt", script: onceScript{send: []error{onceStatus(500)}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "a 408 is a doubt", script: onceScript{send: []error{onceStatus(408)}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "a redirect is a doubt", script: onceScript{send: []error{onceStatus(303)}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "a doubt that is joined to a proof", script: onceScript{send: []error{errors.Join(errOnceNotSent, io.EOF)}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "a proof that wraps a doubt", script: onceScript{send: []error{&ampauth.Error{Outcome: ampauth.NotSent, Err: errOnceDoubt}}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},
		{name: "a doubt that wraps a proof", script: onceScript{send: []error{&ampauth.Error{Kind: ampauth.ErrRequestFailed, Err: errOnceNotSent}}, find: foundAfter(0)}, want: "found", sends: []time.Duration{0}},

		{name: "reads that fail for ever", script: onceScript{send: []error{errOnceDoubt}, find: failingUntil(forEver)},
			sends: []time.Duration{0}, lastRead: soon, is: []error{io.EOF, errOnceRead}, ambiguous: true},
		{name: "reads that fail until Settle is over", script: onceScript{send: []error{errOnceDoubt, nil}, find: failingUntil(time.Minute)},
			want: "sent", sends: []time.Duration{0, onceSettled}, lastRead: onceSettled},
		{name: "reads that fail then", script: onceScript{send: []error{errOnceDoubt, nil}, find: failingUntil(90 * time.Second)},
			want: "sent", sends: []time.Duration{0, soon}, lastRead: soon},
		{name: "a read that fails when it counts", script: onceScript{send: []error{errOnceDoubt}, find: func(at time.Duration) (bool, error) {
			if at == onceSettled {
				return false, errOnceRead
			}
			return at > onceSettled, nil
		}}, want: "found", sends: []time.Duration{0}, lastRead: soon},
		{name: "a read of a client that is closed", script: onceScript{send: []error{errOnceDoubt}, find: func(time.Duration) (bool, error) {
			return false, &ampauth.Error{Op: "obtain", Kind: ampauth.ErrClosed, Outcome: ampauth.NotSent}
		}}, sends: []time.Duration{0}, is: []error{io.EOF, ampauth.ErrClosed}, ambiguous: true},
		{name: "a read that is to wait too long", script: onceScript{send: []error{errOnceDoubt}, find: func(time.Duration) (bool, error) {
			return false, &ampauth.Error{Kind: ampauth.ErrRateLimited, Outcome: ampauth.Rejected, RetryAfter: time.Hour}
		}}, sends: []time.Duration{0}, is: []error{io.EOF, ampauth.ErrRateLimited}, ambiguous: true},

		{name: "not sent", script: onceScript{send: []error{errOnceNotSent, nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "not sent, wrapped", script: onceScript{send: []error{fmt.Errorf("issue: %w", errOnceNotSent), nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "not sent, twice", script: onceScript{send: []error{errors.Join(errOnceNotSent, errOnceNotSent), nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "421", script: onceScript{send: []error{onceStatus(421), nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "425", script: onceScript{send: []error{onceStatus(425), nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "429", script: onceScript{send: []error{onceStatus(429), nil}}, want: "sent", sends: []time.Duration{0, soon}},
		{name: "429 for ever", script: onceScript{send: []error{onceStatus(429)}}, sends: []time.Duration{0, soon, soon},
			is: []error{ampauth.ErrRateLimited}, outcome: ampauth.Rejected},
		{name: "429 that asks for more than the cap", script: onceScript{send: []error{onceStatus(429, "Retry-After", "61")}}, sends: []time.Duration{0},
			is: []error{ampauth.ErrRateLimited}, outcome: ampauth.Rejected, same: true},
		{name: "in doubt, not there, and then not sent", script: onceScript{send: []error{errOnceDoubt, errOnceNotSent}}, sends: []time.Duration{0, onceSettled, soon},
			lastRead: onceSettled, is: []error{errStubDial, io.EOF}, outcome: ampauth.Unprocessed},

		{name: "400", script: onceScript{send: []error{onceStatus(400)}}, sends: []time.Duration{0}, outcome: ampauth.Answered, same: true},
		{name: "401", script: onceScript{send: []error{onceStatus(401)}}, sends: []time.Duration{0}, outcome: ampauth.Answered, same: true},
		{name: "in doubt, then taken, and there", script: onceScript{send: []error{errOnceDoubt, onceStatus(409)}, find: foundAfter(onceSettled + 2), took: 1},
			want: "found", sends: []time.Duration{0, onceSettled + 1}, firstRead: 1, lastRead: onceSettled + 2},
		{name: "in doubt, then taken, and not there", script: onceScript{send: []error{errOnceDoubt, onceStatus(409)}},
			sends: []time.Duration{0, onceSettled}, lastRead: onceSettled, is: []error{io.EOF}, outcome: ampauth.Answered},
		{name: "in doubt, then taken, and reading fails", script: onceScript{send: []error{errOnceDoubt, onceStatus(409)}, took: 1, find: func(at time.Duration) (bool, error) {
			if at > onceSettled+1 {
				return false, errOnceRead
			}
			return false, nil
		}}, sends: []time.Duration{0, onceSettled + 1}, firstRead: 1, lastRead: soon, is: []error{io.EOF, errOnceRead}, ambiguous: true},

		{name: "first read, and there", script: onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}, find: foundAfter(0)}, want: "found"},
		{name: "first read, and there later", script: onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}, find: foundAfter(time.Minute)}, want: "found", lastRead: onceSettled},
		{name: "first read, and not there", script: onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}, send: []error{nil}},
			want: "sent", sends: []time.Duration{onceSettled}, lastRead: onceSettled},
		{name: "first read, not there, then taken, and there", script: onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}, send: []error{onceStatus(400)}, took: 1, find: foundAfter(onceSettled + 1)},
			want: "found", sends: []time.Duration{onceSettled}, lastRead: onceSettled + 1},
		{name: "first read, which fails for ever", script: onceScript{Mutation: ampauth.Mutation[string]{FindFirst: true}, find: failingUntil(forEver)},
			lastRead: soon, is: []error{errOnceRead}, ambiguous: true},

		{name: "a configuration", script: onceScript{send: []error{ampauth.Config{}.Validate()}}, sends: []time.Duration{0}, is: []error{ampauth.ErrConfig}, outcome: ampauth.NotSent, same: true},
		{name: "a closed client", script: onceScript{send: []error{&ampauth.Error{Op: "obtain", Kind: ampauth.ErrClosed, Outcome: ampauth.NotSent}}}, sends: []time.Duration{0},
			is: []error{ampauth.ErrClosed}, outcome: ampauth.NotSent, same: true},
		{name: "a failed login", script: onceScript{send: []error{&ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.Answered, StatusCode: 503}}}, sends: []time.Duration{0},
			is: []error{ampauth.ErrObtainFailed}, outcome: ampauth.Answered, same: true},
		{name: "a certificate, after which nobody knows what", script: onceScript{send: []error{x509.UnknownAuthorityError{}}}, sends: []time.Duration{0}, lastRead: onceSettled,
			is: []error{x509.UnknownAuthorityError{}}, outcome: ampauth.Unprocessed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &test.script
				value, err := s.run(t.Context(), onceWaits)
				if value != test.want || (err == nil) != (test.want != "") {
					t.Fatalf("got (%q, %v), want %q", value, err, test.want)
				}
				for i, want := range test.sends {
					if i < len(s.sends) && want == soon && (i == 0 || s.sends[i] > s.sends[i-1]) {
						test.sends[i] = s.sends[i]
					}
				}
				if diff := cmp.Diff(test.sends, s.sends); diff != "" {
					t.Errorf("the Sends (-want +got):\n%s", diff)
				}
				reads := test.firstRead > 0 || test.lastRead != 0 || test.ambiguous || test.want == "found"
				if reads != (len(s.reads) > 0) || reads && (s.reads[0] != test.firstRead || test.lastRead >= 0 && s.reads[len(s.reads)-1] != max(test.lastRead, test.firstRead)) {
					t.Errorf("read at %v, want from %v to %v", s.reads, test.firstRead, test.lastRead)
				}
				for i := range s.reads {
					if i > 0 && s.reads[i]-s.reads[i-1] >= onceSettled {
						t.Errorf("nobody read from %v to %v", s.reads[i-1], s.reads[i])
					}
				}
				if err == nil {
					return
				}
				for _, want := range test.is {
					if !errors.Is(err, want) {
						t.Errorf("%v is not %v", err, want)
					}
				}
				if errors.Is(err, ampauth.ErrAmbiguous) != test.ambiguous {
					t.Errorf("in doubt: %t, want %t: %v", !test.ambiguous, test.ambiguous, err)
				}
				if test.same {
					if !errors.Is(err, s.send[0]) && err.Error() != s.send[0].Error() {
						t.Errorf("got %v, want the very error", err)
					}
				} else if e := stubError(t, err); e.Attempts != len(s.sends) {
					t.Errorf("the error tells of %d Sends, there were %d", e.Attempts, len(s.sends))
				}
				if e := stubError(t, err); e.Outcome != test.outcome {
					t.Errorf("the error says %v, want %v", e.Outcome, test.outcome)
				}
				t.Log(err)
			})
		})
	}
}

func TestOnceHeedsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onceScript{send: []error{onceStatus(429, "Retry-After", "7"), nil}}
		if _, err := s.run(t.Context(), onceWaits); err != nil || s.sends[1] < 7*time.Second || s.sends[1] >= 8*time.Second {
			t.Errorf("sent at %v, %v; want the second 7 s later", s.sends, err)
		}
		s = onceScript{send: []error{errOnceDoubt}, find: func(at time.Duration) (bool, error) {
			if at == 0 {
				return false, &ampauth.Error{Kind: ampauth.ErrRateLimited, Outcome: ampauth.Rejected, RetryAfter: 7 * time.Second}
			}
			return true, nil
		}}
		if _, err := s.run(t.Context(), onceWaits); err != nil || s.reads[1] < 7*time.Second || s.reads[1] >= 8*time.Second {
			t.Errorf("read at %v, %v; want the second 7 s later", s.reads, err)
		}
	})
}

// The Retry-After of a Send in doubt holds back the next Send, not the reads, and is capped as
// any other.
func TestOnceHeedsRetryAfterOfADoubt(t *testing.T) {
	foreign := func(ctx context.Context, _ int) error { // Once sees the answer, and the error says nothing
		call(ctx, oneAttempt(stubAnswer(503, "Retry-After", "30")), mutating)
		return errOnceForeign
	}
	for _, test := range []struct {
		name        string
		settle      time.Duration
		header      string // seconds
		lasts       time.Duration
		found       time.Duration // from then on; 0: never
		sends       int
		from, until time.Duration // of the second Send, or of the end
		reads       time.Duration // the last one at the earliest
	}{
		{name: "longer than Settle", settle: time.Second, header: "30", sends: 2, from: 30 * time.Second, until: 31*time.Second + 1, reads: 30 * time.Second},
		{name: "within Settle", settle: time.Minute, header: "30", sends: 2, from: onceSettled, until: onceSettled, reads: onceSettled},
		{name: "there before it is over", settle: time.Minute, header: "30", found: 7 * time.Second, sends: 1, from: 7 * time.Second, until: 8 * time.Second, reads: 7 * time.Second},
		{name: "there behind Settle, and before it is over", settle: time.Second, header: "30", found: 7 * time.Second, sends: 1, from: 7 * time.Second, until: 8 * time.Second, reads: 7 * time.Second},
		{name: "above the cap", settle: time.Second, header: "61", sends: 1, from: time.Second + 1, until: time.Second + 1, reads: time.Second + 1},
		{name: "beyond the deadline", settle: time.Second, header: "30", lasts: 20 * time.Second, sends: 1, from: 18 * time.Second, until: 20 * time.Second, reads: 18 * time.Second},
		{name: "seen, and not told", settle: time.Second, sends: 2, from: 30 * time.Second, until: 31*time.Second + 1, reads: 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.lasts > 0 {
					ctx = ampWithin(t, test.lasts)
				}
				var sends, reads []time.Duration
				began := time.Now()
				_, err := ampauth.Once(ctx, onceWaits, ampauth.Mutation[int]{
					Settle: test.settle,
					Send: func(ctx context.Context) (int, error) {
						if sends = append(sends, time.Since(began)); len(sends) > 1 {
							return 0, nil
						}
						if test.header == "" {
							return 0, foreign(ctx, 1)
						}
						return 0, onceStatus(503, "Retry-After", test.header)
					},
					Find: func(context.Context) (int, bool, error) {
						reads = append(reads, time.Since(began))
						return 0, test.found > 0 && time.Since(began) >= test.found, nil
					},
				})
				end := time.Since(began)
				if len(sends) != test.sends || end < test.from || end > test.until || reads[len(reads)-1] < test.reads {
					t.Errorf("sent at %v, read at %v, ended at %v with %v", sends, reads, end, err)
				}
				for i := range reads {
					if i > 0 && reads[i]-reads[i-1] > time.Second {
						t.Errorf("nobody read from %v to %v", reads[i-1], reads[i])
					}
				}
				if test.sends > 1 || test.found > 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if e := stubError(t, err); errors.Is(err, ampauth.ErrAmbiguous) || e.Outcome != ampauth.Unprocessed || e.RetryAfter == 0 || e.StatusCode != 503 {
					t.Errorf("got %v, want that it was not performed, and how long to wait", err)
				}
			})
		})
	}
}

// No Settle is too long to count with, and none has it read without a wait.
func TestOnceReadsWithItsWaitsHoweverLongSettleIs(t *testing.T) {
	const hour = time.Hour
	for _, settle := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 / 2, 200 * 365 * 24 * hour} {
		for name, s := range map[string]onceScript{
			"in doubt":           {send: []error{io.EOF}},
			"first read":         {Mutation: ampauth.Mutation[string]{FindFirst: true}},
			"reads that fail":    {send: []error{io.EOF}, find: failingUntil(forEver)},
			"then taken":         {Mutation: ampauth.Mutation[string]{FindFirst: true}, send: []error{onceStatus(409)}},
			"with a Retry-After": {send: []error{onceStatus(503, "Retry-After", "30")}},
		} {
			synctest.Test(t, func(t *testing.T) {
				s.Settle = settle
				_, err := s.run(ampWithin(t, hour), onceWaits)
				if !errors.Is(err, ampauth.ErrAmbiguous) || len(s.sends) > 1 {
					t.Errorf("Settle %v, %s: %d Sends, %v", settle, name, len(s.sends), err)
				}
				if n := len(s.reads); n < 3600 || n > 20*3600 || s.reads[n-1] < hour-2*time.Second {
					t.Errorf("Settle %v, %s: %d reads in an hour, the last one at %v", settle, name, n, s.reads[n-1])
				}
			})
		}
	}
}

// A caller without the time for the next step hears at once how far it is.
func TestOnceNeverSleepsIntoTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := ampauth.RetryConfig{BaseDelay: time.Hour, MaxDelay: time.Hour}
		for _, err := range []error{errOnceDoubt, errOnceNotSent} {
			s := onceScript{send: []error{err}}
			_, got := s.run(ampWithin(t, time.Millisecond), slow)
			if time.Since(s.began) != 0 || len(s.sends) != 1 || errors.Is(got, ampauth.ErrAmbiguous) != (err == errOnceDoubt) {
				t.Errorf("after %v and %d Sends: %v", time.Since(s.began), len(s.sends), got)
			}
			if err == errOnceDoubt && !errors.Is(got, context.DeadlineExceeded) {
				t.Errorf("%v does not say that there was no time left", got)
			}
		}
	})
}

func TestOnceNamesTheFieldsThatAreWrong(t *testing.T) {
	_, err := ampauth.Once(t.Context(), ampauth.RetryConfig{MaxAttempts: -1}, ampauth.Mutation[int]{Settle: -1})
	found := faults(err)
	for i, field := range []string{"Retry.MaxAttempts", "Mutation.Send", "Mutation.Find", "Mutation.Settle"} {
		if i >= len(found) || !errors.Is(found[i], ampauth.ErrConfig) || !strings.Contains(found[i].Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
