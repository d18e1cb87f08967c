package fakeamp

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// answer is a response before it is written, so that a fault can change it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// jsonAnswer is a body as DRF renders it: compact, no line end.
func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic("fakeamp: " + err.Error()) // Only values made in this package come here.
	}
	return rawAnswer(status, "application/json", body)
}

func rawAnswer(status int, contentType string, body []byte) answer {
	header := make(http.Header)
	if len(body) > 0 {
		header.Set("Content-Type", contentType)
	}
	return answer{status, header, body}
}

// fixed is the view of an operation without state.
func fixed(status int, body string) view {
	return func(*Server, *call) answer {
		return rawAnswer(status, "application/json", []byte(body))
	}
}

// detail is DRF's body for everything but a fault of a single field.
func detail(status int, text string) answer {
	return jsonAnswer(status, map[string]string{"detail": text})
}

func notFound() answer { return detail(http.StatusNotFound, "Not found.") }

func methodNotAllowed(method string) answer {
	return detail(http.StatusMethodNotAllowed, `Method "`+method+`" not allowed.`)
}

// fieldErrors is DRF's body for faults of fields; those of the request as a
// whole are under "non_field_errors".
func fieldErrors(errs map[string]string) answer {
	lists := make(map[string][]string, len(errs))
	for field, text := range errs {
		lists[field] = []string{text}
	}
	return jsonAnswer(http.StatusBadRequest, lists)
}

func parseError() answer {
	return detail(http.StatusBadRequest, "JSON parse error - Expecting value: line 1 column 1 (char 0)")
}

// validJSON also refuses an empty body: a request that lost its body on the
// way must not be performed.
func validJSON(body []byte) bool { return json.Valid(body) }

// slashRedirect is Django's APPEND_SLASH. It redirects any method, and the
// answer is not DRF's.
func slashRedirect(r *http.Request) answer {
	location := r.URL.Path + "/"
	if r.URL.RawQuery != "" {
		location += "?" + r.URL.RawQuery
	}
	a := rawAnswer(http.StatusMovedPermanently, "", nil)
	a.header.Set("Content-Type", "text/html; charset=utf-8")
	a.header.Set("Location", location)
	return a
}

// statusAnswer is what DRF sends with a status when nothing more is known.
func statusAnswer(status int, retryAfter, method string) answer {
	switch status {
	case http.StatusBadRequest:
		return detail(status, "Malformed request.")
	case http.StatusUnauthorized:
		a := detail(status, textUnknownToken)
		a.header.Set("WWW-Authenticate", "Token")
		return a
	case http.StatusForbidden:
		return detail(status, "You do not have permission to perform this action.")
	case http.StatusNotFound:
		return notFound()
	case http.StatusMethodNotAllowed:
		return methodNotAllowed(method)
	case http.StatusTooManyRequests:
		return detail(status, throttledText(retryAfter))
	case http.StatusInternalServerError:
		return detail(status, "A server error occurred.")
	case http.StatusServiceUnavailable:
		return detail(status, "Service temporarily unavailable, try again later.")
	}
	switch {
	case status == http.StatusNoContent, status/100 == 3:
		return rawAnswer(status, "", nil)
	case status < 400:
		return jsonAnswer(status, struct{}{})
	}
	return detail(status, http.StatusText(status)+".")
}

// throttledText names the wait only if it is known in whole seconds, as the
// header that DRF sends with it.
func throttledText(retryAfter string) string {
	text := "Request was throttled."
	switch seconds, err := strconv.Atoi(strings.TrimSpace(retryAfter)); {
	case err != nil || seconds < 0:
		return text
	case seconds == 1:
		return text + " Expected available in 1 second."
	default:
		return text + " Expected available in " + strconv.Itoa(seconds) + " seconds."
	}
}

// htmlPage is what a proxy in front of the service answers.
func htmlPage(status int) []byte {
	title := strconv.Itoa(status) + " " + http.StatusText(status)
	return []byte("<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" +
		title + "</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n")
}
