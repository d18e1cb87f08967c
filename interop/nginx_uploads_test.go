//go:build unix

package interop

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
)

const uploads = 60

// bodies are the two ways in which net/http sends an upload.
var bodies = map[string]func() io.Reader{
	"known length":   func() io.Reader { return bytes.NewReader(make([]byte, 512<<10)) },
	"unknown length": func() io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, 512<<10))) },
}

// wantEach uploads a number of bodies and fails the test unless each gets the status,
// and none is performed.
func (f *front) wantEach(t *testing.T, status int, body func() io.Reader) {
	t.Helper()
	var ids []string
	got := 0
	for i := range uploads {
		a := f.mutate(t, fmt.Sprint(i), body())
		if a.err == nil && a.status == status {
			got++
		} else {
			t.Logf("%s: got %d, %v", a.id, a.status, a.err)
		}
		ids = append(ids, a.id)
	}
	if got != uploads {
		t.Errorf("%d of %d got a %d", got, uploads, status)
	}
	f.stop(t)
	for _, id := range ids {
		if n := f.ledger.performed(id); n != 0 {
			t.Errorf("%s was performed %d times", id, n)
		}
	}
}

// The first bytes of a body, or its length, are too many; the rest is on its way.
func TestUploadThatNginxRefusesGetsItsAnswer(t *testing.T) {
	for _, l := range []listener{plain, overTLS} {
		for _, buffering := range []string{"on", "off"} {
			for name, body := range bodies {
				t.Run(fmt.Sprintf("%s, buffering %s, %s", l.name, buffering, name), func(t *testing.T) {
					f := newFront(t, l, "client_max_body_size 1k; proxy_request_buffering "+buffering+";", nil)
					f.wantEach(t, http.StatusRequestEntityTooLarge, body)
				})
			}
		}
	}
}

// The backend answers when it has read the header. nginx passes that on while the upload
// goes on, and ends the connection afterwards, which the answer does not say: whoever
// sends another mutation over it gets no answer.
func TestUploadThatTheServerBehindNginxRefusesGetsItsAnswer(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusUnauthorized)
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		// It reads on, since nginx makes a 502 of a connection that breaks.
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for _, l := range []listener{plain, overTLS} {
		for name, body := range bodies {
			t.Run(l.name+", "+name, func(t *testing.T) {
				f := newFront(t, l, "proxy_request_buffering off;", refuse)
				f.wantEach(t, http.StatusUnauthorized, body)
			})
		}
	}
}
