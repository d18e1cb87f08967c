package ampauthtest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth/ampauthtest"
)

// A recorder takes the place of t, to see what a test of a user's would tell. Whatever
// else this package might call, such as FailNow, is a nil pointer.
type recorder struct {
	testing.TB
	mu       sync.Mutex // guards all below
	errors   []string
	logs     []string
	cleanups []func()
	over     bool // as a t that has completed
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		panic("Fail in goroutine after the test has completed")
	}
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// end runs the cleanups as testing does, and returns the errors so far.
func (r *recorder) end() []string {
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			defer r.mu.Unlock()
			return r.errors
		}
		last := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		last()
	}
}

// record starts a server under a recorder.
func record(t *testing.T, o ampauthtest.Options) (*recorder, *ampauthtest.Server) {
	t.Helper()
	r := new(recorder)
	amp := ampauthtest.NewServer(r, o)
	t.Cleanup(func() { r.end() })
	return r, amp
}

// send makes one request as a careless program does, with a token of the account's own.
func send(t *testing.T, amp *ampauthtest.Server, method, path, body string, header ...string) (status int, answer string) {
	t.Helper()
	token, err := amp.Client().Tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, amp.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = token.Value.Expose(func(value []byte) error {
		req.Header.Set("Authorization", "token "+string(value))
		return nil
	})
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := amp.Transport().RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

// one fails the test unless there is exactly one error, and it holds all the words.
func one(t *testing.T, errors []string, words ...string) {
	t.Helper()
	if len(errors) != 1 {
		t.Fatalf("%d errors, want one: %q", len(errors), errors)
	}
	for _, word := range words {
		if !strings.Contains(errors[0], word) {
			t.Errorf("%q does not say %q", errors[0], word)
		}
	}
}

// awaitRequests waits until a route has seen so many requests. It looks again and again,
// since over sockets no clock of a bubble tells.
func awaitRequests(amp *ampauthtest.Server, route string, n int) {
	for amp.Count(route) < n {
		time.Sleep(time.Millisecond)
	}
}
