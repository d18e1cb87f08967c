package ampauth

import (
	"cmp"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/kept"
	"github.com/ampauth/ampauth/internal/livepool"
	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/viaproxy"
	"github.com/hashicorp/go-cleanhttp"
)

// A Client is an http.Client that is logged in and survives a bad network. Its
// Do is all that a generated API client needs. Make one with [NewClient]; it is
// safe for concurrent use. One that was written as a struct is the http.Client that it
// has, and gives an error that Is [ErrConfig] if it has none.
type Client struct {
	*http.Client
	Tokens *TokenManager

	retry hiddenTransport
}

// NewClient returns a client for the account of cfg. It sends nothing yet: the
// first request logs in. A faulty configuration is an error that Is [ErrConfig]
// and names every fault. Close the client when it is no longer needed.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	base, end := lowerLayers(cfg)
	tokens := newTokenManager(cfg, base, end)
	retry := &RetryTransport{
		Base:     &AuthTransport{Base: base, Source: tokens},
		Retry:    cfg.Retry,
		Limiter:  cfg.Limiter,
		Classify: cfg.Classify,
		Logger:   cfg.Logger,
		OnEvent:  cfg.OnEvent,
	}
	client := new(http.Client)
	if cfg.HTTPClient != nil {
		*client = *cfg.HTTPClient
	}
	client.Transport = hideTransport(retry)
	// http.Client puts a text in place of the error that its Timeout cuts off.
	retry.timeout, client.Timeout = client.Timeout, 0
	theirs := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		return checkRedirect(cfg.Classify, theirs, req, via)
	}
	return &Client{Client: client, Tokens: tokens, retry: hideTransport(retry)}, nil
}

// Stats returns what happened so far.
func (c *Client) Stats() Stats {
	var s Stats
	if c != nil && c.Tokens != nil {
		s = c.Tokens.Stats()
	}
	if c != nil && c.retry.retry != nil {
		c.retry.retry().counters.addTo(&s)
	}
	return s
}

// Close ends a login that is under way, waits for it, and wipes the token; from
// then on requests fail with an error that Is [ErrClosed]. Idle connections are
// closed if the client made them, not those that Config.HTTPClient has made.
func (c *Client) Close() error {
	if c == nil || c.Client == nil && c.Tokens == nil {
		return notMade("Client", "NewClient")
	}
	if c.Tokens == nil { // an http.Client in a struct of ours
		return nil
	}
	return c.Tokens.Close()
}

// lowerLayers is what sends requests and logins: the user's transport, or pooled
// connections of our own. end closes those that the user did not bring.
func lowerLayers(cfg Config) (base http.RoundTripper, end func()) {
	if cfg.HTTPClient == nil || cfg.HTTPClient.Transport == nil {
		pooled := cleanhttp.DefaultPooledTransport()
		pooled.MaxIdleConnsPerHost = 100 // one host gets all the requests
		pooled.HTTP2 = livepool.Pinging(nil, pingTime(cfg.Retry.resolved().Timeout))
		pooled.OnProxyConnectResponse = viaproxy.Telling(nil)
		conns := &ConnTransport{Base: pooled, MutationIdle: cfg.MutationIdle}
		return conns, conns.CloseIdleConnections
	}
	conns := &ConnTransport{MutationIdle: cfg.MutationIdle}
	return conns.wrap(cfg.HTTPClient.Transport), conns.closeIdle
}

// NewTokenManager returns a manager for the account of cfg. It sends nothing yet.
// A faulty configuration is an error that Is [ErrConfig] and names every fault.
func NewTokenManager(cfg Config) (*TokenManager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	base, end := lowerLayers(cfg)
	return newTokenManager(cfg, base, end), nil
}

func newTokenManager(cfg Config, base http.RoundTripper, end func()) *TokenManager {
	retry := cfg.Retry.resolved()
	m := &TokenManager{
		account: account{
			baseURL:       origin.Trim(cfg.BaseURL),
			scheme:        cmp.Or(cfg.Scheme, defaultScheme),
			obtainPath:    cmp.Or(cfg.ObtainPath, "/user/obtain_token"),
			refreshPath:   cmp.Or(cfg.RefreshPath, "/user/refresh-token"),
			refreshMethod: cmp.Or(cfg.RefreshMethod, http.MethodGet),
			renewal:       cfg.Renewal,
			lifetime:      cmp.Or(cfg.Lifetime, 24*time.Hour),
			assumed:       cfg.Lifetime == 0,
			window:        cmp.Or(cfg.RefreshWindow, 5*time.Minute),
			retry:         retry,
		},
		log: kept.Logger(cfg.Logger),
		end: end,
	}
	m.events = listener{cfg.OnEvent, &m.counters}
	m.account.origin, _ = origin.Parse(cfg.BaseURL, cfg.AllowHTTP)
	wire := &RetryTransport{
		Base: base,
		// More attempts and the pauses are the flight's. A refresh is a mutation.
		// No Limiter: in its queue a login would stand behind those who wait for it.
		Retry:  RetryConfig{MaxAttempts: 1, Timeout: retry.Timeout, MutationTimeout: retry.Timeout, MaxRetryAfter: 1},
		states: stateLogin,
	}
	if cfg.Logger != nil {
		wire.Logger = m.log
	}
	m.wire = hideTransport(wire)
	if cfg.Store != nil {
		m.stored = &guardedStore{store: cfg.Store, logger: m.log, events: m.events}
	}
	return m.open(cfg.Credentials)
}
