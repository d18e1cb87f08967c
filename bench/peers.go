package bench

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"

	googleauth "cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/PuerkitoBio/rehttp"
	"github.com/aws/smithy-go/auth/bearer"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
)

// The peers, each put together as its documentation says, with a token source
// that makes the same login, three attempts, and a backoff from the same first to
// the same longest wait, each with the jitter that it has. They get an *http.Request,
// as a RoundTripper does, unless the name says otherwise.

// oauth2Source is an oauth2.TokenSource, whose Token has no context.
type oauth2Source struct{ setup }

func (s oauth2Source) Token() (*oauth2.Token, error) {
	g, err := s.logIn(context.Background())
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: g.value, TokenType: "token", Expiry: g.expiresAt}, nil
}

// x/oauth2: ReuseTokenSource, as every Config of it makes one. How long before
// its end a token is replaced is a setting of ReuseTokenSourceWithExpiry.
func oauth2Cache(s setup) oauth2.TokenSource {
	return oauth2.ReuseTokenSourceWithExpiry(nil, oauth2Source{s}, s.Window)
}

func oauth2Tokens(s setup) tokenReader {
	source := oauth2Cache(s)
	return func(context.Context) error {
		_, err := source.Token()
		return err
	}
}

func oauth2Auth(s setup) sender {
	t := &oauth2.Transport{Base: s.Base, Source: oauth2Cache(s)}
	return t.RoundTrip
}

// googleProvider is an auth.TokenProvider.
type googleProvider struct{ setup }

func (p googleProvider) Token(ctx context.Context) (*googleauth.Token, error) {
	g, err := p.logIn(ctx)
	if err != nil {
		return nil, err
	}
	return &googleauth.Token{Value: g.value, Type: "token", Expiry: g.expiresAt}, nil
}

// cloud.google.com/go/auth: a cached provider, refreshed in the background.
func googleCache(s setup) googleauth.TokenProvider {
	return googleauth.NewCachedTokenProvider(googleProvider{s}, &googleauth.CachedTokenProviderOptions{ExpireEarly: s.Window})
}

func googleTokens(s setup) tokenReader {
	provider := googleCache(s)
	return func(ctx context.Context) error {
		_, err := provider.Token(ctx)
		return err
	}
}

// googleAuth is AddAuthorizationMiddleware; NewClient would add OpenTelemetry.
func googleAuth(s setup) sender {
	client := &http.Client{Transport: s.Base}
	credentials := googleauth.NewCredentials(&googleauth.CredentialsOptions{TokenProvider: googleCache(s)})
	if err := httptransport.AddAuthorizationMiddleware(client, credentials); err != nil {
		panic(err)
	}
	return client.Transport.RoundTrip
}

// smithyProvider is a bearer.TokenProvider.
type smithyProvider struct{ setup }

func (p smithyProvider) RetrieveBearerToken(ctx context.Context) (bearer.Token, error) {
	g, err := p.logIn(ctx)
	if err != nil {
		return bearer.Token{}, err
	}
	return bearer.Token{Value: g.value, CanExpire: true, Expires: g.expiresAt}, nil
}

// smithy-go: the cache of bearer tokens, refreshed in the background.
func smithyCache(s setup) *bearer.TokenCache {
	return bearer.NewTokenCache(smithyProvider{s}, func(o *bearer.TokenCacheOptions) {
		o.RefreshBeforeExpires = s.Window
	})
}

func smithyTokens(s setup) tokenReader {
	cache := smithyCache(s)
	return func(ctx context.Context) error {
		_, err := cache.RetrieveBearerToken(ctx)
		return err
	}
}

// smithyAuth is a plain transport over the cache: smithy-go's own is part of an SDK.
func smithyAuth(s setup) sender {
	cache := smithyCache(s)
	return func(req *http.Request) (*http.Response, error) {
		token, err := cache.RetrieveBearerToken(req.Context())
		if err != nil {
			return nil, err
		}
		authorized := req.Clone(req.Context())
		authorized.Header.Set("Authorization", "token "+token.Value)
		return s.Base.RoundTrip(authorized)
	}
}

// go-retryablehttp: its RoundTripper, which StandardClient is made of, quiet. The
// timeout is that of its inner client, which bounds one attempt.
func retryablehttpRetry(s setup) sender {
	t := &retryablehttp.RoundTripper{Client: retryablehttpClient(s)}
	return t.RoundTrip
}

func retryablehttpClient(s setup) *retryablehttp.Client {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{Transport: s.Base, Timeout: s.Timeout}
	client.Logger = nil
	client.RetryMax = attempts - 1
	client.RetryWaitMin, client.RetryWaitMax = s.BaseDelay, s.MaxDelay
	return client
}

// retryablehttpOwn sends a request of go-retryablehttp's own type, made of bytes,
// which its documentation calls the best choice. It is made once.
func retryablehttpOwn(s setup) sender {
	client := retryablehttpClient(s)
	var own *retryablehttp.Request
	return func(req *http.Request) (*http.Response, error) {
		if own == nil {
			content, err := io.ReadAll(req.Body)
			if err != nil {
				return nil, err
			}
			if own, err = retryablehttp.NewRequest(req.Method, req.URL.String(), content); err != nil {
				return nil, err
			}
			own.Header = req.Header
		}
		return client.Do(own)
	}
}

// failsafe-go: its retry policy for HTTP around its timeout policy.
func failsafeRetry(s setup) sender {
	return failsafeSender(s, failsafePolicy(s))
}

// failsafeBudgetRetry has a budget as well, which bounds the retries that are on
// their way at a time.
func failsafeBudgetRetry(s setup) sender {
	return failsafeSender(s, failsafePolicy(s).WithBudget(budget.New()))
}

// failsafeBreakerRetry has a circuit breaker as well, what its documentation offers
// against overload: after five failures in a row it lets one call through a second.
func failsafeBreakerRetry(s setup) sender {
	failed := func(resp *http.Response, err error) bool { return err != nil || resp.StatusCode >= 500 }
	breaker := circuitbreaker.NewBuilder[*http.Response]().HandleIf(failed).WithFailureThreshold(5).WithDelay(s.BaseDelay).Build()
	return failsafeSender(s, failsafePolicy(s).AbortOnErrors(circuitbreaker.ErrOpen), breaker)
}

func failsafePolicy(s setup) retrypolicy.Builder[*http.Response] {
	return failsafehttp.NewRetryPolicyBuilder().
		WithMaxRetries(attempts-1).
		WithBackoff(s.BaseDelay, s.MaxDelay).
		WithJitterFactor(.5).
		ReturnLastFailure()
}

func failsafeSender(s setup, retry retrypolicy.Builder[*http.Response], inner ...failsafe.Policy[*http.Response]) sender {
	policies := append([]failsafe.Policy[*http.Response]{retry.Build()}, inner...)
	if s.Timeout > 0 {
		policies = append(policies, timeout.New[*http.Response](s.Timeout))
	}
	return failsafehttp.NewRoundTripper(s.Base, policies...).RoundTrip
}

// rehttp: what to repeat is the user's to say. Here: what the other peers repeat,
// any error and the statuses that may pass, whatever the method.
func rehttpRetry(s setup) sender {
	return rehttpSender(s, rehttp.RetryAny(
		rehttp.RetryStatuses(408, 429, 500, 502, 503, 504),
		rehttp.RetryIsErr(func(err error) bool { return err != nil }),
	))
}

// rehttpReads repeats the same, but of GET and HEAD alone.
func rehttpReads(s setup) sender {
	return rehttpSender(s, rehttp.RetryAll(
		rehttp.RetryHTTPMethods(http.MethodGet, http.MethodHead),
		rehttp.RetryAny(
			rehttp.RetryStatuses(408, 429, 500, 502, 503, 504),
			rehttp.RetryIsErr(func(err error) bool { return err != nil }),
		)))
}

// rehttpExample repeats what the example of rehttp's documentation repeats.
func rehttpExample(s setup) sender { return rehttpSender(s, rehttp.RetryTemporaryErr()) }

func rehttpSender(s setup, repeats rehttp.RetryFn) sender {
	t := rehttp.NewTransport(s.Base,
		rehttp.RetryAll(rehttp.RetryMaxRetries(attempts-1), repeats),
		rehttp.ExpJitterDelay(s.BaseDelay, s.MaxDelay))
	t.PerAttemptTimeout = s.Timeout
	return t.RoundTrip
}

// azureCredential is an azcore.TokenCredential.
type azureCredential struct{ setup }

func (c azureCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	g, err := c.logIn(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return azcore.AccessToken{Token: g.value, ExpiresOn: g.expiresAt, RefreshOn: g.refreshAt}, nil
}

type transporter struct{ http.RoundTripper }

func (t transporter) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// azurePipeline is azcore's, but for the header of telemetry. It retries after these
// statuses, or the usual ones if there are none.
func azurePipeline(s setup, retries int32, authenticated bool, statuses ...int) runtime.Pipeline {
	options := &policy.ClientOptions{
		Transport: transporter{s.Base},
		Retry: policy.RetryOptions{
			MaxRetries: retries, TryTimeout: s.Timeout, RetryDelay: s.BaseDelay, MaxRetryDelay: s.MaxDelay, StatusCodes: statuses,
		},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	var perRetry []policy.Policy
	if authenticated {
		perRetry = append(perRetry, runtime.NewBearerTokenPolicy(azureCredential{s}, []string{"amp"},
			&policy.BearerTokenOptions{InsecureAllowCredentialWithHTTP: true}))
	}
	return runtime.NewPipeline("bench", "v0.0.0", runtime.PipelineOptions{PerRetry: perRetry}, options)
}

// azureSender sends by a pipeline, without buffering the response, as others do.
func azureSender(pipeline runtime.Pipeline) sender {
	return func(req *http.Request) (*http.Response, error) {
		request, err := runtime.NewRequestFromRequest(req)
		if err != nil {
			return nil, err
		}
		runtime.SkipBodyDownload(request)
		return pipeline.Do(request)
	}
}

const noRetries = -1

func azureAuth(s setup) sender  { return azureSender(azurePipeline(s, noRetries, true)) }
func azureRetry(s setup) sender { return azureSender(azurePipeline(s, attempts-1, false)) }
func azureBoth(s setup) sender  { return azureSender(azurePipeline(s, attempts-1, true)) }

// azureRepeatingRefusals retries after 401 as well. Its token policy throws the token
// away at a 401, so that the second attempt has another.
func azureRepeatingRefusals(s setup) sender {
	return azureSender(azurePipeline(s, attempts-1, true, 401, 408, 429, 500, 502, 503, 504))
}

// azureOwn sends a request of azcore's own type, made of bytes, as its SDKs do. It is
// made once.
func azureOwn(s setup) sender {
	pipeline := azurePipeline(s, attempts-1, true)
	var own *policy.Request
	return func(req *http.Request) (*http.Response, error) {
		if own == nil {
			content, err := io.ReadAll(req.Body)
			if err != nil {
				return nil, err
			}
			if own, err = runtime.NewRequest(req.Context(), req.Method, req.URL.String()); err != nil {
				return nil, err
			}
			if err := own.SetBody(streaming.NopCloser(bytes.NewReader(content)), "application/json"); err != nil {
				return nil, err
			}
			maps.Copy(own.Raw().Header, req.Header)
			runtime.SkipBodyDownload(own)
		}
		return pipeline.Do(own)
	}
}
