package ampauth

import (
	"errors"
	"net/http"
)

const maxRedirects = 10

// CheckRedirect is for the field of that name in an http.Client. It does not
// follow a redirect that changes the method: http.Client answers a 301, 302 or
// 303 to a POST by a GET, whose success then looks like that of the POST. Nor does
// it follow one from a mutation of AMP's by GET to what is none. The caller gets the
// 3xx response itself. Others are followed, at most 10 in a row.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > 0 {
		last := via[len(via)-1]
		left := ClassifyAMP(last) == MutatingOperation && ClassifyAMP(req) != MutatingOperation
		if left || methodOf(last) != methodOf(req) {
			return http.ErrUseLastResponse
		}
	}
	if len(via) > maxRedirects { // via holds the first request as well
		return errors.New("ampauth: stopped after 10 redirects")
	}
	return nil
}

func methodOf(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}
