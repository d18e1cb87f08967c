package ampauth

import (
	"net/http"

	"github.com/ampauth/ampauth/internal/replay"
)

// A layer is a transport of this package. Where one stands right above another, the upper
// hands the attempt on itself, and the lower knows that nobody else has the request.
type layer interface {
	roundTrip(req *http.Request, a *attempt) (*http.Response, error)
}

// send has base send req, which belongs to the attempt a, if any.
func send(base http.RoundTripper, req *http.Request, a *attempt) (*http.Response, error) {
	if own, ok := base.(layer); ok {
		return own.roundTrip(req, a)
	}
	if a != nil && a.direct {
		a.direct = false
		if a.is(stateLogin) {
			req.GetBody = nil // so that a layer which follows redirects does not take the password along
		}
	}
	if a != nil && a.mutates {
		req = replay.Unrepeatable(req)
	}
	return base.RoundTrip(req)
}

func baseOrDefault(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return http.DefaultTransport
	}
	return base
}

func closeIdleConnections(rt http.RoundTripper) {
	if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
