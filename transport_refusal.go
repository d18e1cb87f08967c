package ampauth

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/ampauth/ampauth/internal/replay"
)

// inspect tells whoever wants to know whether the API accepted the token.
func (t *AuthTransport) inspect(resp *http.Response, token Token, a *attempt) {
	switch {
	case resp.StatusCode < http.StatusMultipleChoices:
		t.source.accepted(token)
	case !refusesToken(resp):
	case a != nil:
		a.note().report.Store(&tokenReport{token: token, from: t.source})
	default:
		t.source.renewSoon(token)
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
