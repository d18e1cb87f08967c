package ampauth_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

// Users that change while 30 callers send through the whole stack: all attempts of a
// call carry the token of one user.
func TestAttemptsOfOneCallAreSentAsOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login := new(userServer)
		var mu sync.Mutex
		seen := make(map[string][]string) // users by the name of the call
		base := ampLayer(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "obtain_token") {
				return login.RoundTrip(req)
			}
			stubUse(req)
			user, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("Authorization"), "token "), ".")
			id := req.Header.Get("X-Call")
			mu.Lock()
			seen[id] = append(seen[id], user)
			first := len(seen[id]) == 1
			mu.Unlock()
			time.Sleep(rand.N(10 * time.Millisecond))
			switch {
			case first && rand.N(2) == 0:
				return stubResponse(401, "{}"), nil
			case first && rand.N(2) == 0:
				return stubResponse(503, "{}"), nil
			}
			return stubResponse(200, "{}"), nil
		})
		users := make([]ampauth.Credentials, 2)
		for i, name := range []string{"alice", "bob"} {
			users[i] = ampauth.Credentials{Username: name, Password: ampauth.SecretFromString("of " + name)}
		}
		client, err := ampauth.NewClient(ampauth.Config{
			BaseURL: "https://amp.test/api", Credentials: users[0], HTTPClient: &http.Client{Transport: base},
			Retry: ampauth.RetryConfig{BaseDelay: 10 * time.Millisecond, Budget: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var callers sync.WaitGroup
		for c := range 30 {
			callers.Go(func() {
				for i := range 40 {
					time.Sleep(rand.N(10 * time.Millisecond))
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://amp.test/api/assets", nil)
					req.Header.Set("X-Call", fmt.Sprint(c, " ", i))
					resp, err := client.Do(req)
					switch {
					case err == nil:
						_ = resp.Body.Close()
					case !strings.Contains(err.Error(), "another user's"):
						t.Error(errors.Unwrap(err))
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { callers.Wait(); close(done) }()
		for i := 1; ; i++ {
			select {
			case <-done:
				for id, users := range seen {
					if len(slices.Compact(slices.Clone(users))) > 1 {
						t.Errorf("call %s was sent as %v", id, users)
					}
				}
				return
			case <-time.After(rand.N(40 * time.Millisecond)):
				_ = client.Tokens.SetCredentials(users[i%2])
			}
		}
	})
}
