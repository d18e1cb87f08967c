package ampauth

import (
	"context"
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
	// BaseURL is where the API is, e.g. https://amp-test.blockstream.com/api, with or
	// without a final slash; URL joins a path to it.
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
	// nil, the token lives in memory only. Its faults are logged and told to OnEvent; no
	// request fails by them.
	Store TokenStore

	// Logger gets debug records of attempts, info of logins, warnings of logins and
	// refreshes that fail, of calls that are given up or in doubt, and of faults of the
	// Store; no secrets. If nil, nothing is logged.
	Logger *slog.Logger

	// OnEvent is told of logins, repeats, calls that end in doubt or are given up, and
	// faults of the Store, as they happen: for metrics and alerts. See [Event]. If nil,
	// nobody is told.
	OnEvent func(context.Context, Event)

	// Lifetime is how long a token is taken to live from the moment it arrived;
	// AMP does not say. If zero, 24 h, which is a guess: a token that has ended by it is
	// served on while logins fail, unless the credentials are refused. If negative, it
	// has no end. At least 1 ms otherwise.
	Lifetime time.Duration

	// RefreshWindow is how long before its end a token is replaced, while it is
	// still served. If zero, 5 min. For short lives it is at most half the life.
	// If negative, tokens are only replaced once they have ended. At least 1 ms otherwise.
	RefreshWindow time.Duration

	// Renewal is the policy for tokens that end soon. If zero, RefreshThenObtain,
	// which suits one process, or several that share a Store.
	Renewal RenewalPolicy

	// ObtainPath (below BaseURL) is the login call, a POST. If empty, /user/obtain_token.
	// Set it for another API that takes {"username", "password"} in JSON there and answers
	// {"token"}. That of AMP2 is another, and nothing that is public names it.
	ObtainPath string

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

// URL returns the URL of a path below BaseURL, with one slash between the two. So
// /assets, assets and /assets/?count=10 are all right: a query and a final slash are kept,
// since some of AMP's routes end with one. The path may hold escapes; what no URL may hold
// is escaped, and a fragment left out.
//
// The result is always of BaseURL's origin and below its path. A whole URL, as
// //host/path or https://host/path, is taken for a path, which AMP does not have; the
// segments . and .. are resolved, and lead no higher than BaseURL; escaped ones are escaped
// once more. The names in a path are the caller's: escape those that may hold a slash or a
// question mark with [url.PathEscape]. URL does not look for faults of c.
func (c Config) URL(path string) string { return origin.Join(c.BaseURL, path) }

// faults returns every fault. Those that were met on the way to the password
// stand in place of any that the password itself has.
func (c Config) faults(passwordFaults []error) []error {
	var faults []error
	fault := func(field, variable, rule string) {
		faults = append(faults, configFault(field, variable, rule))
	}
	if _, rule := origin.Parse(c.BaseURL, c.AllowHTTP); rule != "" {
		fault("BaseURL", envBaseURL, rule)
	}
	faults = append(faults, c.Credentials.faults(passwordFaults)...)
	if store, ok := c.Store.(*FileStore); ok && (store == nil || !filepath.IsAbs(store.Dir)) {
		fault("Store.Dir", envTokenDir, "must be an absolute path")
	}
	faults = append(faults, c.Retry.faults()...)
	if rule := tooShort(c.Lifetime, "24*time.Hour"); rule != "" {
		fault("Lifetime", "", rule)
	}
	if rule := tooShort(c.RefreshWindow, "5*time.Minute"); rule != "" {
		fault("RefreshWindow", "", rule)
	}
	if c.Renewal != RefreshThenObtain && c.Renewal != ObtainOnly {
		fault("Renewal", "", "is neither RefreshThenObtain nor ObtainOnly")
	}
	pathFault := func(field, path string) {
		if path != "" && !isPath(path) {
			fault(field, "", "must be a path that starts with a slash, without query or fragment")
		}
	}
	pathFault("ObtainPath", c.ObtainPath)
	if c.RefreshMethod != "" && !sendable.IsWord(c.RefreshMethod) {
		fault("RefreshMethod", "", "is not an HTTP method")
	}
	pathFault("RefreshPath", c.RefreshPath)
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
