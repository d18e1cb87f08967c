package ampauth_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// A roundTripFunc is somebody else's layer.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// stubHeaderLayer is a layer of somebody else's: it copies the request.
func stubHeaderLayer(base http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		copied := req.Clone(req.Context())
		copied.Header.Set("X-Layer", "1")
		return base.RoundTrip(copied)
	})
}

// layered is what a base below somebody else's layer, which wraps its errors.
func layered(base http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err != nil {
			err = fmt.Errorf("tracing: %w", err)
		}
		return resp, err
	})
}

type sourceFunc func(context.Context) (ampauth.Token, error)

func (f sourceFunc) Token(ctx context.Context) (ampauth.Token, error) { return f(ctx) }

func stubNoToken(err error) ampauth.TokenSource {
	return sourceFunc(func(context.Context) (ampauth.Token, error) { return ampauth.Token{}, err })
}

func static(value string) ampauth.TokenSource {
	return ampauth.StaticTokenSource(ampauth.SecretFromString(value))
}

func authOver(base http.RoundTripper) *ampauth.AuthTransport {
	return &ampauth.AuthTransport{Base: base, Source: static("0123456789abcdef0123456789abcdef01234567"), Origin: "https://amp.test"}
}

func oneToken(value string) (ampauth.Token, error) {
	return ampauth.Token{Value: ampauth.SecretFromString(value)}, nil
}

// renewSource has a token, and maybe another.
type renewSource struct {
	sourceFunc
	renewed func(context.Context) (ampauth.Token, error)
}

func (s renewSource) Renew(ctx context.Context, _ ampauth.Token) (ampauth.Token, error) {
	return s.renewed(ctx)
}

func tokenThatIsRenewed() renewSource {
	return renewSource{
		func(context.Context) (ampauth.Token, error) { return oneToken("old") },
		func(context.Context) (ampauth.Token, error) { return oneToken("new") },
	}
}

// stubRenewing is a source whose n-th token is "token-n".
type stubRenewing struct {
	mu   sync.Mutex // guards n
	n    int
	wait time.Duration // that a renewal takes
}

func (s *stubRenewing) Token(context.Context) (ampauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ampauth.Token{Value: ampauth.SecretFromString("token-" + string(rune('a'+s.n)))}, nil
}

func (s *stubRenewing) Renew(ctx context.Context, rejected ampauth.Token) (ampauth.Token, error) {
	select {
	case <-time.After(s.wait):
	case <-ctx.Done():
		return ampauth.Token{}, ctx.Err()
	}
	current, err := s.Token(ctx)
	if err == nil && current.Value.Equal(rejected.Value) {
		s.mu.Lock()
		s.n++
		s.mu.Unlock()
		return s.Token(ctx)
	}
	return current, err
}

// A stubBody counts what is done to a request's or response's body.
type stubBody struct {
	io.Reader
	read, closed atomic.Int32
}

func (b *stubBody) Read(p []byte) (int, error) {
	b.read.Add(1)
	return b.Reader.Read(p)
}

func (b *stubBody) Close() error {
	b.closed.Add(1)
	return nil
}

func newStubBody(content string) *stubBody { return &stubBody{Reader: strings.NewReader(content)} }

// A stubAwaited is a body whose first Close can be waited for: net/http may close a
// body after the response has come.
type stubAwaited struct {
	stubBody
	done chan struct{}
	once sync.Once
}

func (b *stubAwaited) Close() error {
	err := b.stubBody.Close()
	b.once.Do(func() { close(b.done) })
	return err
}

func newStubAwaited() *stubAwaited {
	return &stubAwaited{stubBody: stubBody{Reader: strings.NewReader("x")}, done: make(chan struct{})}
}

type stubReader func([]byte) (int, error)

func (f stubReader) Read(p []byte) (int, error) { return f(p) }

// untilDone is a body that stalls until its request's context ends.
type untilDone struct{ ctx context.Context }

func (b untilDone) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }
func (b untilDone) Close() error             { return nil }

type wrapped struct{ error }

func (w wrapped) Unwrap() error { return w.error }

// A stubStreamError is the HTTP/2 stream error of net/http: unexported there,
// and ready to fill any struct of its shape.
type stubStreamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e stubStreamError) Error() string { return "stream error: stream ID 1; REFUSED_STREAM" }

func (e stubStreamError) As(target any) bool {
	v := reflect.ValueOf(target).Elem()
	if v.Kind() != reflect.Struct || v.NumField() != 3 || v.Type().Field(1).Name != "Code" {
		return false
	}
	v.Field(0).SetUint(uint64(e.StreamID))
	v.Field(1).SetUint(uint64(e.Code))
	return true
}

// stubNetError is a net.Error of somebody else's.
type stubNetError struct{ timeout bool }

func (e stubNetError) Error() string   { return "network" }
func (e stubNetError) Timeout() bool   { return e.timeout }
func (e stubNetError) Temporary() bool { return true }

var _ net.Error = stubNetError{}

// stubVerdict is an error that says whether it is worth another attempt.
type stubVerdict bool

func (v stubVerdict) Error() string   { return fmt.Sprintf("retryable: %v", bool(v)) }
func (v stubVerdict) Retryable() bool { return bool(v) }

// A limiterFunc is a Limiter that has nothing but Wait.
type limiterFunc func(context.Context) error

func (f limiterFunc) Wait(ctx context.Context) error { return f(ctx) }

// limiterScript lets its n-th wait end by step n, and all later ones by the last step.
func limiterScript(steps ...limiterFunc) limiterFunc {
	var asked atomic.Int32
	return func(ctx context.Context) error {
		n := int(asked.Add(1))
		return steps[min(n, len(steps))-1](ctx)
	}
}

// passing lets the attempt begin at once.
func passing(context.Context) error { return nil }

// passingAfter lets it begin after d.
func passingAfter(d time.Duration) limiterFunc {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failing lets nothing begin.
func failing(err error) limiterFunc { return func(context.Context) error { return err } }
