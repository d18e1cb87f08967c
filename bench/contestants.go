package bench

import "context"

// A TokenReader reads a token that is sent right away.
type TokenReader func(context.Context) error

// A Layer is one way to send requests over a base.
type Layer struct {
	Name string
	Over func(Setup) Sender
}

// A TokenCache is one way to keep a token.
type TokenCache struct {
	Name string
	Over func(Setup) TokenReader
}

// The contestants. The first of each list is this package.
var (
	tokenCaches = []TokenCache{
		{"ampauth", ampauthTokens},
		{"x/oauth2", oauth2Tokens},
		{"cloud.google.com/go/auth", googleTokens},
		{"smithy-go", smithyTokens},
	}
	authLayers = []Layer{
		{"ampauth", ampauthAuth},
		{"x/oauth2", oauth2Auth},
		{"cloud.google.com/go/auth", googleAuth},
		{"azcore", azureAuth},
	}
	retryLayers = []Layer{
		{"ampauth", ampauthRetry},
		{"rehttp", rehttpRetry},
		{"go-retryablehttp", retryablehttpRetry},
		{"failsafe-go", failsafeRetry},
		{"azcore", azureRetry},
	}
	stacks = []Layer{
		{"ampauth", ampauthStack},
		cheapestPair,
		{"go-retryablehttp over x/oauth2", over(retryablehttpRetry, oauth2Auth)},
		{"failsafe-go over x/oauth2", over(failsafeRetry, oauth2Auth)},
		{"rehttp over cloud.google.com/go/auth", over(rehttpRetry, googleAuth)},
		{"azcore", azureBoth},
	}
	// cheapestPair does both jobs at the least cost of all.
	cheapestPair = Layer{"rehttp over x/oauth2", over(rehttpRetry, oauth2Auth)}
)

// over puts a retry layer over an authenticating one. Logins pass by both.
func over(retry, auth func(Setup) Sender) func(Setup) Sender {
	return func(s Setup) Sender {
		s = s.withDefaults()
		s.Base = auth(s)
		return retry(s)
	}
}
