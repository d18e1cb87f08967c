package bench

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// A static transport answers everything at once, with 200 and two bytes.
func static() http.RoundTripper {
	answer := http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: 2}
	return sender(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		resp := answer
		resp.Body, resp.Request = twoBytes{}, req
		return &resp, nil
	})
}

// staticLogin answers every login at once.
var staticLogin = sender(func(req *http.Request) (*http.Response, error) {
	_ = req.Body.Close()
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1,
		Body: io.NopCloser(bytes.NewReader([]byte(`{"token":"` + staticToken + `"}`)))}, nil
})

const staticToken = "0123456789abcdef0123456789abcdef01234567"

// twoBytes can be read and closed again and again without allocating.
type twoBytes struct{}

func (twoBytes) Read(p []byte) (int, error) { return copy(p, "{}"), io.EOF }
func (twoBytes) Close() error               { return nil }

const staticURL = "https://amp.test/api"

// A request that is sent again and again. Its body is made anew each time, as
// http.NewRequest makes one of bytes: most of the peers put another in its place.
type request struct {
	*http.Request
	content []byte
}

func newRequest(method, url string, fields int) *http.Request {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		panic(err)
	}
	names := []string{"Accept", "Content-Type", "User-Agent", "Accept-Language", "X-Request-Id", "Traceparent", "Tracestate"}
	for _, name := range names[:fields] {
		req.Header.Set(name, "value")
	}
	return req
}

// get returns a GET with so many header fields, at most seven.
func get(url string, fields int) *request {
	return &request{newRequest(http.MethodGet, url, fields), nil}
}

// post returns a POST with seven header fields.
func post(url string, size int) *request {
	return &request{newRequest(http.MethodPost, url, 7), make([]byte, size)}
}

// again returns the request, ready to be sent.
func (r *request) again() *http.Request {
	if r.content != nil {
		r.ContentLength = int64(len(r.content))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.content)), nil }
		r.Body, _ = r.GetBody()
	}
	return r.Request
}

// sending is a trial that sends r again and again.
func sending(name string, send sender, r *request) trial {
	return trial{name, func(b *testing.B) error {
		for b.Loop() {
			resp, err := send(r.again())
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
		}
		return nil
	}}
}
