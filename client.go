package ampauth

import (
	"net/http"

	"github.com/ampauth/ampauth/internal/livepool"
	"github.com/hashicorp/go-cleanhttp"
)

// A Client is an http.Client that is logged in and survives a bad network. Its
// Do is all that a generated API client needs. Make one with [NewClient]; it is
// safe for concurrent use.
type Client struct {
	*http.Client
	Tokens *TokenManager

	retry hiddenTransport
}

// A hiddenTransport is a RetryTransport that no printer gets into: the buffers of
// net/http, in which a password or token was sent, are behind it.
type hiddenTransport struct{ retry func() *RetryTransport }

func hideTransport(t *RetryTransport) hiddenTransport {
	return hiddenTransport{func() *RetryTransport { return t }}
}

// RoundTrip implements http.RoundTripper.
func (h hiddenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return h.retry().RoundTrip(req)
}

// CloseIdleConnections is for http.Client's.
func (h hiddenTransport) CloseIdleConnections() { h.retry().CloseIdleConnections() }

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
	c.Tokens.counters.addTo(&s)
	c.retry.retry().counters.addTo(&s)
	return s
}

// Close ends a login that is under way, waits for it, and wipes the token; from
// then on requests fail with an error that Is [ErrClosed]. Idle connections are
// closed if the client made them, not those that Config.HTTPClient has made.
func (c *Client) Close() error { return c.Tokens.Close() }

// lowerLayers is what sends requests and logins: the user's transport, or pooled
// connections of our own. end closes those that the user did not bring.
func lowerLayers(cfg Config) (base http.RoundTripper, end func()) {
	if cfg.HTTPClient == nil || cfg.HTTPClient.Transport == nil {
		pooled := cleanhttp.DefaultPooledTransport()
		pooled.MaxIdleConnsPerHost = 100 // one host gets all the requests
		pooled.HTTP2 = livepool.Pinging(nil, pingTime(cfg.Retry.resolved().Timeout))
		conns := &ConnTransport{Base: pooled, MutationIdle: cfg.MutationIdle}
		return conns, conns.CloseIdleConnections
	}
	conns := &ConnTransport{MutationIdle: cfg.MutationIdle}
	return conns.over(cfg.HTTPClient.Transport), conns.closeIdle
}
