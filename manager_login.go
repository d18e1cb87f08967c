package ampauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ampauth/ampauth/internal/replay"
	"github.com/ampauth/ampauth/internal/retryafter"
)

var (
	errLoginProxied     = errors.New("the refusal is not JSON, so it is hardly AMP's: a proxy may have sent it")
	errNoRefresh        = errors.New("there is no refresh there: check RefreshMethod and RefreshPath")
	errUnexpectedStatus = errors.New("unexpected status: check BaseURL (" + envBaseURL + ")")
	errAnswerNotJSON    = errors.New("the answer is not a JSON object with a token: check BaseURL (" + envBaseURL + ")")
)

// refusals are what status 400, 401 or 403 means: in AMP's words, which are JSON, or
// in those of something on the way; and 404 or 405 in AMP's.
type refusals struct{ byAPI, byProxy, absent error }

var (
	loginRefusals = refusals{
		byAPI:   ErrCredentialsRefused,
		byProxy: errLoginProxied,
	}
	refreshRefusals = refusals{
		byAPI:   errors.New("the token was refused"),
		byProxy: errors.New("the refusal is not JSON: a proxy may have sent it"),
		absent:  errNoRefresh,
	}
)

// obtain logs in.
func (m *TokenManager) obtain(f *flight) (Secret, *Error) {
	began := time.Now()
	value, err := Retry(f.ctx, m.attempts(m.loginAttempts(f)), func(ctx context.Context) (Secret, error) {
		f.attempts.Add(1)
		req, err := m.obtainRequest(ctx, f.epoch.credentials)
		return m.exchange(req, err, loginRefusals)
	})
	if err != nil {
		e := tokenError("obtain", ErrObtainFailed, err)
		e.where = m.account.obtainCall()
		m.report(f, EventObtain, "ampauth: login failed", time.Since(began), e)
		return Secret{}, e
	}
	m.report(f, EventObtain, "ampauth: logged in", time.Since(began), nil)
	return value, nil
}

// refresh exchanges the token. It ends the old one, so it is sent once. A doubtful end
// goes on to obtain, which is how one finds out here: it returns the token that there is,
// the new one if the refresh was performed, and the old one if not. So Once is not needed.
func (m *TokenManager) refresh(f *flight, token Token) (Secret, *Error) {
	began := time.Now()
	value, err := Retry(WithOperation(f.ctx, MutatingOperation), m.attempts(1), func(ctx context.Context) (Secret, error) {
		req, err := m.refreshRequest(ctx, token)
		return m.exchange(req, err, refreshRefusals)
	})
	if err != nil {
		e := tokenError("refresh", ErrRefreshFailed, err)
		e.where = m.account.refreshCall()
		if errors.Is(e, errNoRefresh) {
			m.mu.Lock()
			f.epoch.renewal.NoRefresh(time.Now())
			m.mu.Unlock()
		}
		m.report(f, EventRefresh, "ampauth: refresh failed, logging in instead", time.Since(began), e)
		return Secret{}, e
	}
	m.report(f, EventRefresh, "ampauth: token refreshed", time.Since(began), nil)
	return value, nil
}

// loginAttempts is how many attempts a login has: one while logins fail.
func (m *TokenManager) loginAttempts(f *flight) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f.epoch.renewal.Attempts(m.account.retry.MaxAttempts)
}

// attempts is the configuration for at most n attempts, each of which has its
// clock below.
func (m *TokenManager) attempts(n int) RetryConfig {
	c := m.account.retry.WithTimeout(-1)
	c.MaxAttempts = n
	return c
}

// tokenError names the call whose last attempt failed.
func tokenError(op string, kind, err error) *Error {
	if t, ok := err.(transient); ok {
		err = t.error
	}
	e := &Error{Op: op, Kind: kind, Err: err}
	if last, ok := errors.AsType[*Error](err); ok {
		e.Outcome, e.StatusCode, e.RetryAfter = last.Outcome, last.StatusCode, last.RetryAfter
		e.Attempts, e.Limit = max(last.Attempts, 1), last.Limit
		if direct, ok := err.(*Error); ok {
			said := *direct // once is enough in one message
			said.Attempts = 0
			if said.Kind == ErrAmbiguous { // a refresh, which the login settles
				said.Kind = ErrRequestFailed
			}
			e.Err = &said
		}
	}
	return e
}

// report tells, counts and logs how a call ended, unless its flight was over by then: if its
// epoch is, that says nothing of the server, and if its time is, it was told already.
func (m *TokenManager) report(f *flight, name EventName, message string, elapsed time.Duration, e *Error) {
	select {
	case <-f.epoch.ctx.Done():
		return
	case <-f.landed:
		return
	default:
	}
	m.raiseEnd(f, name, elapsed, e)
	switch {
	case e == nil:
		m.log.InfoContext(f.ctx, message, "outcome", "ok", "elapsed", elapsed)
		return
	case errors.Is(e, ErrCredentialsRefused):
		message = "ampauth: the credentials were refused"
	}
	m.log.WarnContext(f.ctx, message, m.account.logged(e, elapsed)...)
}

// logged are the attributes of a log record about a login or refresh that failed.
func (a *account) logged(e *Error, elapsed time.Duration) []any {
	method, path := http.MethodPost, a.obtainPath
	if e.Op == "refresh" {
		method, path = a.refreshMethod, a.refreshPath
	}
	u, err := url.Parse(a.baseURL + path)
	if err != nil {
		u = new(url.URL) // the entrance has looked at both
	}
	return append(logged(method, u, e.Outcome, e.StatusCode, e), "attempts", e.Attempts, "elapsed", elapsed)
}

// obtainRequest makes the login request (AMP: POST /user/obtain_token).
func (m *TokenManager) obtainRequest(ctx context.Context, c Credentials) (*http.Request, error) {
	req, err := m.tokenRequest(WithOperation(ctx, SafeOperation), http.MethodPost, m.account.obtainPath)
	if err != nil {
		return nil, err
	}
	body, err := newLoginBody(c)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Body, req.ContentLength = body, int64(len(body.content))
	req.GetBody = func() (io.ReadCloser, error) { return newLoginBody(c) }
	return req, nil
}

// refreshRequest makes the refresh request (AMP changelog 0.1.5: GET /user/refresh-token).
func (m *TokenManager) refreshRequest(ctx context.Context, token Token) (*http.Request, error) {
	req, err := m.tokenRequest(ctx, m.account.refreshMethod, m.account.refreshPath)
	if err != nil {
		return nil, err
	}
	value, err := token.Value.authorization(m.account.scheme)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", value)
	return req, nil
}

func (m *TokenManager) tokenRequest(ctx context.Context, method, path string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.account.baseURL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity") // keeps the limit on the answer an honest one
	return req, nil
}

// exchange sends one request for a token, straight to the layers below: they
// follow no redirect and know no cookies.
func (m *TokenManager) exchange(req *http.Request, err error, refused refusals) (Secret, error) {
	if err != nil {
		return Secret{}, err
	}
	resp, err := m.wire.RoundTrip(req)
	if err != nil {
		return Secret{}, transient{err}
	}
	defer resp.Body.Close()
	if code := resp.StatusCode; code != http.StatusOK && code != http.StatusCreated {
		e := statusError(resp)
		switch {
		case refusesCredentials(code):
			e.Err = refused.of(resp)
		case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
			if refused.absent != nil && saysJSON(resp.Header) {
				e.Err = refused.absent
			}
		}
		replay.Discard(resp.Body, replay.DrainTime, nil)
		return Secret{}, e
	}
	return readToken(resp)
}

// statusError is the error that a status other than 200 and 201 stands for. What a
// refusal of the credentials means, the body tells.
func statusError(resp *http.Response) *Error {
	e := &Error{Op: "request", Kind: ErrRequestFailed, Outcome: Answered, StatusCode: resp.StatusCode}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		e.RetryAfter, _ = retryafter.Parse(resp.Header, time.Now())
		if code == http.StatusTooManyRequests {
			e.Kind, e.Outcome = ErrRateLimited, Rejected
		}
	case transientStatus(code), refusesCredentials(code):
	case code >= 300 && code < 400:
		e.Err = redirected(resp)
	default:
		e.Err = errUnexpectedStatus
	}
	return e
}

// redirected is the error of a login that is redirected, and to which host.
func redirected(resp *http.Response) error {
	to := ""
	if u, err := resp.Location(); err == nil && (u.Scheme == "https" || u.Scheme == "http") && isPlain(u.Host) {
		to = " to " + u.Scheme + "://" + u.Host
	}
	return errors.New("the call is redirected" + to + ", which is not followed: check BaseURL (" + envBaseURL + ")")
}

// isPlain reports whether a host that somebody else has written can be shown.
func isPlain(host string) bool {
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]", r)
	})
}

// refusesCredentials reports whether AMP answers so to credentials, or a token, that
// it does not accept.
func refusesCredentials(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// of tells who refuses. AMP's body is JSON, of whatever type, and says so (RFC 6839
// for +json).
func (r refusals) of(resp *http.Response) error {
	if !saysJSON(resp.Header) {
		return transient{r.byProxy}
	}
	buffer := make([]byte, maxLoginAnswer+1)
	defer clear(buffer) // it may repeat what was sent
	n, fault, err := readAnswer(resp, buffer)
	switch {
	case err != nil:
		return transient{clean(err)}
	case fault == errAnswerTooLarge: // AMP's is not
		return transient{&sequence{r.byProxy, ": ", fault}}
	case fault != nil:
		return fault
	case !json.Valid(buffer[:n]):
		return transient{r.byProxy}
	}
	return r.byAPI
}

// shownType is a media type that somebody else has written, if it is one that can be no
// token or password: of a registered kind, and no longer than those that are met.
func shownType(mediaType string) string {
	const longest = 24 // application/octet-stream
	kind, _, found := strings.Cut(mediaType, "/")
	if found && len(mediaType) <= longest && slices.Contains([]string{"application", "audio", "image", "multipart", "text", "video"}, kind) {
		return mediaType
	}
	return "something unknown"
}

func saysJSON(h http.Header) bool {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}

// readToken reads {"token": "..."} and wipes what it read. Errors of the decoder
// are not passed on: they quote what they could not read.
func readToken(resp *http.Response) (Secret, error) {
	fault := func(err error) (Secret, error) {
		return Secret{}, &Error{Op: "request", Kind: ErrSerialization, Outcome: Answered, StatusCode: resp.StatusCode, Err: err}
	}
	buffer := make([]byte, maxLoginAnswer+1)
	defer clear(buffer)
	n, wrong, err := readAnswer(resp, buffer)
	if err != nil {
		return Secret{}, transient{clean(err)}
	}
	if wrong != nil {
		return fault(wrong)
	}
	var answer struct {
		Token tokenText `json:"token"`
	}
	defer func() { clear(answer.Token) }()
	if json.Unmarshal(buffer[:n], &answer) != nil || answer.Token == nil {
		if mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && !saysJSON(resp.Header) {
			return fault(fmt.Errorf("the answer is %s, not JSON: check BaseURL (%s)", shownType(mediaType), envBaseURL))
		}
		return fault(errAnswerNotJSON)
	}
	if !headerSafe(answer.Token) {
		return fault(errTokenShape)
	}
	return NewSecret(answer.Token), nil
}

// tokenText is a JSON string, decoded into bytes that can be wiped.
type tokenText []byte

// UnmarshalJSON implements json.Unmarshaler.
func (t *tokenText) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return errAnswerNotJSON
	}
	if bytes.IndexByte(b, '\\') >= 0 { // no real token needs an escape; a string copy is left behind
		var s string
		err := json.Unmarshal(b, &s)
		*t = tokenText(s)
		return err
	}
	*t = append(tokenText{}, b[1:len(b)-1]...)
	return nil
}

// A loginBody is the JSON of a login request. Its buffer, which holds the
// password, is wiped when it is closed.
type loginBody struct {
	mu      sync.Mutex // guards all below: net/http may still read when it closes
	content []byte
	offset  int
	closed  bool
}

func newLoginBody(c Credentials) (*loginBody, error) {
	body := new(loginBody)
	err := c.Password.Expose(func(password []byte) error {
		// As large as it can get, so that no append leaves a copy behind.
		const escaped = 6
		b := make([]byte, 0, escaped*(len(c.Username)+len(password))+len(`{"username":"","password":""}`))
		b = append(b, `{"username":"`...)
		b = appendEscaped(b, []byte(c.Username))
		b = append(b, `","password":"`...)
		b = appendEscaped(b, password)
		body.content = append(b, `"}`...)
		return nil
	})
	if err != nil {
		return nil, configFault("Credentials.Password", "", "was destroyed")
	}
	return body, nil
}

// appendEscaped appends valid UTF-8 as the inside of a JSON string (RFC 8259 7).
func appendEscaped(b, text []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		default:
			b = append(b, c)
		}
	}
	return b
}

func (l *loginBody) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if l.offset == len(l.content) {
		return 0, io.EOF
	}
	n := copy(p, l.content[l.offset:])
	l.offset += n
	return n, nil
}

// Close wipes the buffer.
func (l *loginBody) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.content)
	l.closed = true
	return nil
}
