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

// faultNamed returns the fault of that name, or nil.
func faultNamed(name string) *wireFault {
	for i := range wireFaults {
		if wireFaults[i].Name == name {
			return &wireFaults[i]
		}
	}
	return nil
}

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

// tells returns what of text nobody may read: a token, the password, the query, or
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

// A wireFault is one thing that goes wrong, with a connection or with a request.
type wireFault struct {
	hostile.Step // its Name is the fault's

	conn        hostile.ConnAction
	refused     bool // the dial
	http2       bool // there is no such thing over HTTP/1.1
	unprocessed bool // the client learns that nothing was done, and may send a mutation again
}

func (f *wireFault) ofConnection() bool { return f.conn != hostile.Serve || f.refused }

// times are those that an attempt gets, one after the other until it ends as it
// must. A fault that only a clock ends needs a short one. If that was too short for
// what else there is to do, on a busy machine, the next will not be.
func (f *wireFault) times() []time.Duration {
	switch {
	case f.conn == hostile.StallInHandshake, f.Do == hostile.StallHeaders, f.Do == hostile.StallBody, f.Delay > 0:
		return []time.Duration{300 * time.Millisecond, 3 * time.Second, 30 * time.Second}
	case f.Status == http.StatusForbidden: // whose text has a quarter of a second to come
		return []time.Duration{time.Minute, time.Minute, time.Minute}
	}
	return []time.Duration{time.Minute}
}

// want is the table of outcome and operation, told by faults.
func (f *wireFault) want(call *wireCall, http2 bool) wireWant {
	mutates := call.mutates
	success := wireWant{status: wireGood.Status, requests: 1, effects: 1}
	again := wireWant{status: wireGood.Status, requests: 2, effects: 1}
	performed := 0
	if f.Perform {
		performed = 1
	}
	answered := wireWant{status: statusOf(f.Step), requests: 1, effects: performed}
	unknown := wireWant{outcome: ampauth.Ambiguous, requests: 1, effects: performed}
	if !mutates {
		unknown = again // what is not known does not matter
	}
	switch {
	case f.conn == hostile.UntrustedCertificate:
		return wireWant{outcome: ampauth.NotSent}
	case f.ofConnection():
		return success
	case f.unprocessed && f.http2:
		// net/http does not say that it was not processed once the body cannot be made anew.
		return unknown
	case f.unprocessed:
		return again
	case !mutates && (f.Status == 307 || f.Status == 303 && call.method == "GET"):
		return success // it is followed
	}
	switch f.Do {
	case hostile.CutBody, hostile.TruncatedChunk, hostile.StallBody:
		answered.broken = true
		fallthrough
	case hostile.Answer, hostile.AnswerThenClose, hostile.GoAway, hostile.EndlessBody:
		transient := slices.Contains([]int{408, 500, 502, 503, 504}, f.Status)
		if f.Delay > 0 || transient && !mutates {
			return unknown
		}
		return answered
	case hostile.SwitchProtocols:
		if !http2 {
			return answered
		}
	}
	return unknown
}

// A wireWant is how a call with a single fault must end.
type wireWant struct {
	status  int             // 0: in an error with
	outcome ampauth.Outcome // for a mutation that is Ambiguous, it also Is ErrAmbiguous
	broken  bool            // the response's body ends in an error

	requests int // that arrive, if it is a mutation
	effects  int
}

// Error codes of HTTP/2 (RFC 9113 7).
const (
	protocolError = 0x1
	internalError = 0x2
	refusedStream = 0x7
	cancelStream  = 0x8
)

var wireFaults = func() []wireFault {
	drf := http.Header{"Content-Type": {"application/json"}}
	all := []wireFault{
		{Step: hostile.Step{Name: "dial refused"}, refused: true},
		{Step: hostile.Step{Name: "reset at accept"}, conn: hostile.ResetAtAccept},
		{Step: hostile.Step{Name: "close at accept"}, conn: hostile.CloseAtAccept},
		{Step: hostile.Step{Name: "reset in the handshake"}, conn: hostile.ResetInHandshake},
		{Step: hostile.Step{Name: "close in the handshake"}, conn: hostile.CloseInHandshake},
		{Step: hostile.Step{Name: "garbage in the handshake"}, conn: hostile.GarbageInHandshake},
		{Step: hostile.Step{Name: "stall in the handshake"}, conn: hostile.StallInHandshake},
		{Step: hostile.Step{Name: "untrusted certificate"}, conn: hostile.UntrustedCertificate},

		{Step: hostile.Step{Name: "429", Status: 429}, unprocessed: true},
		{Step: hostile.Step{Name: "429 with Retry-After 0", Status: 429, Header: http.Header{"Retry-After": {"0"}}}, unprocessed: true},
		{Step: hostile.Step{Name: "401", Status: 401, Header: http.Header{"Www-Authenticate": {"Token"}}}, unprocessed: true},
		{Step: hostile.Step{Name: "403 for the token", Status: 403, Header: drf, Body: `{"detail":"Invalid token."}`}, unprocessed: true},
		{Step: hostile.Step{Name: "421", Status: 421}, unprocessed: true},
		{Step: hostile.Step{Name: "425", Status: 425}, unprocessed: true},
		{Step: hostile.Step{Name: "400", Status: 400, Body: "no"}},
		{Step: hostile.Step{Name: "503 while the upload is read", Status: 503, Upload: hostile.ReadAfter}},
		{Step: hostile.Step{Name: "503 while the upload is read slowly", Status: 503, Upload: hostile.ReadSlowly}},
		{Step: hostile.Step{Name: "503 while the upload is not read", Status: 503, Upload: hostile.ReadNever, Close: true}},

		{Step: hostile.Step{Name: "307 to itself", Status: 307, Header: http.Header{"Location": {"?again"}}}},
		{Step: hostile.Step{Name: "307 to itself, performed", Status: 307, Header: http.Header{"Location": {"?again"}}, Perform: true}},
		{Step: hostile.Step{Name: "303 to itself, performed", Status: 303, Header: http.Header{"Location": {"?again"}}, Perform: true}},
		{Step: hostile.Step{Name: "302 to a mutation", Status: 302, Header: http.Header{"Location": {"/api/assets/6f0e%2Fregister"}}}},
		{Step: hostile.Step{Name: "103 before the answer", Informational: []int{103}, Perform: true, Status: 201}},
		{Step: hostile.Step{Name: "101", Do: hostile.SwitchProtocols}},
		{Step: hostile.Step{Name: "close behind the answer", Do: hostile.AnswerThenClose, Perform: true, Body: "done"}},
		{Step: hostile.Step{Name: "reset in the body", Do: hostile.CutBody, Perform: true, Reset: true}},
		{Step: hostile.Step{Name: "close in the body", Do: hostile.CutBody, Perform: true}},
		{Step: hostile.Step{Name: "chunk cut", Do: hostile.TruncatedChunk, Perform: true}},
		{Step: hostile.Step{Name: "body stalls", Do: hostile.StallBody, Perform: true}},
		{Step: hostile.Step{Name: "503 whose body stalls", Do: hostile.StallBody, Status: 503}},
		{Step: hostile.Step{Name: "body without an end", Do: hostile.EndlessBody, Perform: true, Pace: time.Millisecond}},

		{Step: hostile.Step{Name: "REFUSED_STREAM", Do: hostile.ResetStream, Code: refusedStream}, http2: true, unprocessed: true},
		// A later stream that was performed keeps it from disowning this one: then the 503 follows.
		{Step: hostile.Step{Name: "GOAWAY that disowns it", Do: hostile.GoAway, Last: hostile.LastPrevious, Status: 503}, http2: true, unprocessed: true},
		{Step: hostile.Step{Name: "GOAWAY that disowns it, and close", Do: hostile.GoAwayThenClose, Last: hostile.LastPrevious}, http2: true, unprocessed: true},
		{Step: hostile.Step{Name: "GOAWAY that covers it", Do: hostile.GoAway, Perform: true, Status: 201}, http2: true},
		{Step: hostile.Step{Name: "stream reset in the body", Do: hostile.CutBody, Perform: true, Code: internalError}, http2: true},
	}
	// These come before the operation is performed, and after.
	for _, fault := range []wireFault{
		{Step: hostile.Step{Name: "reset", Do: hostile.Reset}},
		{Step: hostile.Step{Name: "close", Do: hostile.Close}},
		{Step: hostile.Step{Name: "header cut", Do: hostile.CutHeaders}},
		{Step: hostile.Step{Name: "header stalls", Do: hostile.StallHeaders}},
		{Step: hostile.Step{Name: "garbage for a status", Do: hostile.GarbageStatus}},
		{Step: hostile.Step{Name: "answer too late", Delay: time.Hour}},
		{Step: hostile.Step{Name: "408", Status: 408}},
		{Step: hostile.Step{Name: "500", Status: 500, Body: "sorry"}},
		{Step: hostile.Step{Name: "502", Status: 502, Body: "<html>"}},
		{Step: hostile.Step{Name: "503 with Retry-After 0", Status: 503, Header: http.Header{"Retry-After": {"0"}}}},
		{Step: hostile.Step{Name: "504", Status: 504}},
		{Step: hostile.Step{Name: "PROTOCOL_ERROR", Do: hostile.ResetStream, Code: protocolError}, http2: true},
		{Step: hostile.Step{Name: "INTERNAL_ERROR", Do: hostile.ResetStream, Code: internalError}, http2: true},
		{Step: hostile.Step{Name: "CANCEL", Do: hostile.ResetStream, Code: cancelStream}, http2: true},
		{Step: hostile.Step{Name: "GOAWAY that covers it, and close", Do: hostile.GoAwayThenClose}, http2: true},
	} {
		before, after := fault, fault
		before.Name += ", not performed"
		after.Name += ", performed"
		after.Perform = true
		all = append(all, before, after)
	}
	return all
}()
