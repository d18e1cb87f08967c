package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/ampauth/ampauth"
)

func TestErrorSaysWhatFailedAfterHowManyAttemptsAndWhatToDo(t *testing.T) {
	unavailable := &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.Answered, StatusCode: 503}
	tooMany := &ampauth.Error{Op: "request", Kind: ampauth.ErrRateLimited, Outcome: ampauth.Rejected, StatusCode: 429, RetryAfter: 30 * time.Second}
	late := &ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout, Limit: 60 * time.Second, Err: errors.New("no answer in time")}
	for _, test := range []struct {
		name string
		err  *ampauth.Error
		want string
	}{
		{"obtain failed", &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.Answered, StatusCode: 503, Attempts: 3, Err: unavailable},
			"ampauth: token obtain failed after 3 attempts: HTTP 503 Service Unavailable; later calls try again"},
		{"obtain rate limited", &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.Rejected, StatusCode: 429, Attempts: 2, Err: tooMany},
			"ampauth: token obtain failed after 2 attempts: rate limited: retry after 30s: HTTP 429 Too Many Requests; later calls try again"},
		{"obtain timed out", &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Attempts: 1, Err: late},
			"ampauth: token obtain failed after 1 attempt: request timeout after 1m0s: no answer in time; later calls try again"},
		{"obtain, no attempt", &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.NotSent, Err: context.Canceled},
			"ampauth: token obtain failed: context canceled"},
		{"refresh failed", &ampauth.Error{Op: "refresh", Kind: ampauth.ErrRefreshFailed, Outcome: ampauth.Answered, StatusCode: 404, Attempts: 1, Err: errors.New("unexpected status")},
			"ampauth: token refresh failed after 1 attempt: HTTP 404 Not Found: unexpected status"},
		{"rate limited", tooMany, "ampauth: rate limited: retry after 30s: HTTP 429 Too Many Requests; it was not performed"},
		{"rate limited by the limiter", &ampauth.Error{Op: "request", Kind: ampauth.ErrRateLimited, Outcome: ampauth.NotSent, RetryAfter: 1234567890, Err: context.DeadlineExceeded},
			"ampauth: rate limited: retry after 1.235s: context deadline exceeded; the request was not sent; the deadline of the caller's context came first"},
		{"timeout", &ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout, Limit: 10 * time.Second, Attempts: 3, Err: errors.New("no answer in time")},
			"ampauth: request timeout after 10s after 3 attempts: no answer in time"},
		{"timeout of the caller", &ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout, Attempts: 2, Err: context.DeadlineExceeded},
			"ampauth: request timeout after 2 attempts: context deadline exceeded; the deadline of the caller's context came first"},
		{"serialization", &ampauth.Error{Op: "request", Kind: ampauth.ErrSerialization, Outcome: ampauth.Answered, StatusCode: 200, Err: errors.New("the answer is no JSON")},
			"ampauth: serialization error: HTTP 200 OK: the answer is no JSON"},
		{"configuration", &ampauth.Error{Op: "config", Kind: ampauth.ErrConfig, Outcome: ampauth.NotSent, Err: errors.New("BaseURL (AMP_API_BASE_URL) is required")},
			"ampauth: configuration: BaseURL (AMP_API_BASE_URL) is required"},
		{"request failed", &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Attempts: 3, Err: io.ErrUnexpectedEOF},
			"ampauth: request failed after 3 attempts: the connection was closed before the end of the answer (unexpected EOF)"},
		{"request not sent", &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent, Attempts: 1, Err: errStubDial},
			"ampauth: request failed after 1 attempt: dial tcp: connect: connection refused; the request was not sent; nothing listens there: check host and port in the URL"},
		{"request refused", &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.Unprocessed, Attempts: 3, Err: errors.New("stream refused")},
			"ampauth: request failed after 3 attempts: stream refused; it was not performed"},
		{"ambiguous", &ampauth.Error{Op: "request", Kind: ampauth.ErrAmbiguous, Attempts: 1, Err: io.EOF},
			"ampauth: outcome unknown after 1 attempt: the connection was closed before the end of the answer (EOF); it may have been performed: find out by reading before you send it again"},
		{"ambiguous by a timeout", &ampauth.Error{Op: "request", Kind: ampauth.ErrAmbiguous, Attempts: 1, Limit: 60 * time.Second, Err: late},
			"ampauth: outcome unknown after 1 attempt: request timeout after 1m0s: no answer in time; it may have been performed: find out by reading before you send it again"},
		{"closed", &ampauth.Error{Op: "obtain", Kind: ampauth.ErrClosed, Outcome: ampauth.NotSent}, "ampauth: closed"},
		{"store", &ampauth.Error{Op: "store", Kind: ampauth.ErrStore, Outcome: ampauth.NotSent, Err: errors.New("the file cannot be written: no space left on device")},
			"ampauth: token store: the file cannot be written: no space left on device"},
		{"status without a name", &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.Answered, StatusCode: 520}, "ampauth: request failed: HTTP 520"},
		{"zero value", new(ampauth.Error), "ampauth: failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestErrorIsItsKindAndItsCauseAndNothingElse(t *testing.T) {
	cause := errors.New("cause")
	for kind := range kinds {
		err := &ampauth.Error{Kind: kind, Err: fmt.Errorf("in between: %w", cause)}
		wrapped := fmt.Errorf("by the caller: %w", &url.Error{Op: "Get", URL: "https://amp.test", Err: err})
		if found, ok := errors.AsType[*ampauth.Error](wrapped); !ok || found != err {
			t.Errorf("%v: the *Error is not found", kind)
		}
		if !errors.Is(wrapped, cause) || errors.Unwrap(err) != err.Err {
			t.Errorf("%v: the cause is not found", kind)
		}
		for other := range kinds {
			if got := errors.Is(wrapped, other); got != (other == kind) {
				t.Errorf("an error of kind %q Is %q: %t", kind, other, got)
			}
		}
	}
	if errors.Is(new(ampauth.Error), nil) || errors.Is(&ampauth.Error{Kind: ampauth.ErrTimeout}, ampauth.ErrDestroyed) {
		t.Error("an error Is what it is not")
	}
}

func TestErrorTypeIsASmallVocabulary(t *testing.T) {
	for kind, want := range kinds {
		if got := (&ampauth.Error{Kind: kind, Err: ampauth.ErrTimeout}).ErrorType(); got != want {
			t.Errorf("%v: got %q, want %q", kind, got, want)
		}
	}
	if words := slices.Compact(slices.Sorted(maps.Values(kinds))); len(words) != len(kinds) {
		t.Errorf("%d kinds share %d words", len(kinds), len(words))
	}
	for _, kind := range []error{nil, io.EOF, ampauth.ErrDestroyed} {
		if got := (&ampauth.Error{Kind: kind}).ErrorType(); got != "_OTHER" { // the fallback of OpenTelemetry
			t.Errorf("%v: got %q, want _OTHER", kind, got)
		}
	}
}

func TestTimeoutIsToldByTimeAlone(t *testing.T) {
	for _, test := range []struct {
		name string
		err  *ampauth.Error
		want bool
	}{
		{"an attempt's", &ampauth.Error{Kind: ampauth.ErrTimeout, Limit: time.Second}, true},
		{"the caller's", &ampauth.Error{Kind: ampauth.ErrRequestFailed, Err: context.DeadlineExceeded}, true},
		{"the caller's, deep", &ampauth.Error{Kind: ampauth.ErrObtainFailed, Err: fmt.Errorf("waiting: %w", context.DeadlineExceeded)}, true},
		{"of a mutation", &ampauth.Error{Kind: ampauth.ErrAmbiguous, Err: &ampauth.Error{Kind: ampauth.ErrTimeout, Err: context.DeadlineExceeded}}, true},
		{"of the limiter", &ampauth.Error{Kind: ampauth.ErrRateLimited, Err: context.DeadlineExceeded}, true},
		{"cancelled", &ampauth.Error{Kind: ampauth.ErrRequestFailed, Err: context.Canceled}, false},
		{"broken", &ampauth.Error{Kind: ampauth.ErrAmbiguous, Err: io.EOF}, false},
		{"no cause", &ampauth.Error{Kind: ampauth.ErrClosed}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.err.Timeout(); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
			// http.Client wraps, and its callers ask that.
			if got := (&url.Error{Err: test.err}).Timeout(); got != test.want {
				t.Errorf("as the cause of a *url.Error: got %t, want %t", got, test.want)
			}
		})
	}
}

func TestPrefixStandsOnce(t *testing.T) {
	inner := &ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout, Limit: time.Second, Err: io.EOF}
	destroyed := ampauth.SecretFromString(canaryToken)
	destroyed.Destroy()
	once := ampauth.RetryConfig{MaxAttempts: 1}
	nothing := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, nil })
	auth := func(source ampauth.TokenSource, base http.RoundTripper) *ampauth.AuthTransport {
		return &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://amp.test"}
	}
	static := ampauth.StaticTokenSource(ampauth.SecretFromString(canaryToken))
	send := func(rt http.RoundTripper) error {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://amp.test/api/assets", nil)
		if err != nil {
			return err
		}
		resp, err := rt.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	for _, test := range []struct {
		name string
		err  func() error
	}{
		{"nested", func() error {
			return &ampauth.Error{Kind: ampauth.ErrObtainFailed, Err: &ampauth.Error{Kind: ampauth.ErrRequestFailed, Err: inner}}
		}},
		{"nested in another's words", func() error {
			return &ampauth.Error{Kind: ampauth.ErrObtainFailed, Err: fmt.Errorf("in a store: %w", inner)}
		}},
		{"joined", func() error {
			return &ampauth.Error{Kind: ampauth.ErrObtainFailed, Err: errors.Join(inner, io.EOF)}
		}},
		{"a faulty layer below", func() error { return send(&ampauth.RetryTransport{Base: auth(static, nothing), Retry: once}) }},
		{"a layer in between", func() error {
			return send(&ampauth.RetryTransport{Base: layered(auth(static, nothing)), Retry: once})
		}},
		{"a token that was destroyed", func() error {
			return send(&ampauth.RetryTransport{Base: auth(stubNoToken(destroyed.Expose(func([]byte) error { return nil })), nothing)})
		}},
		{"work that is repeated", func() error {
			_, err := ampauth.Retry(t.Context(), once, func(context.Context) (int, error) { return 0, fmt.Errorf("layer: %w", inner) })
			return &ampauth.Error{Kind: ampauth.ErrRequestFailed, Err: err}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.err()
			if err == nil {
				t.Fatal("no error")
			}
			if text := err.Error(); !strings.HasPrefix(text, "ampauth: ") || strings.Count(text, "ampauth: ") != 1 {
				t.Errorf("got %q", text)
			}
		})
	}
	for kind := range kinds {
		if text := kind.Error(); !strings.HasPrefix(text, "ampauth: ") {
			t.Errorf("the sentinel %q has no prefix", text)
		}
	}
}

// serverError has the shape of net/http's own that quote what a server sent.
type serverError struct{ what, said string }

func (e serverError) Error() string { return fmt.Sprintf("%s %q", e.what, e.said) }

func TestForeignCauseIsKeptAndItsWordsAreNot(t *testing.T) {
	withQuery := &url.Error{Op: "Get", URL: "https://amp.test/api?token=" + canaryToken, Err: io.ErrUnexpectedEOF}
	protocol := textproto.ProtocolError("malformed MIME header line: " + canaryToken)
	quoting := serverError{"malformed HTTP response", "HTTP/1.1 " + canaryPassword}
	for _, test := range []struct {
		name  string
		cause error
		as    func(error) bool
		says  string
	}{
		{"URL with a query", withQuery, func(err error) bool { e, ok := errors.AsType[*url.Error](err); return ok && e == withQuery }, "unexpected EOF"},
		{"URL, wrapped", fmt.Errorf("proxy: %w", withQuery), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, "proxy"},
		{"URL in a URL", &url.Error{Op: "Get", URL: "https://" + canaryToken, Err: withQuery}, func(err error) bool { return errors.Is(err, withQuery) }, "unexpected EOF"},
		{"ProtocolError", protocol, func(err error) bool { e, ok := errors.AsType[textproto.ProtocolError](err); return ok && e == protocol }, "malformed answer"},
		{"ProtocolError, wrapped", fmt.Errorf("net/http: %w", protocol), func(err error) bool { return errors.Is(err, protocol) }, "malformed answer"},
		{"quotation", quoting, func(err error) bool { e, ok := errors.AsType[serverError](err); return ok && e == quoting }, "malformed HTTP response"},
		{"quotation, joined", errors.Join(io.EOF, quoting), func(err error) bool { return errors.Is(err, quoting) && errors.Is(err, io.EOF) }, "EOF"},
		{"several lines", errors.New("the proxy said:\n" + canaryPassword), func(error) bool { return true }, "the proxy said:"},
		{"several lines, CRLF", errors.New("the proxy said:\r\n" + canaryToken), func(error) bool { return true }, "the proxy said:"},
		{"bare query", errors.New("no route for /api?token=" + canaryToken), func(error) bool { return true }, "no route for /api"},
	} {
		auth := func(base http.RoundTripper) http.RoundTripper {
			return &ampauth.AuthTransport{Base: base, Source: static("0123456789abcdef0123456789abcdef01234567"), Origin: "https://amp.test"}
		}
		leaving := func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx, cancel
		}
		for _, way := range []struct {
			name    string
			method  string
			base    http.RoundTripper
			context func(context.Context) (context.Context, context.CancelFunc)
			kind    error
		}{
			{"exhausted", "GET", stubScript(stubBreak(test.cause)), context.WithCancel, ampauth.ErrRequestFailed},
			{"not sent", "POST", stubScript(func(req *http.Request) (*http.Response, error) {
				return stubUnconnected(test.cause)(req)
			}), context.WithCancel, ampauth.ErrRequestFailed},
			{"in doubt", "POST", stubScript(stubBreak(test.cause)), context.WithCancel, ampauth.ErrAmbiguous},
			{"below an AuthTransport", "GET", auth(stubScript(stubBreak(test.cause))), context.WithCancel, ampauth.ErrRequestFailed},
			{"caller left meanwhile", "GET", stubScript(stubBreak(test.cause)), leaving, ampauth.ErrRequestFailed},
			{"out of a body", "GET", stubScript(func(*http.Request) (*http.Response, error) {
				resp := stubResponse(200, "")
				resp.Body, resp.ContentLength = io.NopCloser(stubReader(func([]byte) (int, error) { return 0, test.cause })), -1
				return resp, nil
			}), context.WithCancel, ampauth.ErrRequestFailed},
		} {
			t.Run(test.name+"/"+way.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := way.context(t.Context())
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, way.method, "https://amp.test/api/assets", nil)
					if err != nil {
						t.Fatal(err)
					}
					transport := &ampauth.RetryTransport{Base: way.base, Retry: ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: time.Hour, MaxDelay: time.Hour}}
					resp, err := transport.RoundTrip(req)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						_ = resp.Body.Close()
					}
					if _, ok := err.(*ampauth.Error); !ok || !errors.Is(err, way.kind) {
						t.Fatalf("got a %T that is not of kind %q", err, way.kind)
					}
					if found := leaks(everythingErrorsSay(err)); found != nil {
						t.Errorf("the error shows %v", found)
					}
					if !strings.Contains(err.Error(), test.says) {
						t.Errorf("%q does not say %q", err, test.says)
					}
					if !errors.Is(err, test.cause) || !test.as(err) {
						t.Error("the cause is not found any more")
					}
				})
			})
		}
	}
}

func TestCauseWithoutWordsOfOthersIsKeptAsItIs(t *testing.T) {
	transport := &ampauth.RetryTransport{Base: stubScript(stubBreak(errStubReset)), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://amp.test/api/assets", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = transport.RoundTrip(req)
	if !slices.Contains(links(err), error(errStubReset)) {
		t.Errorf("the cause is not in the chain of %v", err)
	}
}

// kinds are all sentinels that an Error can have for its kind, with their ErrorType.
var kinds = map[error]string{
	ampauth.ErrConfig:        "config",
	ampauth.ErrObtainFailed:  "obtain_failed",
	ampauth.ErrRefreshFailed: "refresh_failed",
	ampauth.ErrRequestFailed: "request_failed",
	ampauth.ErrRateLimited:   "rate_limited",
	ampauth.ErrTimeout:       "timeout",
	ampauth.ErrSerialization: "serialization",
	ampauth.ErrClosed:        "closed",
	ampauth.ErrStore:         "store",
	ampauth.ErrAmbiguous:     "ambiguous",
}

func TestErrorsOfOthersShowNoControlCharacters(t *testing.T) {
	for _, text := range []string{"valid for a\x1b[31m.example", "a\u202e.example", "a\u200b.example", "a\x00b", "a\x7f", "a\u0085", "a\xff\u2028"} {
		cause := errors.New(text)
		shown := (&ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Err: cause}).Error()
		if i := strings.IndexFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q is shown as %q", text, shown)
		}
	}
}
