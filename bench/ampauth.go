package bench

import (
	"context"
	"net/http"

	"github.com/ampauth/ampauth"
)

// This package's own layers, with their defaults: ClassifyAMP, the budget of 100
// retries, no logger.

func newManager(s setup) *ampauth.TokenManager {
	m, err := ampauth.NewTokenManager(ampauth.Config{
		BaseURL:       s.URL,
		AllowHTTP:     true, // beyond a link is not loopback
		Credentials:   ampauth.Credentials{Username: username, Password: ampauth.SecretFromString(password)},
		HTTPClient:    &http.Client{Transport: s.Logins},
		Lifetime:      s.Lifetime,
		RefreshWindow: s.Window,
		Renewal:       ampauth.ObtainOnly, // as the peers' sources do
		Retry:         ampauth.RetryConfig{BaseDelay: s.BaseDelay, MaxDelay: s.MaxDelay},
	})
	if err != nil {
		panic(err)
	}
	return m
}

func ampauthTokens(s setup) tokenReader {
	m := newManager(s)
	return func(ctx context.Context) error {
		_, err := m.Token(ctx)
		return err
	}
}

func ampauthAuth(s setup) sender {
	t := &ampauth.AuthTransport{Base: s.Base, Source: newManager(s)}
	return t.RoundTrip
}

func ampauthRetry(s setup) sender { return retrying(s, s.Base) }

func ampauthStack(s setup) sender {
	s = s.withDefaults()
	return retrying(s, &ampauth.AuthTransport{Base: s.Base, Source: newManager(s)})
}

func retrying(s setup, base http.RoundTripper) sender {
	config := ampauth.RetryConfig{MaxAttempts: attempts, BaseDelay: s.BaseDelay, MaxDelay: s.MaxDelay,
		Timeout: s.Timeout, MutationTimeout: s.Timeout}
	if s.Timeout == 0 {
		config.Timeout, config.MutationTimeout = -1, -1
	}
	t := &ampauth.RetryTransport{Base: base, Retry: config}
	return t.RoundTrip
}
