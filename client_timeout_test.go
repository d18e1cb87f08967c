package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

func TestClientTimeoutBoundsTheWholeCall(t *testing.T) {
	stubBubble(t, stubSilent, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		client := &http.Client{Transport: &ampauth.RetryTransport{Base: base}, Timeout: 300 * time.Millisecond}
		start := time.Now()
		_, err := client.Do(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		timeout, ok := errors.AsType[net.Error](err)
		if !ok || !timeout.Timeout() || time.Since(start) != 300*time.Millisecond {
			t.Errorf("got %v after %v, want a timeout after 300 ms", err, time.Since(start))
		}
	})
}

func timedClient(t *testing.T, url string, theirs *http.Client) *http.Client {
	client, err := ampauth.NewClient(ampauth.Config{
		BaseURL: url + "/api", HTTPClient: theirs,
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(canaryPassword)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client.Client
}

// timedClients are the ways to an http.Client with a Timeout over this package.
var timedClients = map[string]func(t *testing.T, url string, base *http.Transport, timeout time.Duration) *http.Client{
	"NewClient": func(t *testing.T, url string, base *http.Transport, timeout time.Duration) *http.Client {
		return timedClient(t, url, &http.Client{Transport: base, Timeout: timeout})
	},
	"NewClient, Timeout set later": func(t *testing.T, url string, base *http.Transport, timeout time.Duration) *http.Client {
		client := timedClient(t, url, &http.Client{Transport: base, Timeout: time.Hour})
		client.Timeout = timeout
		return client
	},
	"by hand": func(_ *testing.T, _ string, base *http.Transport, timeout time.Duration) *http.Client {
		return &http.Client{Transport: &ampauth.RetryTransport{Base: base}, Timeout: timeout, CheckRedirect: ampauth.CheckRedirect}
	},
	"by hand, under a layer": func(t *testing.T, url string, base *http.Transport, timeout time.Duration) *http.Client {
		retry := &ampauth.RetryTransport{Base: roundTripFunc(base.RoundTrip)}
		return &http.Client{Transport: roundTripFunc(retry.RoundTrip), Timeout: timeout, CheckRedirect: ampauth.CheckRedirect}
	},
}

// timedBubble runs a test over each timedClient. The server performs what it is asked
// for, and then stalls: before the header, or in the body.
func timedBubble(t *testing.T, test func(t *testing.T, post func(context.Context) error, performed *atomic.Int32, stallsInBody bool)) {
	const timeout = 400 * time.Millisecond
	for name, newClient := range timedClients {
		for _, body := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", no answer", true: ", half an answer"}[body], func(t *testing.T) {
				var performed atomic.Int32
				stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/obtain_token") {
						w.Header().Set("Content-Type", "application/json")
						_, _ = io.WriteString(w, `{"token":"0123456789abcdef0123456789abcdef01234567"}`)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					performed.Add(1)
					if body {
						_, _ = io.WriteString(w, "half of")
						_ = http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
					client := newClient(t, url, base, timeout)
					post := func(ctx context.Context) error {
						req, err := http.NewRequestWithContext(ctx, "POST", url+"/api/assets/issue", strings.NewReader("{}"))
						if err != nil {
							return err
						}
						resp, err := client.Do(req)
						if err != nil {
							return err
						}
						defer resp.Body.Close()
						_, err = io.ReadAll(resp.Body)
						return err
					}
					test(t, post, &performed, body)
				})
			})
		}
	}
}

// Whoever asks errors.Is for ErrAmbiguous must not be told a bare timeout.
func TestClientTimeoutLeavesTheKindOfTheError(t *testing.T) {
	timedBubble(t, func(t *testing.T, post func(context.Context) error, performed *atomic.Int32, inBody bool) {
		var callers sync.WaitGroup
		for range 40 {
			callers.Go(func() {
				began := time.Now()
				err := post(t.Context())
				if d := time.Since(began); d < 390*time.Millisecond || d > 400*time.Millisecond {
					t.Errorf("it took %v, want about the 400ms", d)
				}
				e := stubError(t, err)
				var timeout net.Error
				if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || !e.Timeout() {
					t.Errorf("%v is no timeout", err)
				}
				if inBody && (e.Outcome != ampauth.Answered || e.StatusCode != 200) || !inBody && !errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("got %v (%v)", err, e.Outcome)
				}
				if !strings.Contains(err.Error(), "Timeout") {
					t.Errorf("%v does not say whose time ran out", err)
				}
			})
		}
		callers.Wait()
		if n := performed.Load(); n != 40 {
			t.Errorf("40 calls were performed %d times", n)
		}
	})
}

func TestRetryNeverRepeatsWhatAClientTimeoutCut(t *testing.T) {
	timedBubble(t, func(t *testing.T, post func(context.Context) error, performed *atomic.Int32, _ bool) {
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) { return 0, post(ctx) })
		if err == nil || performed.Load() != 1 {
			t.Errorf("performed %d times, then %v", performed.Load(), err)
		}
	})
}

// In a stack by hand http.Client has the last word when the body is read after its
// Timeout: a bare error without a method.
func TestRetryTakesABodyReadTooLateForDoubt(t *testing.T) {
	var performed atomic.Int32
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		performed.Add(1)
		_, _ = io.WriteString(w, "half of")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		client := &http.Client{Transport: &ampauth.RetryTransport{Base: base}, Timeout: time.Second, CheckRedirect: ampauth.CheckRedirect}
		late := func(ctx context.Context, method string) error {
			req, err := http.NewRequestWithContext(ctx, method, url+"/api/assets/6f0e/burn-request", http.NoBody)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			time.Sleep(2 * time.Second)
			_, err = io.ReadAll(resp.Body)
			return err
		}
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) { return 0, late(ctx, "POST") })
		if !errors.Is(err, ampauth.ErrAmbiguous) || performed.Load() != 1 {
			t.Errorf("performed %d times, then %v, want ErrAmbiguous after one", performed.Load(), err)
		}
		performed.Store(0)
		ctx := ampauth.WithOperation(t.Context(), ampauth.SafeOperation)
		_, err = ampauth.Retry(ctx, ampauth.RetryConfig{}, func(ctx context.Context) (int, error) { return 0, late(ctx, "POST") })
		if errors.Is(err, ampauth.ErrAmbiguous) || performed.Load() != 3 {
			t.Errorf("sent %d times, then %v, want 3: WithOperation says that it does no harm", performed.Load(), err)
		}
	})
}

// timeoutText has the shape of what http.Client puts in place of an error.
type timeoutText struct{ text string }

func (e *timeoutText) Error() string      { return e.text }
func (*timeoutText) Timeout() bool        { return true }
func (*timeoutText) Temporary() bool      { return true }
func (*timeoutText) Is(target error) bool { return target == context.DeadlineExceeded }

// Over anybody's http.Client, with none of this package below.
func TestRetryJudgesTheTimeoutOfAPlainClientByItsMethod(t *testing.T) {
	timeout := &timeoutText{"context deadline exceeded (Client.Timeout exceeded while awaiting headers)"}
	from := func(method, route string) error {
		return &url.Error{Op: method, URL: "https://amp.test/api" + route, Err: timeout}
	}
	for _, test := range []struct {
		name  string
		err   error
		op    ampauth.Operation
		said  bool
		again bool
	}{
		{"GET", from("Get", "/assets"), 0, false, true},
		{"HEAD", from("Head", "/assets"), 0, false, true},
		{"GET of an unknown route", from("Get", "/new"), 0, false, true},
		{"GET that mutates", from("Get", "/assets/6f0e/register"), 0, false, false},
		{"GET that mutates, in disguise", from("Get", "/assets/6f0e%2Fregister"), 0, false, false},
		{"GET that is said to mutate", from("Get", "/assets"), ampauth.MutatingOperation, true, false},
		{"POST", from("Post", "/assets/issue"), 0, false, false},
		{"PUT", from("Put", "/assets/6f0e/edit"), 0, false, false},
		{"PUT that is said to be idempotent", from("Put", "/assets/6f0e/edit"), ampauth.IdempotentOperation, true, true},
		{"POST, wrapped", wrapped{from("Post", "/assets/issue")}, 0, false, false},
		{"while a body is read", timeout, 0, false, false},
		{"while a body is read, wrapped", wrapped{timeout}, 0, false, false},
		{"while a body is read that is said to be safe", timeout, ampauth.SafeOperation, true, true},
		{"another timeout", stubNetError{timeout: true}, 0, false, true},
		{"POST that met no server, perhaps behind a redirect", &url.Error{Op: "Post", URL: "https://amp.test", Err: &net.OpError{Op: "dial", Err: stubNetError{timeout: true}}}, 0, false, false},
		{"POST, joined", errors.Join(io.EOF, from("Post", "/assets/issue")), 0, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			if test.said {
				ctx = ampauth.WithOperation(ctx, test.op)
			}
			calls := 0
			cfg := ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: time.Nanosecond}
			_, err := ampauth.Retry(ctx, cfg, func(context.Context) (int, error) { calls++; return 0, test.err })
			if again := calls == 2; again != test.again || errors.Is(err, ampauth.ErrAmbiguous) == test.again || !errors.Is(err, test.err) {
				t.Errorf("called %d times, then %v", calls, err)
			}
		})
	}
}

func TestClientTimeoutCoversAllHopsAndWaits(t *testing.T) {
	var hops atomic.Int32
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/obtain_token") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"token":"0123456789abcdef0123456789abcdef01234567"}`)
			return
		}
		hops.Add(1)
		time.Sleep(300 * time.Millisecond)
		http.Redirect(w, r, "/api/assets", http.StatusFound)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		client := timedClient(t, url, &http.Client{Transport: base, Timeout: time.Second})
		began := time.Now()
		_, err := client.Get(url + "/api/assets")
		if d := time.Since(began); d != time.Second || hops.Load() != 4 {
			t.Errorf("ended after %v and %d hops, want 1s and 4", d, hops.Load())
		}
		e := stubError(t, err)
		if e.Kind != ampauth.ErrTimeout || e.Limit != time.Second {
			t.Errorf("got %v with the limit %v", err, e.Limit)
		}
	})
}

// What followed from a redirect is sent again by its caller, long after that call.
func TestRequestThatARedirectLedToCanBeSentAgain(t *testing.T) {
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/obtain_token"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"token":"0123456789abcdef0123456789abcdef01234567"}`)
		case r.URL.Path == "/api/assets":
			http.Redirect(w, r, "/api/categories", http.StatusFound)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		client := timedClient(t, url, &http.Client{Transport: base, Timeout: time.Second})
		resp, err := client.Get(url + "/api/assets")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		time.Sleep(time.Hour)
		again, err := client.Do(resp.Request)
		if err != nil {
			t.Fatalf("sent again: %v", err)
		}
		_ = again.Body.Close()
	})
}
