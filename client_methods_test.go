package ampauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

// wantNotMade fails the test unless err says what to make it with.
func wantNotMade(t *testing.T, what string, err error, maker string) {
	t.Helper()
	e, ok := err.(*ampauth.Error)
	if !ok || e.Kind != ampauth.ErrConfig || e.Outcome != ampauth.NotSent || !strings.Contains(err.Error(), "use "+maker) {
		t.Errorf("%s: %v, want an *Error of ErrConfig that says to use %s", what, err, maker)
	}
}

func TestHandmadeClientGivesErrorsNotPanics(t *testing.T) {
	made, err := ampauth.NewTokenManager(validConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	for name, client := range map[string]*ampauth.Client{
		"empty": {}, "nil": nil, "with a zero manager": {Tokens: new(ampauth.TokenManager)}, "with a manager": {Tokens: made},
	} {
		t.Run(name, func(t *testing.T) {
			const url = "https://amp.test/api/assets"
			body := newStubBody("x")
			req, err := http.NewRequestWithContext(t.Context(), "POST", url, body)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Do(req)
			wantNotMade(t, "Do", err, "NewClient")
			if body.closed.Load() != 1 {
				t.Errorf("Do closed the body %d times, want once", body.closed.Load())
			}
			_, err = client.Do(nil)
			wantNotMade(t, "Do without a request", err, "NewClient")
			_, err = client.Get(url)
			wantNotMade(t, "Get", err, "NewClient")
			_, err = client.Head(url)
			wantNotMade(t, "Head", err, "NewClient")
			body = newStubBody("x")
			_, err = client.Post(url, "text/plain", body)
			wantNotMade(t, "Post", err, "NewClient")
			if body.closed.Load() != 1 {
				t.Errorf("Post closed the body %d times, want once", body.closed.Load())
			}
			_, err = client.PostForm(url, nil)
			wantNotMade(t, "PostForm", err, "NewClient")
			client.CloseIdleConnections()
			if got := client.Stats(); got != (ampauth.Stats{}) {
				t.Errorf("Stats: %+v", got)
			}
			if err := client.Close(); name == "with a manager" {
				if err != nil {
					t.Errorf("Close: %v", err)
				}
			} else {
				wantNotMade(t, "Close", err, "New") // NewClient or NewTokenManager
			}
		})
	}
}

func TestHandmadeClientIsTheHTTPClientThatItHas(t *testing.T) {
	served := 0
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		served++
		if r.Header.Get("Authorization") != "" {
			t.Error("a token came along")
		}
	}))
	defer server.Close()
	client := &ampauth.Client{Client: server.Client()}
	req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() (*http.Response, error){
		"Do":       func() (*http.Response, error) { return client.Do(req) },
		"Get":      func() (*http.Response, error) { return client.Get(server.URL) },
		"Head":     func() (*http.Response, error) { return client.Head(server.URL) },
		"Post":     func() (*http.Response, error) { return client.Post(server.URL, "text/plain", strings.NewReader("x")) },
		"PostForm": func() (*http.Response, error) { return client.PostForm(server.URL, url.Values{"a": {"b"}}) },
	} {
		resp, err := call()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = resp.Body.Close()
	}
	client.CloseIdleConnections()
	if got := client.Stats(); got != (ampauth.Stats{}) || served != 5 {
		t.Errorf("%d calls were served, Stats %+v; want 5 and none", served, got)
	}
	if err := client.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestManagerThatNobodyMadeGivesErrorsNotPanics(t *testing.T) {
	for name, m := range map[string]*ampauth.TokenManager{"zero": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			_, err := m.Token(ctx)
			wantNotMade(t, "Token", err, "NewTokenManager")
			_, err = m.Obtain(ctx)
			wantNotMade(t, "Obtain", err, "NewTokenManager")
			_, err = m.Refresh(ctx)
			wantNotMade(t, "Refresh", err, "NewTokenManager")
			_, err = m.ForceRefresh(ctx)
			wantNotMade(t, "ForceRefresh", err, "NewTokenManager")
			for _, rejected := range []ampauth.Token{{}, {Value: ampauth.SecretFromString("x")}} {
				_, err = m.Renew(ctx, rejected)
				wantNotMade(t, "Renew", err, "NewTokenManager")
			}
			wantNotMade(t, "SetCredentials", m.SetCredentials(validConfig().Credentials), "NewTokenManager")
			wantNotMade(t, "Clear", m.Clear(ctx), "NewTokenManager")
			if _, ok := m.Info(); ok {
				t.Error("Info: there is a token")
			}

			base := stubScript(stubAnswer(200))
			for _, origin := range []string{"", "https://amp.test"} {
				for layer, rt := range map[string]http.RoundTripper{
					"AuthTransport":  &ampauth.AuthTransport{Base: base, Source: m, Origin: origin},
					"RetryTransport": &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: m, Origin: origin}},
				} {
					_, err := rt.RoundTrip(requestOf(t, "GET", "https://amp.test/api/assets"))
					if !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), "NewTokenManager") || base.attempts() != 0 {
						t.Errorf("%s with origin %q: %v after %d requests, want ErrConfig and none", layer, origin, err, base.attempts())
					}
				}
			}
			wantNotMade(t, "Close", m.Close(), "NewTokenManager")
		})
	}
}
