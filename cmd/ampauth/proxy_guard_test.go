package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// A server in between may answer with the request that it got.
func TestProxyNeverAnswersWithTheToken(t *testing.T) {
	echo := func(r *http.Request) string { return r.Header.Get("Authorization") }
	for name, handler := range map[string]http.HandlerFunc{
		"in a field": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Debug", "got "+echo(r)) },
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s you sent %s, did you not", strings.Repeat("a", 100_000), echo(r))
		},
		"in pieces": func(w http.ResponseWriter, r *http.Request) {
			for _, c := range "you sent " + echo(r) {
				fmt.Fprintf(w, "%c", c)
				_ = http.NewResponseController(w).Flush()
			}
		},
		"in a trailer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Debug")
			fmt.Fprint(w, "body")
			w.Header().Set("X-Debug", echo(r))
		},
		"in a trailer unannounced": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "body")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Debug", echo(r))
		},
		"in an early hint": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", echo(r))
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
		},
		"in a redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/api/assets?token="+echo(r)[6:])
			w.WriteHeader(http.StatusFound)
		},
		"in an error": func(w http.ResponseWriter, r *http.Request) { http.Error(w, echo(r), http.StatusInternalServerError) },
		"packed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "rot13")
			fmt.Fprint(w, echo(r))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := over(t, handler)
			address, log := startProxy(t)
			got := rawExchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\nTe: trailers\r\nConnection: close\r\n\r\n")
			token := fake.Token("issuer")
			// A chunked body has the lengths of its pieces in between.
			plain := strings.NewReplacer("\r\n1\r\n", "", "\r\n", "").Replace(got)
			if token == "" || !strings.HasPrefix(got, "HTTP/1.1 ") {
				t.Fatalf("no token, or no answer: %q", got)
			}
			showsNone(t, got+plain+log.String(), token)
		})
	}
}

// Wherever the body is cut into pieces, it is the same up to the token.
func TestGuardedBodyEndsAtTheToken(t *testing.T) {
	const token = "ababac"
	for body, want := range map[string]struct {
		text string
		err  error
	}{
		"":                      {"", nil},
		"nothing of it":         {"nothing of it", nil},
		"ababababa":             {"ababababa", nil}, // and then the end
		"abababac and more":     {"ab", errTokenInAnswer},
		"ababac":                {"", errTokenInAnswer},
		"before ababac, ababac": {"before ", errTokenInAnswer},
	} {
		for _, pieces := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader, func(r io.Reader) io.Reader { return r }} {
			got, err := io.ReadAll(&guardedBody{body: io.NopCloser(pieces(strings.NewReader(body))), token: []byte(token)})
			if string(got) != want.text || err != want.err {
				t.Errorf("%q: %q, %v", body, got, err)
			}
		}
	}
}
