package interop

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/go-resty/resty/v2"
	"github.com/gojek/heimdall/v7"
	"github.com/gojek/heimdall/v7/httpclient"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/imroc/req/v3"
)

// Clients that can retry by themselves, over an ampauth.Client.

// A retrier sends a POST by such a client, which may send it again as often as told. A
// cautious one repeats nothing that may have been performed.
type retrier func(client *ampauth.Client, again int, cautious bool) (post func(ctx context.Context, url, body string) error)

var retriers = map[string]retrier{
	"go-retryablehttp": overRetryableHTTP,
	"resty":            overResty,
	"req":              overReq,
	"heimdall":         overHeimdall,
}

// begin docs/clients.md

// mayBeDone reports whether a repeat could perform a mutation twice.
func mayBeDone(resp *http.Response, err error) bool {
	if err == nil && resp != nil {
		err = ampauth.ResponseError(resp)
	}
	return errors.Is(err, ampauth.ErrAmbiguous)
}

// end docs/clients.md

func overRetryableHTTP(client *ampauth.Client, again int, cautious bool) func(context.Context, string, string) error {
	c := retryablehttp.NewClient()
	c.HTTPClient, c.Logger, c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = client.Client, nil, again, time.Millisecond, time.Millisecond
	if cautious {
		// begin docs/clients.md

		c.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			if mayBeDone(resp, err) {
				return false, err
			}
			return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
		}

		// end docs/clients.md
	}
	return func(ctx context.Context, url, body string) error {
		req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, url, []byte(body))
		if err != nil {
			return err
		}
		return ended(c.Do(req))
	}
}

func overResty(client *ampauth.Client, again int, cautious bool) func(context.Context, string, string) error {
	c := resty.NewWithClient(client.Client).SetRetryCount(again).SetRetryWaitTime(time.Millisecond).SetLogger(quiet{})
	if cautious {
		// begin docs/clients.md

		c.AddRetryCondition(func(r *resty.Response, err error) bool {
			return err != nil && !mayBeDone(r.RawResponse, err)
		})

		// end docs/clients.md
	}
	return func(ctx context.Context, url, body string) error {
		_, err := c.R().SetContext(ctx).SetBody([]byte(body)).Post(url)
		return err
	}
}

// quiet is a logger of resty's.
type quiet struct{}

func (quiet) Errorf(string, ...any) {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}

func overReq(client *ampauth.Client, again int, cautious bool) func(context.Context, string, string) error {
	c := req.C().SetCommonRetryCount(again).SetCommonRetryFixedInterval(time.Millisecond)
	// begin docs/clients.md

	c.GetClient().CheckRedirect = client.CheckRedirect
	c.GetTransport().WrapRoundTripFunc(func(http.RoundTripper) req.HttpRoundTripFunc {
		return client.Transport.RoundTrip
	})

	// end docs/clients.md
	if cautious {
		// begin docs/clients.md

		c.SetCommonRetryCondition(func(r *req.Response, err error) bool {
			return err != nil && !mayBeDone(r.Response, err)
		})

		// end docs/clients.md
	}
	return func(ctx context.Context, url, body string) error {
		_, err := c.R().SetContext(ctx).SetBodyString(body).Post(url)
		return err
	}
}

func overHeimdall(client *ampauth.Client, again int, _ bool) func(context.Context, string, string) error {
	c := httpclient.NewClient(httpclient.WithHTTPClient(client), httpclient.WithRetryCount(again),
		httpclient.WithRetrier(heimdall.NewRetrier(heimdall.NewConstantBackoff(time.Millisecond, time.Millisecond))))
	return func(ctx context.Context, url, body string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		return ended(c.Do(req))
	}
}

// ended reads an answer to its end.
func ended(resp *http.Response, err error) error {
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// lost are ends of an issuance that was performed.
var lost = map[string]ampauthtest.Fault{
	"reset": {Route: issuing, AfterIt: true, Reset: true},
	"503":   {Route: issuing, AfterIt: true, Status: 503},
}

// issuedBy has a retrier issue an asset, and returns how often that was performed.
func issuedBy(t *testing.T, over retrier, again int, cautious bool, fault ampauthtest.Fault) (int, error) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{Tolerant: true})
	amp.Inject(fault)
	err := over(amp.Client(), again, cautious)(t.Context(), amp.URL+"/assets/issue", `{"name": "Bond"}`)
	return len(amp.Effects()), err
}

// That they do is why the document says what it says.
func TestClientThatRetriesByItselfPerformsAMutationTwice(t *testing.T) {
	for name, over := range retriers {
		if n, _ := issuedBy(t, over, 1, false, lost["reset"]); n != 2 {
			t.Errorf("%s: performed %d times, and the document says 2", name, n)
		}
	}
}

func TestClientWhoseRetriesAreOffPerformsAMutationOnce(t *testing.T) {
	for name, over := range retriers {
		for end, fault := range lost {
			n, err := issuedBy(t, over, 0, false, fault)
			if n != 1 {
				t.Errorf("%s, %s: performed %d times, want once", name, end, n)
			}
			// heimdall's error is a text.
			if name != "heimdall" && end == "reset" && !errors.Is(err, ampauth.ErrAmbiguous) {
				t.Errorf("%s: %v, want one that Is ErrAmbiguous", name, err)
			}
		}
	}
}

func TestClientThatRepeatsNoDoubtPerformsAMutationOnce(t *testing.T) {
	for name, over := range retriers {
		for end, fault := range lost {
			if name == "heimdall" { // has nowhere to say so
				continue
			}
			if n, err := issuedBy(t, over, 3, true, fault); n != 1 {
				t.Errorf("%s, %s: performed %d times, want once: %v", name, end, n, err)
			}
		}
	}
}

// As a layer it hides what it does from us as well.
func TestRetryingLayerPerformsAMutationTwiceAndTellsNobody(t *testing.T) {
	for _, at := range []place{above, between, below} {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{Tolerant: true})
		amp.Inject(lost["reset"])
		client := stack(t, amp.Config(), amp.Transport(), at, func(base http.RoundTripper) http.RoundTripper {
			standard := retryablehttp.NewClient()
			standard.Logger, standard.RetryMax, standard.RetryWaitMin = nil, 1, time.Millisecond
			standard.HTTPClient = &http.Client{Transport: base}
			return &retryablehttp.RoundTripper{Client: standard}
		})
		err := ended(client.Post(amp.URL+"/assets/issue", "application/json", strings.NewReader("{}")))
		if n := len(amp.Effects()); err != nil || n != 2 {
			t.Errorf("%v: %v after %d effects, and the document says none after 2", at, err, n)
		}
	}
}
