package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

func TestExpectationThatFailsIsDroppedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expected []string
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			expected = append(expected, req.Header.Get("Expect"))
			if req.Header.Get("Expect") != "" {
				return stubAnswer(417)(req)
			}
			return stubAnswer(200)(req)
		})
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))
		req.Header.Set("Expect", "100-continue")
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, req); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
		if len(expected) != 2 || expected[0] != "100-continue" || expected[1] != "" {
			t.Errorf("the attempts expected %q", expected)
		}
		if req.Header.Get("Expect") != "100-continue" {
			t.Error("the caller's header was changed")
		}
	})
}

// Once the server has said that it does not take Expect, no later attempt has it.
func TestExpectationStaysDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(417), stubAnswer(425), stubAnswer(200))
		req := stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))
		req.Header.Set("Expect", "100-continue")
		if status := stubStatus(t, &ampauth.RetryTransport{Base: base}, req); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
		for i, c := range base.seen() {
			if got := c.request.Header.Get("Expect"); (got != "") != (i == 0) {
				t.Errorf("attempt %d has Expect %q", i+1, got)
			}
		}
	})
}

// RFC 9110 10.1.1, over a real connection: what the server has not asked for, it is
// not sent; what it has asked for may have been performed.
func TestExpectationsOnTheWire(t *testing.T) {
	unread := hostile.ReadAfter // the server answers in place of a 100
	for _, test := range []struct {
		name   string
		first  hostile.Step
		status int // 0: ErrAmbiguous
		length int64
		expect bool // on the second attempt
	}{
		{"417", hostile.Step{Status: 417, Upload: unread, Close: true}, 200, 0, false},
		{"429", hostile.Step{Status: 429, Upload: unread, Close: true}, 200, 0, true},
		{"401", hostile.Step{Status: 401, Upload: unread, Close: true}, 200, 0, true},
		{"100, then a reset", hostile.Step{Perform: true, Do: hostile.Reset}, 0, 7, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(test.first, hostile.Step{Perform: true}))
			defer s.Close()
			base := stubPooled(t)
			base.ExpectContinueTimeout = time.Hour
			auth := &ampauth.AuthTransport{Base: base, Source: new(stubRenewing), Origin: s.URL()}
			req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("payload"))
			req.Header.Set("Expect", "100-continue")
			resp, err := (&ampauth.RetryTransport{Base: auth, Retry: stubQuick}).RoundTrip(req)
			if err == nil {
				stubText(t, resp)
			}
			s.Close()
			log := s.Log()
			if log[0].Length != test.length {
				t.Errorf("the first attempt brought %d bytes, want %d", log[0].Length, test.length)
			}
			if test.status == 0 {
				if !errors.Is(err, ampauth.ErrAmbiguous) || len(log) != 1 {
					t.Errorf("got %v after %d requests, want ErrAmbiguous after one", err, len(log))
				}
				return
			}
			if err != nil || resp.StatusCode != test.status || len(log) != 2 {
				t.Fatalf("got (%v, %v) after %d requests, want %d after 2", resp, err, len(log), test.status)
			}
			if e := log[1]; e.Length != 7 || !e.Performed || (e.Header.Get("Expect") != "") != test.expect {
				t.Errorf("the second attempt: %v, %d bytes, Expect %q", e, e.Length, e.Header.Get("Expect"))
			}
		})
	}
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
