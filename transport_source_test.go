package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestRequestWithoutTokenFailsOnceAndIsNotSent(t *testing.T) {
	boom := errors.New("vault is sealed")
	for _, test := range []struct {
		name   string
		source ampauth.TokenSource
		is     error
	}{
		{"source fails", sourceFunc(func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, boom }), boom},
		{"empty token", sourceFunc(func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, nil }), ampauth.ErrObtainFailed},
		{"empty static token", ampauth.StaticTokenSource(ampauth.Secret{}), ampauth.ErrObtainFailed},
		{"token that no header can carry", static("a\r\nX-Evil: 1"), ampauth.ErrObtainFailed},
		{"panic", sourceFunc(func(context.Context) (ampauth.Token, error) { panic("secret-in-a-panic") }), ampauth.ErrObtainFailed},
		{"nil source", nil, ampauth.ErrConfig},
		{"nil manager", (*ampauth.TokenManager)(nil), ampauth.ErrConfig},
		{"zero manager", new(ampauth.TokenManager), ampauth.ErrConfig},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := 0
			auth := &ampauth.AuthTransport{
				Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
					t.Error("the request was sent")
					return nil, nil
				}),
				Origin: "https://amp.test",
			}
			if test.source != nil {
				auth.Source = test.source
			}
			layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				calls++
				resp, err := auth.RoundTrip(req)
				if err != nil {
					err = fmt.Errorf("logged: %w", err) // somebody's layer wraps it
				}
				return resp, err
			})
			body := newStubBody("x")
			req, _ := http.NewRequest("GET", "https://amp.test/assets", body)
			_, err := (&ampauth.RetryTransport{Base: layer}).RoundTrip(req)
			e, ok := errors.AsType[*ampauth.Error](err)
			if !ok || e.Outcome != ampauth.NotSent || !errors.Is(err, test.is) {
				t.Errorf("error is %v, want a NotSent *Error that Is %v", err, test.is)
			}
			if strings.Contains(err.Error(), "secret-in-a-panic") || strings.Contains(err.Error(), "X-Evil") {
				t.Errorf("the error shows what it must not: %v", err)
			}
			if calls != 1 {
				t.Errorf("%d attempts, want 1: a failed login is final", calls)
			}
			if n := body.closed.Load(); n != 1 {
				t.Errorf("the body was closed %d times, want 1", n)
			}
		})
	}
}

// A layer in between may send the request elsewhere, which hides from the
// RetryTransport what the AuthTransport knows of it.
func TestRequestWithoutTokenFailsOnceBelowALayerThatRewritesIt(t *testing.T) {
	logins := 0
	auth := &ampauth.AuthTransport{
		Base:   stubScript(stubAnswer(200)),
		Source: sourceFunc(func(context.Context) (ampauth.Token, error) { logins++; return ampauth.Token{}, io.EOF }),
		Origin: "https://api.test",
	}
	rewrites := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		moved := req.Clone(req.Context())
		moved.URL.Path = "/v2" + moved.URL.Path
		return auth.RoundTrip(moved)
	})
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		logins = 0
		_, err := (&ampauth.RetryTransport{Base: rewrites, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), op, nil))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || logins != 1 {
			t.Errorf("%v: got %v (%v) after %d logins, want NotSent after one", op, err, e.Outcome, logins)
		}
	}
}

func TestRequestWithoutTokenFailsOnceBelowALayerThatRewritesTheError(t *testing.T) {
	logins := 0
	source := sourceFunc(func(context.Context) (ampauth.Token, error) { logins++; return ampauth.Token{}, io.EOF })
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: source, Origin: "https://api.test"}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := auth.RoundTrip(req)
		if err != nil {
			err = errors.New("a layer: " + err.Error())
		}
		return resp, err
	})
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err == nil || logins != 1 {
		t.Errorf("got %v after %d logins, want an error after 1", err, logins)
	}
}

// A login that fails in doubt leaves no doubt about a request that waited for it.
func TestRequestBehindADoubtfulLoginIsNotSent(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.Reset, Times: -1})
		client := w.client()
		_, err := client.Post(w.url+"/api/assets/issue", "application/json", strings.NewReader("{}"))
		e := stubError(t, err)
		if e.Outcome != ampauth.NotSent || e.Kind != ampauth.ErrObtainFailed || e.Attempts != 3 {
			t.Errorf("got %v (%v), want NotSent after three attempts at a login", err, e.Outcome)
		}
	})
}

// What a TokenSource sends is not the request, and does not go by what the caller
// says of that.
func TestRequestsOfTheSourceAreNoPartOfTheAttempt(t *testing.T) {
	for _, test := range []struct {
		name     string
		vault    stubStep
		api      stubStep
		outcome  ampauth.Outcome
		attempts int // at the API
	}{
		{"connected and failed", stubBreak(io.EOF), stubAnswer(200), ampauth.NotSent, 0},
		{"connected and answered, then the API is not", stubAnswer(200), stubRefuse(), ampauth.NotSent, 3},
		{"not connected, then the API breaks", func(req *http.Request) (*http.Response, error) {
			stubConnect(req, false)
			return stubAnswer(200)(req.WithContext(context.Background()))
		}, stubFail(io.EOF), ampauth.Ambiguous, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			vault, api := stubScript(test.vault), stubScript(test.api)
			source := sourceFunc(func(ctx context.Context) (ampauth.Token, error) {
				if _, ok := ampauth.AttemptFromContext(ctx); ok {
					t.Error("the source's own requests count as part of the attempt")
				}
				// To the vault it is a plain read, whatever the caller's request is.
				rt := &ampauth.RetryTransport{Base: vault, Classify: ampauth.ClassifyHTTP, Retry: ampauth.RetryConfig{MaxAttempts: 1}}
				req, _ := http.NewRequestWithContext(ctx, "GET", "https://vault.test/", nil)
				resp, err := rt.RoundTrip(req)
				if errors.Is(err, ampauth.ErrAmbiguous) {
					t.Error("the source's read was taken for a mutation")
				}
				if err != nil {
					return ampauth.Token{}, err
				}
				_ = resp.Body.Close()
				return ampauth.Token{Value: ampauth.SecretFromString("t")}, nil
			})
			rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: api, Source: source, Origin: "https://api.test"}, Retry: stubQuick}
			_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
			if e := stubError(t, err); e.Outcome != test.outcome || api.attempts() != test.attempts {
				t.Errorf("got %v (%v) after %d attempts, want %v after %d", err, e.Outcome, api.attempts(), test.outcome, test.attempts)
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

func TestErrorOfASourceIsCleanedThroughTheChain(t *testing.T) {
	said := errors.New(`the vault said "hunter2"`)
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stubNoToken(said), Origin: "https://api.test"}
	_, err := auth.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if !errors.Is(err, said) {
		t.Errorf("%v is not what the source said", err)
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a link of the chain tells what the source quoted: %v", err)
		}
	}
}

// An embeddedManager has the methods of a manager, and a Token of its own.
type embeddedManager struct {
	*ampauth.TokenManager
	token ampauth.Token
}

func (m embeddedManager) Token(context.Context) (ampauth.Token, error) { return m.token, nil }

func TestSourceThatEmbedsAManagerIsAskedItself(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		own, _ := oneToken("own")
		source := embeddedManager{w.manager(), own}
		w.token(source.TokenManager)
		base := stubScript(stubAnswer(200))
		rt := &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if got := base.seen()[0].request.Header.Get("Authorization"); got != "token own" {
			t.Error("the token that was sent is not that of the source")
		}
		bare := &ampauth.AuthTransport{Base: base, Source: source}
		if _, err := bare.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil)); !errors.Is(err, ampauth.ErrConfig) {
			t.Errorf("without an Origin: %v", err)
		}
	})
}

func TestEndedTokenOfAForeignSourceIsSentForTheAPIToJudge(t *testing.T) {
	ended := ampauth.Token{Value: ampauth.SecretFromString("ended"), ExpiresAt: time.Now().Add(-time.Hour)}
	base := stubScript(stubAnswer(401))
	rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{
		Base: base, Origin: "https://amp.test",
		Source: sourceFunc(func(context.Context) (ampauth.Token, error) { return ended, nil }),
	}}
	resp, err := rt.RoundTrip(requestOf(t, "GET", "https://amp.test/api/assets"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	calls := base.seen()
	if len(calls) != 1 || resp.StatusCode != 401 || calls[0].request.Header.Get("Authorization") != "token ended" {
		t.Errorf("%d requests, status %d; want one with the token that it gave, and its refusal", len(calls), resp.StatusCode)
	}
}
