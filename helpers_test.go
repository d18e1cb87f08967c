package ampauth_test

import (
	"net/url"
	"testing"

	"github.com/ampauth/ampauth"
)

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// faults returns the errors that err joins.
func faults(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func validConfig() ampauth.Config {
	return ampauth.Config{
		BaseURL:     "https://amp.test/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
	}
}
