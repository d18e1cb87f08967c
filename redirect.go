package ampauth

import (
	"errors"
	"net/http"
)

// maxRedirects is the limit of net/http, which counts requests.
const maxRedirects = 10

// CheckRedirect is for the field of that name in an http.Client. It does not
// follow a redirect that changes the method: http.Client answers a 301, 302 or
// 303 to a POST by a GET, whose success then looks like that of the POST. The
// caller gets the 3xx response itself. Others are followed, up to 10 requests in
// a row.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > 0 && methodOf(via[len(via)-1]) != methodOf(req) {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
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
