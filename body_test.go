package ampauth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

// stubKeep notes the body of each attempt and goes on to step.
func stubKeep(bodies *[]string, step stubStep) stubStep {
	return func(req *http.Request) (*http.Response, error) {
		content, _ := io.ReadAll(req.Body)
		*bodies = append(*bodies, string(content))
		return step(req)
	}
}

func TestBodyIsTheSameOnEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		base := stubScript(stubKeep(&bodies, stubAnswer(429)), stubKeep(&bodies, stubAnswer(425)), stubKeep(&bodies, stubAnswer(200)))
		stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.MutatingOperation, []byte("payload")))
		if fmt.Sprint(bodies) != "[payload payload payload]" {
			t.Errorf("the attempts had the bodies %q", bodies)
		}
		for i, c := range base.seen() {
			if c.request.ContentLength != 7 {
				t.Errorf("attempt %d says %d bytes", i+1, c.request.ContentLength)
			}
		}
	})
}

func TestBodyThatWasReadAndCannotBeMadeAnewIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []stubStep{stubAnswer(503), stubAnswer(429), stubBreak(io.EOF)} {
			reader, writer := io.Pipe()
			go func() {
				_, _ = io.WriteString(writer, "payload")
				_ = writer.Close()
			}()
			var bodies []string
			base := stubScript(stubKeep(&bodies, step))
			resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.IdempotentOperation, reader))
			if err == nil {
				if text := stubText(t, resp); text != "body of the answer" {
					t.Errorf("the response reads %q", text)
				}
			} else if !errors.Is(err, io.EOF) || stubError(t, err).Attempts != 1 {
				t.Errorf("got %v", err)
			}
			if fmt.Sprint(bodies) != "[payload]" {
				t.Errorf("the attempts had the bodies %q, want one", bodies)
			}
		}
	})
}

func TestBodyOfWhichNothingWasReadIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turnedAway := func(req *http.Request) (*http.Response, error) {
			stubUnused(req) // answered by its headers
			stubAnswered(req)
			return stubResponse(429, ""), nil
		}
		var bodies []string
		body := newStubBody("payload")
		base := stubScript(stubRefuse(), turnedAway, stubKeep(&bodies, stubAnswer(200)))
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.MutatingOperation, body)); status != 200 {
			t.Errorf("status %d", status)
		}
		if fmt.Sprint(bodies) != "[payload]" || base.attempts() != 3 || body.closed.Load() != 1 {
			t.Errorf("bodies %q in %d attempts, closed %d times; want the whole one in the third", bodies, base.attempts(), body.closed.Load())
		}
	})
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

type stubSource func() (ampauth.Token, error)

func (f stubSource) Token(context.Context) (ampauth.Token, error) { return f() }

func stubNoToken(err error) ampauth.TokenSource {
	return stubSource(func() (ampauth.Token, error) { return ampauth.Token{}, err })
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

// A stubSeeker fails the test if it is sought.
type stubSeeker struct {
	t *testing.T
	io.Reader
}

func (s stubSeeker) Seek(int64, int) (int64, error) {
	s.t.Error("the body was sought")
	return 0, errors.New("sought")
}

func (s stubSeeker) Close() error { return nil }

// Whatever a body is, each attempt brings it whole, or there is no other attempt.
func TestEveryKindOfBodyArrivesWholeOrOnce(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() io.ReadCloser {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	at6 := func() io.ReadSeeker {
		reader := bytes.NewReader(append([]byte("HEADER"), content...))
		_, _ = reader.Seek(6, io.SeekStart)
		return reader
	}
	for name, kind := range map[string]struct {
		body    func() io.Reader
		getBody func() (io.ReadCloser, error)
		again   bool
		empty   bool
	}{
		"nil":               {body: func() io.Reader { return nil }, again: true, empty: true},
		"NoBody":            {body: func() io.Reader { return http.NoBody }, again: true, empty: true},
		"bytes.Reader":      {body: func() io.Reader { return bytes.NewReader(content) }, again: true},
		"bytes.Reader at 6": {body: func() io.Reader { return at6() }, again: true},
		"ReadSeeker at 6":   {body: func() io.Reader { return struct{ io.ReadSeeker }{at6()} }},
		"file":              {body: func() io.Reader { return open() }},
		"file that can be reopened": {
			body: func() io.Reader { return open() }, getBody: func() (io.ReadCloser, error) { return open(), nil }, again: true,
		},
		"pipe": {body: func() io.Reader {
			r, w := io.Pipe()
			go func() {
				_, _ = w.Write(content)
				_ = w.Close()
			}()
			return r
		}},
	} {
		for _, p := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP2} {
			t.Run(fmt.Sprintf("%s, protocol %d", name, p), func(t *testing.T) {
				s := hostile.New(p, hostile.Sequence(hostile.Step{Status: 503}, hostile.Step{Do: hostile.Reset}, hostile.Step{Perform: true}))
				defer s.Close()
				base := stubPooled(t)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
				req, err := http.NewRequestWithContext(ampauth.WithOperation(t.Context(), ampauth.IdempotentOperation), "PUT", s.URL(), kind.body())
				if err != nil {
					t.Fatal(err)
				}
				if kind.getBody != nil {
					req.GetBody = kind.getBody
				}
				status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, req)
				if again := status == 200; again != kind.again {
					t.Errorf("status %d, want it sent again: %v", status, kind.again)
				}
				want := sha256.Sum256(content)
				if kind.empty {
					want = sha256.Sum256(nil)
				}
				s.Close()
				for _, e := range s.Log() {
					if !e.Whole || e.Sum != want {
						t.Errorf("%v brought %d bytes, of another content than the caller's", e, e.Length)
					}
				}
			})
		}
	}
}

func TestBodyStartsWhereItsReaderStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at6 := bytes.NewReader([]byte("HEADERpayload"))
		_, _ = at6.Seek(6, io.SeekStart)
		for name, body := range map[string]any{
			"bytes.Reader":  io.Reader(at6),
			"ReadSeeker":    io.Reader(stubSeeker{t, strings.NewReader("payload")}),
			"*bytes.Buffer": io.Reader(bytes.NewBufferString("payload")),
		} {
			var bodies []string
			base := stubScript(stubRefuse(), stubKeep(&bodies, stubAnswer(200)))
			stubStatus(t, &ampauth.RetryTransport{Base: base}, stubRequest(t.Context(), ampauth.MutatingOperation, body))
			if fmt.Sprint(bodies) != "[payload]" {
				t.Errorf("%s: the attempts had the bodies %q", name, bodies)
			}
		}
	})
}

func TestGetBodyThatFailsEndsInTheLastResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []stubStep{stubAnswer(503), stubRefuse()} {
			base := stubScript(step)
			req := stubRequest(t.Context(), ampauth.IdempotentOperation, []byte("x"))
			asked := 0
			req.GetBody = func() (io.ReadCloser, error) { asked++; return nil, errors.New("the file is gone") }
			resp, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
			if base.attempts() != 1 || asked != 1 {
				t.Errorf("%d attempts, GetBody called %d times; want 1 and 1", base.attempts(), asked)
			}
			if err == nil {
				if text := stubText(t, resp); resp.StatusCode != 503 || text != "body of the answer" {
					t.Errorf("got %d %q, want the 503 whole", resp.StatusCode, text)
				}
			} else if !errors.Is(err, errStubDial) || stubError(t, err).Attempts != 1 {
				t.Errorf("got %v, want the dial error", err)
			}
		}
	})
}

func TestGetBodyIsOnlyCalledForARepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []stubStep{stubAnswer(200), stubAnswer(404), stubAnswer(503)} {
			base := stubScript(step)
			req := stubRequest(t.Context(), ampauth.SafeOperation, []byte("x"))
			getBody := req.GetBody
			asked := 0
			req.GetBody = func() (io.ReadCloser, error) { asked++; return getBody() }
			stubStatus(t, &ampauth.RetryTransport{Base: base}, req)
			if asked != base.attempts()-1 {
				t.Errorf("GetBody was called %d times for %d attempts", asked, base.attempts())
			}
		}
	})
}

func TestUploadThatIsAnsweredEarlyIsWholeTheSecondTime(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	want := sha256.Sum256(payload)
	for _, chunked := range []bool{false, true} {
		for _, op := range []ampauth.Operation{ampauth.IdempotentOperation, ampauth.SafeOperation} {
			t.Run(fmt.Sprintf("chunked %v, %v", chunked, op), func(t *testing.T) {
				var mu sync.Mutex
				var accepted []string
				requests := 0
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					requests++
					first := requests == 1
					mu.Unlock()
					if first {
						_ = http.NewResponseController(w).EnableFullDuplex()
						_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
						w.WriteHeader(503)
						return
					}
					hash := sha256.New()
					if _, err := io.Copy(hash, r.Body); err != nil {
						return
					}
					mu.Lock()
					accepted = append(accepted, fmt.Sprintf("%x", hash.Sum(nil)))
					mu.Unlock()
				}))
				defer server.Close()
				rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
				req := stubRequestTo(t.Context(), server.URL, op, payload)
				if chunked {
					req.ContentLength = -1
				}
				if status := stubStatus(t, rt, req); status != 200 {
					t.Errorf("status %d, want 200", status)
				}
				mu.Lock()
				defer mu.Unlock()
				if len(accepted) != 1 || accepted[0] != fmt.Sprintf("%x", want) {
					t.Errorf("of %d requests %d were accepted, whole: %v", requests, len(accepted), len(accepted) == 1 && accepted[0] == fmt.Sprintf("%x", want))
				}
			})
		}
	}
}

// stubNoWait has no backoff to speak of, so that durations are exact.
var stubNoWait = ampauth.RetryConfig{BaseDelay: 1, MaxDelay: 1}

func TestStalledBodyIsWaitedForAQuarterOfASecond(t *testing.T) {
	for name, config := range map[string]ampauth.RetryConfig{
		"with a timeout":    stubNoWait,
		"without a timeout": {BaseDelay: 1, MaxDelay: 1, Timeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				if requests++; requests == 1 {
					stubHangs(503)(w, r)
				}
			}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				start := time.Now()
				status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: config}, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
				if took := time.Since(start); status != 200 || took != 250*time.Millisecond {
					t.Errorf("status %d after %v, want 200 after exactly 250 ms", status, took)
				}
			})
		})
	}
}

// The same bound holds for the refusal of a token, whose body is read before the
// renewal: it does not count twice.
func TestStalledRefusalIsWaitedForAQuarterOfASecond(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(401)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: &stubRenewing{wait: 2 * time.Second}, Origin: url}}
		start := time.Now()
		status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 200 || took != 2250*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after 250 ms and the 2 s of the renewal", status, took)
		}
	})
}

// A stalled 503 must not use up the time in which another attempt could succeed.
func TestStalledBodyLeavesTimeForAnotherAttempt(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(503)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		start := time.Now()
		status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubNoWait}, stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 200 || took != 100*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after half of the time", status, took)
		}
	})
}

// A layer's body need not bear to be closed while it is read.
func TestStalledBodyIsNotClosedWhileItIsRead(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(503)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		layer := stubLayer(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil {
				resp.Body = &countingBody{ReadCloser: resp.Body}
			}
			return resp, err
		})
		stubStatus(t, &ampauth.RetryTransport{Base: layer, Retry: stubNoWait}, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
	})
}

// A countingBody is not safe for concurrent use, which the race detector sees.
type countingBody struct {
	io.ReadCloser
	bytes int
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += n
	return n, err
}

func (b *countingBody) Close() error {
	b.bytes = -b.bytes
	return b.ReadCloser.Close()
}

// net/http waits for a Read of the request's body, whatever the context says.
func TestBodyThatBlocksDoesNotHoldTheCallBeyondItsTime(t *testing.T) {
	for _, do := range []hostile.Action{hostile.StallHeaders, hostile.Reset} {
		for _, op := range []ampauth.Operation{ampauth.MutatingOperation, ampauth.IdempotentOperation} {
			t.Run(fmt.Sprintf("%v, %v", do, op), func(t *testing.T) {
				s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: do, Upload: hostile.ReadAfter}))
				defer s.Close()
				reader, writer := io.Pipe()
				go func() { _, _ = io.WriteString(writer, "half") }() // and nothing more
				config := stubQuick
				config.Timeout, config.MutationTimeout = 100*time.Millisecond, 100*time.Millisecond
				_, err := (&ampauth.RetryTransport{Base: stubPooled(t), Retry: config}).RoundTrip(stubRequestTo(t.Context(), s.URL(), op, reader))
				if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || e.Attempts != 1 {
					t.Errorf("got %v (%v), want Ambiguous after one attempt", err, e.Outcome)
				}
			})
		}
	}
}

func TestEndlessBodyIsNotReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read atomic.Int64
		body := newStubBody("")
		body.Reader = stubReader(func(p []byte) (int, error) { read.Add(int64(len(p))); return len(p), nil })
		base := stubScript(func(*http.Request) (*http.Response, error) {
			resp := stubResponse(503, "")
			resp.Body = body
			return resp, nil
		}, stubAnswer(200))
		start := time.Now()
		status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubNoWait}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if n := read.Load(); status != 200 || n > 64<<10 || time.Since(start) != 0 {
			t.Errorf("status %d after %v and %d bytes, want 200 at once after at most 64 KiB", status, time.Since(start), n)
		}
		if body.closed.Load() != 1 {
			t.Errorf("the body was closed %d times, want once", body.closed.Load())
		}
	})
}

// A countedConn counts what is read from the network.
type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func TestEndlessBodyIsNotReadOnFromTheNetwork(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Status: 503, Do: hostile.EndlessBody}, hostile.Step{}))
	defer s.Close()
	var read atomic.Int64
	base := stubPooled(t)
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.DialContext(ctx, network, address)
		return countedConn{conn, &read}, err
	}
	status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, stubRequestTo(t.Context(), s.URL(), ampauth.SafeOperation, nil))
	base.CloseIdleConnections()
	const most = 64<<10 + 8<<10 // headers, chunk sizes, and what net/http reads ahead
	if n := read.Load(); status != 200 || n > most {
		t.Errorf("status %d after %d bytes, want 200 after at most %d", status, n, most)
	}
	if n := s.Sent(); n > 8<<20 {
		t.Errorf("the server got rid of %d bytes, more than the buffers of two sockets hold", n)
	}
}

type stubReader func([]byte) (int, error)

func (f stubReader) Read(p []byte) (int, error) { return f(p) }

func TestRefusedResponsesGiveTheirConnectionBack(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests%3 != 0 {
			w.WriteHeader(503)
		}
		_, _ = w.Write(make([]byte, 1<<10))
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Budget: -1}}
		call := func() {
			if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)); status != 200 {
				t.Errorf("status %d", status)
			}
			synctest.Wait()
		}
		for range 30 {
			call()
		}
		if l.Dials() != 1 || requests != 90 {
			t.Errorf("%d connections for %d requests, want 1 for 90", l.Dials(), requests)
		}
	}) // which fails if a goroutine is left
}

func TestFailuresLeaveIdleConnectionsOpen(t *testing.T) {
	const idle = 8
	var failing atomic.Bool
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/cut":
			panic(http.ErrAbortHandler)
		case failing.Load():
			w.WriteHeader(503)
		default:
			time.Sleep(time.Second)
		}
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		base.MaxIdleConnsPerHost = idle
		rt := &ampauth.RetryTransport{Base: base}
		all := func() {
			var wg sync.WaitGroup
			for range idle {
				wg.Go(func() { stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)) })
			}
			wg.Wait()
			synctest.Wait()
		}
		all()
		if l.Dials() != idle {
			t.Fatalf("%d connections, want %d", l.Dials(), idle)
		}
		failing.Store(true)
		stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)) // three times 503
		failing.Store(false)
		all()
		if n := l.Dials() - idle; n != 0 {
			t.Errorf("%d new connections after a call that ended in 503, want none", n)
		}
		// Three attempts lose a connection each, and no more.
		_, err := rt.RoundTrip(stubRequestTo(t.Context(), url+"/cut", ampauth.IdempotentOperation, []byte("x")))
		if n := stubError(t, err).Attempts; n != 3 {
			t.Errorf("%d attempts", n)
		}
		all()
		if n := l.Dials() - idle; n > 3 {
			t.Errorf("%d new connections after three that broke, want at most 3", n)
		}
	})
}

func TestRefusalIsWholeWhenNoOtherTokenIsHad(t *testing.T) {
	for name, size := range map[string]int{"small": 20, "as much as is read ahead": 64 << 10, "large": 200 << 10} {
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

// The time of an attempt bounds a refusal's body as it does any other's.
func TestRefusalThatStallsIsBoundedByTheTimeout(t *testing.T) {
	stubBubble(t, stubHangs(401), func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: source, Origin: url}}
		resp, err := rt.RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		_, err = io.ReadAll(resp.Body)
		if e := stubError(t, err); e.Kind != ampauth.ErrTimeout || e.StatusCode != 401 || time.Since(start) > 10*time.Second {
			t.Errorf("got %v after %v, want a timeout within 10 s", err, time.Since(start))
		}
	})
}

// The renewal may take longer than an attempt is given.
func TestRefusalIsWholeAfterALongRenewal(t *testing.T) {
	content := strings.Repeat("r", 200<<10)
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(401)
		_, _ = io.WriteString(w, content)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: stubFutile{}, Origin: url}}
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

// stubFutile is a source whose renewals take a minute and fail.
type stubFutile struct{}

func (stubFutile) Token(context.Context) (ampauth.Token, error) {
	return ampauth.Token{Value: ampauth.SecretFromString("token")}, nil
}

func (stubFutile) Renew(context.Context, ampauth.Token) (ampauth.Token, error) {
	time.Sleep(time.Minute)
	return ampauth.Token{}, errors.New("no other token")
}

// A server that turns a request away by its headers has not asked for the body,
// which is then there for another attempt even if it exists only once.
func TestBodyThatWasNotAskedForIsSentAgain(t *testing.T) {
	var got []string
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if got = append(got, ""); len(got) == 1 {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(429)
			return
		}
		content, _ := io.ReadAll(r.Body)
		got[len(got)-1] = string(content)
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		base.ExpectContinueTimeout = time.Minute
		body := newStubBody("payload")
		req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, body)
		req.Header.Set("Expect", "100-continue")
		status := stubStatus(t, &ampauth.RetryTransport{Base: base}, req)
		synctest.Wait()
		if status != 200 || fmt.Sprintf("%q", got) != `["" "payload"]` || body.closed.Load() != 1 {
			t.Errorf("status %d, the attempts brought %q, the body was closed %d times", status, got, body.closed.Load())
		}
	})
}

// lockedBody is a body whose Close waits for its Read, which ends by its context.
type lockedBody struct {
	mu  sync.Mutex
	ctx context.Context
}

func (b *lockedBody) Read([]byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *lockedBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return nil
}

func TestStalledBodyEndsByItsContextBeforeItIsClosed(t *testing.T) {
	for _, status := range []int{503, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: status, Header: http.Header{}, ContentLength: -1, Body: &lockedBody{ctx: req.Context()}}, nil
				}, stubAnswer(200))
				rt := &ampauth.RetryTransport{
					Base:  &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"},
					Retry: ampauth.RetryConfig{Timeout: time.Hour, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond},
				}
				start := time.Now()
				status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if took := time.Since(start); status != 200 || took > time.Second {
					t.Errorf("status %d after %v, want 200 within a second", status, took)
				}
			})
		})
	}
}

// panicBody panics when it is read.
type panicBody struct{ stubBody }

func (b *panicBody) Read([]byte) (int, error) { panic("broken layer") }

func TestBodyThatPanicsWhileItIsDrainedIsClosedAndHeard(t *testing.T) {
	body := new(panicBody)
	var attempt context.Context
	rt := &ampauth.RetryTransport{Retry: stubQuick, Base: stubLayer(func(req *http.Request) (*http.Response, error) {
		attempt = req.Context()
		return &http.Response{StatusCode: 503, Header: http.Header{}, ContentLength: -1, Body: body}, nil
	})}
	defer func() {
		if v := recover(); v != "broken layer" {
			t.Errorf("recovered %v, want the panic of the body", v)
		}
		if n := body.closed.Load(); n != 1 || attempt.Err() == nil {
			t.Errorf("the body was closed %d times and its context says %v, want once and over", n, attempt.Err())
		}
	}()
	_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
}

func TestRefusalThatBreaksIsNotTakenForWhole(t *testing.T) {
	source := tokenThatIsRenewed()
	source.renewed = func() (ampauth.Token, error) { return ampauth.Token{}, io.EOF }
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
