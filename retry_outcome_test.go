package ampauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

// A stubOutcome is a way for every attempt to end, and what follows from it for
// each kind of operation: the number of attempts, and the response or error.
type stubOutcome struct {
	name string
	step stubStep

	safe, mutation int // attempts; idempotent operations count as safe ones

	status  int             // of the response that is returned, or
	outcome ampauth.Outcome // of the error
	kind    error           // for a safe operation
	doubt   bool            // for a mutation the kind is ErrAmbiguous
	is      error
}

func (row stubOutcome) check(t *testing.T, op ampauth.Operation, attempts int) {
	base := stubScript(row.step)
	rt := &ampauth.RetryTransport{Base: base}
	resp, err := rt.RoundTrip(stubRequest(t.Context(), op, []byte("payload")))
	if n := base.attempts(); n != attempts {
		t.Errorf("%d attempts, want %d", n, attempts)
	}
	if row.status != 0 {
		if err != nil || resp.StatusCode != row.status {
			t.Fatalf("got (%v, %v), want the response %d", resp, err, row.status)
		}
		if text := stubText(t, resp); text != "body of the answer" {
			t.Errorf("the body of the response is %q, not whole", text)
		}
		return
	}
	if resp != nil {
		t.Errorf("a response comes with the error: %v", resp.Status)
	}
	e := stubError(t, err)
	if e.Outcome != row.outcome || e.Attempts != attempts {
		t.Errorf("the error says %v after %d attempts, want %v after %d", e.Outcome, e.Attempts, row.outcome, attempts)
	}
	if row.is != nil && !errors.Is(err, row.is) {
		t.Errorf("%v is not its cause, %v", err, row.is)
	}
	kind := row.kind
	if op == ampauth.MutatingOperation && row.doubt {
		kind = ampauth.ErrAmbiguous
		if !errors.Is(err, row.kind) && row.kind == ampauth.ErrTimeout {
			t.Errorf("%v is not %v as well", err, row.kind)
		}
	}
	if e.Kind != kind {
		t.Errorf("the kind is %v, want %v", e.Kind, kind)
	}
	if errors.Is(err, ampauth.ErrAmbiguous) != (kind == ampauth.ErrAmbiguous) {
		t.Errorf("errors.Is(err, ErrAmbiguous) is %v for %v", errors.Is(err, ampauth.ErrAmbiguous), err)
	}
}

func TestOutcomeAndOperationDecideWhatIsSentAgain(t *testing.T) {
	const again, twice, once = 3, 2, 1
	answered := func(status, safe, mutation int) stubOutcome {
		return stubOutcome{name: fmt.Sprintf("status %d", status), step: stubAnswer(status), safe: safe, mutation: mutation, status: status}
	}
	failed := func(name string, step stubStep, outcome ampauth.Outcome, safe, mutation int, is error) stubOutcome {
		return stubOutcome{name: name, step: step, safe: safe, mutation: mutation, outcome: outcome,
			kind: ampauth.ErrRequestFailed, doubt: outcome == ampauth.Ambiguous, is: is}
	}
	certificate := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	noName := &net.DNSError{Err: "no such host", Name: "api.test", IsNotFound: true}
	noTLS := tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}
	rows := []stubOutcome{
		// Turned away before anybody looked at it.
		answered(421, twice, twice), // once more, on another connection
		answered(425, twice, twice),
		answered(429, again, again),
		// An answer that says the same request may succeed a moment later.
		answered(408, again, once),
		answered(500, again, once),
		answered(502, again, once),
		answered(503, again, once),
		answered(504, again, once),
		answered(507, again, once),
		answered(520, again, once), // some proxies have codes of their own
		answered(599, again, once),
		// Any other answer.
		answered(400, once, once),
		answered(401, once, once), // without an AuthTransport below it is an answer like others
		answered(403, once, once),
		answered(404, once, once),
		answered(409, once, once),
		answered(413, once, once),
		answered(417, once, once), // to a request that expected nothing
		answered(422, once, once),
		answered(501, once, once),
		answered(505, once, once),
		answered(511, once, once),
		answered(600, once, once), // of no class
		answered(304, once, once),
		answered(201, once, once),
		// Proof that nothing left.
		failed("dial error", stubRefuse(), ampauth.NotSent, again, again, errStubDial),
		failed("no such host", stubUnconnected(noName), ampauth.NotSent, again, again, noName),
		failed("proxy not reached", stubUnconnected(&net.OpError{Op: "proxyconnect", Err: io.EOF}), ampauth.NotSent, again, again, io.EOF),
		failed("certificate not trusted", stubUnconnected(certificate), ampauth.NotSent, once, once, nil),
		failed("no TLS, first or later", stubFail(noTLS), ampauth.Ambiguous, again, once, nil),
		failed("refused stream", stubBreak(stubStreamError{StreamID: 1, Code: 7}), ampauth.Unprocessed, again, again, nil),
		// No proof.
		failed("reset once there is a connection", stubBreak(errStubReset), ampauth.Ambiguous, again, once, errStubReset),
		failed("end once there is a connection", stubBreak(io.EOF), ampauth.Ambiguous, again, once, io.EOF),
		failed("other stream error", stubBreak(stubStreamError{StreamID: 1, Code: 2}), ampauth.Ambiguous, again, once, nil),
		failed("untyped error of a base that drops the context", stubFail(io.ErrUnexpectedEOF), ampauth.Ambiguous, again, once, io.ErrUnexpectedEOF),
		failed("dial error after the request was sent", stubBreak(errStubDial), ampauth.Ambiguous, 0, once, errStubDial),
		{name: "attempt timeout", step: stubStall(), safe: again, mutation: once,
			outcome: ampauth.Ambiguous, kind: ampauth.ErrTimeout, doubt: true, is: context.DeadlineExceeded},
	}
	operations := []ampauth.Operation{ampauth.SafeOperation, ampauth.IdempotentOperation, ampauth.MutatingOperation}
	for _, row := range rows {
		for _, op := range operations {
			want := row.safe
			if op == ampauth.MutatingOperation {
				want = row.mutation
			}
			if want == 0 {
				continue // only mutations are traced
			}
			t.Run(row.name+"/"+op.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { row.check(t, op, want) })
			})
		}
	}
}

// A timeout before there is a connection proves that nothing was sent.
func TestMutationThatTimesOutWhileDialingIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := func(req *http.Request) (*http.Response, error) {
			stubConnect(req, false)
			stubUnused(req)
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		}
		base := stubScript(stuck, stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MutationTimeout: 7 * time.Second}}
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x"))); status != 200 {
			t.Errorf("status %d", status)
		}
		if w := base.waits(); len(w) != 1 || w[0] < 7*time.Second || w[0] >= 8*time.Second {
			t.Errorf("waits %v, want one of the timeout and the backoff", w)
		}

		base = stubScript(stuck)
		rt = &ampauth.RetryTransport{Base: base}
		_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
		if e := stubError(t, err); e.Kind != ampauth.ErrTimeout || e.Outcome != ampauth.NotSent || e.Limit != time.Minute || errors.Is(err, ampauth.ErrAmbiguous) {
			t.Errorf("got %v (%v), want a timeout after 1 min that is NotSent", err, e.Outcome)
		}
	})
}

func TestUntypedFailureBeforeAConnectionIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(func(req *http.Request) (*http.Response, error) {
			return stubUnconnected(io.EOF)(req) // a TLS handshake that the server closed
		})
		rt := &ampauth.RetryTransport{Base: base}
		_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || base.attempts() != 3 || !errors.Is(err, io.EOF) {
			t.Errorf("got %v (%v) after %d attempts, want NotSent after 3", err, e.Outcome, base.attempts())
		}
	})
}

// After a 421 the request goes over a connection of its own.
func TestMisdirectedRequestThatThenBreaksMayHaveBeenSent(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Status: 421}, hostile.Step{Perform: true, Do: hostile.Reset}))
	defer s.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	_, err := rt.RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.IdempotentOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || e.Attempts != 3 {
		t.Errorf("got %v (%v), want Ambiguous after three attempts", err, e.Outcome)
	}
}

// The outcome of a call is not that of its last attempt when an earlier one may
// have been performed.
func TestAttemptThatWasNotSentDoesNotUndoAnEarlierOne(t *testing.T) {
	noToken := stubFail(&ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.NotSent})
	for name, test := range map[string]struct {
		steps []stubStep
		want  ampauth.Outcome
	}{
		"broken, then refused dials":    {[]stubStep{stubBreak(errStubReset), stubRefuse()}, ampauth.Ambiguous},
		"500, then refused dials":       {[]stubStep{stubAnswer(500), stubRefuse()}, ampauth.Ambiguous},
		"broken, then a refused stream": {[]stubStep{stubBreak(errStubReset), stubFail(stubStreamError{Code: 7})}, ampauth.Ambiguous},
		"broken, then no token":         {[]stubStep{stubBreak(errStubReset), noToken}, ampauth.Ambiguous},
		"429, then refused dials":       {[]stubStep{stubAnswer(429), stubRefuse()}, ampauth.Rejected},
		"refused dials":                 {[]stubStep{stubRefuse()}, ampauth.NotSent},
		"no token":                      {[]stubStep{noToken}, ampauth.NotSent},
	} {
		t.Run(name, func(t *testing.T) {
			rt := &ampauth.RetryTransport{Base: stubScript(test.steps...), Retry: stubQuick}
			_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.IdempotentOperation, []byte("x")))
			e := stubError(t, err)
			if e.Outcome != test.want {
				t.Errorf("got %v (%v), want %v", err, e.Outcome, test.want)
			}
			if says := strings.Contains(err.Error(), "it was not sent"); says && test.want != ampauth.NotSent {
				t.Errorf("the error says of what was sent: %v", err)
			}
		})
	}
}

// What fails before a connection is even asked for was not sent.
func TestMutationWhoseProxyCannotBeChosenIsNotSent(t *testing.T) {
	base := stubPooled(t)
	base.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("no proxy today") }
	_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.NotSent || e.Attempts != 3 {
		t.Errorf("got %v (%v), want NotSent after three attempts", err, e.Outcome)
	}
}

// The caller's own trace must go on to work when ours is added.
func TestCallersTraceIsKept(t *testing.T) {
	var got int
	ctx := stubTraced(t.Context(), &got)
	rt := &ampauth.RetryTransport{Base: stubScript(stubAnswer(200))}
	stubStatus(t, rt, stubRequest(ctx, ampauth.MutatingOperation, nil))
	if got != 1 {
		t.Errorf("the caller's GotConn was called %d times, want once", got)
	}
}

func TestClassificationDecides(t *testing.T) {
	garbage := func(*http.Request) ampauth.Operation { return 17 }
	tests := []struct {
		name     string
		classify func(*http.Request) ampauth.Operation
		ctx      func(context.Context) context.Context
		method   string
		path     string
		attempts int
	}{
		{"AMP's read by default", nil, nil, "GET", "/api/assets/", 3},
		{"AMP's issuance by default", nil, nil, "POST", "/api/assets/issue", 1},
		{"AMP's GET that mutates", nil, nil, "GET", "/api/assets/1/register", 1},
		{"unknown GET by default", nil, nil, "GET", "/else", 1},
		{"the same by HTTP's rules", ampauth.ClassifyHTTP, nil, "GET", "/else", 3},
		{"POST by HTTP's rules", ampauth.ClassifyHTTP, nil, "POST", "/else", 1},
		{"what is no Operation counts as a mutation", garbage, nil, "GET", "/api/assets/", 1},
		{"the context wins", ampauth.ClassifyHTTP, func(ctx context.Context) context.Context {
			return ampauth.WithOperation(ctx, ampauth.MutatingOperation)
		}, "GET", "/else", 1},
		{"and the other way", nil, func(ctx context.Context) context.Context {
			return ampauth.WithOperation(ctx, ampauth.SafeOperation)
		}, "POST", "/api/assets/issue", 3},
		{"no method is GET", nil, nil, "", "/api/assets/", 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.ctx != nil {
					ctx = test.ctx(ctx)
				}
				req, err := http.NewRequestWithContext(ctx, test.method, "https://api.test"+test.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Method = test.method
				base := stubScript(stubAnswer(502))
				rt := &ampauth.RetryTransport{Base: base, Classify: test.classify}
				if status := stubStatus(t, rt, req); status != 502 || base.attempts() != test.attempts {
					t.Errorf("status %d after %d attempts, want 502 after %d", status, base.attempts(), test.attempts)
				}
			})
		})
	}
}

func TestCertificateThatTheUsersOwnCheckRefusesIsFinal(t *testing.T) {
	for _, fault := range []error{
		x509.UnknownAuthorityError{},
		x509.HostnameError{Certificate: new(x509.Certificate), Host: "api.test"},
		x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: x509.Expired},
	} {
		base := stubScript(stubUnconnected(fault))
		_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || base.attempts() != 1 {
			t.Errorf("%T: got %v (%v) after %d attempts, want NotSent after 1", fault, err, e.Outcome, base.attempts())
		}
	}
}

func TestNotSentOfAnotherRequestIsNoProof(t *testing.T) {
	base := stubScript(func(req *http.Request) (*http.Response, error) {
		stubConnect(req, true)
		stubUse(req)
		// It broke; and what the layer then sends instead, has no token.
		return nil, &ampauth.Error{Op: "obtain", Kind: ampauth.ErrObtainFailed, Outcome: ampauth.NotSent}
	})
	_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || !errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("got %v (%v), want it ambiguous", err, e.Outcome)
	}
}

func TestDoubtfulErrorOfOursFromBelowIsAmbiguousForAMutation(t *testing.T) {
	base := stubScript(stubBreak(&ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Err: io.EOF}))
	_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); !errors.Is(err, ampauth.ErrAmbiguous) || e.Attempts != 1 {
		t.Errorf("got %v, want it ambiguous after 1 attempt", err)
	}
}

func TestMutationThatIsNotEvenWrittenIsNotSent(t *testing.T) {
	stubBubble(t, nil, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x"))
		req.Header["X-Broken"] = []string{"a\nb"}
		_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
		if e := stubError(t, err); e.Outcome != ampauth.NotSent || errors.Is(err, ampauth.ErrAmbiguous) || l.Dials() != 0 {
			t.Errorf("got %v (%v) after %d dials, want NotSent after none", err, e.Outcome, l.Dials())
		}
	})
}
