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
)

// What Once learns from the calls of a Send whose own error says nothing.

// A sighting is what Once made of a Send: how often it was sent, and whether it was read.
type sighting struct {
	sends, reads int
	err          error
}

// sighted has Once make a Send, whose error is errOnceForeign unless it says otherwise.
// Nothing is ever found.
func sighted(ctx context.Context, send func(ctx context.Context, n int) error) (s sighting) {
	cfg := onceWaits
	cfg.MaxAttempts = 2
	_, s.err = ampauth.Once(ctx, cfg, ampauth.Mutation[int]{
		Send: func(ctx context.Context) (int, error) {
			s.sends++
			if err := send(ctx, s.sends); err != nil {
				return 0, err
			}
			return 0, errOnceForeign
		},
		Find: func(context.Context) (int, bool, error) { s.reads++; return 0, false, nil },
	})
	return s
}

// oneAttempt is a transport that leaves the attempts to Once.
func oneAttempt(steps ...stubStep) *ampauth.RetryTransport {
	return &ampauth.RetryTransport{Base: stubScript(steps...), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
}

// call makes a call of kind op over rt, and reads its answer.
func call(ctx context.Context, rt http.RoundTripper, op ampauth.Operation) {
	if resp, err := rt.RoundTrip(stubRequest(ctx, op, []byte("x"))); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

func calling(rt http.RoundTripper, ops ...ampauth.Operation) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		for _, op := range ops {
			call(ctx, rt, op)
		}
		return nil
	}
}

func TestOnceSeesHowFarTheCallsOfASendGot(t *testing.T) {
	const ( // what becomes of it
		again   = "sent again without a read"
		ends    = "ends without a read"
		doubt   = "read, and then sent again"
		success = "read, and never sent again"
	)
	for _, test := range []struct {
		name string
		send func(context.Context, int) error
		want string
	}{
		{"not sent", calling(oneAttempt(stubRefuse()), mutating), again},
		{"421", calling(oneAttempt(stubAnswer(421)), mutating), again},
		{"425", calling(oneAttempt(stubAnswer(425)), mutating), again},
		{"429", calling(oneAttempt(stubAnswer(429)), mutating), again},
		{"429 of a base that tells nothing", calling(oneAttempt(func(req *http.Request) (*http.Response, error) {
			stubUse(req)
			return stubResponse(429, ""), nil
		}), mutating), again},
		{"400", calling(oneAttempt(stubAnswer(400)), mutating), ends},
		{"401", calling(oneAttempt(stubAnswer(401)), mutating), ends},
		{"404", calling(oneAttempt(stubAnswer(404)), mutating), ends},
		{"409", calling(oneAttempt(stubAnswer(409)), idempotent), ends},

		{"200, and then a fault", calling(oneAttempt(stubAnswer(200)), mutating), success},
		{"201, and then a fault", calling(oneAttempt(stubAnswer(201)), mutating), success},
		{"200 to what can be repeated", calling(oneAttempt(stubAnswer(200)), idempotent), doubt},
		{"303", calling(oneAttempt(stubAnswer(303, "Location", "/done")), mutating), doubt},
		{"101", calling(oneAttempt(stubAnswer(101)), mutating), doubt},
		{"408", calling(oneAttempt(stubAnswer(408)), mutating), doubt},
		{"500", calling(oneAttempt(stubAnswer(500)), mutating), doubt},
		{"501", calling(oneAttempt(stubAnswer(501)), mutating), doubt},
		{"503 with Retry-After", calling(oneAttempt(stubAnswer(503, "Retry-After", "1")), mutating), doubt},
		{"broken", calling(oneAttempt(stubBreak(errStubReset)), mutating), doubt},
		{"no call at all", func(context.Context, int) error { return nil }, doubt},

		{"a proof behind a doubt", calling(oneAttempt(stubBreak(errStubReset), stubAnswer(400)), mutating, mutating), doubt},
		{"a doubt behind a proof", calling(oneAttempt(stubAnswer(400), stubAnswer(500)), mutating, mutating), doubt},
		{"a read behind a doubt", calling(oneAttempt(stubBreak(errStubReset), stubRefuse()), mutating, safe), doubt},
		{"a read that succeeded, and then a proof", calling(oneAttempt(stubAnswer(200), stubAnswer(400)), safe, mutating), doubt},
		{"a read that failed, and then 429", calling(oneAttempt(stubAnswer(404), stubAnswer(429)), safe, mutating), again},
		{"a read that failed, and then 421", calling(oneAttempt(stubAnswer(400), stubAnswer(421)), safe, mutating), again},
		{"a read that failed, and then 425", calling(oneAttempt(stubAnswer(403), stubAnswer(425)), safe, mutating), again},
		{"a read that failed, and then not sent", calling(oneAttempt(stubAnswer(404), stubRefuse()), safe, mutating), again},
		{"a read that failed, and then 400", calling(oneAttempt(stubAnswer(429), stubAnswer(400)), safe, mutating), ends},
		{"429, and then a read that failed", calling(oneAttempt(stubAnswer(429), stubAnswer(404)), mutating, safe), again},
		{"400, and then a read that was not sent", calling(oneAttempt(stubAnswer(400), stubRefuse()), mutating, safe), ends},
		{"400, and then 429", calling(oneAttempt(stubAnswer(400), stubAnswer(429)), mutating, idempotent), ends},
		{"proofs alone", calling(oneAttempt(stubRefuse(), stubAnswer(429)), mutating, mutating), again},
		{"reads alone", calling(oneAttempt(stubAnswer(404)), safe), doubt},
		{"reads alone, and their error", func(ctx context.Context, _ int) error {
			call(ctx, oneAttempt(stubAnswer(404)), safe)
			return ampauth.ResponseError(stubResponse(404, ""))
		}, ends},
		{"a proof, but ErrAmbiguous", func(ctx context.Context, _ int) error {
			call(ctx, oneAttempt(stubAnswer(400)), mutating)
			return fmt.Errorf("the client knows better: %w", ampauth.ErrAmbiguous)
		}, doubt},
		{"a doubt, but NotSent", func(ctx context.Context, _ int) error {
			call(ctx, oneAttempt(stubAnswer(500)), mutating)
			return errOnceNotSent
		}, doubt},
		{"what ends Retry, behind a doubt", func(ctx context.Context, n int) error {
			if n == 1 {
				call(ctx, oneAttempt(stubAnswer(500)), mutating)
				return &ampauth.Error{Op: "obtain", Kind: ampauth.ErrCredentialsRefused, Outcome: ampauth.NotSent}
			}
			return nil
		}, doubt},

		{"attempts at what can be repeated, the first broken", calling(&ampauth.RetryTransport{
			Base: stubScript(stubBreak(errStubReset), stubAnswer(404))}, idempotent), doubt},
		{"attempts at a read, the first broken, beside a proof", calling(&ampauth.RetryTransport{
			Base: stubScript(stubAnswer(500), stubAnswer(404), stubAnswer(400))}, safe, mutating), ends},
		{"a token that was refused, and then 400", calling(&ampauth.RetryTransport{Base: &ampauth.AuthTransport{
			Base: stubScript(stubAnswer(401), stubAnswer(400)), Source: tokenThatIsRenewed(), Origin: "https://api.test"}}, mutating), ends},
		{"a token that was refused for ever", calling(&ampauth.RetryTransport{Base: &ampauth.AuthTransport{
			Base: stubScript(stubAnswer(401)), Source: tokenThatIsRenewed(), Origin: "https://api.test"}}, mutating), ends},
		{"no token", calling(&ampauth.RetryTransport{Base: &ampauth.AuthTransport{
			Base: stubScript(stubAnswer(200)), Source: stubNoToken(io.EOF), Origin: "https://api.test"}}, mutating), again},
		{"stacked", calling(&ampauth.RetryTransport{Base: stubHeaderLayer(oneAttempt(stubAnswer(400)))}, mutating), ends},
		{"a faulty configuration", calling(&ampauth.RetryTransport{Retry: ampauth.RetryConfig{MaxAttempts: -1}}, mutating), again},

		{"a layer whose second try is answered 400", calling(&ampauth.RetryTransport{Base: twice(stubBreak(errStubReset), stubAnswer(400))}, mutating), doubt},
		{"a layer whose second try is answered 429", calling(&ampauth.RetryTransport{Base: twice(stubBreak(errStubReset), stubAnswer(429))}, mutating), doubt},
		{"a layer that hides it", calling(&ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			hidden := req.WithContext(context.Background())
			resp, err := twice(stubBreak(errStubReset), stubAnswer(400)).RoundTrip(hidden)
			resp.Request = hidden
			return resp, err
		})}, mutating), doubt},

		{"a call that panics", func(ctx context.Context, _ int) error {
			defer func() { _ = recover() }()
			call(ctx, oneAttempt(func(req *http.Request) (*http.Response, error) { panic("below") }), mutating)
			return nil
		}, doubt},
		{"a call that goes on", func(ctx context.Context, _ int) error {
			call(ctx, oneAttempt(stubAnswer(400)), mutating)
			go call(ctx, oneAttempt(stubStall()), mutating)
			synctest.Wait()
			return nil
		}, doubt},
		{"a call with another context of Send's", func(ctx context.Context, _ int) error {
			ctx, cancel := context.WithTimeout(context.WithValue(ctx, wireKey{}, 1), time.Second)
			defer cancel()
			call(ctx, oneAttempt(stubAnswer(400)), mutating)
			return nil
		}, ends},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sighted(t.Context(), test.send)
				got := "?"
				switch {
				case s.sends == 2 && s.reads == 0:
					got = again
				case s.sends == 1 && s.reads == 0:
					got = ends
				case s.sends == 2 && !errors.Is(s.err, ampauth.ErrAmbiguous):
					got = doubt
				case s.sends == 1 && errors.Is(s.err, ampauth.ErrAmbiguous):
					got = success
				}
				if got != test.want {
					t.Errorf("%s (%d Sends, %d reads), want it to be %s: %v", got, s.sends, s.reads, test.want, s.err)
				}
			})
		})
	}
}

// twice is a layer that tries again by itself.
func twice(first, second stubStep) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if resp, err := first(req); err == nil {
			return resp, nil
		}
		return second(req)
	})
}

// Send says that it was performed, and all that Once sees says that it was not, as where a
// generated client has no error for a 503. Then it is read before anything is sent again.
func TestOnceBelievesNoSendThatHidesAFailure(t *testing.T) {
	none := stubScript(stubAnswer(400)) // of a client that Once does not see
	for _, test := range []struct {
		name         string
		send         func(context.Context, int) error
		sends, reads int // reads: 0, or at least so many
		is           error
	}{
		{"201", calling(oneAttempt(stubAnswer(201)), mutating), 1, 0, nil},
		{"200 to what can be repeated", calling(oneAttempt(stubAnswer(200)), idempotent), 1, 0, nil},
		{"303", calling(oneAttempt(stubAnswer(303, "Location", "/done")), mutating), 1, 0, nil},
		{"404 to what looks first, and then 201", calling(oneAttempt(stubAnswer(404), stubAnswer(201)), safe, mutating), 1, 0, nil},
		{"409, and then another way", calling(oneAttempt(stubAnswer(409), stubAnswer(201)), mutating, mutating), 1, 0, nil},
		{"201, and then something that failed", calling(oneAttempt(stubAnswer(201), stubAnswer(500)), mutating, mutating), 1, 0, nil},
		{"broken, and then 200", calling(&ampauth.RetryTransport{Base: stubScript(stubBreak(errStubReset), stubAnswer(200))}, idempotent), 1, 0, nil},
		{"nothing that was seen", calling(none, mutating), 1, 0, nil},
		{"reads alone", calling(oneAttempt(stubAnswer(503)), safe), 1, 0, nil},

		{"400", calling(oneAttempt(stubAnswer(400)), mutating), 1, 1, ampauth.ErrRequestFailed},
		{"404 to what can be repeated", calling(oneAttempt(stubAnswer(404)), idempotent), 1, 1, ampauth.ErrRequestFailed},
		{"429, and then 201", calling(oneAttempt(stubAnswer(429), stubAnswer(201)), mutating), 2, 1, nil},
		{"429", calling(oneAttempt(stubAnswer(429)), mutating), 2, 1, ampauth.ErrRateLimited},
		{"not sent, and then 201", calling(oneAttempt(stubRefuse(), stubAnswer(201)), mutating), 2, 1, nil},
		{"503, and then 201", calling(oneAttempt(stubAnswer(503), stubAnswer(201)), mutating), 2, 1, nil},
		{"500", calling(oneAttempt(stubAnswer(500)), mutating), 2, 1, ampauth.ErrRequestFailed},
		{"408", calling(oneAttempt(stubAnswer(408)), mutating), 2, 1, ampauth.ErrRequestFailed},
		{"broken, and then 201", calling(oneAttempt(stubBreak(errStubReset), stubAnswer(201)), mutating), 2, 1, nil},
		{"broken", calling(oneAttempt(stubBreak(errStubReset)), mutating), 2, 1, errStubReset},
		{"200 to a read, and 503", calling(oneAttempt(stubAnswer(200), stubAnswer(503)), safe, mutating), 2, 1, ampauth.ErrRequestFailed},
		{"a call that goes on", func(ctx context.Context, n int) error {
			go call(ctx, oneAttempt(stubStall()), mutating)
			synctest.Wait()
			return nil
		}, 2, 1, ampauth.ErrRequestFailed},
		{"a faulty configuration", calling(&ampauth.RetryTransport{Retry: ampauth.RetryConfig{MaxAttempts: -1}}, mutating), 1, 1, ampauth.ErrConfig},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, sends, reads := onceWaits, 0, 0
				cfg.MaxAttempts = 2
				value, err := ampauth.Once(t.Context(), cfg, ampauth.Mutation[int]{
					Send: func(ctx context.Context) (int, error) { sends++; return sends, test.send(ctx, sends) },
					Find: func(context.Context) (int, bool, error) { reads++; return 0, false, nil },
				})
				if sends != test.sends || (reads > 0) != (test.reads > 0) {
					t.Errorf("%d Sends and %d reads, want %d and %d", sends, reads, test.sends, test.reads)
				}
				if (err == nil) != (test.is == nil) || test.is != nil && !errors.Is(err, test.is) || errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("got (%d, %v), want %v", value, err, test.is)
				}
				if err != nil {
					t.Log(err)
				}
			})
		})
	}
}

// An answer of success that breaks off is never sent again where a RetryTransport saw it, even
// if nothing is found. Another client's is a doubt like any other.
func TestOnceNeverSendsAgainWhatItSawAnsweredWithSuccess(t *testing.T) {
	broken := func(req *http.Request) (*http.Response, error) {
		resp, err := stubAnswer(201)(req)
		resp.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))
		return resp, err
	}
	for _, test := range []struct {
		rt    http.RoundTripper
		sends int
	}{{oneAttempt(broken), 1}, {stubScript(broken), 2}} {
		synctest.Test(t, func(t *testing.T) {
			s := sighted(t.Context(), func(ctx context.Context, _ int) error {
				resp, err := test.rt.RoundTrip(stubRequest(ctx, mutating, []byte("x")))
				if err != nil {
					return err
				}
				_, err = io.ReadAll(resp.Body)
				return err
			})
			if s.sends != test.sends || s.reads < 2 || errors.Is(s.err, ampauth.ErrAmbiguous) != (test.sends == 1) {
				t.Errorf("%d Sends, want %d, and %d reads: %v", s.sends, test.sends, s.reads, s.err)
			}
		})
	}
}

// A redirect that a read followed counts by where it led.
func TestOnceCountsARedirectByWhereItLeads(t *testing.T) {
	for status, want := range map[int]int{404: 0, 200: 1} {
		synctest.Test(t, func(t *testing.T) {
			client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: oneAttempt(
				stubAnswer(301, "Location", "/api/managers"), stubAnswer(302, "Location", "/api/categories"), stubAnswer(status), stubAnswer(400))}
			s := sighted(t.Context(), func(ctx context.Context, n int) error {
				for _, op := range []ampauth.Operation{safe, mutating} {
					method := map[ampauth.Operation]string{safe: "GET", mutating: "POST"}[op]
					req, _ := http.NewRequestWithContext(ctx, method, "https://api.test/api/assets", strings.NewReader(""))
					if resp, err := client.Do(req); err == nil {
						_ = resp.Body.Close()
					}
				}
				return nil
			})
			if (s.reads > 0) != (want > 0) {
				t.Errorf("a read that was led to a %d: %d reads, %v", status, s.reads, s.err)
			}
		})
	}
}

// What layers, sources and limiters send on the way is no call of Send's, and they cannot
// tell Once anything.
func TestOnceSeesNoCallFromBelowACall(t *testing.T) {
	side := func(ctx context.Context, status int) {
		call(ctx, oneAttempt(stubAnswer(status)), mutating)
	}
	for name, rt := range map[string]http.RoundTripper{
		"a layer": &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			asked := stubRequestTo(req.Context(), "https://signer.test/sign", mutating, []byte("x"))
			resp, _ := oneAttempt(stubAnswer(200)).RoundTrip(asked)
			_ = resp.Body.Close()
			return stubAnswer(400)(req)
		})},
		"a source": &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(400)), Origin: "https://api.test",
			Source: sourceFunc(func(ctx context.Context) (ampauth.Token, error) { side(ctx, 200); return oneToken("x") })}},
		"a renewer": &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(401), stubAnswer(400)), Origin: "https://api.test",
			Source: renewSource{
				func(context.Context) (ampauth.Token, error) { return oneToken("old") },
				func(ctx context.Context) (ampauth.Token, error) { side(ctx, 200); return oneToken("new") },
			}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			if s := sighted(t.Context(), calling(rt, mutating)); s.sends != 1 || s.reads != 0 {
				t.Errorf("%s: %d Sends and %d reads, want one: %v", name, s.sends, s.reads, s.err)
			}
		})
	}
	// Where the mutation itself is not seen, the login is not taken for it.
	synctest.Test(t, func(t *testing.T) {
		foreign := &ampauth.AuthTransport{Base: stubScript(stubBreak(errStubReset)), Origin: "https://api.test",
			Source: sourceFunc(func(ctx context.Context) (ampauth.Token, error) { side(ctx, 400); return oneToken("x") })}
		if s := sighted(t.Context(), calling(foreign, mutating)); s.reads == 0 {
			t.Errorf("%d Sends and no read: %v", s.sends, s.err)
		}
	})
}

// One that is a part of a Send tells the outer one.
func TestOnceSeesTheSendsOfAnInnerOnce(t *testing.T) {
	for status, want := range map[int]bool{400: false, 500: true} {
		synctest.Test(t, func(t *testing.T) {
			s := sighted(t.Context(), func(ctx context.Context, _ int) error {
				_, _ = ampauth.Once(ctx, onceWaits, ampauth.Mutation[int]{
					Send: func(ctx context.Context) (int, error) {
						call(ctx, oneAttempt(stubAnswer(status)), mutating)
						return 0, errOnceForeign
					},
					Find: func(ctx context.Context) (int, bool, error) {
						call(ctx, oneAttempt(stubAnswer(200)), safe)
						return 0, true, nil
					},
				})
				call(ctx, oneAttempt(stubAnswer(400)), mutating)
				return nil
			})
			if (s.reads > 0) != want {
				t.Errorf("an inner %d: %d reads, %v", status, s.reads, s.err)
			}
		})
	}
}

// The reads of an inner one are no calls of the outer Send.
func TestOnceSeesNoReadOfAnInnerOnce(t *testing.T) {
	for _, status := range []int{200, 503} {
		synctest.Test(t, func(t *testing.T) {
			s := sighted(t.Context(), func(ctx context.Context, _ int) error {
				_, _ = ampauth.Once(ctx, onceWaits, ampauth.Mutation[int]{
					Send: func(context.Context) (int, error) { return 0, errOnceForeign },
					Find: func(ctx context.Context) (int, bool, error) {
						call(ctx, oneAttempt(stubAnswer(status)), safe)
						return 0, true, nil
					},
				})
				call(ctx, oneAttempt(stubAnswer(400)), mutating)
				return nil
			})
			if s.sends != 1 || s.reads != 0 {
				t.Errorf("an inner read of %d: %d Sends and %d reads, %v", status, s.sends, s.reads, s.err)
			}
		})
	}
}
