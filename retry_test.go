package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
)

func TestStackedRetryTransportsDoNotMultiply(t *testing.T) {
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
	auth := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
	}
	retry := func(base http.RoundTripper) http.RoundTripper { return &ampauth.RetryTransport{Base: base} }
	stacks := map[string]func(http.RoundTripper) http.RoundTripper{
		"retry over retry": func(b http.RoundTripper) http.RoundTripper { return retry(retry(b)) },
		"three":            func(b http.RoundTripper) http.RoundTripper { return retry(retry(retry(b))) },
		"retry over auth over retry": func(b http.RoundTripper) http.RoundTripper {
			return retry(auth(retry(b)))
		},
		"auth over retry over retry": func(b http.RoundTripper) http.RoundTripper { return auth(retry(retry(b))) },
		"retry over auth":            func(b http.RoundTripper) http.RoundTripper { return retry(auth(b)) },
		"auth over retry":            func(b http.RoundTripper) http.RoundTripper { return auth(retry(b)) },
		"with a layer between": func(b http.RoundTripper) http.RoundTripper {
			return retry(stubHeaderLayer(auth(stubHeaderLayer(retry(b)))))
		},
	}
	for name, stack := range stacks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, step := range []stubStep{stubAnswer(503), stubRefuse()} {
					base := stubScript(step)
					resp, err := stack(base).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
					if err == nil {
						stubText(t, resp)
					} else if n := stubError(t, err).Attempts; n != 3 || !errors.Is(err, errStubDial) {
						t.Errorf("got %v, want the dial error after 3 attempts", err)
					}
					if base.attempts() != 3 {
						t.Errorf("%d attempts, want 3", base.attempts())
					}
				}
				base := stubScript(stubBreak(io.EOF))
				_, err := stack(base).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
				if !errors.Is(err, ampauth.ErrAmbiguous) || base.attempts() != 1 {
					t.Errorf("a mutation ended in %v after %d attempts", err, base.attempts())
				}
			})
		})
	}
}

func TestFaultsOfTheTransportBelowAreOneClearError(t *testing.T) {
	auth := func(base http.RoundTripper) http.RoundTripper {
		return &ampauth.AuthTransport{Base: base, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("token")), Origin: "https://api.test"}
	}
	nothing := func(req *http.Request) (*http.Response, error) {
		stubUse(req)
		return nil, nil
	}
	for name, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
		"below the RetryTransport": func(b http.RoundTripper) http.RoundTripper { return b },
		"below an AuthTransport":   auth,
	} {
		t.Run("nothing returned, "+name, func(t *testing.T) {
			for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
				base := stubScript(nothing)
				resp, err := (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), op, []byte("x")))
				e := stubError(t, err)
				if resp != nil || base.attempts() != 1 || e.Attempts != 1 {
					t.Errorf("%v: got (%v, %v) after %d attempts, the error says %d; want one attempt", op, resp, err, base.attempts(), e.Attempts)
				}
				// Nobody knows what became of it.
				if errors.Is(err, ampauth.ErrAmbiguous) != (op == ampauth.MutatingOperation) {
					t.Errorf("%v: %v says the wrong thing about being ambiguous", op, err)
				}
			}
		})
		t.Run("response and error, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := newStubBody("x")
				base := stubScript(func(*http.Request) (*http.Response, error) {
					resp := stubResponse(200, "")
					resp.Body = body
					return resp, io.ErrUnexpectedEOF
				})
				resp, err := (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
				if resp != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got (%v, %v), want only the error", resp, err)
				}
				if n := body.closed.Load(); n != 1 {
					t.Errorf("the body was closed %d times, want once", n)
				}
			})
		})
		t.Run("no body, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bare := func(status int) stubStep {
					return func(req *http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: status, Header: http.Header{}}, nil
					}
				}
				rt := &ampauth.RetryTransport{Base: wrap(stubScript(bare(503), bare(200)))}
				resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if err != nil || resp.StatusCode != 200 || resp.Body == nil {
					t.Fatalf("got (%v, %v), want a 200 with a body", resp, err)
				}
				if text := stubText(t, resp); text != "" {
					t.Errorf("the body is %q", text)
				}
			})
		})
		t.Run("panic, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var attempt context.Context
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					attempt = req.Context()
					panic("boom")
				})
				defer func() {
					if v := recover(); v != "boom" {
						t.Errorf("recovered %v, want the panic as it was", v)
					}
					if attempt.Err() == nil {
						t.Error("the attempt's context lives on")
					}
				}()
				_, _ = (&ampauth.RetryTransport{Base: wrap(base)}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
			})
		})
	}
}

func TestCallersRequestIsTheSameAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(429), stubAnswer(429), stubAnswer(200))
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("payload"))
		req.Header.Set("X-Caller", "1")
		header, body, url, host := req.Header.Clone(), req.Body, *req.URL, req.Host
		resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if req.Body != body || req.GetBody == nil || req.ContentLength != 7 || *req.URL != url || req.Host != host || len(req.Header) != len(header) {
			t.Error("the caller's request was changed")
		}
		if resp.Request != req {
			t.Error("the response's request is not the caller's")
		}
		if _, ok := ampauth.AttemptFromContext(req.Context()); ok {
			t.Error("the caller's request carries an attempt")
		}
		for i, c := range base.seen() {
			if c.request == req {
				t.Errorf("attempt %d got the caller's request itself", i+1)
			}
		}
	})
}

func TestAttemptsAreLoggedWithoutWhatTheyCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503, "X-Answer", "canary-answer"), stubRefuse(), stubAnswer(503)), Logger: logger}
		req := stubRequestTo(t.Context(), "https://user:canary-userinfo@api.test/thing?secret=canary-query#canary-fragment", ampauth.SafeOperation, []byte("canary-body"))
		req.Header.Set("Authorization", "token canary-token")
		req.Header.Set("Cookie", "canary-cookie")
		stubStatus(t, rt, req)
		text := log.String()
		if strings.Contains(text, "canary") {
			t.Errorf("the log shows what it must not:\n%s", text)
		}
		if n := strings.Count(text, `"msg":"ampauth: attempt"`); n != 3 {
			t.Errorf("%d records of attempts, want 3:\n%s", n, text)
		}
		if n := strings.Count(text, `"level":"WARN"`); n != 1 {
			t.Errorf("%d warnings, want one of the exhaustion:\n%s", n, text)
		}
		for _, want := range []string{`"url.path":"/thing"`, `"http.response.status_code":503`, `"outcome":"Answered"`, `"outcome":"NotSent"`, `"attempt":3`, `"server.address":"api.test"`} {
			if !strings.Contains(text, want) {
				t.Errorf("the log lacks %s:\n%s", want, text)
			}
		}
	})
}

func TestMutationInDoubtIsWarnedOf(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{Base: stubScript(stubBreak(io.EOF)), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	stubError(t, err, ampauth.ErrAmbiguous)
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "may have been performed") {
		t.Errorf("want one warning that says so:\n%s", text)
	}
}

func TestNothingIsWarnedOfWhenARetryHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(503), stubAnswer(200)), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if log.Len() != 0 {
			t.Errorf("logged at info and above:\n%s", log.String())
		}
	})
}

func TestSingleAttemptIsNoExhaustion(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{
		Base: stubScript(stubAnswer(503)), Retry: ampauth.RetryConfig{MaxAttempts: 1},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if log.Len() > 0 {
		t.Errorf("warned of retries that were not wanted: %s", &log)
	}
}

func TestAttemptIsLoggedWithoutWhatItsErrorQuotes(t *testing.T) {
	var log bytes.Buffer
	rt := &ampauth.RetryTransport{
		Base: stubScript(stubFail(errors.New(`a layer read "hunter2"`))), Retry: stubQuick,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if text := log.String(); !strings.Contains(text, "a layer read") || strings.Contains(text, "hunter2") {
		t.Errorf("the log tells %s", text)
	}
}
