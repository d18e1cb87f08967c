package ampauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestStatsCountWhatBecameOfTokens(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		c := w.client()
		m := c.Tokens
		var want ampauth.Stats
		check := func(what string) {
			t.Helper()
			got := c.Stats()
			got.Waits, got.Waited = 0, 0
			if got != want {
				t.Errorf("after %s: %+v, want %+v", what, got, want)
			}
		}
		check("nothing")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500}) // attempts are not counted
		w.token(m)
		want.Obtains++
		check("a login")
		w.token(m)
		check("a token from memory")
		_, _ = m.Refresh(t.Context())
		want.Refreshes++
		check("a refresh")
		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500})
		_, _ = m.Refresh(t.Context())
		want.RefreshFailures++
		want.Obtains++
		check("a failed refresh")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 404})
		_, _ = m.Obtain(t.Context())
		want.ObtainFailures++
		check("a failed login")
		token := w.token(m)
		w.Revoke("issuer")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Error(err)
		}
		want.Obtains++
		want.Renewals++
		check("a renewal")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Error(err)
		}
		check("a late refusal")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		for range 5 {
			_, _ = m.Obtain(t.Context())
		}
		want.ObtainFailures++
		check("a pause")
	})
}

// stubbedClient is a Client over a base that answers logins by itself.
func stubbedClient(t *testing.T, cfg ampauth.Config, base http.RoundTripper) *ampauth.Client {
	t.Helper()
	cfg.BaseURL = "https://api.test/api"
	cfg.Credentials = ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")}
	cfg.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/user/obtain_token") {
			stubUse(req)
			return stubResponse(200, `{"token":"0123456789"}`), nil
		}
		return base.RoundTrip(req)
	})}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestStatsCountRetriesByTheirReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubRefuse(), stubAnswer(421), stubAnswer(429, "Retry-After", "1"), stubAnswer(503), stubAnswer(500), stubStall(), stubBreak(io.EOF), stubAnswer(200))
		client := stubbedClient(t, ampauth.Config{Retry: ampauth.RetryConfig{MaxAttempts: 10}}, base)
		defer client.Close()
		start := time.Now()
		resp, err := client.Do(stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		stats := client.Stats()
		want := ampauth.RetryStats{NotSent: 1, Unprocessed: 1, RateLimited: 1, ServerError: 2, Timeout: 1, Broken: 1}
		if stats.Retries != want || stats.Retries.Total() != 7 || stats.Replays != 0 {
			t.Errorf("counted %+v, want %+v", stats.Retries, want)
		}
		if took := time.Since(start) - 10*time.Second; stats.Waits != 7 || stats.Waited != took {
			t.Errorf("counted %d waits of %v, want 7 of %v", stats.Waits, stats.Waited, took)
		}
	})
}

func TestStatsCountOnlyWhatWasWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stubbedClient(t, ampauth.Config{}, stubScript(stubAnswer(429, "Retry-After", "60")))
		defer client.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := client.Do(stubRequest(ctx, ampauth.SafeOperation, nil))
		if stats := client.Stats(); !errors.Is(err, context.Canceled) || stats.Waits != 1 || stats.Waited != time.Second {
			t.Errorf("%v; counted %d waits of %v, want 1 of the second until the caller left", err, stats.Waits, stats.Waited)
		}
	})
}

func TestStatsOfAQuietClientAreZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stubbedClient(t, ampauth.Config{}, stubScript(stubAnswer(503)))
		defer client.Close()
		resp, err := client.Do(stubRequest(t.Context(), ampauth.MutatingOperation, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		if stats := client.Stats(); stats != (ampauth.Stats{Obtains: 1}) {
			t.Errorf("counted %+v of one request that was not repeated", stats)
		}
	})
}

func TestStatsAreExportedInSecondsAndSnakeCase(t *testing.T) {
	s := ampauth.Stats{Obtains: 1, StoreFaults: 2, Waits: 3, Waited: 1500 * time.Millisecond}
	s.Retries.NotSent = 4
	text, err := json.Marshal(s)
	want := `{"obtains":1,"obtain_failures":0,"refreshes":0,"refresh_failures":0,"renewals":0,"adoptions":0,` +
		`"retries":{"not_sent":4,"unprocessed":0,"rate_limited":0,"server_error":0,"timeout":0,"broken":0},"replays":0,` +
		`"ambiguous":0,"exhausted":0,"store_faults":2,"waits":3,"waited_seconds":1.5}`
	if string(text) != want || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
}
