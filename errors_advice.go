package ampauth

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"

	"github.com/ampauth/ampauth/internal/refused"
	"github.com/ampauth/ampauth/internal/viaproxy"
)

// advice is what an error means for whoever made the request, and what to do about it.
func (e *Error) advice() (advice []string) {
	if extent := e.extent(); extent != "" {
		advice = append(advice, extent)
	}
	if remedy := e.remedy(); remedy != "" {
		advice = append(advice, remedy)
	}
	return advice
}

// extent is how far the request got.
func (e *Error) extent() string {
	switch {
	case e.Kind == ErrAmbiguous:
		return "it may have been performed: find out by reading before you send it again"
	case e.withheld, e.Op == "request" && e.Outcome == NotSent:
		return "the request was not sent"
	case e.Op != "request":
		return ""
	case e.Outcome == Unprocessed, e.Outcome == Rejected, e.absent:
		return "it was not performed"
	case e.repeat == never && e.Outcome == Answered && e.StatusCode/100 != 3:
		return "it was answered, and only the rest of the answer is missing: do not send it again"
	}
	return ""
}

// remedy is what to do, where the cause tells.
func (e *Error) remedy() string {
	cause := e.lastCause()
	dns, noHost := errors.AsType[*net.DNSError](cause)
	proxy, denied := errors.AsType[*viaproxy.Refusal](cause)
	invalid, unfit := errors.AsType[x509.CertificateInvalidError](cause)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](cause)
	_, another := errors.AsType[x509.HostnameError](cause)
	_, ourClock := errors.AsType[ownClock](cause)
	address := "the URL"
	if e.where != "" {
		address = "BaseURL (" + envBaseURL + ")"
	}
	switch {
	case e.Kind == ErrAmbiguous:
		return ""
	case errors.Is(cause, ErrCredentialsRefused):
		return "check user name and password (" + envUsername + ", " + envPassword + " or " + envPasswordFile + ")"
	case unknown:
		return "if you know whose certificate it is, add its authority to RootCAs in the TLSClientConfig of the transport (Config.HTTPClient)"
	case viaproxy.Unreached(cause):
		return "the proxy is not reached: check its URL (HTTPS_PROXY, or the transport's Proxy), and whether this host should go through it (NO_PROXY)"
	case noHost && dns.IsNotFound:
		return "check the host in " + address + ", and DNS"
	case refused.Is(cause):
		return "nothing listens there: check host and port in " + address
	case denied && proxy.StatusCode == http.StatusProxyAuthRequired:
		return "give the proxy's URL (HTTPS_PROXY, or the transport's Proxy) a user and a password that it takes"
	case denied:
		return "check the proxy, and whether this host should go through it (HTTPS_PROXY, NO_PROXY, or the transport's Proxy)"
	case unfit && invalid.Reason == x509.Expired:
		return "the server needs a new certificate, unless the clock of this machine is wrong"
	case another:
		return "another server answers there: check the host in " + address + ", and what is on the way to it"
	case !ourClock && holds(cause, context.DeadlineExceeded):
		return "the deadline of the caller's context came first"
	case e.Op == "obtain" && e.Attempts > 0 && (e.Timeout() || e.StatusCode == 0 || e.StatusCode == http.StatusTooManyRequests || e.StatusCode/100 == 5):
		return "later calls try again"
	}
	return ""
}

// lastCause is the cause without what came before it, which says nothing of how it ended,
// unless that is only that time ran out.
func (e *Error) lastCause() error {
	if row, ok := e.Err.(*sequence); ok && row.joint == beforeThatJoint && !timedOut(row.first) {
		return row.first
	}
	return e.Err
}

// holds reports whether target itself is in the chain of err. Other timeouts, as those of a
// net.Dialer, only say that they are context.DeadlineExceeded.
func holds(err, target error) bool {
	return anyOf(err, func(err error) (found, deeper bool) { return err == target, true })
}
