package bench

import "context"

// A tokenReader reads a token that is sent right away.
type tokenReader func(context.Context) error

// A layer is one way to send requests over a base.
type layer struct {
	Name string
	Over func(setup) sender
}

// A tokenCache is one way to keep a token.
type tokenCache struct {
	Name string
	Over func(setup) tokenReader
}

// The contestants. The first of each list is this package.
var (
	tokenCaches = []tokenCache{
		{"ampauth", ampauthTokens},
		{"x/oauth2", oauth2Tokens},
		{"cloud.google.com/go/auth", googleTokens},
		{"smithy-go", smithyTokens},
	}
	authLayers = []layer{
		{"ampauth", ampauthAuth},
		{"x/oauth2", oauth2Auth},
		{"cloud.google.com/go/auth", googleAuth},
		{"azcore", azureAuth},
	}
	retryLayers = []layer{
		{"ampauth", ampauthRetry},
		{"rehttp", rehttpRetry},
		{"go-retryablehttp", retryablehttpRetry},
		{"failsafe-go", failsafeRetry},
		{"azcore", azureRetry},
	}
	stacks = []layer{
		{"ampauth", ampauthStack},
		cheapestPair,
		{"go-retryablehttp over x/oauth2", over(retryablehttpRetry, oauth2Auth)},
		{"failsafe-go over x/oauth2", over(failsafeRetry, oauth2Auth)},
		{"rehttp over cloud.google.com/go/auth", over(rehttpRetry, googleAuth)},
		{"azcore", azureBoth},
	}
	// cheapestPair does both jobs at the least cost of all.
	cheapestPair = layer{"rehttp over x/oauth2", over(rehttpRetry, oauth2Auth)}
	// carefulPair is the same, told to repeat no POST.
	carefulPair = layer{cheapestPair.Name + ", no POST repeated", over(rehttpReads, oauth2Auth)}
)

// over puts a retry layer over an authenticating one. Logins pass by both.
func over(retry, auth func(setup) sender) func(setup) sender {
	return func(s setup) sender {
		s = s.withDefaults()
		s.Base = auth(s)
		return retry(s)
	}
}
