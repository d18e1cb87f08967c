//go:build unix

package interop

import (
	"io"
	"net/http"
	"testing"

	"github.com/ampauth/ampauth"
)

// A base URL with a final slash makes /api//assets. nginx looks its location up with the
// slashes merged, and hands on either that or what was sent; Django answers the latter
// with 404. So a read with such a path is one, and is sent again like one.
func TestNginxTakesADoubleSlashBeforeTheRouteForOne(t *testing.T) {
	sent := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "sent on as "+r.URL.Path) })
	for name, test := range map[string]struct{ directives, want string }{
		"by location":     {"location = /api/assets { return 200 $uri; }", "/api/assets"},
		"to the upstream": {"", "sent on as /api//assets"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, plain, test.directives, sent)
			req, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/api//assets", nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := ampauth.ClassifyAMP(req); got != ampauth.SafeOperation {
				t.Errorf("it is classified as %v", got)
			}
			resp, err := f.pool.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != test.want {
				t.Errorf("nginx makes of it %q, %v; want %q", body, err, test.want)
			}
		})
	}
}
