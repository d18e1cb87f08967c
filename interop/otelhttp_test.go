package interop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// Over otelhttp a RetryTransport cannot see that the base is an *http.Transport,
// so mutations share the connections of the pool. All that then keeps net/http
// from repeating one by itself is that it has a body, and no GetBody.

// operation is the id of the one mutation in each test.
const operation = "operation"

// A request is one to AMP. All but info are mutations.
type request struct {
	name, method, path, body string
	key                      string // header that makes net/http take it for idempotent
}

var (
	info        = request{method: "GET", path: "/api/info"}
	withBody    = request{name: "POST with a body", method: "POST", path: "/api/assets/issue", body: `{"amount": 1}`}
	withoutBody = request{name: "POST without a body", method: "POST", path: "/api/assets/issue"}
	// AMP's own: nothing but ClassifyAMP says that these are mutations.
	createDistribution = request{name: "GET distributions/create", method: "GET", path: "/api/assets/x/distributions/create/"}
	register           = request{name: "GET register", method: "GET", path: "/api/assets/x/register"}
	registerAuthorized = request{name: "GET register-authorized", method: "GET", path: "/api/assets/x/register-authorized"}
	refreshToken       = request{name: "GET refresh-token", method: "GET", path: "/api/user/refresh-token"}
)

func (m request) keyed(header string) request {
	m.key = header
	return m
}

// A peer is a hostile server, and otelhttp over a pool of connections to it.
type peer struct {
	*hostile.Server
	protocol hostile.Protocol
	layer    http.RoundTripper
}

// newPeer starts a peer that treats the first mutation as told. It performs and
// answers every other one, so that no repeat stays hidden.
func newPeer(t *testing.T, protocol hostile.Protocol, prime, first hostile.Step) peer {
	t.Helper()
	s := hostile.New(protocol, hostile.ByID(map[string][]hostile.Step{
		"":        {prime},
		operation: {first, {Perform: true}},
	}))
	t.Cleanup(s.Close)
	pool := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.DialContext(ctx, network, addr)
		if err != nil {
			err = fmt.Errorf("no connection: %w", err) // the error that the trace was told must be in it
		}
		return conn, err
	}}
	if protocol != hostile.HTTP1 {
		pool.TLSClientConfig, pool.ForceAttemptHTTP2 = s.TLSConfig(), true
	}
	t.Cleanup(pool.CloseIdleConnections)
	return peer{s, protocol, otelhttp.NewTransport(pool)}
}

// underAmpauth is the peer's layer with a RetryTransport over it.
func (p peer) underAmpauth() http.RoundTripper {
	return &ampauth.RetryTransport{
		Base:  p.layer,
		Retry: ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: 2 * time.Millisecond},
	}
}

// prime uses a connection and gives it back to the pool. On a busy machine net/http
// sometimes closes one instead (maxWriteWaitBeforeConnReuse), so it makes sure.
func (p peer) prime(t *testing.T, rt http.RoundTripper) {
	t.Helper()
	for pooled := false; !pooled; {
		pooled = p.protocol == hostile.HTTP2 // where connections are shared, and no trace tells
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			PutIdleConn: func(err error) { pooled = err == nil },
		})
		if err := p.send(t, ctx, rt, "", info); err != nil {
			t.Fatal(err)
		}
	}
}

// send returns nil if it got the answer, a whole 200.
func (p peer) send(t *testing.T, ctx context.Context, rt http.RoundTripper, id string, m request) error {
	t.Helper()
	var body io.Reader
	if m.body != "" {
		body = strings.NewReader(m.body) // so that there is a GetBody
	}
	req, err := http.NewRequestWithContext(ctx, m.method, p.URL()+m.path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Operation-Id", id)
	if m.key != "" {
		req.Header.Set(m.key, "k")
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got status %d and a body that ends in %v", resp.StatusCode, err)
	}
	return nil
}

// requests returns those for the mutation that arrived.
func (p peer) requests() []hostile.Entry {
	return slices.DeleteFunc(p.Log(), func(e hostile.Entry) bool { return e.ID != operation })
}

// wantReused fails the test unless the mutation first went over a connection that
// was primed.
func (p peer) wantReused(t *testing.T) {
	t.Helper()
	if first := p.requests(); len(first) == 0 || first[0].FirstOnConn() {
		t.Errorf("the mutation did not go over the connection that was primed:\n%v", p.Log())
	}
}

// wantInDoubt fails the test unless the mutation arrived once, was performed,
// and ended in err with the outcome open.
func (p peer) wantInDoubt(t *testing.T, err error) {
	t.Helper()
	p.wantReused(t)
	if n := len(p.requests()); n != 1 || p.Effects(operation) != 1 {
		t.Errorf("performed %d times in %d requests, want 1 and 1:\n%v", p.Effects(operation), n, p.Log())
	}
	e, ok := errors.AsType[*ampauth.Error](err)
	if !ok || !errors.Is(err, ampauth.ErrAmbiguous) || e.Outcome != ampauth.Ambiguous || e.Attempts != 1 {
		t.Errorf("got %v, want ErrAmbiguous after 1 attempt", err)
	}
}

// wantConsistent fails the test unless err, with one of the outcomes or nil, is
// true to what the server did.
func (p peer) wantConsistent(t *testing.T, err error, outcomes ...ampauth.Outcome) {
	t.Helper()
	effects := p.Effects(operation)
	if err == nil {
		if effects != 1 {
			t.Errorf("answered with 200 and performed %d times, want 1:\n%v", effects, p.Log())
		}
		return
	}
	e, ok := errors.AsType[*ampauth.Error](err)
	if !ok || !slices.Contains(outcomes, e.Outcome) {
		t.Fatalf("got %v (%T), want an *ampauth.Error with one of %v", err, err, outcomes)
	}
	if e.Outcome != ampauth.Ambiguous && effects != 0 || effects > 1 {
		t.Errorf("%v, and performed %d times:\n%v", e.Outcome, effects, p.Log())
	}
}

// net/http repeats a GET, or what has one of these headers, when a connection
// that was used before breaks.
func TestMutationIsPerformedOnceWhenAUsedConnectionBreaks(t *testing.T) {
	for _, m := range []request{withBody, withoutBody, createDistribution, register, registerAuthorized, refreshToken} {
		for _, key := range []string{"", "Idempotency-Key", "X-Idempotency-Key"} {
			for _, do := range []hostile.Action{hostile.Reset, hostile.Close} {
				t.Run(fmt.Sprintf("%s, %s, %v", m.name, cmp.Or(key, "no key"), do), func(t *testing.T) {
					p := newPeer(t, hostile.HTTP1, hostile.Step{}, hostile.Step{Perform: true, Do: do})
					rt := p.underAmpauth()
					p.prime(t, rt)
					p.wantInDoubt(t, p.send(t, t.Context(), rt, operation, m.keyed(key)))
				})
			}
		}
	}
}

// net/http repeats any request whose stream is reset with PROTOCOL_ERROR.
func TestMutationIsPerformedOnceWhenItsStreamIsReset(t *testing.T) {
	for name, code := range map[string]uint32{"PROTOCOL_ERROR": 1, "INTERNAL_ERROR": 2, "CANCEL": 8} {
		for _, m := range []request{withBody, withoutBody} {
			t.Run(name+", "+m.name, func(t *testing.T) {
				p := newPeer(t, hostile.HTTP2, hostile.Step{}, hostile.Step{Perform: true, Do: hostile.ResetStream, Code: code})
				rt := p.underAmpauth()
				p.prime(t, rt)
				p.wantInDoubt(t, p.send(t, t.Context(), rt, operation, m))
			})
		}
	}
}

// A repeat would do no harm here, and net/http wants to make it. As of Go 1.26 it
// finds that it cannot make the body anew, and says so in an error that has the
// text of the stream's error and does not wrap it (http2shouldRetryRequest). With
// that it is lost that the server did not process the request, so the call ends
// Ambiguous without an effect, on the safe side. Were it wrapped, REFUSED_STREAM
// would show, and ampauth send the request again.
func TestUnprocessedMutationIsPerformedOnceAtMost(t *testing.T) {
	for name, step := range map[string]hostile.Step{
		"REFUSED_STREAM":   {Do: hostile.ResetStream, Code: 7},
		"GOAWAY":           {Do: hostile.GoAway, Last: hostile.LastPrevious},
		"GOAWAY and close": {Do: hostile.GoAwayThenClose, Last: hostile.LastPrevious},
	} {
		for _, m := range []request{withBody, withoutBody} {
			t.Run(name+", "+m.name, func(t *testing.T) {
				p := newPeer(t, hostile.HTTP2, hostile.Step{}, step)
				rt := p.underAmpauth()
				p.prime(t, rt)
				err := p.send(t, t.Context(), rt, operation, m)
				p.wantReused(t)
				p.wantConsistent(t, err, ampauth.Unprocessed, ampauth.Ambiguous)
			})
		}
	}
}

// The pool may or may not have noticed that the server left. Either will do, if
// the caller is told the truth.
func TestDeadIdleConnectionDoesNotRepeatAMutation(t *testing.T) {
	for name, protocol := range map[string]hostile.Protocol{"HTTP/1.1": hostile.HTTP1, "HTTP/2": hostile.HTTP2} {
		for _, reset := range []bool{false, true} {
			for _, m := range []request{withBody, withoutBody, createDistribution, withBody.keyed("Idempotency-Key")} {
				t.Run(fmt.Sprintf("%s, reset %v, %s, %s", name, reset, m.name, cmp.Or(m.key, "no key")), func(t *testing.T) {
					p := newPeer(t, protocol, hostile.Step{Do: hostile.AnswerThenClose, Reset: reset}, hostile.Step{Perform: true})
					rt := p.underAmpauth()
					if err := p.send(t, t.Context(), rt, "", info); err != nil {
						t.Fatal(err)
					}
					err := p.send(t, t.Context(), rt, operation, m)
					p.wantConsistent(t, err, ampauth.NotSent, ampauth.Ambiguous)
				})
			}
		}
	}
}

// otelhttp sends a request with a context of its own. The trace in it still proves
// that there was no connection: it was told of the very failure that the error wraps.
func TestRefusedDialOfAMutationIsTriedAgain(t *testing.T) {
	for _, m := range []request{withBody, withoutBody, createDistribution} {
		t.Run(m.name, func(t *testing.T) {
			p := newPeer(t, hostile.HTTP1, hostile.Step{}, hostile.Step{Perform: true})
			p.RefuseDials(2)
			if err := p.send(t, t.Context(), p.underAmpauth(), operation, m); err != nil {
				t.Error(err)
			}
			if p.Dials() != 3 || p.Effects(operation) != 1 {
				t.Errorf("performed %d times after %d dials, want 1 and 3", p.Effects(operation), p.Dials())
			}
		})
	}
}

// Without ampauth the server does see repeats, so that their absence above means
// something.
func TestNetHTTPRepeatsTheseByItself(t *testing.T) {
	for name, test := range map[string]struct {
		protocol hostile.Protocol
		do       hostile.Action
		mutation request
	}{
		"reset, Idempotency-Key":         {hostile.HTTP1, hostile.Reset, withBody.keyed("Idempotency-Key")},
		"close, Idempotency-Key":         {hostile.HTTP1, hostile.Close, withBody.keyed("Idempotency-Key")},
		"reset, GET":                     {hostile.HTTP1, hostile.Reset, createDistribution},
		"PROTOCOL_ERROR, with a body":    {hostile.HTTP2, hostile.ResetStream, withBody},
		"PROTOCOL_ERROR, without a body": {hostile.HTTP2, hostile.ResetStream, withoutBody},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, test.protocol, hostile.Step{}, hostile.Step{Perform: true, Do: test.do, Code: 1})
			p.prime(t, p.layer)
			if err := p.send(t, t.Context(), p.layer, operation, test.mutation); err != nil {
				t.Error(err)
			}
			p.wantReused(t)
			if n := p.Effects(operation); n < 2 {
				t.Errorf("performed %d times, want 2 or more:\n%v", n, p.Log())
			}
		})
	}
}
