package otelampauth

import (
	"net/http"

	"github.com/ampauth/ampauth"
	"go.opentelemetry.io/otel/trace"
)

// ResendCount is a layer directly below that of otelhttp, which makes a span of each attempt
// but does not know which it is: it sets http.request.resend_count on the span of each
// attempt of a call but the first, as the semantic conventions of HTTP want it. Between two
// of ampauth's layers it changes nothing else:
//
//	otelhttp.NewTransport(otelampauth.ResendCount{Base: &ampauth.ConnTransport{Base: yours}})
//
// Without a layer like that above it, the span is the caller's own, and gets the attribute.
// The attempts of a login are not numbered.
type ResendCount struct {
	Base http.RoundTripper // If nil, http.DefaultTransport.
}

// RoundTrip implements http.RoundTripper.
func (t ResendCount) RoundTrip(req *http.Request) (*http.Response, error) {
	if n, ok := ampauth.AttemptFromContext(req.Context()); ok && n > 1 {
		trace.SpanFromContext(req.Context()).SetAttributes(resendCount.Int(n - 1))
	}
	return t.base().RoundTrip(req)
}

// CloseIdleConnections is that of Base, if it has one.
func (t ResendCount) CloseIdleConnections() {
	if base, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (t ResendCount) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}
