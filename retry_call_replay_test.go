package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/memnet"
	"golang.org/x/time/rate"
)

func TestReplayAfterARefusedTokenIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := true
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			switch {
			case outage:
				return stubAnswer(503)(req)
			case req.Header.Get("Authorization") == "token token-a":
				return stubAnswer(401)(req)
			}
			return stubAnswer(200)(req)
		})
		config := stubPair(1)
		config.MaxAttempts = 1 // a replay counts for nothing here either
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: new(stubRenewing), Origin: "https://api.test"}, Retry: config}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		outage = false
		start := time.Now()
		ctx := ampauth.WithoutRetry(t.Context())
		if status := stubStatus(t, rt, stubRequest(ctx, ampauth.MutatingOperation, []byte("x"))); status != 200 || time.Since(start) != 0 {
			t.Errorf("status %d after %v, want 200 at once", status, time.Since(start))
		}
	})
}

func TestReplayThatIsNotSentLeavesNoDoubt(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.IdempotentOperation, ampauth.MutatingOperation} {
		base := stubScript(stubAnswer(401), stubRefuse())
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"}, Retry: stubQuick}
		_, err := rt.RoundTrip(stubRequest(t.Context(), op, []byte("x")))
		if e := stubError(t, err); e.Outcome == ampauth.Ambiguous || errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("%v: got %v (%v), yet nothing is in doubt", op, err, e.Outcome)
		}
	}
}

func TestRefusedTokenIsRenewedEvenIfTheBodyCannotBeSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renewals := 0
		source := tokenThatIsRenewed()
		source.renewed = func(context.Context) (ampauth.Token, error) { renewals++; return oneToken("new") }
		base := stubScript(stubAnswer(401))
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
		status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, newStubBody("x")))
		synctest.Wait()
		if status != 401 || base.attempts() != 1 || renewals != 1 {
			t.Errorf("status %d after %d attempts and %d renewals, want 401 after one of each", status, base.attempts(), renewals)
		}
	})
}

func TestShortRefusalIsClosedBeforeTheRenewal(t *testing.T) {
	for _, works := range []bool{true, false} {
		refusal := newStubBody("no")
		source := tokenThatIsRenewed()
		source.renewed = func(context.Context) (ampauth.Token, error) {
			if n := refusal.closed.Load(); n != 1 {
				t.Errorf("the refusal was closed %d times before the renewal, want once", n)
			}
			if !works {
				return ampauth.Token{}, io.EOF
			}
			return oneToken("new")
		}
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Header: http.Header{}, ContentLength: 2, Body: refusal}, nil
		}, stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
		stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if n := refusal.closed.Load(); n != 1 {
			t.Errorf("the refusal was closed %d times, want once", n)
		}
	}
}

func TestRenewalWithoutAnUsableTokenIsNoReplay(t *testing.T) {
	for name, renewed := range map[string]sourceFunc{
		"the same token": func(context.Context) (ampauth.Token, error) { return oneToken("old") },
		"an ended token": func(context.Context) (ampauth.Token, error) {
			token, err := oneToken("new")
			token.ExpiresAt = time.Now().Add(-time.Hour)
			return token, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := tokenThatIsRenewed()
			source.renewed = renewed
			base := stubScript(stubAnswer(401))
			rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
			status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, nil))
			if status != 401 || base.attempts() != 1 {
				t.Errorf("status %d after %d attempts, want the 401 after 1", status, base.attempts())
			}
		})
	}
}

func TestRefusalIsNotLostToAGateThatShutsDuringTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		base := stubScript(stubAnswer(401), stubAnswer(429, "Retry-After", "30"), stubAnswer(200))
		source := tokenThatIsRenewed()
		rt := &ampauth.RetryTransport{}
		source.renewed = func(context.Context) (ampauth.Token, error) {
			if status := stubStatus(t, rt, stubRequest(ampauth.WithoutRetry(context.Background()), ampauth.SafeOperation, nil)); status != 429 {
				t.Errorf("status %d of another request, want 429", status)
			}
			return oneToken("new")
		}
		rt.Base = &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
		start := time.Now()
		status := stubStatus(t, rt, stubRequest(ctx, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 401 || took != 0 {
			t.Errorf("status %d after %v, want the 401 at once", status, took)
		}
	})
}

func TestRefusalIsNotLostToALimiterThatBlocksTheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(401), stubAnswer(200))
		auth := &ampauth.AuthTransport{Base: base, Source: &stubRenewing{}, Origin: "https://api.test"}
		rt := &ampauth.RetryTransport{Base: auth, Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		resp, err := rt.RoundTrip(stubRequest(ctx, ampauth.MutatingOperation, []byte("x")))
		if err != nil {
			t.Fatalf("the refusal is lost: %v", err)
		}
		if text := stubText(t, resp); resp.StatusCode != 401 || text != "body of the answer" || base.attempts() != 1 || time.Since(start) != 0 {
			t.Errorf("status %d with %q after %d attempts and %v, want the 401 whole, at once", resp.StatusCode, text, base.attempts(), time.Since(start))
		}
	})
}

func TestRefusalIsWholeWhenNoOtherTokenIsHad(t *testing.T) {
	for name, size := range map[string]int{"small": 20, "large": 200 << 10, "as much as is read ahead": 256 << 10} {
		t.Run(name, func(t *testing.T) {
			content := strings.Repeat("r", size)
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(401)
				_, _ = io.WriteString(w, content)
			}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
				rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: url}}
				resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
				if err != nil || resp.StatusCode != 401 {
					t.Fatalf("got (%v, %v), want the 401", resp, err)
				}
				if text := stubText(t, resp); text != content {
					t.Errorf("%d bytes of the refusal, want %d", len(text), size)
				}
			})
		})
	}
}

// The login gets the only connection, however long the refusal is that came over it.
func TestLoginNeverWaitsForTheConnectionOfTheRefusal(t *testing.T) {
	for name, test := range map[string]struct {
		size   int
		stalls bool
		retry  ampauth.RetryConfig
		took   time.Duration
	}{
		"short":        {size: 20},
		"200 KiB":      {size: 200 << 10},
		"2 MiB":        {size: 2 << 20},
		"stalled":      {size: 20, stalls: true, took: 250 * time.Millisecond},
		"long, stalls": {size: 300 << 10, stalls: true},
		"stalled, attempts have no end": {size: 20, stalls: true, took: 250 * time.Millisecond,
			retry: ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1}},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					w.transport.MaxConnsPerHost = 1
					client := w.client(func(c *ampauth.Config) { c.Retry = test.retry })
					refused := ampReveal(w.token(client.Tokens).Value)
					w.Revoke("issuer")
					w.answer(method+" /assets", func(rw http.ResponseWriter, r *http.Request) {
						if !strings.HasSuffix(r.Header.Get("Authorization"), refused) {
							return
						}
						rw.WriteHeader(401)
						_, _ = io.WriteString(rw, strings.Repeat("r", test.size))
						if test.stalls {
							_ = http.NewResponseController(rw).Flush()
							<-r.Context().Done()
						}
					})
					var status int
					took := ampElapsed(func() {
						req, _ := http.NewRequestWithContext(t.Context(), method, w.url+"/api/assets", nil)
						status = stubStatus(t, client.Transport, req)
					})
					if status != 200 || took != test.took {
						t.Errorf("status %d after %v, want 200 after %v", status, took, test.took)
					}
				})
			})
		}
	}
}

// What was not read ahead was given up for the sake of the login.
func TestRestOfALongOrSlowRefusalIsGivenUp(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		size    int
	}{
		"long": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
			_, _ = io.WriteString(w, strings.Repeat("r", 1<<20))
		}, 256<<10 + 1},
		"slow": {stubHangs(401), len("first")},
	} {
		for _, op := range []ampauth.Operation{safe, mutating} {
			t.Run(name+"/"+op.String(), func(t *testing.T) {
				stubBubble(t, test.handler, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
					source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
					rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: url}}
					calls := 0
					start := time.Now()
					_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
						calls++
						resp, err := rt.RoundTrip(stubRequestTo(ctx, url, op, nil))
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						content, err := io.ReadAll(resp.Body)
						if len(content) != test.size {
							t.Errorf("%d bytes of the refusal, want %d", len(content), test.size)
						}
						return 0, err
					})
					if e := stubError(t, err, ampauth.ErrRequestFailed); e.StatusCode != 401 || e.Outcome != ampauth.Answered || e.Timeout() || !strings.Contains(err.Error(), "given up") {
						t.Errorf("got %v, want that the rest was given up", err)
					}
					if took := time.Since(start); calls != 1 || took > 250*time.Millisecond {
						t.Errorf("%d calls and %v, want one, within 250 ms", calls, took)
					}
				})
			})
		}
	}
}

// The renewal may take longer than an attempt is given.
func TestRefusalIsWholeAfterALongRenewal(t *testing.T) {
	content := strings.Repeat("r", 200<<10)
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(401)
		_, _ = io.WriteString(w, content)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		source := tokenThatIsRenewed()
		source.renewed = func(context.Context) (ampauth.Token, error) {
			time.Sleep(time.Minute)
			return ampauth.Token{}, errors.New("no other token")
		}
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: url}}
		start := time.Now()
		resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if err != nil || time.Since(start) != time.Minute {
			t.Fatalf("got (%v, %v) after %v, want the refusal after a minute", resp, err, time.Since(start))
		}
		if text := stubText(t, resp); text != content {
			t.Errorf("%d bytes of the refusal, want %d", len(text), len(content))
		}
	})
}

func TestRefusalThatBreaksIsNotTakenForWhole(t *testing.T) {
	source := tokenThatIsRenewed()
	source.renewed = func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, io.EOF }
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		told := false // once
		broken := io.MultiReader(strings.NewReader("first"), stubReader(func([]byte) (int, error) {
			if told {
				return 0, io.EOF
			}
			told = true
			return 0, io.ErrUnexpectedEOF
		}))
		return &http.Response{StatusCode: 401, Header: http.Header{}, ContentLength: 10, Body: io.NopCloser(broken)}, nil
	})
	rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}}
	resp, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if content, err := io.ReadAll(resp.Body); string(content) != "first" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want the first part and that it broke", content, err)
	}
}
