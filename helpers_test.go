package ampauth_test

import (
	"github.com/ampauth/ampauth"
)

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
