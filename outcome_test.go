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
	"net/http/httptest"
	"net/url"
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
		failed("reset after the connection was had", stubBreak(errStubReset), ampauth.Ambiguous, again, once, errStubReset),
		failed("end after the connection was had", stubBreak(io.EOF), ampauth.Ambiguous, again, once, io.EOF),
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

// A timeout before any connection is had proves that nothing was sent.
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

// net/http sends a PUT with an Idempotency-Key once more by itself. When that does
// not even get a connection, the first has been sent all the same.
func TestIdempotentRequestThatNetHTTPRepeatsIsNotSaidToBeUnsent(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{"put": {{Perform: true, Do: hostile.Reset}}}))
	defer s.Close()
	base := stubPooled(t)
	base.DialContext = s.DialContext
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	primed(t, rt, s.URL())
	s.RefuseDials(10)
	req := stubRequestTo(t.Context(), s.URL(), ampauth.IdempotentOperation, []byte("x"))
	req.Header.Set("Idempotency-Key", "k")
	req.Header.Set("X-Operation-Id", "put")
	_, err := rt.RoundTrip(req)
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || s.Effects("put") != 1 {
		t.Errorf("got %v (%v) after %d effects, want Ambiguous after one", err, e.Outcome, s.Effects("put"))
	}
}

// A server that ends TLS after it has performed the request: the error is the one of
// a handshake with what is no TLS server.
func TestMutationWhoseConnectionTurnsToPlainTextIsPerformedOnce(t *testing.T) {
	var performed atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		performed.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn.(*tls.Conn).NetConn(), "HTTP/1.1 408 Request Timeout\r\n\r\n")
		_ = conn.(*tls.Conn).NetConn().Close()
	}))
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	for name, rt := range map[string]http.RoundTripper{
		"known base": base,
		"layer that drops the context": stubLayer(func(req *http.Request) (*http.Response, error) {
			return base.RoundTrip(req.WithContext(context.Background()))
		}),
	} {
		for _, op := range []ampauth.Operation{ampauth.MutatingOperation, ampauth.IdempotentOperation} {
			performed.Store(0)
			_, err := (&ampauth.RetryTransport{Base: rt, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, op, []byte("x")))
			if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || op == ampauth.MutatingOperation && performed.Load() != 1 {
				t.Errorf("%s, %v: got %v (%v) after %d effects, want Ambiguous", name, op, err, e.Outcome, performed.Load())
			}
		}
	}
}

// A layer that tries again by itself spoils what its last answer proves.
func TestAnswerToALayersOwnRepeatIsNoProof(t *testing.T) {
	for _, status := range []int{401, 421, 425, 429} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Reset}, hostile.Step{Status: status}, hostile.Step{Perform: true}))
			defer s.Close()
			base := stubPooled(t)
			auth := &ampauth.AuthTransport{Source: new(stubRenewing), Origin: s.URL(), Base: stubLayer(func(req *http.Request) (*http.Response, error) {
				again := req.Clone(req.Context())
				again.Body = io.NopCloser(strings.NewReader("x"))
				if resp, err := base.RoundTrip(req); err == nil {
					return resp, nil
				}
				return base.RoundTrip(again)
			})}
			got := stubStatus(t, &ampauth.RetryTransport{Base: auth, Retry: stubQuick}, stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
			if got != status || s.Requests() != 2 {
				t.Errorf("status %d after %d requests, want the %d after the layer's own two", got, s.Requests(), status)
			}
		})
	}
}

// A layer that gives up on a call and leaves it running.
func TestMutationThatALayerLeavesBehindIsPerformedOnce(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1} {
		performed := 0
		stubBubble(t, func(http.ResponseWriter, *http.Request) { performed++ }, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
			dial := base.DialContext
			base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				time.Sleep(60 * time.Millisecond)
				return dial(ctx, network, address)
			}
			var left sync.WaitGroup
			impatient := stubLayer(func(req *http.Request) (*http.Response, error) {
				type end struct {
					resp *http.Response
					err  error
				}
				ended := make(chan end, 1)
				left.Go(func() {
					resp, err := base.RoundTrip(req)
					ended <- end{resp, err}
				})
				select {
				case e := <-ended:
					return e.resp, e.err
				case <-time.After(50 * time.Millisecond):
					return nil, errors.New("too slow for this layer")
				}
			})
			status := stubStatus(t, &ampauth.RetryTransport{Base: impatient, Retry: ampauth.RetryConfig{MutationTimeout: timeout}}, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
			left.Wait()
			time.Sleep(time.Second) // the dials that were left end
			if status != 200 || performed != 1 {
				t.Errorf("timeout %v: status %d after %d effects, want 200 after one", timeout, status, performed)
			}
		})
	}
}

// A protocol of the user's own takes the connection over and tells nothing of it.
func TestMutationOverAProtocolOfTheUsersIsPerformedOnce(t *testing.T) {
	performed := 0
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{NextProtos: []string{"x-amp"}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	base.TLSClientConfig.NextProtos = []string{"x-amp"}
	base.ForceAttemptHTTP2 = false
	base.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		"x-amp": func(_ string, conn *tls.Conn) http.RoundTripper {
			return stubLayer(func(req *http.Request) (*http.Response, error) {
				performed++
				_ = conn.Close()
				return nil, io.ErrUnexpectedEOF
			})
		},
	}
	_, err := (&ampauth.RetryTransport{Base: stubHeaderLayer(base), Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || performed != 1 {
		t.Errorf("got %v (%v) after %d effects, want Ambiguous after one", err, e.Outcome, performed)
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

func TestOtherAlertIsNotTakenForHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	var handshakes atomic.Int32
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	base.TLSClientConfig.MaxVersion = tls.VersionTLS12
	config := stubQuick
	config.MaxAttempts = 1
	_, err := (&ampauth.RetryTransport{Base: base, Retry: config}).RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.NotSent || handshakes.Load() != 1 {
		t.Errorf("got %v (%v) after %d handshakes, want NotSent after 1", err, e.Outcome, handshakes.Load())
	}
}
