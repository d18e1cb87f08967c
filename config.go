package ampauth

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/sendable"
)

// A Config describes one account on one AMP server. [NewClient] makes a client
// of it, [NewTokenManager] only the source of tokens. Neither changes it.
type Config struct {
	// BaseURL is where the API is, e.g. https://amp-test.blockstream.com/api.
	// Required. The token and the password go to its origin and nowhere else.
	BaseURL string

	// Credentials of the account. Required.
	Credentials Credentials

	// HTTPClient is copied, never changed: its transport (proxy, TLS, tracing) is
	// used for all requests and for logins, its Jar is kept, and its CheckRedirect is
	// asked about what [CheckRedirect] lets pass. Its Timeout bounds each call, with
	// all attempts, redirects and the response's body; RetryTransport sees to that, so
	// that the error is one of this package, and Timeout is 0 in the Client. If it or
	// its transport is nil, new pooled connections are used.
	HTTPClient *http.Client

	// Retry shapes the attempts. Zero fields take the defaults.
	Retry RetryConfig

	// Limiter is asked before each attempt of a request; see [RetryTransport].
	// Logins do not wait for it. If nil, there is no limit.
	Limiter Limiter

	// Classify says what a request is. If nil, ClassifyAMP.
	Classify func(*http.Request) Operation

	// MutationIdle is how long a connection for mutations is kept after its last answer,
	// where NewClient makes them, which it does unless HTTPClient has a Transport that is
	// no *http.Transport. If zero, 1 s. If negative, each mutation has a connection of its
	// own. See [ConnTransport].
	MutationIdle time.Duration

	// Store keeps the token between runs and shares it with other processes. If
	// nil, the token lives in memory only. Its faults are logged; no request fails by them.
	Store TokenStore

	// Logger gets debug records of attempts, info of logins, warnings of
	// exhaustion and refused credentials, no secrets. If nil, nothing is logged.
	Logger *slog.Logger

	// Lifetime is how long a token is taken to live from the moment it arrived;
	// AMP does not say. If zero, 24 h, which is a guess: a token that has ended by it is
	// served on while logins fail, unless the credentials are refused. If negative, it
	// has no end.
	Lifetime time.Duration

	// RefreshWindow is how long before its end a token is replaced, while it is
	// still served. If zero, 5 min. For short lives it is at most half the life.
	// If negative, tokens are only replaced once they have ended.
	RefreshWindow time.Duration

	// Renewal is the policy for tokens that end soon. If zero, RefreshThenObtain,
	// which suits one process, or several that share a Store.
	Renewal RenewalPolicy

	// RefreshMethod and RefreshPath (below BaseURL) are the refresh call, on which
	// the sources about AMP disagree. If empty, GET and /user/refresh-token.
	RefreshMethod string
	RefreshPath   string

	// Scheme is the word before the token in the Authorization header.
	// If empty, "token". AMP2 wants "Bearer".
	Scheme string

	// AllowHTTP permits plain http to hosts other than loopback. The password and
	// the token then cross the network in clear.
	AllowHTTP bool
}

// Validate returns every fault of c, joined, or nil. Each names its field (and
// environment variable), shows no value, and Is [ErrConfig].
func (c Config) Validate() error {
	return errors.Join(c.faults(nil)...)
}

// faults returns every fault. A fault that was met on the way to the password
// stands in place of any that the password itself has.
func (c Config) faults(passwordFault error) []error {
	var faults []error
	fault := func(field, variable, rule string) {
		faults = append(faults, configFault(field, variable, rule))
	}
	if _, rule := origin.Parse(c.BaseURL, c.AllowHTTP); rule != "" {
		fault("BaseURL", envBaseURL, rule)
	}
	faults = append(faults, c.Credentials.faults(passwordFault)...)
	if store, ok := c.Store.(*FileStore); ok && (store == nil || !filepath.IsAbs(store.Dir)) {
		fault("Store.Dir", envTokenDir, "must be an absolute path")
	}
	faults = append(faults, c.Retry.faults()...)
	if c.Renewal != RefreshThenObtain && c.Renewal != ObtainOnly {
		fault("Renewal", "", "is neither RefreshThenObtain nor ObtainOnly")
	}
	if c.RefreshMethod != "" && !sendable.IsWord(c.RefreshMethod) {
		fault("RefreshMethod", "", "is not an HTTP method")
	}
	if c.RefreshPath != "" && !isPath(c.RefreshPath) {
		fault("RefreshPath", "", "must be a path that starts with a slash, without query or fragment")
	}
	if c.Scheme != "" && !sendable.IsWord(c.Scheme) {
		fault("Scheme", "", "is not an authentication scheme")
	}
	return faults
}

func isPath(s string) bool {
	u, err := url.Parse(s)
	return err == nil && strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") &&
		!strings.ContainsAny(s, "?#") && u.Path != ""
}
