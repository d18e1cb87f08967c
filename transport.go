package ampauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An AuthTransport adds the token to requests that go to its origin, and to no
// others: redirects to another scheme, host or port leave without it. Most
// callers want [NewClient], which stacks it with a [RetryTransport].
//
// A request that already has an Authorization header is passed on as it is, unless
// that holds a token of the Source, when it is a *TokenManager: a generated client that
// was fed from there is renewed like any other. When the API refuses the token (status 401, or 403 with one of the texts of Django
// REST framework for it) a RetryTransport above renews it and sends the request
// again. Without one the renewal is started, nobody waits for it, and the caller
// gets the refusal: the next request has the new token.
//
// Layers between it and the network see the token; layers above never do, since
// the response's Request is the caller's own. It is safe for concurrent use and
// must not be changed or copied once used.
type AuthTransport struct {
	// Base sends the requests. If nil, http.DefaultTransport. If it is an *http.Transport,
	// a [ConnTransport] is put over it. It must not follow
	// redirects by itself, as an http.Client does that is wrapped into a RoundTripper:
	// a token that it took elsewhere is gone. Once that is seen, by the Request of a
	// response, there is an error that Is [ErrConfig], and no token is sent any more.
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
	origin origin
	scheme string
	fault  error

	conns    ConnTransport // over Base, if that is an *http.Transport
	follows  atomic.Bool   // the Base was seen to follow a redirect by itself
	renewing atomic.Bool   // a renewal by a foreign Renewer is under way that nobody waits for
}

var _ http.RoundTripper = (*AuthTransport)(nil)

// RoundTrip implements http.RoundTripper. When there is no token the
// error is an *Error that is NotSent, and the request's body is closed.
func (t *AuthTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(req, attemptOf(req), nil)
}

// An ownRequest is what a RetryTransport right above says of a request: nobody else has
// it, so that no other copy is needed.
type ownRequest struct {
	value  *[1]string // holds the value of the Authorization field
	header headerFacts
}

// roundTrip sends req, which belongs to the attempt a, if any. own may be nil.
func (t *AuthTransport) roundTrip(req *http.Request, a *attempt, own *ownRequest) (*http.Response, error) {
	t.once.Do(t.resolve)
	base := t.base()
	if a != nil && a.report() != nil {
		a.note().report.Store(nil) // a layer between tries again by itself
	}
	switch {
	case t.fault != nil:
		return nil, notSent(req, a, t.fault)
	case a != nil && a.login, req.URL == nil:
		return roundTrip(base, req, a)
	}
	caller := req
	if hasLocationsCredential(req) {
		req = req.WithContext(req.Context())
		req.Header = req.Header.Clone()
		req.Header.Del("Authorization")
	}
	if !t.admits(req) {
		return roundTrip(base, req, a)
	}
	header, theirs := t.withoutAuthorization(req.Header, own)
	if theirs {
		return roundTrip(base, req, a)
	}
	if t.follows.Load() {
		return nil, notSent(req, a, followsRedirects(NotSent))
	}
	token, value, err := t.authorization(req.Context(), a)
	if err == nil {
		err = a.sendsAs(token)
	}
	if err != nil {
		return nil, notSent(req, a, err)
	}

	resp, rtErr := roundTrip(base, authorized(req, header, value, own), a)
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
	t.inspect(resp, token, a)
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

func (t *AuthTransport) base() http.RoundTripper { return t.conns.over(baseOrDefault(t.Base)) }

func (t *AuthTransport) resolve() {
	manager, managed := t.Source.(*TokenManager)
	managed = managed && manager != nil
	t.scheme = t.Scheme
	rule := ""
	switch {
	case t.Source == nil:
		t.fault = configFault("AuthTransport.Source", "", "is required")
		return
	case t.Origin != "":
		t.origin, rule = parseOrigin(t.Origin, t.AllowHTTP)
	case managed:
		t.origin = manager.origin
	default:
		rule = "is required unless Source is a *TokenManager"
	}
	if rule != "" {
		t.fault = configFault("AuthTransport.Origin", "", rule)
	}
	if t.Scheme == "" && managed {
		t.scheme = manager.scheme
	}
	t.scheme = schemeOrDefault(t.scheme)
	if !isWord(t.scheme) {
		t.fault = configFault("AuthTransport.Scheme", "", "is not an authentication scheme")
	}
}

// authorization returns a token and the header value made of it.
func (t *AuthTransport) authorization(ctx context.Context, a *attempt) (Token, string, *Error) {
	token, err := t.token(ctx, a)
	if err == nil {
		var value string
		if value, err = token.Value.authorization(t.scheme); err == nil {
			return token, value, nil
		}
	}
	unsent, ok := err.(*Error)
	if ok {
		copied := *unsent
		unsent = &copied
	} else {
		unsent = noToken(clean(err))
	}
	unsent.Outcome = NotSent // that of the login does not matter here
	unsent.Err = blaming(ctx, unsent.Err)
	return Token{}, "", unsent
}

// token asks the source. A wait for it does not run the attempt's clock.
func (t *AuthTransport) token(ctx context.Context, a *attempt) (token Token, err error) {
	switch source := t.Source.(type) {
	case staticTokenSource:
		return source.Token(ctx)
	case *TokenManager:
		if source == nil {
			break
		}
		if s := source.usable(); s != nil {
			return s.token, nil
		}
	}
	if a != nil {
		a.pause()
		defer a.resume()
		ctx = sourceContext{ctx}
	}
	defer recovered("TokenSource", &err)
	return t.Source.Token(ctx)
}

// recovered turns a panic of somebody else's code into an error. Of the panic's
// value only a runtime error's text is safe to show.
func recovered(who string, err *error) {
	v := recover()
	if v == nil {
		return
	}
	if e, ok := v.(runtime.Error); ok {
		*err = fmt.Errorf("the %s panicked: %w", who, e)
	} else {
		*err = fmt.Errorf("the %s panicked with a %T", who, v)
	}
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

// inspect tells whoever wants to know whether the API accepted the token.
func (t *AuthTransport) inspect(resp *http.Response, token Token, a *attempt) {
	switch {
	case resp.StatusCode < http.StatusMultipleChoices:
		if manager, ok := t.Source.(*TokenManager); ok {
			manager.accepted(token)
		}
	case !refusesToken(resp):
	case a != nil:
		a.note().report.Store(&tokenReport{token: token, auth: t})
	default:
		t.renewSoon(token)
	}
}

// maxRefusal bounds what is read of a 403 to find out what it refuses.
const maxRefusal = 1 << 10

// refusesToken reports whether the API turned the request away for its token.
// The body stays whole. Django REST framework answers 403 instead of 401 when
// its first authenticator names no challenge; then only the text tells.
func refusesToken(resp *http.Response) bool {
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return true
	case resp.StatusCode != http.StatusForbidden,
		resp.ContentLength > maxRefusal, !isJSON(resp.Header):
		return false
	}
	ahead := readAhead(resp.Body, maxRefusal+1, drainTime)
	resp.Body = ahead
	content, ok := ahead.whole()
	var answer struct {
		Detail string `json:"detail"`
	}
	if !ok || json.Unmarshal(content, &answer) != nil {
		return false
	}
	switch answer.Detail {
	case "Authentication credentials were not provided.",
		"Invalid token.",
		"Invalid token header. No credentials provided.",
		"Invalid token header. Token string should not contain spaces.",
		"User inactive or deleted.":
		return true
	}
	return false
}

func isJSON(h http.Header) bool {
	mediaType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "application/json")
}

// renewTime bounds a renewal that nobody waits for.
const renewTime = 30 * time.Second

// renew has a refused token replaced.
func (t *AuthTransport) renew(ctx context.Context, rejected Token) (token Token, err error) {
	renewer, ok := t.Source.(Renewer)
	if !ok {
		return Token{}, noToken(errors.New("the TokenSource cannot renew tokens"))
	}
	defer recovered("Renewer", &err)
	return renewer.Renew(ctx, rejected)
}

// renewSoon has a refused token replaced without waiting for it.
func (t *AuthTransport) renewSoon(rejected Token) {
	if manager, ok := t.Source.(*TokenManager); ok {
		manager.renewSoon(rejected)
		return
	}
	if _, ok := t.Source.(Renewer); !ok || !t.renewing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer t.renewing.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), renewTime)
		defer cancel()
		_, _ = t.renew(ctx, rejected)
	}()
}
