package interop

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/hashicorp/go-retryablehttp"
)

// The StandardClient of go-retryablehttp is an http.Client whose transport is another
// one, which follows redirects by itself.
func TestStandardClientOfRetryableHTTPTakesNoCredentialElsewhere(t *testing.T) {
	const password, token = "correct horse", "0123456789abcdef0123456789abcdef01234567"
	for _, redirected := range []string{"/api/user/obtain_token", "/api/assets"} {
		for _, status := range []int{301, 302, 307, 308} {
			var mu sync.Mutex
			var taken []string
			stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				taken = append(taken, string(body))
				mu.Unlock()
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"token":"of-a-stranger"}`)
			}))
			home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == redirected {
					http.Redirect(w, r, stranger.URL, status)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"token":"`+token+`"}`)
			}))
			standard := retryablehttp.NewClient()
			standard.Logger, standard.RetryMax = nil, 0
			client, err := ampauth.NewClient(ampauth.Config{
				BaseURL: home.URL + "/api", HTTPClient: standard.StandardClient(),
				Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(password)},
			})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				resp, err := client.Get(home.URL + "/api/assets")
				if err == nil {
					_ = resp.Body.Close()
				}
				if redirected == "/api/assets" && !errors.Is(err, ampauth.ErrConfig) {
					t.Errorf("%d: %v, want ErrConfig", status, err)
				}
				if err == nil {
					t.Errorf("%d: the answer of a stranger was taken", status)
				}
			}
			mu.Lock()
			// A login by GET, without a word in it, is all that the layer makes of a 302.
			if redirected == "/api/assets" && len(taken) > 1 || strings.Contains(strings.Join(taken, ""), password) {
				t.Errorf("%s, %d: the stranger got %q", redirected, status, taken)
			}
			mu.Unlock()
			_ = client.Close()
			standard.HTTPClient.CloseIdleConnections()
			home.Close()
			stranger.Close()
		}
	}
}
