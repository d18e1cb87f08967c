package ampauth

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// Credentials are what AMP's login takes.
type Credentials struct {
	Username string
	Password Secret
}

// A RenewalPolicy says how a token that ends soon is replaced.
type RenewalPolicy int

const (
	// RefreshThenObtain refreshes first and logs in if that fails. A refresh ends
	// the old token for everyone who shares the account.
	RefreshThenObtain RenewalPolicy = iota
	// ObtainOnly logs in again, which leaves the token of others alone. Choose it
	// for processes that share an account and do not share a token.
	ObtainOnly
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

	// Limiter is asked once for each attempt. If nil, there is no limit.
	Limiter *rate.Limiter

	// Classify says what a request is. If nil, ClassifyAMP.
	Classify func(*http.Request) Operation

	// MutationIdle is how long a connection for mutations is kept after its last answer,
	// where NewClient makes them, which it does unless HTTPClient has a Transport that is
	// no *http.Transport. If zero, 1 s. If negative, each mutation has a connection of its
	// own. See [ConnTransport].
	MutationIdle time.Duration

	// Store keeps the token between runs and shares it with other processes. If
	// nil, the token lives in memory only. A fault of it is told to the Logger alone.
	Store TokenStore

	// Logger gets debug records of attempts, info of logins, warnings of
	// exhaustion and refused credentials, no secrets. If nil, nothing is logged.
	Logger *slog.Logger

	// Lifetime is how long a token is taken to live from the moment it arrived;
	// AMP does not say. If zero, 24 h. If negative, it has no end.
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

const (
	defaultLifetime      = 24 * time.Hour
	defaultRefreshWindow = 5 * time.Minute
	defaultRefreshPath   = "/user/refresh-token"
	defaultScheme        = "token"
	obtainPath           = "/user/obtain_token"
)

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
	if _, rule := parseOrigin(c.BaseURL, c.AllowHTTP); rule != "" {
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
	if c.RefreshMethod != "" && !isWord(c.RefreshMethod) {
		fault("RefreshMethod", "", "is not an HTTP method")
	}
	if c.RefreshPath != "" && !isPath(c.RefreshPath) {
		fault("RefreshPath", "", "must be a path that starts with a slash, without query or fragment")
	}
	if c.Scheme != "" && !isWord(c.Scheme) {
		fault("Scheme", "", "is not an authentication scheme")
	}
	return faults
}

// faults returns what is wrong with c; passwordFault is as in Config.faults.
func (c Credentials) faults(passwordFault error) (faults []error) {
	if strings.TrimSpace(c.Username) == "" {
		faults = append(faults, configFault("Credentials.Username", envUsername, "is required"))
	} else if !utf8.ValidString(c.Username) {
		faults = append(faults, configFault("Credentials.Username", envUsername, "must be valid UTF-8"))
	}
	if passwordFault != nil {
		faults = append(faults, passwordFault)
	} else if rule := passwordRule(c.Password); rule != "" {
		faults = append(faults, configFault("Credentials.Password", envPassword+" or "+envPasswordFile, rule))
	}
	return faults
}

func configFault(field, variable, rule string) error {
	if variable != "" {
		field = fmt.Sprintf("%s (%s)", field, variable)
	}
	return &Error{Op: "config", Kind: ErrConfig, Outcome: NotSent, Err: errors.New(field + " " + rule)}
}

func passwordRule(password Secret) (rule string) {
	err := password.Expose(func(b []byte) error {
		switch {
		case len(bytes.TrimSpace(b)) == 0:
			rule = "is required"
		case !utf8.Valid(b):
			rule = "must be valid UTF-8"
		}
		return nil
	})
	if err != nil {
		rule = "was destroyed"
	}
	return rule
}

// isWord reports whether s is a token of RFC 9110 5.6.2.
func isWord(s string) bool {
	return s != "" && kindsOf(s)&notInWord == 0
}

func isPath(s string) bool {
	u, err := url.Parse(s)
	return err == nil && strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") &&
		!strings.ContainsAny(s, "?#") && u.Path != ""
}

func (c Config) lifetime() time.Duration {
	if c.Lifetime == 0 {
		return defaultLifetime
	}
	return c.Lifetime
}

func (c Config) refreshWindow() time.Duration {
	if c.RefreshWindow == 0 {
		return defaultRefreshWindow
	}
	return c.RefreshWindow
}

func (c Config) endpoint(path string) string { return strings.TrimRight(c.BaseURL, "/") + path }

func schemeOrDefault(scheme string) string {
	if scheme == "" {
		return defaultScheme
	}
	return scheme
}
