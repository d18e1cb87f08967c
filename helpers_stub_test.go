package ampauth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

// What the tests of the transports share: a base that follows a script, requests and
// how they end, and a server in a bubble.

// A stubStep is what a base does with one attempt. It owns the request's body.
type stubStep func(*http.Request) (*http.Response, error)

// A stubCall is what a base saw of one attempt.
type stubCall struct {
	at      time.Time
	request *http.Request
	number  int // as AttemptFromContext tells it
}

// A stubBase answers attempt n by step n, and all later ones by the last step.
type stubBase struct {
	steps []stubStep

	mu    sync.Mutex // guards calls
	calls []stubCall
}

func (b *stubBase) RoundTrip(req *http.Request) (*http.Response, error) {
	number, _ := ampauth.AttemptFromContext(req.Context())
	b.mu.Lock()
	b.calls = append(b.calls, stubCall{time.Now(), req, number})
	step := b.steps[min(len(b.calls), len(b.steps))-1]
	b.mu.Unlock()
	return step(req)
}

func (b *stubBase) seen() []stubCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]stubCall(nil), b.calls...)
}

func (b *stubBase) attempts() int { return len(b.seen()) }

// waits are the times between the attempts.
func (b *stubBase) waits() []time.Duration {
	var waits []time.Duration
	calls := b.seen()
	for i := 1; i < len(calls); i++ {
		waits = append(waits, calls[i].at.Sub(calls[i-1].at))
	}
	return waits
}

func stubScript(steps ...stubStep) *stubBase { return &stubBase{steps: steps} }

// stubResponse is a response with header fields given as name and value in turn.
func stubResponse(status int, body string, header ...string) *http.Response {
	h := make(http.Header)
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

func stubUse(req *http.Request) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
}

func stubUnused(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// stubTrace is the request's trace, or one that nobody hears.
func stubTrace(req *http.Request) *httptrace.ClientTrace {
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
		return trace
	}
	deaf := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GetConn: func(string) {}, GotConn: func(httptrace.GotConnInfo) {}, GotFirstResponseByte: func() {},
		ConnectDone: func(string, string, error) {}, DNSDone: func(httptrace.DNSDoneInfo) {},
		TLSHandshakeDone: func(tls.ConnectionState, error) {},
	})
	return httptrace.ContextClientTrace(deaf)
}

// stubConnect tells the request's trace what a transport tells it.
func stubConnect(req *http.Request, had bool) {
	trace := stubTrace(req)
	port := req.URL.Port()
	if port == "" {
		port = "443"
	}
	trace.GetConn(net.JoinHostPort(req.URL.Hostname(), port))
	if had {
		trace.GotConn(httptrace.GotConnInfo{})
	}
}

// stubAnswered tells the request's trace of a connection and an answer over it.
func stubAnswered(req *http.Request) {
	stubConnect(req, true)
	stubTrace(req).GotFirstResponseByte()
}

// stubAnswer takes the whole request and answers it.
func stubAnswer(status int, header ...string) stubStep {
	return func(req *http.Request) (*http.Response, error) {
		stubUse(req)
		stubAnswered(req)
		return stubResponse(status, "body of the answer", header...), nil
	}
}

// stubRefuse fails before there is a connection, without a look at the body.
func stubRefuse() stubStep { return stubUnconnected(errStubDial) }

// stubUnconnected fails with err in place of a connection, and tells so.
func stubUnconnected(err error) stubStep {
	return func(req *http.Request) (*http.Response, error) {
		stubConnect(req, false)
		stubUnused(req)
		switch trace := stubTrace(req); e := err.(type) {
		case *net.DNSError:
			trace.DNSDone(httptrace.DNSDoneInfo{Err: err})
		case *net.OpError:
			if e.Op == "proxyconnect" {
				err = e.Err // net/http wraps what the trace was told
			}
			trace.ConnectDone("tcp", "192.0.2.1:443", err)
			err = e
		default:
			trace.TLSHandshakeDone(tls.ConnectionState{}, err)
		}
		return nil, err
	}
}

var errStubDial = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// stubFail fails with err, traces nothing and reads nothing.
func stubFail(err error) stubStep {
	return func(req *http.Request) (*http.Response, error) {
		stubUnused(req)
		return nil, err
	}
}

// stubBreak takes the whole request over a connection that then breaks.
func stubBreak(err error) stubStep {
	return func(req *http.Request) (*http.Response, error) {
		stubConnect(req, true)
		stubUse(req)
		return nil, err
	}
}

var errStubReset = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// stubStall takes the request and does not answer until its context ends.
func stubStall() stubStep {
	return func(req *http.Request) (*http.Response, error) {
		stubConnect(req, true)
		stubUse(req)
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}
}

// stubRequest is a request of kind op. A body of type []byte has a GetBody, an
// io.Reader of any other type has none.
func stubRequest(ctx context.Context, op ampauth.Operation, body any) *http.Request {
	return stubRequestTo(ctx, "https://api.test/thing", op, body)
}

func stubRequestTo(ctx context.Context, url string, op ampauth.Operation, body any) *http.Request {
	var reader io.Reader
	method := http.MethodPost
	switch b := body.(type) {
	case nil:
		if op == ampauth.SafeOperation {
			method = http.MethodGet
		}
	case []byte:
		reader = bytes.NewReader(b)
	case io.Reader:
		reader = b
	}
	req, err := http.NewRequestWithContext(ampauth.WithOperation(ctx, op), method, url, reader)
	if err != nil {
		panic(err)
	}
	return req
}

// stubError is the *Error that err must be, of all these kinds.
func stubError(t *testing.T, err error, kinds ...error) *ampauth.Error {
	t.Helper()
	e, ok := errors.AsType[*ampauth.Error](err)
	if !ok {
		t.Fatalf("error is %T (%v), want an *ampauth.Error", err, err)
	}
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("error is not %q: %v", kind, err)
		}
	}
	return e
}

// stubText reads a response whole and closes it.
func stubText(t *testing.T, resp *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("reading the response: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Errorf("closing the response: %v", err)
	}
	return string(content)
}

// stubStatus makes one call that must end in a response, and returns its status.
func stubStatus(t *testing.T, rt http.RoundTripper, req *http.Request) int {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Errorf("unexpected error: %v", err)
		return 0
	}
	stubText(t, resp)
	return resp.StatusCode
}

// stubBubble runs a test on virtual time, over a server on an in-memory network.
// The bubble fails if anything is left behind: a goroutine, a body, a connection.
func stubBubble(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, url string, l *memnet.Listener, base *http.Transport)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		server := &httptest.Server{Listener: l, Config: &http.Server{
			Handler:     handler,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, stubConnKey{}, c) },
		}}
		server.Start()
		defer server.Close()
		base := &http.Transport{DialContext: l.DialContext}
		defer base.CloseIdleConnections()
		test(t, server.URL, l, base)
	})
}

// stubConnKey is where a server of stubBubble keeps the connection of a request.
type stubConnKey struct{}

// stubHangs answers with a status and the first half of a body, and then nothing
// until the client leaves.
func stubHangs(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func stubSilent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// staticTransport answers without doing anything, like the network of a benchmark.
type staticTransport struct{ resp http.Response }

func (s *staticTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	resp := s.resp
	return &resp, nil
}

// stubQuiet takes what a server says about connections that fail on purpose.
func stubQuiet() *log.Logger { return log.New(io.Discard, "", 0) }

// stubPooled is a transport that the test owns.
func stubPooled(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// stubQuick are waits that a test on real time can bear.
var stubQuick = ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: 2 * time.Millisecond}

// stubTraced is a context whose trace counts the connections that requests get.
func stubTraced(ctx context.Context, got *int) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { *got++ }})
}

// sevenFields is a request as a generated client makes it, at the most.
func sevenFields(tb testing.TB, method, path string, body []byte) *http.Request {
	tb.Helper()
	req, err := http.NewRequest(method, "https://amp.test/api"+path, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"Accept", "Accept-Language", "User-Agent", "X-Request-Id", "Traceparent", "Tracestate", "Content-Type"} {
		req.Header.Set(name, "value")
	}
	return req
}

func requestOf(t *testing.T, method, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Method = method
	return req
}

const (
	mutating   = ampauth.MutatingOperation
	idempotent = ampauth.IdempotentOperation
	safe       = ampauth.SafeOperation
)

// stubPair is two attempts a call, with waits too short to refill a budget.
func stubPair(budget int) ampauth.RetryConfig {
	return ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, Budget: budget}
}

// stubSchedule answers by path: "/429/30" with that status and Retry-After,
// once, after an optional delay; anything else with 200. It notes when what
// arrived.
type stubSchedule struct {
	delay time.Duration // of the answers that are not 200
	start time.Time

	mu       sync.Mutex // guards all below
	served   map[string]bool
	arrivals map[string][]time.Duration
}

func (s *stubSchedule) RoundTrip(req *http.Request) (*http.Response, error) {
	stubUse(req)
	path := req.URL.Path
	s.mu.Lock()
	first := !s.served[path]
	s.served[path] = true
	s.arrivals[path] = append(s.arrivals[path], time.Since(s.start))
	s.mu.Unlock()
	parts := strings.Split(path, "/")
	if !first || len(parts) != 3 {
		return stubResponse(200, ""), nil
	}
	time.Sleep(s.delay)
	switch parts[1] {
	case "429":
		return stubResponse(429, "", "Retry-After", parts[2]), nil
	case "503":
		return stubResponse(503, "", "Retry-After", parts[2]), nil
	}
	return nil, errStubDial
}

// at are the times at which requests for a path arrived, in order.
func (s *stubSchedule) at(path string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrivals[path])
}

func newStubSchedule() *stubSchedule {
	return &stubSchedule{start: time.Now(), served: make(map[string]bool), arrivals: make(map[string][]time.Duration)}
}
