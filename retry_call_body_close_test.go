package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

func TestBodyIsClosedOnceOnEveryPath(t *testing.T) {
	auth := func(base http.RoundTripper, source ampauth.TokenSource) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
	}
	none := stubNoToken(errors.New("no token today"))
	cancelled := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx, cancel
	}
	during := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Second)
	}
	paths := []struct {
		name string
		rt   func() http.RoundTripper
		ctx  func(context.Context) (context.Context, context.CancelFunc)
	}{
		{name: "success", rt: func() http.RoundTripper { return stubScript(stubAnswer(200)) }},
		{name: "answered before the body was read", rt: func() http.RoundTripper {
			return stubScript(func(req *http.Request) (*http.Response, error) {
				stubUnused(req)
				return stubResponse(413, ""), nil
			})
		}},
		{name: "error", rt: func() http.RoundTripper { return stubScript(stubBreak(io.EOF)) }},
		{name: "dial error three times", rt: func() http.RoundTripper { return stubScript(stubRefuse()) }},
		{name: "dial error, then an answer", rt: func() http.RoundTripper { return stubScript(stubRefuse(), stubAnswer(200)) }},
		{name: "429 three times", rt: func() http.RoundTripper { return stubScript(stubAnswer(429)) }},
		{name: "429 beyond the deadline", ctx: during, rt: func() http.RoundTripper { return stubScript(stubAnswer(429, "Retry-After", "5")) }},
		{name: "attempt timeout", rt: func() http.RoundTripper { return stubScript(stubStall()) }},
		{name: "caller leaves during the attempt", ctx: during, rt: func() http.RoundTripper { return stubScript(stubStall()) }},
		{name: "caller left before", ctx: cancelled, rt: func() http.RoundTripper { return stubScript(stubAnswer(200)) }},
		{name: "nothing returned", rt: func() http.RoundTripper {
			return stubScript(func(req *http.Request) (*http.Response, error) { stubUse(req); return nil, nil })
		}},
		{name: "replay with a new token", rt: func() http.RoundTripper {
			return auth(stubScript(stubAnswer(401), stubAnswer(200)), new(stubRenewing))
		}},
		{name: "refused with every token", rt: func() http.RoundTripper { return auth(stubScript(stubAnswer(401)), new(stubRenewing)) }},
		{name: "refused, and none that is new", rt: func() http.RoundTripper {
			return auth(stubScript(stubAnswer(401)), ampauth.StaticTokenSource(ampauth.SecretFromString("token")))
		}},
		{name: "refused unread, and none that is new", rt: func() http.RoundTripper {
			return auth(stubScript(func(req *http.Request) (*http.Response, error) {
				stubUnused(req)
				return stubResponse(401, ""), nil
			}), ampauth.StaticTokenSource(ampauth.SecretFromString("token")))
		}},
		{name: "caller leaves during the renewal", ctx: during, rt: func() http.RoundTripper {
			return auth(stubScript(stubAnswer(401)), &stubRenewing{wait: time.Minute})
		}},
		{name: "no token", rt: func() http.RoundTripper { return auth(stubScript(stubAnswer(200)), none) }},
		{name: "faulty AuthTransport", rt: func() http.RoundTripper { return auth(stubScript(stubAnswer(200)), nil) }},
	}
	for _, path := range paths {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/GetBody %v", path.name, op, again), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						ctx := t.Context()
						if path.ctx != nil {
							var cancel context.CancelFunc
							ctx, cancel = path.ctx(ctx)
							defer cancel()
						}
						first := newStubBody("payload")
						bodies := []*stubBody{first}
						req := stubRequest(ctx, op, first)
						if again {
							req.GetBody = func() (io.ReadCloser, error) {
								bodies = append(bodies, newStubBody("payload"))
								return bodies[len(bodies)-1], nil
							}
						}
						resp, err := (&ampauth.RetryTransport{Base: path.rt()}).RoundTrip(req)
						if err == nil {
							stubText(t, resp)
						}
						time.Sleep(time.Minute) // a renewal that nobody waits for ends
						for i, body := range bodies {
							if n := body.closed.Load(); n != 1 {
								t.Errorf("body %d of %d was closed %d times, want once", i+1, len(bodies), n)
							}
						}
					})
				})
			}
		}
	}
}

func TestBodyIsClosedOnceOverANetwork(t *testing.T) {
	for _, test := range []struct {
		name    string
		refuse  int
		handler http.HandlerFunc
	}{
		{"success", 0, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }},
		{"dial refused twice", 2, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }},
		{"dial refused for good", 9, nil},
		{"connection cut", 0, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"turned away", 0, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }},
	} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			t.Run(test.name+"/"+op.String(), func(t *testing.T) {
				body := newStubBody("payload")
				stubBubble(t, test.handler, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
					l.Refuse(test.refuse)
					resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequestTo(t.Context(), url, op, body))
					if err == nil {
						stubText(t, resp)
					}
				})
				if n := body.closed.Load(); n != 1 {
					t.Errorf("the body was closed %d times, want once", n)
				}
			})
		}
	}
}

// A layer below may read and close late. It must not eat the next attempt's body,
// nor close what is under way.
func TestLateReaderOfAnEarlierAttemptGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var early io.ReadCloser
		var got string
		body := newStubBody("payload")
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			early = req.Body
			return nil, errStubDial
		}, func(req *http.Request) (*http.Response, error) {
			if n, err := early.Read(make([]byte, 3)); n != 0 || err == nil {
				t.Errorf("the first attempt reads %d bytes, %v, in the second", n, err)
			}
			_ = early.Close()
			if body.closed.Load() != 0 {
				t.Error("the first attempt closes the body of the second")
			}
			content, _ := io.ReadAll(req.Body)
			got = string(content)
			return stubAnswer(200)(req)
		})
		stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.MutatingOperation, body))
		_ = early.Close()
		if got != "payload" || body.closed.Load() != 1 {
			t.Errorf("the second attempt read %q; the body was closed %d times", got, body.closed.Load())
		}
	})
}

// A transport may close the body after RoundTrip has returned.
func TestBodyThatIsClosedLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, read := range map[string]bool{"read": true, "unread": false} {
			body := newStubBody("payload")
			base := stubScript(func(req *http.Request) (*http.Response, error) {
				if read {
					_, _ = io.ReadAll(req.Body)
				}
				time.AfterFunc(time.Minute, func() { _ = req.Body.Close() })
				return stubResponse(200, ""), nil
			})
			stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.MutatingOperation, body))
			if body.closed.Load() != 0 {
				t.Errorf("%s: the body was closed while the transport had it", name)
			}
			time.Sleep(time.Hour)
			if body.closed.Load() != 1 {
				t.Errorf("%s: the body was closed %d times, want once", name, body.closed.Load())
			}
		}
	})
}

func TestReadAfterCloseOfABodyThatExistsOnceGetsNothing(t *testing.T) {
	body := newStubBody("payload")
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		_ = req.Body.Close()
		if n, err := req.Body.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d bytes of a closed body, %v", n, err)
		}
		return nil, errStubDial
	}, stubAnswer(200))
	status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, stubRequest(t.Context(), ampauth.MutatingOperation, body))
	if status != 200 || base.attempts() != 2 {
		t.Errorf("status %d after %d attempts, want 200 after 2", status, base.attempts())
	}
}
