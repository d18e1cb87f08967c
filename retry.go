package ampauth

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
	"github.com/ampauth/ampauth/internal/replay"
)

// A RetryTransport sends a request again when that can help and cannot hurt.
//
// What may be sent again is decided by what the request is (see [Operation]) and
// how far the attempt got (see [Outcome]). NotSent, Unprocessed and status 429: any
// request. Status 408 or 5xx (but 501, 505, 511), a broken connection, an attempt
// that timed out: anything but a mutation. Everything else is returned, and so is the
// last response, with a nil error and its body unread. A mutation whose outcome
// is in doubt ends in an error that Is [ErrAmbiguous]. A token that an
// [AuthTransport] below reports as refused is renewed and the request sent once
// more, if there is another token then. Otherwise the refusal is returned. Its connection
// is given up for the login: of a body that is longer than 256 KiB, or takes more than
// 250 ms, what came is there, and then an error.
//
// Of a mutation that goes over somebody else's layer, the trace of net/http
// (net/http/httptrace) has to prove how far it got. A layer that drops the request's
// context proves nothing: a broken dial is then ErrAmbiguous, and a 421, 425, 429, 401
// or 403 is returned. (It must not send a request out of sight and then once more in
// sight: to the trace that is one.)
//
// A request that net/http would turn away before it sends anything (its method, host,
// header fields) fails at once. A redirect is for http.Client to follow: give it
// [CheckRedirect]. A request that follows from a redirect of a mutation is an error.
// Where http.Client has a Timeout, an attempt at a mutation ends a little earlier (2 %
// of the time that is left, at least 5 ms and at most 100 ms), so that its error comes
// before the text of http.Client.
//
// A body is replayed by GetBody only; http.NewRequest sets it for bytes and
// strings. Without it there is one attempt, unless nothing was read of the body.
//
// Waits are drawn from an exponential backoff with full jitter. A Retry-After
// (of 429 and 503) is never waited less; one that is above the cap, or beyond the
// deadline of the request's context, gives the response back at once. A 429 with
// a Retry-After holds all requests to that host back, a 503 retries only.
//
// The zero value works. A RetryTransport starts no goroutine that outlives a call
// and its response's body, is safe for concurrent use, and must not be changed or
// copied once used.
// Of two that are stacked, the inner one steps aside. The layers in between must
// leave method, scheme, host and path alone: to a layer below, another request is
// one of its own, to be tried and renewed by itself.
type RetryTransport struct {
	// Base makes the attempts. If nil, http.DefaultTransport. If it is an
	// *http.Transport, a [ConnTransport] is put over it.
	Base http.RoundTripper

	// Retry shapes the attempts. Zero fields take the defaults.
	Retry RetryConfig

	// Limiter is asked once before each attempt, after the backoff and before the
	// attempt's clock starts, and once more if an AuthTransport then had to wait for
	// a token. If its Wait fails, the last response is returned, and without one an
	// error that Is [ErrRateLimited]. If nil, there is no limit.
	Limiter Limiter

	// Classify says what a request is. If nil, ClassifyAMP.
	Classify func(*http.Request) Operation

	// Logger gets a debug record for each attempt, and a warning when attempts are
	// exhausted or a mutation is in doubt. If nil, nothing is logged.
	Logger *slog.Logger

	// OnEvent is told of requests that are sent again, of those that end in doubt, and of
	// those that are given up. See [Event]. If nil, nobody is told.
	OnEvent func(context.Context, Event)

	once   sync.Once // sets what follows
	config RetryConfig
	fault  error

	queue    *queue // for the Limiter; nil if there is none
	gates    pace.Gates
	budget   pace.Budget
	conns    ConnTransport // over Base, if that is an *http.Transport
	counters counters
	states   uint32        // of its attempts: stateLogin if it sends those of a TokenManager
	timeout  time.Duration // of the http.Client above, if that was taken over
}

var _ http.RoundTripper = (*RetryTransport)(nil)

// RoundTrip implements http.RoundTripper. Its own errors are *Error.
func (t *RetryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if a := attemptOf(req); a != nil {
		return send(t.base(), req, a) // a RetryTransport above is at work
	}
	c := call{t: t, req: req, ctx: ctx, bodies: replay.NewSource(req), earlier: NotSent}
	w := witnessOf(ctx)
	if w == nil {
		return c.roundTrip()
	}
	w.began()
	resp, err := c.roundTrip()
	w.ended(c.ended(resp, err), c.operation)
	return resp, err
}

// Stats returns what happened so far, but for what a [TokenManager] below did.
func (t *RetryTransport) Stats() Stats {
	var s Stats
	t.counters.addTo(&s)
	return s
}

// CloseIdleConnections forwards to the base.
func (t *RetryTransport) CloseIdleConnections() { closeIdleConnections(t.base()) }

func (t *RetryTransport) resolve() {
	t.config = t.Retry.resolved()
	t.fault = t.Retry.Validate()
	t.queue = queueFor(t.Limiter, &t.counters)
}

func (t *RetryTransport) base() http.RoundTripper { return t.conns.wrap(baseOrDefault(t.Base)) }

func (t *RetryTransport) logs(ctx context.Context, level slog.Level) bool {
	return t.Logger != nil && t.Logger.Enabled(ctx, level)
}

// A hiddenTransport is a RetryTransport that no printer gets into: the buffers of
// net/http, in which a password or token was sent, are behind it.
type hiddenTransport struct{ retry func() *RetryTransport }

func hideTransport(t *RetryTransport) hiddenTransport {
	return hiddenTransport{func() *RetryTransport { return t }}
}

// RoundTrip implements http.RoundTripper.
func (h hiddenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return h.retry().RoundTrip(req)
}

// CloseIdleConnections is for http.Client's.
func (h hiddenTransport) CloseIdleConnections() { h.retry().CloseIdleConnections() }
