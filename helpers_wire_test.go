package ampauth_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// Calls over real sockets to a server that does what it should not, and what its
// log says about how they must end.

// A wireKind is a sort of request. The routes are AMP's, so that ClassifyAMP
// decides what it is.
type wireKind struct {
	method, path string
	body         bool
	mutates      bool
}

var wireKinds = []wireKind{
	{"POST", "/assets/issue", true, true},
	{"GET", "/assets/6f0e/register", false, true},
	{"GET", "/assets/6f0e/distributions/create/", false, true},
	{"POST", "/assets/6f0e/burn-request", false, true},
	{"DELETE", "/assets/6f0e/distributions/7/cancel", false, true},
	{"GET", "/assets", false, false},
	{"PUT", "/assets/6f0e/edit", true, false},
}

// A wireCall is a call and what it meets.
type wireCall struct {
	wireKind
	number int
	world  string
	size   int           // of the body
	once   bool          // the body has no GetBody
	key    bool          // the caller sets an Idempotency-Key, which AMP does not know
	leaves time.Duration // after which the caller leaves; 0: it stays
	timed  bool          // by the Timeout of an http.Client

	faults []*wireFault // of the nth arrival at the server; nil or none: all is well
	dials  []*wireFault // of the connections that the nth attempt dials
}

func (c *wireCall) request(ctx context.Context, base string) *http.Request {
	var body io.Reader
	if c.body {
		body = strings.NewReader(strings.Repeat("x", c.size))
		if c.once {
			body = struct{ io.Reader }{body}
		}
	}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, wireKey{}, c), c.method, base+c.path+"?key="+wireQuery, body)
	if err != nil {
		panic(err)
	}
	id := strconv.Itoa(c.number)
	req.Header.Set("X-Operation-Id", id)
	if c.key {
		req.Header.Set("Idempotency-Key", id)
	}
	return req
}

func nthFault(list []*wireFault, n int) *wireFault {
	if n < 1 || n > len(list) {
		return nil
	}
	return list[n-1]
}

// wireGood is what happens when nothing goes wrong.
var wireGood = hostile.Step{Name: "good", Perform: true, Status: 201, Body: `{"id": 7}`}

type wireKey struct{} // of a *wireCall in the context of its request

// wireQuery is part of every URL, and must be of no text.
const wireQuery = "secret-of-the-query"

// A wireWorld is a client, a server, and all that is wrong between them.
type wireWorld struct {
	*ampauth.Client
	protocol hostile.Protocol
	server   *hostile.Server
	pool     *http.Transport   // of the user's, if it is not the client's own
	lower    http.RoundTripper // what a layer sends over: pool, or a ConnTransport over it
	call     func(n int) wireCall
	asked    func(hostile.Exchange) hostile.Step // about a call, by the id "find" and its number
	logins   atomic.Int64
	timed    *ampauth.Client  // the same, with a Timeout
	signer   *httptest.Server // that a layer asks by HTTP

	refusals atomic.Int64 // of dials
	mu       sync.Mutex   // guards traps
	traps    map[*wireFault]*hostile.Server
}

func (w *wireWorld) pass(req *http.Request) (*http.Response, error) { return w.lower.RoundTrip(req) }

// ask has each request signed by HTTP, and dumps it, with its context.
func (w *wireWorld) ask(req *http.Request) (*http.Response, error) {
	dumped := req.Clone(req.Context())
	if _, err := httputil.DumpRequestOut(dumped, false); err != nil {
		return nil, err
	}
	asked, err := http.NewRequestWithContext(req.Context(), "GET", w.signer.URL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := w.signer.Client().Transport.RoundTrip(asked)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	dumped.Body = req.Body
	return w.lower.RoundTrip(dumped)
}

// failOver has a first way that is refused, a second one out of sight of the trace, and
// a third that is refused as well if that fails.
func (w *wireWorld) failOver(req *http.Request) (*http.Response, error) {
	first := req.Clone(req.Context())
	first.Body = http.NoBody
	if resp, err := refusedDial(first); err == nil {
		return resp, nil
	}
	hidden := req.WithContext(context.WithValue(context.Background(), wireKey{}, req.Context().Value(wireKey{})))
	ctx, cancel := context.WithCancel(hidden.Context())
	stop := context.AfterFunc(req.Context(), cancel)
	resp, err := w.lower.RoundTrip(hidden.WithContext(ctx))
	if err != nil {
		defer cancel()
		defer stop()
		return refusedDial(first.WithContext(hidden.Context()))
	}
	resp.Body = &hiddenBody{resp.Body, func() { stop(); cancel() }}
	return resp, nil
}

// end ends everything; the server's log changes no more.
func (w *wireWorld) end() {
	_ = w.Close()
	_ = w.timed.Close()
	if w.signer != nil {
		w.signer.Close()
	}
	if w.pool != nil {
		w.lower.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	}
	w.server.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, trap := range w.traps {
		trap.Close()
	}
}

// step is the script of the server.
func (w *wireWorld) step(x hostile.Exchange) hostile.Step {
	if strings.HasPrefix(x.ID, "find ") {
		return w.asked(x)
	}
	n, err := strconv.Atoi(x.ID)
	if err != nil {
		// A login. Each gives another token, so that a refused one can be replaced.
		token := sha256.Sum256(strconv.AppendInt(nil, w.logins.Add(1), 10))
		return hostile.Step{Name: "login", Header: http.Header{"Content-Type": {"application/json"}}, Body: fmt.Sprintf(`{"token":"%x"}`, token[:20])}
	}
	call := w.call(n)
	f := nthFault(call.faults, x.Attempt)
	if f == nil {
		return wireGood
	}
	step := f.Step
	if step.Do == hostile.GarbageStatus && x.Proto == "HTTP/1.1" {
		step.Body = x.Header.Get("Authorization") + "\r\n\r\n" // which net/http puts into its error
	}
	return step
}

// dial leads a call into the trap that is set for its attempt.
func (w *wireWorld) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if call, ok := ctx.Value(wireKey{}).(*wireCall); ok {
		n, _ := ampauth.AttemptFromContext(ctx)
		if f := nthFault(call.dials, n); f == nil {
		} else if f.refused {
			w.refusals.Add(1)
			address = hostile.ClosedAddr
		} else if f.conn != hostile.UntrustedCertificate || w.protocol != hostile.HTTP1 { // which has none
			address = w.trap(f).Addr()
		}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// trap returns the server that does to every connection what the fault says.
func (w *wireWorld) trap(f *wireFault) *hostile.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.traps[f] == nil {
		w.traps[f] = hostile.New(w.protocol, hostile.Script{}.OnConns(f.conn))
	}
	return w.traps[f]
}

// do makes a call and reads what comes, at most 100 KiB of it.
func (w *wireWorld) do(call wireCall) wireEnd {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if call.leaves > 0 {
		defer time.AfterFunc(call.leaves, func() { cancel(errWireLeft) }).Stop()
	}
	client := w.Client
	if call.timed {
		client = w.timed
	}
	resp, err := client.Do(call.request(ctx, w.server.URL()+"/api"))
	if err != nil {
		return wireEnd{call, 0, err}
	}
	defer resp.Body.Close()
	end := wireEnd{call, resp.StatusCode, nil}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return end // a connection now, which nobody ends
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 100<<10); err != io.EOF {
		end.err = err
	}
	return end
}

// The worlds: what the server speaks, and whether there is a layer that hides from
// the client that its base is an *http.Transport. In the first the client makes its
// transport itself.
var wireWorlds = map[string]struct {
	protocol hostile.Protocol
	own      bool
	layer    func(*wireWorld, *http.Request) (*http.Response, error)
	restless bool // the layer tries again by itself, so that some answers prove nothing
	conns    bool // there is a ConnTransport below the layer
	idle     time.Duration
}{
	"HTTP/1.1":                                 {protocol: hostile.HTTP1, own: true},
	"HTTP/1.1 over TLS":                        {protocol: hostile.HTTP1TLS},
	"HTTP/1.1 over TLS, a connection each":     {protocol: hostile.HTTP1TLS, idle: -1},
	"HTTP/1.1 under a layer, with conns":       {protocol: hostile.HTTP1, layer: (*wireWorld).pass, conns: true},
	"both under a layer that asks, with conns": {protocol: hostile.HTTP2AndHTTP1, layer: (*wireWorld).ask, conns: true},
	"HTTP/1.1 under a layer":                   {protocol: hostile.HTTP1, layer: (*wireWorld).pass},
	"HTTP/1.1 under a layer that asks":         {protocol: hostile.HTTP1, layer: (*wireWorld).ask},
	"HTTP/1.1 under a layer that tries again":  {protocol: hostile.HTTP1, layer: (*wireWorld).failOver, restless: true},
	"both":                           {protocol: hostile.HTTP2AndHTTP1},
	"HTTP/2":                         {protocol: hostile.HTTP2},
	"HTTP/2 under a layer":           {protocol: hostile.HTTP2, layer: (*wireWorld).pass},
	"HTTP/2 under a layer that asks": {protocol: hostile.HTTP2, layer: (*wireWorld).ask},
}

type hiddenBody struct {
	io.ReadCloser
	end func()
}

func (b *hiddenBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// newWireWorld makes the world of that name. call says what its calls meet.
func newWireWorld(t *testing.T, name string, call func(n int) wireCall, change ...func(*ampauth.Config)) *wireWorld {
	t.Helper()
	kind := wireWorlds[name]
	w := &wireWorld{traps: make(map[*wireFault]*hostile.Server), call: call, protocol: kind.protocol}
	w.server = hostile.New(kind.protocol, hostile.Script{Step: w.step})
	cfg := ampauth.Config{
		BaseURL:     w.server.URL() + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(canaryPassword)},
		Retry: ampauth.RetryConfig{
			BaseDelay: time.Millisecond, MaxDelay: 4 * time.Millisecond,
			Timeout: 500 * time.Millisecond, MutationTimeout: 500 * time.Millisecond, Budget: -1,
		},
	}
	if !kind.own {
		w.pool = &http.Transport{
			DialContext: w.dial, TLSClientConfig: w.server.TLSConfig(), ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 100,
		}
		w.lower = w.pool
		if kind.conns {
			w.lower = &ampauth.ConnTransport{Base: w.pool}
		}
		cfg.HTTPClient, cfg.MutationIdle = &http.Client{Transport: w.pool}, kind.idle
		if kind.layer != nil {
			w.signer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "signed") }))
			cfg.HTTPClient.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) { return kind.layer(w, req) })
		}
	}
	for _, f := range change {
		f(&cfg)
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Client = client
	theirs := http.Client{Timeout: wireTimeout}
	if cfg.HTTPClient != nil {
		theirs.Transport = cfg.HTTPClient.Transport
	}
	cfg.HTTPClient = &theirs
	if w.timed, err = ampauth.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// wireTimeout is that of the http.Client of a call that is timed.
const wireTimeout = 300 * time.Millisecond

// A wireEnd is how a call ended.
type wireEnd struct {
	call   wireCall
	status int   // 0: in an error
	err    error // of the call, or of its response's body
}

// verdict returns what is wrong with how a call ended, by the server's log of it.
// It is the promise of the package, and holds whatever went wrong.
func (end *wireEnd) verdict(log []hostile.Entry) string {
	for i, e := range log {
		f := faultNamed(e.Step)
		if end.call.mutates && i < len(log)-1 && (e.Performed || f == nil || !f.unprocessed) {
			return fmt.Sprintf("the mutation was sent again after %q", e.Step)
		}
	}
	if !end.call.mutates && slices.ContainsFunc(log, func(e hostile.Entry) bool { return strings.HasSuffix(e.Path, "/register") }) {
		return "a read was led to a mutation"
	}
	if errors.Is(end.err, context.Canceled) && !errors.Is(end.err, errWireLeft) {
		return "why the caller left is lost"
	}
	effects := effectsOf(log)
	if end.call.mutates && effects > 1 {
		return fmt.Sprintf("performed %d times", effects)
	}
	ours, isOurs := errors.AsType[*ampauth.Error](end.err)
	if end.err != nil && !isOurs {
		return "the error is not ours"
	}
	if isOurs && tells(ours.Error()) != "" {
		return "the error tells " + tells(ours.Error())
	}
	if end.status != 0 {
		return end.verdictOnAnswer(log, effects, ours)
	}
	switch doubtful := errors.Is(ours, ampauth.ErrAmbiguous); {
	case doubtful != (end.call.mutates && ours.Outcome == ampauth.Ambiguous):
		return "ErrAmbiguous is for mutations of which nothing is known, and for all of them"
	case ours.Outcome == ampauth.Answered && !errors.Is(ours, context.Canceled) && !(end.call.timed && ours.Timeout()) && !redirected(log):
		return "there was an answer, and the caller, who stayed, did not get it"
	case !end.call.mutates && end.call.method == "GET":
		// It is not traced, and net/http may have repeated it and not got a connection then.
	case ours.Outcome != ampauth.Ambiguous && ours.Outcome != ampauth.Answered && effects > 0:
		return fmt.Sprintf("the error says %v, yet it was performed", ours.Outcome)
	case ours.Outcome == ampauth.NotSent && len(log) > 0:
		return "the error says NotSent, yet it arrived"
	}
	return ""
}

func (end *wireEnd) verdictOnAnswer(log []hostile.Entry, effects int, bodyErr *ampauth.Error) string {
	came := slices.ContainsFunc(log, func(e hostile.Entry) bool {
		step := wireGood
		if f := faultNamed(e.Step); f != nil {
			step = f.Step
		}
		return statusOf(step) == end.status
	})
	switch {
	case !came:
		return "no such answer was given"
	case bodyErr != nil && bodyErr.Outcome != ampauth.Answered:
		return fmt.Sprintf("the body's error says %v", bodyErr.Outcome)
	case end.call.mutates && end.status/100 == 2 && effects != 1:
		return "success was reported of what was not performed"
	}
	return ""
}

// errWireLeft is why a caller left.
var errWireLeft = errors.New("the caller has something better to do")

// arrived are the requests of a log by their call.
func arrived(log []hostile.Entry, into map[int][]hostile.Entry) {
	for _, e := range log {
		if n, err := strconv.Atoi(e.ID); err == nil {
			into[n] = append(into[n], e)
		}
	}
}

func effectsOf(log []hostile.Entry) (n int) {
	for _, e := range log {
		if e.Performed {
			n++
		}
	}
	return n
}

var tokenShape = regexp.MustCompile(`[0-9a-f]{40}`)

// tells returns which parts of text nobody may read: a token, the password, the query, or
// what a body says.
func tells(text string) string {
	found := leaks(text)
	for _, s := range []string{wireQuery, "not mean well", "sorry", "<html>"} {
		if strings.Contains(text, s) {
			found = append(found, s)
		}
	}
	if tokenShape.MatchString(text) {
		found = append(found, "a token")
	}
	return strings.Join(found, ", ")
}

// redirected reports whether the last answer was a redirect, which http.Client follows: the
// next hop may find no connection.
func redirected(log []hostile.Entry) bool {
	if len(log) == 0 {
		return false
	}
	f := faultNamed(log[len(log)-1].Step)
	return f != nil && f.Status/100 == 3
}

// statusOf is the status that a step answers with, if it gets that far.
func statusOf(step hostile.Step) int {
	if step.Do == hostile.SwitchProtocols {
		return http.StatusSwitchingProtocols
	}
	return max(step.Status, http.StatusOK)
}
