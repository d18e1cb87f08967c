package atmostonce

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// RoundTripOver sends req over the connections of t, whatever they speak, and keeps
// net/http from sending it a second time, as it does over HTTP/2 when a server ends a
// stream with PROTOCOL_ERROR, which does not say that nothing was done. What net/http has
// not begun to write may take another connection. When req would go out again it ends in
// ErrRepeated. The context of req must end when the answer's body is no longer used.
func RoundTripOver(t *http.Transport, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	host := cmp.Or(req.Host, req.URL.Host)
	var begun atomic.Bool
	sent := req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(key string, values []string) {
			if (key == "Host" || key == ":authority") && !isAnother(host, values) {
				begun.Store(true)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if !begun.Load() {
				return
			}
			cancel(ErrRepeated) // HTTP/2 looks once more before it writes; HTTP/1.1 does not
			conn, secure := info.Conn.(*tls.Conn)
			if req.URL.Scheme == "https" && !(secure && conn.ConnectionState().NegotiatedProtocol == "h2") {
				_ = info.Conn.Close()
			}
		},
	}))
	sent.GetBody = nil
	resp, err := t.RoundTrip(sent)
	if err != nil && context.Cause(ctx) == ErrRepeated {
		err = ErrRepeated
	}
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// isAnother reports whether a Host field or :authority with the values is certainly of
// another request than one to host: a dialer may ask something by HTTP meanwhile. What
// net/http writes differs from host in a zone, and in what is not ASCII.
func isAnother(host string, values []string) bool {
	plain := !strings.ContainsFunc(host, func(r rune) bool { return r == '%' || r > 0x7e })
	return plain && len(values) == 1 && !strings.EqualFold(values[0], host)
}
