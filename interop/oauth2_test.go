package interop

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"golang.org/x/oauth2"
)

// begin docs/clients.md

// fromOAuth2 is an oauth2.TokenSource as a TokenSource of an AuthTransport.
type fromOAuth2 struct{ source oauth2.TokenSource }

func (s fromOAuth2) Token(context.Context) (ampauth.Token, error) {
	t, err := s.source.Token()
	if err != nil {
		return ampauth.Token{}, err
	}
	return ampauth.Token{Value: ampauth.SecretFromString(t.AccessToken), ExpiresAt: t.Expiry}, nil
}

// end docs/clients.md

// begin docs/clients.md

// toOAuth2 is a TokenManager as an oauth2.TokenSource.
type toOAuth2 struct{ tokens *ampauth.TokenManager }

func (s toOAuth2) Token() (*oauth2.Token, error) {
	t, err := s.tokens.Token(context.Background())
	if err != nil {
		return nil, err
	}
	theirs := &oauth2.Token{TokenType: "token", Expiry: t.ExpiresAt}
	return theirs, t.Value.Expose(func(b []byte) error { theirs.AccessToken = string(b); return nil })
}

// end docs/clients.md

// A rotating source brings another token each time.
type rotating struct {
	values []string
	err    error
}

func (r *rotating) Token() (*oauth2.Token, error) {
	if r.err != nil {
		return nil, r.err
	}
	t := &oauth2.Token{AccessToken: r.values[0]}
	if len(r.values) > 1 {
		r.values = r.values[1:]
	}
	return t, nil
}

func TestTokenOfAnOAuth2SourceIsSentAndNotRenewed(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"))
		if len(asked) == 1 {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	source := &rotating{values: []string{"first", "second"}}
	// begin docs/clients.md

	client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: &ampauth.RetryTransport{
		Base: &ampauth.AuthTransport{Source: fromOAuth2{source}, Origin: server.URL, Scheme: "Bearer"},
	}}

	// end docs/clients.md
	for i, want := range []int{401, 200} {
		resp, err := client.Get(server.URL + "/api/assets")
		if ended(resp, err) != nil || resp.StatusCode != want || len(asked) != i+1 {
			t.Errorf("%v after %q, want %d", err, asked, want)
		}
	}
	if len(asked) != 2 || asked[0] != "Bearer first" || asked[1] != "Bearer second" {
		t.Errorf("it was asked with %q", asked)
	}

	// Theirs keeps a token until its end, refused or not.
	kept := &http.Client{Transport: &ampauth.AuthTransport{
		Source: fromOAuth2{oauth2.ReuseTokenSource(nil, &rotating{values: []string{"third", "fourth"}})}, Origin: server.URL,
	}}
	for range 2 {
		asked = asked[:0] // the first is refused
		resp, err := kept.Get(server.URL + "/api/assets")
		if ended(resp, err) != nil || resp.StatusCode != 401 || asked[0] != "token third" {
			t.Errorf("%v after %q, want 401 after the third", err, asked)
		}
	}

	asked = asked[:0]
	source.err = errors.New("no token today")
	_, err := client.Get(server.URL + "/api/assets")
	if e, ok := errors.AsType[*ampauth.Error](err); !ok || e.Outcome != ampauth.NotSent || !errors.Is(err, source.err) || len(asked) != 0 {
		t.Errorf("%v, want NotSent and the error of the source", err)
	}
}

func TestOAuth2SourceThatBlocksHoldsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		client := &http.Client{Transport: &ampauth.RetryTransport{
			Base: &ampauth.AuthTransport{Source: fromOAuth2{blocked(release)}, Origin: "https://api.test"},
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "https://api.test/assets", nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Hour, func() { close(release) })
		if err := ended(client.Do(req)); err == nil || time.Since(start) != time.Hour {
			t.Errorf("%v after %v, and the document says that it waits for the source", err, time.Since(start))
		}
	})
}

type blocked chan struct{}

func (b blocked) Token() (*oauth2.Token, error) {
	<-b
	return nil, errors.New("too late")
}

func TestOAuth2TransportOverAManagerSendsItsTokenAndDoesNotRenew(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	tokens, err := ampauth.NewTokenManager(amp.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	client := &http.Client{Transport: &oauth2.Transport{Source: toOAuth2{tokens}, Base: amp.Transport()}}
	var elsewhere string
	stranger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = r.Header.Get("Authorization")
	}))
	defer stranger.Close()

	for _, want := range []int{200, 401, 401} {
		resp, err := client.Get(amp.URL + "/assets")
		if ended(resp, err) != nil || resp.StatusCode != want {
			t.Errorf("%v, want %d", err, want)
		}
		if want == 200 {
			amp.Revoke()
		}
	}
	if n := amp.Count(login); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if err := ended(client.Get(stranger.URL)); err != nil || elsewhere == "" {
		t.Errorf("%v: a stranger got no token, and the document says that it does", err)
	}
}

// oauth2.NewClient keeps a token until its Expiry, whatever the manager has by then.
func TestOAuth2NewClientMissesATokenThatTheManagerHasRenewed(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	tokens, err := ampauth.NewTokenManager(amp.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	base := &http.Client{Transport: amp.Transport()}
	for keeps, client := range map[bool]*http.Client{
		true:  oauth2.NewClient(context.WithValue(t.Context(), oauth2.HTTPClient, base), toOAuth2{tokens}),
		false: {Transport: &oauth2.Transport{Source: toOAuth2{tokens}, Base: base.Transport}},
	} {
		for _, renewed := range []bool{false, true} {
			want := 200
			if renewed {
				if _, err := tokens.ForceRefresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				if keeps {
					want = 401
				}
			}
			resp, err := client.Get(amp.URL + "/assets")
			if ended(resp, err) != nil || resp.StatusCode != want {
				t.Errorf("keeps %v, renewed %v: %v, want %d", keeps, renewed, err, want)
			}
		}
	}
}
