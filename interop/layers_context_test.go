package interop

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// What the layers tell each other, and what the caller tells them, is in the context.

// inContext is a layer that sends each request with a context made of its own.
func inContext(of func(context.Context) context.Context) layer {
	return func(base http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return base.RoundTrip(req.WithContext(of(req.Context())))
		})
	}
}

func replaced(context.Context) context.Context { return context.Background() }

func TestLayerBetweenThatReplacesTheContextStopsTheReplay(t *testing.T) {
	type key struct{}
	for name, test := range map[string]struct {
		of     func(context.Context) context.Context
		status int
	}{
		"replaced": {replaced, 401},
		"derived":  {func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, 1) }, 200},
		"detached": {context.WithoutCancel, 200},
	} {
		t.Run(name, func(t *testing.T) {
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			client := stack(t, amp.Config(), amp.Transport(), between, inContext(test.of))
			for i, want := range []int{200, test.status, 200} {
				resp, err := client.Get(amp.URL + "/assets")
				if ended(resp, err) != nil || resp.StatusCode != want {
					t.Fatalf("%v, want %d", err, want)
				}
				if i == 0 {
					amp.Revoke()
				}
			}
		})
	}
}

func TestLayerBelowThatReplacesTheContextLeavesNoProof(t *testing.T) {
	for name, test := range map[string]struct {
		of     func(context.Context) context.Context
		status int
	}{
		"replaced": {replaced, 401},
		"detached": {context.WithoutCancel, 201},
	} {
		t.Run(name, func(t *testing.T) {
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			client := stack(t, amp.Config(), amp.Transport(), below, inContext(test.of))
			for _, want := range []int{200, 200} { // a read is replayed all the same
				resp, err := client.Get(amp.URL + "/assets")
				if ended(resp, err) != nil || resp.StatusCode != want {
					t.Fatalf("%v, want %d", err, want)
				}
				amp.Revoke()
			}
			resp, err := client.Post(amp.URL+"/assets/issue", "application/json", strings.NewReader("{}"))
			if ended(resp, err) != nil || resp.StatusCode != test.status {
				t.Errorf("%v, want %d", err, test.status)
			}
		})
	}
}

func TestLayerAboveThatReplacesTheContextLosesWhatTheCallerSaid(t *testing.T) {
	for attempts, of := range map[int]func(context.Context) context.Context{1: context.WithoutCancel, 2: replaced} {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{})
		amp.Inject(ampauthtest.Fault{Route: listing, Status: 503})
		client := stack(t, amp.Config(), amp.Transport(), above, inContext(of))
		req, err := http.NewRequestWithContext(ampauth.WithoutRetry(t.Context()), "GET", amp.URL+"/assets", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ended(client.Do(req)); err != nil || amp.Count(listing) != attempts {
			t.Errorf("%v after %d attempts, want %d", err, amp.Count(listing), attempts)
		}
	}
}
