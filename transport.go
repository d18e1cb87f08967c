package ampauth

import (
	"cmp"
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/sendable"
)

// An AuthTransport adds the token to requests that go to its origin, and to no
// others: redirects to another scheme, host or port leave without it. Most
// callers want [NewClient], which stacks it with a [RetryTransport].
//
// A request that already has an Authorization header is passed on as it is, unless
// that holds a token of the Source, when it is a *TokenManager: a generated client that
// was fed from there is renewed like any other. When the API refuses the token (status
// 401, or 403 with one of the texts of Django REST framework for it) a RetryTransport
// above renews it and sends the request again. Without one the renewal is started, nobody
// waits for it, and the caller gets the refusal: the next request has the new token.
//
// Those texts are English. A server that speaks another language (by its LANGUAGE_CODE, or
// by an Accept-Language of the caller's) says otherwise: a 403 of its counts as an answer
// like any other and is returned as it is, with nothing renewed. A 401 needs no text.
//
// Layers between it and the network see the token; layers above never do, since
// the response's Request is the caller's own. It is safe for concurrent use and
// must not be changed or copied once used.
type AuthTransport struct {
	// Base sends the requests. If nil, http.DefaultTransport. If it is an *http.Transport,
	// a [ConnTransport] is put over it. It must not follow redirects by itself, as an
	// http.Client in the form of a RoundTripper does: the token goes along to wherever
	// they lead. Once a response shows that, by its Request, there is an error that Is
	// [ErrConfig], and no token is sent any more.
	Base http.RoundTripper

	// Source yields the tokens. Required. If it is a Renewer, refused tokens are
	// replaced.
	Source TokenSource

	// Origin is the only scheme, host and port that gets the token, as a URL,
	// whose path does not matter. If empty, that of Source, when it is a
	// *TokenManager; otherwise it is required.
	Origin string

	// Scheme is the word before the token. If empty, that of Source, when it is a
	// *TokenManager, otherwise "token".
	Scheme string

	// AllowHTTP permits an Origin of plain http that is not loopback.
	AllowHTTP bool

	once   sync.Once // sets what follows
	source source
	origin origin.Origin
	scheme string
	fault  error

	conns   ConnTransport // over Base, if that is an *http.Transport
	follows atomic.Bool   // the Base was seen to follow a redirect by itself
}

var _ http.RoundTripper = (*AuthTransport)(nil)

// RoundTrip implements http.RoundTripper. When there is no token the
// error is an *Error that is NotSent, and the request's body is closed.
func (t *AuthTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(req, attemptOf(req))
}

// roundTrip sends req, which belongs to the attempt a, if any.
func (t *AuthTransport) roundTrip(req *http.Request, a *attempt) (*http.Response, error) {
	t.once.Do(t.resolve)
	base := t.base()
	if a != nil && a.report() != nil {
		a.note().report.Store(nil) // a layer between tries again by itself
	}
	switch {
	case t.fault != nil:
		return nil, notSent(req, a, t.fault)
	case a != nil && a.is(stateLogin), req.URL == nil:
		return send(base, req, a)
	}
	caller, alone := req, a.alone(req)
	if hasLocationsCredential(req) {
		req = req.WithContext(req.Context())
		req.Header = req.Header.Clone()
		req.Header.Del("Authorization")
		alone = nil
	}
	if !t.admits(req) {
		return send(base, req, a)
	}
	header, theirs := t.withoutAuthorization(req.Header, alone)
	if theirs {
		return send(base, req, a)
	}
	if t.follows.Load() {
		return nil, notSent(req, a, followsRedirects(NotSent))
	}
	token, value, err := t.authorization(req, a)
	if err == nil {
		err = a.sendsAs(token)
	}
	if err != nil {
		return nil, notSent(req, a, err)
	}

	resp, rtErr := send(base, authorized(req, header, value, alone), a)
	switch {
	case rtErr != nil:
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close()
		}
		return nil, t.withoutToken(rtErr, token)
	case resp == nil:
		return nil, &Error{Op: "request", Kind: ErrRequestFailed, Err: errNoResponse}
	case resp.Body == nil:
		resp.Body = http.NoBody
	}
	a.checkAnswer(resp)
	if followedBelow(resp, req) != nil {
		t.follows.Store(true)
		_ = resp.Body.Close()
		return nil, followsRedirects(Ambiguous)
	}
	resp.Request = caller
	t.inspect(caller, resp, token, a)
	if a == nil { // otherwise the RetryTransport above does so
		hideInside(resp)
	}
	return resp, nil
}

func followsRedirects(outcome Outcome) *Error {
	return &Error{Op: "request", Kind: ErrConfig, Outcome: outcome, Err: errFollowsRedirects}
}

// CloseIdleConnections forwards to the base.
func (t *AuthTransport) CloseIdleConnections() { closeIdleConnections(t.base()) }

func (t *AuthTransport) base() http.RoundTripper { return t.conns.wrap(baseOrDefault(t.Base)) }

// defaultScheme is the scheme word of AMP 1.
const defaultScheme = "token"

func (t *AuthTransport) resolve() {
	if t.Source == nil {
		t.fault = configFault("AuthTransport.Source", "", "is required")
		return
	}
	t.source = sourceOf(t.Source)
	home, scheme := t.source.home()
	rule := ""
	switch {
	case t.Origin != "":
		t.origin, rule = origin.Parse(t.Origin, t.AllowHTTP)
	case home != nil:
		t.origin = *home
	default:
		rule = "is required unless Source is a *TokenManager that NewTokenManager or NewClient made"
	}
	if rule != "" {
		t.fault = configFault("AuthTransport.Origin", "", rule)
	}
	t.scheme = cmp.Or(t.Scheme, scheme, defaultScheme)
	if !sendable.IsWord(t.scheme) {
		t.fault = configFault("AuthTransport.Scheme", "", "is not an authentication scheme")
	}
}

// authorization returns a token and the header value made of it.
func (t *AuthTransport) authorization(req *http.Request, a *attempt) (Token, string, *Error) {
	token, err := t.token(req, a)
	if err == nil {
		var value string
		if value, err = token.Value.authorization(t.scheme); err == nil {
			return token, value, nil
		}
	}
	unsent, ok := err.(*Error)
	if ok {
		copied := *unsent
		if copied.Kind == ErrAmbiguous { // a login of the source's own, not the request
			copied.Kind = ErrObtainFailed
		}
		unsent = &copied
	} else {
		unsent = noToken(clean(err))
	}
	unsent.Outcome, unsent.withheld = NotSent, true // that of the login does not matter here
	unsent.Err = withEnd(req.Context(), unsent.Err)
	return Token{}, "", unsent
}

// token asks the source. A wait for it does not run the attempt's clock, and ends in the
// queue of the limiter: those who waited for a login do not leave all at once.
func (t *AuthTransport) token(req *http.Request, a *attempt) (Token, error) {
	if token, ok := t.source.ready(); ok {
		return token, nil
	}
	ctx := unseen(req.Context())
	if a != nil {
		a.stopClock()
		defer a.startClock()
		ctx = sourceContext{ctx}
	}
	began := time.Now()
	token, err := t.source.Token(ctx)
	queue := a.queue()
	if err != nil || queue == nil || time.Since(began) < leastWait {
		return token, err
	}
	if limited := waitWith(ctx, queue, req.Body); limited != nil {
		return Token{}, limited
	}
	if home, _ := t.source.home(); home != nil || token.IsExpired() {
		return t.source.Token(ctx) // meanwhile it may have ended; a manager knows at no cost
	}
	return token, nil
}

// waitWith waits in the queue. If that panics, the request's body is closed.
func waitWith(ctx context.Context, q *queue, body io.Closer) *Error {
	returned := false
	defer func() {
		if !returned && body != nil {
			_ = body.Close()
		}
	}()
	limited := q.wait(ctx)
	returned = true
	return limited
}

// notSent ends a request that cannot have a token. A RetryTransport above takes
// that for final, so that layers do not multiply logins.
func notSent(req *http.Request, a *attempt, err error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	if a != nil {
		a.note().report.Store(&tokenReport{none: err})
	}
	return err
}

// withoutToken hides the text of an error that shows the token, as that of a server
// which echoes headers in its status line. What quotes it may have escaped it.
func (t *AuthTransport) withoutToken(err error, token Token) error {
	shows := false
	_ = token.Value.Expose(func(b []byte) error {
		text, raw := err.Error(), string(b)
		quoted := strconv.Quote(raw)
		encoded, _ := json.Marshal(raw) // of a string it cannot fail
		for _, form := range []string{
			raw, quoted[1 : len(quoted)-1], string(encoded[1 : len(encoded)-1]),
			url.QueryEscape(raw), url.PathEscape(raw), html.EscapeString(raw),
		} {
			shows = shows || strings.Contains(text, form)
		}
		return nil
	})
	if shows {
		return hidden("error that shows the token", err)
	}
	return err
}
