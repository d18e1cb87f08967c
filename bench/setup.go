package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A sender sends a request, as http.RoundTripper's method does.
type sender func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (s sender) RoundTrip(req *http.Request) (*http.Response, error) { return s(req) }

// A setup is what a contestant is put together for. Attempts are three for all.
type setup struct {
	Base   http.RoundTripper // makes the attempts
	Logins http.RoundTripper // makes the logins; if nil, Base
	URL    string            // of the API, without a final slash

	Timeout  time.Duration // of one attempt; 0: none
	Lifetime time.Duration // of a token; if zero, 24 h
	Window   time.Duration // before its end, in which a token is replaced; if zero, 5 min

	BaseDelay time.Duration // of the backoff; if zero, 1 s
	MaxDelay  time.Duration // of the backoff; if zero, 30 s
}

const attempts = 3

func (s setup) withDefaults() setup {
	if s.Logins == nil {
		s.Logins = s.Base
	}
	setDefault(&s.Lifetime, 24*time.Hour)
	setDefault(&s.Window, 5*time.Minute)
	setDefault(&s.BaseDelay, time.Second)
	setDefault(&s.MaxDelay, 30*time.Second)
	return s
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

const (
	username = "issuer"
	password = "correct horse battery staple"
)

// A grant is a token as a login yields it. AMP tells no end, so that it is the
// client that says when it ends and when to replace it.
type grant struct {
	value                string
	refreshAt, expiresAt time.Time
}

// logIn is what the token sources of the peers do: one POST, and no more.
func (s setup) logIn(ctx context.Context) (grant, error) {
	body := fmt.Sprintf(`{"username":%q,"password":%q}`, username, password)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+loginPath, strings.NewReader(body))
	if err != nil {
		return grant{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.Logins.RoundTrip(req)
	if err != nil {
		return grant{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return grant{}, errors.New("login: " + resp.Status)
	}
	var answer struct{ Token string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer); err != nil {
		return grant{}, err
	}
	end := time.Now().Add(s.Lifetime)
	return grant{answer.Token, end.Add(-s.Window), end}, nil
}

const loginPath = "/user/obtain_token"
