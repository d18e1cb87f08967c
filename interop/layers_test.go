package interop

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/bartventer/httpcache"
	_ "github.com/bartventer/httpcache/store/memcache"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// A layer puts somebody's RoundTripper over base.
type layer func(base http.RoundTripper) http.RoundTripper

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A place is one in the stack of ampauth's layers.
type place int

const (
	above   place = iota // of RetryTransport
	between              // it and AuthTransport
	below                // AuthTransport, over a ConnTransport
)

func (p place) String() string { return [...]string{"above", "between", "below"}[p] }

// stack is ampauth's layers over base, with theirs in one place.
func stack(t *testing.T, cfg ampauth.Config, base *http.Transport, at place, theirs layer) *http.Client {
	t.Helper()
	var rt http.RoundTripper = &ampauth.ConnTransport{Base: base}
	t.Cleanup(rt.(*ampauth.ConnTransport).CloseIdleConnections)
	if at == below {
		rt = theirs(rt)
	}
	cfg.HTTPClient = &http.Client{Transport: rt}
	tokens, err := ampauth.NewTokenManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokens.Close() })
	rt = &ampauth.AuthTransport{Source: tokens, Base: rt}
	if at == between {
		rt = theirs(rt)
	}
	rt = &ampauth.RetryTransport{Base: rt, Retry: cfg.Retry}
	if at == above {
		rt = theirs(rt)
	}
	return &http.Client{Transport: rt, CheckRedirect: ampauth.CheckRedirect}
}

func counting(counter *prometheus.CounterVec) layer {
	return func(base http.RoundTripper) http.RoundTripper {
		return promhttp.InstrumentRoundTripperCounter(counter, base)
	}
}

func newCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests"}, []string{"code", "method"})
}

func cached(base http.RoundTripper) http.RoundTripper {
	return httpcache.NewTransport("memcache://", httpcache.WithUpstream(base))
}

func TestLayersThatOnlyWatchMayStandAnywhere(t *testing.T) {
	for name, theirs := range map[string]layer{
		"otelhttp":  func(base http.RoundTripper) http.RoundTripper { return otelhttp.NewTransport(base) },
		"promhttp":  counting(newCounter()),
		"httpcache": cached,
	} {
		for _, at := range []place{above, between, below} {
			t.Run(name+" "+at.String(), func(t *testing.T) {
				amp := ampauthtest.NewServer(t, ampauthtest.Options{Repeat: []string{issuing}})
				client := stack(t, amp.Config(), amp.Transport(), at, theirs)
				want := func(what string, resp *http.Response, err error, status int) {
					t.Helper()
					if ended(resp, err) != nil || resp.StatusCode != status {
						t.Errorf("%s: %v, want %d", what, err, status)
					}
				}
				amp.Inject(ampauthtest.Fault{Route: listing, Status: 503})
				resp, err := client.Get(amp.URL + "/assets")
				want("a read after 503", resp, err, 200)

				amp.Revoke()
				resp, err = client.Post(amp.URL+"/assets/issue", "application/json", strings.NewReader("{}"))
				want("an issuance with a token that was ended", resp, err, 201)
				if n := len(amp.Effects()); n != 1 {
					t.Errorf("performed %d times, want once", n)
				}

				amp.Inject(lost["reset"])
				_, err = client.Post(amp.URL+"/assets/issue", "application/json", strings.NewReader("{}"))
				if n := len(amp.Effects()); n != 2 || !errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("%v after %d effects, want ErrAmbiguous after 2", err, n)
				}
			})
		}
	}
}

func TestPrometheusCountsCallsAboveAndAttemptsBelow(t *testing.T) {
	for at, want := range map[place][2]float64{
		above:   {0, 0},
		between: {1, 0},
		below:   {1, 1}, // logins pass there
	} {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{})
		amp.Inject(ampauthtest.Fault{Route: listing, Status: 503})
		counter := newCounter()
		client := stack(t, amp.Config(), amp.Transport(), at, counting(counter))
		if err := ended(client.Get(amp.URL + "/assets")); err != nil {
			t.Fatal(err)
		}
		if n := testutil.ToFloat64(counter.WithLabelValues("503", "get")); n != want[0] {
			t.Errorf("%v: %v attempts that were answered 503, want %v", at, n, want[0])
		}
		if n := testutil.ToFloat64(counter.WithLabelValues("200", "post")); n != want[1] {
			t.Errorf("%v: %v logins, want %v", at, n, want[1])
		}
		if n := testutil.ToFloat64(counter.WithLabelValues("200", "get")); n != 1 {
			t.Errorf("%v: %v reads that were answered 200, want 1", at, n)
		}
	}
}
