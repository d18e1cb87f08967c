package ampauth

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/ampauth/ampauth/internal/replay"
)

// inspect tells whoever wants to know whether the API accepted the token.
func (t *AuthTransport) inspect(req *http.Request, resp *http.Response, token Token, a *attempt) {
	switch {
	case acceptsToken(resp):
		t.source.accepted(token, req)
	case !refusesToken(resp):
	case a != nil:
		a.note().report.Store(&tokenReport{token: token, from: t.source, with: req})
	default:
		t.source.renewSoon(token, req)
	}
}

// acceptsToken reports whether an answer shows that the API has looked at the token and
// taken it: a success, or what Django REST framework says of a request whose token it has
// accepted, which is JSON.
func acceptsToken(resp *http.Response) bool {
	switch code := resp.StatusCode; code {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict, http.StatusUnprocessableEntity:
		return isJSON(resp.Header)
	default:
		return code < http.StatusMultipleChoices
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
	ahead := replay.ReadAhead(resp.Body, maxRefusal+1, replay.DrainTime)
	resp.Body = ahead
	content, ok := ahead.Whole()
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
