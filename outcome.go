package ampauth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
)

// An Outcome says how far an attempt got. Together with the [Operation] it
// decides whether a request may be sent again. That of a call is its last
// attempt's, unless an earlier one got further: it is Ambiguous when that may have
// been performed.
type Outcome int

const (
	// Ambiguous is the zero value: bytes may have left and no answer came.
	Ambiguous Outcome = iota
	// NotSent means that it is proved that no byte of the request reached the server
	// (of a SafeOperation, that the last try of net/http at it did not get that far).
	NotSent
	// Refused means that the server said it did not process the request: status 421
	// (RFC 9110 15.5.20), 425 (RFC 8470 5.2), 417 to a request that expected
	// 100-continue (RFC 9110 10.1.1), HTTP/2 REFUSED_STREAM (RFC 9113 8.7).
	Refused
	// Rejected means that the server turned the request away before it looked at
	// it: status 429 (RFC 6585 4), or a refusal of the token.
	Rejected
	// Answered means that there is any other response.
	Answered
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	switch o {
	case Ambiguous:
		return "Ambiguous"
	case NotSent:
		return "NotSent"
	case Refused:
		return "Refused"
	case Rejected:
		return "Rejected"
	case Answered:
		return "Answered"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// statusOutcome is the outcome that an answer shows by its status.
func statusOutcome(resp *http.Response, expects func() bool) Outcome {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return Rejected
	case http.StatusMisdirectedRequest, http.StatusTooEarly:
		return Refused
	case http.StatusExpectationFailed:
		if expects() {
			return Refused
		}
	}
	return Answered
}

// transientStatus reports whether an answer says that the same request may
// succeed a moment later.
func transientStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// errorOutcome is the outcome of an attempt that ended in err. What the attempt
// saw of its connection decides first; the type of the error only counts when
// it saw nothing, since a dial error can follow a request that was sent.
func (a *attempt) errorOutcome(err error) Outcome {
	switch {
	case refusedStream(err):
		return Refused
	case a.connected():
		return Ambiguous
	case a.dialing(), neverConnected(err):
		return NotSent
	}
	return Ambiguous
}

// neverConnected reports whether err is of a type that only the making of a
// connection yields.
func neverConnected(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	return untrusted(err) // not tls.RecordHeaderError, which can come at any time
}

// untrusted reports whether the server's certificate was not accepted, which no
// repetition changes.
func untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

// streamError has the shape of the HTTP/2 stream error of net/http and of
// golang.org/x/net/http2; both let errors.As fill any such struct.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "http2 stream error" }

func refusedStream(err error) bool {
	const refused = 0x7 // RFC 9113 7, REFUSED_STREAM
	e, ok := errors.AsType[streamError](err)
	return ok && e.Code == refused
}

// noCommonProtocol reports whether the server ended the TLS handshake because
// it speaks none of the protocols that were offered (RFC 7301 3.2, alert 120).
// crypto/tls does not export the alert's type, only its text and its number.
func noCommonProtocol(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return false
	}
	alert := reflect.ValueOf(op.Err)
	return alert.Kind() == reflect.Uint8 && alert.Uint() == 120
}
