// Package viaproxy tells what a proxy answered to CONNECT, of which net/http passes on
// nothing but words.
package viaproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// A Refusal says that a proxy did not open a tunnel. It shows the status of its answer, and
// nothing else that the proxy has sent.
type Refusal struct {
	StatusCode int
	Err        error // what somebody else's OnProxyConnectResponse says of it, or nil
}

func (r *Refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the proxy refused to connect: HTTP %d %s", r.StatusCode, http.StatusText(r.StatusCode)))
}

// Unwrap returns Err.
func (r *Refusal) Unwrap() error { return r.Err }

// Unreached reports whether err is of the connection to a proxy, which did not come about.
func Unreached(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "proxyconnect" // as net/http calls it, for SOCKS as well
}

// OnResponse is an http.Transport.OnProxyConnectResponse.
type OnResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error

// Telling returns an OnResponse that makes a *[Refusal] of any answer but 200. It asks
// theirs first, if that is not nil.
func Telling(theirs OnResponse) OnResponse {
	return func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
		var err error
		if theirs != nil {
			err = theirs(ctx, proxy, req, resp)
		}
		if resp.StatusCode == http.StatusOK {
			return err
		}
		return &Refusal{resp.StatusCode, err}
	}
}

// Of returns the *[Refusal] that err is, or means, or nil. Without [Telling] net/http makes
// an error of the words behind the status code, without a type of its own; those are known
// if they are the usual ones. t and req are what err came of.
func Of(err error, t *http.Transport, req *http.Request) *Refusal {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal
	}
	if t.Proxy == nil || req.URL.Scheme != "https" || reflect.TypeOf(err) != untyped {
		return nil
	}
	words := err.Error()
	for code := http.StatusBadRequest; code < 600; code++ {
		if words == http.StatusText(code) && words != "" {
			return &Refusal{StatusCode: code}
		}
	}
	return nil
}

var untyped = reflect.TypeOf(errors.New(""))
