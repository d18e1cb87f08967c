package ampauth

import (
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/ampauth/ampauth/internal/sendable"
)

// admits reports whether the request goes to the origin, by all that names a host on
// the wire: the URL, the Host field, by which a server may route, and the request line.
func (t *AuthTransport) admits(req *http.Request) bool {
	return t.origin.Admits(req.URL.Scheme, req.URL.Host) &&
		(req.Host == "" || req.Host == req.URL.Host || t.origin.Admits(req.URL.Scheme, req.Host)) &&
		req.Method != http.MethodConnect && t.admitsTarget(req.URL)
}

// admitsTarget judges the request line (RFC 9112 3.2), which says where a request goes
// if it is no path.
func (t *AuthTransport) admitsTarget(u *url.URL) bool {
	if u.Opaque == "" && (u.Path == "" || u.Path[0] == '/') {
		return true
	}
	target := u.RequestURI()
	if target == "*" || target[0] == '/' {
		return true
	}
	named, err := url.Parse(target)
	return err == nil && t.origin.Admits(named.Scheme, named.Host)
}

// withoutAuthorization copies h but for Authorization fields that do not count: empty
// ones, and those that hold a token of the manager's own, which a generated client may
// have been given for its security scheme. theirs reports that the caller set another
// one; then there is no copy. The spelling of the key is the caller's.
// alone is as in authorized.
func (t *AuthTransport) withoutAuthorization(h http.Header, alone *sending) (copied http.Header, theirs bool) {
	var facts sendable.Facts
	if alone != nil {
		facts = alone.attempt.header
	} else {
		facts = sendable.FactsOf(h)
	}
	if facts&sendable.Authorization != 0 {
		for key, values := range h {
			if sendable.IsAuthorization(key) && slices.ContainsFunc(values, func(v string) bool { return v != "" && !t.source.issued(v) }) {
				return nil, true
			}
		}
	}
	if h == nil || len(h) == mapGroup {
		// A clone would be full, and grow with the next field. This one has room.
		copied = make(http.Header, len(h)+1)
		maps.Copy(copied, h)
	} else {
		copied = maps.Clone(h)
	}
	if facts&sendable.Spare != 0 {
		// Cut to their length, so that an append below does not write into the caller's.
		for key, values := range copied {
			copied[key] = slices.Clip(values)
		}
	}
	if facts&sendable.Authorization != 0 {
		maps.DeleteFunc(copied, func(key string, _ []string) bool { return sendable.IsAuthorization(key) })
	}
	return copied, false
}

// mapGroup is the number of entries that a map keeps without a table.
const mapGroup = 8

// authorized returns req with another header, and value in it: a copy, unless nobody else
// has it (see attempt.alone). The value belongs to this request alone, since a layer below
// may edit it in place.
func authorized(req *http.Request, header http.Header, value string, alone *sending) *http.Request {
	if alone != nil {
		alone.value[0] = value
		header["Authorization"] = alone.value[:]
		req.Header = header
		return req
	}
	copied := &struct {
		request http.Request
		value   [1]string
	}{*req, [1]string{value}}
	header["Authorization"] = copied.value[:]
	copied.request.Header = header
	return &copied.request
}

// hasLocationsCredential reports whether http.Client made the Authorization field of
// req out of the user information in the Location that led to it. A server has written
// that: it is no credential of the caller's.
func hasLocationsCredential(req *http.Request) bool {
	if req.Response == nil || req.URL.User == nil {
		return false
	}
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	if first.URL != nil && first.URL.User != nil && *first.URL.User == *req.URL.User {
		return false // the caller's own, which a relative Location keeps
	}
	made := http.Request{Header: make(http.Header)}
	password, _ := req.URL.User.Password()
	made.SetBasicAuth(req.URL.User.Username(), password)
	return req.Header.Get("Authorization") == made.Header.Get("Authorization")
}
