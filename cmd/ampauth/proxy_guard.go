package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// guarded marks the context of a request that the proxy passes on. Logins do not have it.
type guarded struct{}

// A tokenGuard stands below the layer that adds the token, and takes the token out of
// what comes back: a server in between may answer with the request that it got.
type tokenGuard struct{ base http.RoundTripper }

var errTokenInAnswer = errors.New("ampauth: the answer held the token, and was cut off")

// RoundTrip implements http.RoundTripper.
func (g *tokenGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.base.RoundTrip(req)
	if err != nil || req.Context().Value(guarded{}) == nil {
		return resp, err
	}
	_, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); token == "" {
		return resp, nil
	}
	resp = new(*resp) // net/http fills the Trailer of its own at the end of the body
	resp.Trailer = nil
	removeFrom(resp.Header, token)
	if resp.Body != nil && resp.Body != http.NoBody {
		resp.Body = &guardedBody{body: resp.Body, token: []byte(token)}
	}
	return resp, nil
}

func removeFrom(header http.Header, token string) {
	for name, values := range header {
		for _, value := range values {
			if strings.Contains(value, token) {
				delete(header, name)
			}
		}
	}
}

// A guardedBody yields a body up to the token. What may be the beginning of the token is
// held back until the next bytes tell; nothing else waits.
type guardedBody struct {
	body   io.ReadCloser
	token  []byte
	buffer []byte // ready and held are parts of it
	ready  []byte // looked through
	held   []byte // may be the beginning of the token
	err    error  // after ready
}

// Read implements io.Reader.
func (b *guardedBody) Read(p []byte) (int, error) {
	for len(b.ready) == 0 && b.err == nil && len(p) > 0 {
		if b.buffer == nil {
			b.buffer = make([]byte, 32<<10)
		}
		kept := copy(b.buffer, b.held)
		n, err := b.body.Read(b.buffer[kept:])
		b.look(b.buffer[:kept+n], err)
	}
	n := copy(p, b.ready)
	if b.ready = b.ready[n:]; len(b.ready) == 0 && b.err != nil {
		return n, b.err
	}
	return n, nil
}

// look sorts what was read into ready and held.
func (b *guardedBody) look(content []byte, err error) {
	if i := bytes.Index(content, b.token); i >= 0 {
		b.ready, b.held, b.err = content[:i], nil, errTokenInAnswer
		return
	}
	keep := 0
	for n := min(len(content), len(b.token)-1); n > 0 && err == nil; n-- {
		if bytes.HasSuffix(content, b.token[:n]) {
			keep = n
			break
		}
	}
	b.ready, b.held, b.err = content[:len(content)-keep], content[len(content)-keep:], err
}

// Close implements io.Closer.
func (b *guardedBody) Close() error { return b.body.Close() }
