package ampauth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

func TestResponseErrorSaysWhatAnAnswerMeans(t *testing.T) {
	request := func(method, path string) *http.Request {
		req, _ := http.NewRequest(method, "https://amp.test/api"+path, nil)
		return req
	}
	issue, list := request("POST", "/assets/issue"), request("GET", "/assets")
	for status := 100; status < 600; status++ {
		for what, req := range map[string]*http.Request{
			"a mutation": issue, "no request": nil, "no URL": new(http.Request), "a read": list,
			"a read, it says":      issue.WithContext(ampauth.WithOperation(t.Context(), safe)),
			"a mutating, it says":  list.WithContext(ampauth.WithOperation(t.Context(), mutating)),
			"what can be repeated": request("PUT", "/assets/x/edit"),
		} {
			mutates := !strings.HasPrefix(what, "a read") && !strings.HasPrefix(what, "what")
			resp := stubResponse(status, "", "Retry-After", "7")
			resp.Request = req
			err := ampauth.ResponseError(resp)
			if status/100 == 2 {
				if err != nil {
					t.Errorf("%d to %s: %v", status, what, err)
				}
				continue
			}
			e := stubError(t, err)
			kind, outcome := ampauth.ErrRequestFailed, ampauth.Answered
			switch {
			case mutates && (status == 408 || status >= 500):
				kind, outcome = ampauth.ErrAmbiguous, ampauth.Ambiguous
			case status == 421, status == 425:
				outcome = ampauth.Unprocessed
			case status == 429:
				kind, outcome = ampauth.ErrRateLimited, ampauth.Rejected
			}
			if e.Kind != kind || e.Outcome != outcome || e.StatusCode != status || (e.RetryAfter == 7*time.Second) != (status == 429 || status == 503) {
				t.Errorf("%d to %s: %+v", status, what, e)
			}
		}
	}
	if err := ampauth.ResponseError(nil); !errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("no response: %v", err)
	}
}
