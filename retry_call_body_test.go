package ampauth_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
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
				t.Parallel()
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
