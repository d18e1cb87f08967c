package ampauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// renewer is a foreign source that can renew: old, then new1, new2 ...
type renewer struct {
	mu       sync.Mutex
	value    string
	renewals int
	wait     chan struct{}
}

func (r *renewer) Token(context.Context) (ampauth.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ampauth.Token{Value: ampauth.SecretFromString(r.value)}, nil
}

func (r *renewer) Renew(ctx context.Context, rejected ampauth.Token) (ampauth.Token, error) {
	if r.wait != nil {
		select {
		case <-r.wait:
		case <-ctx.Done():
			return ampauth.Token{}, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rejected.Value.Equal(ampauth.SecretFromString(r.value)) {
		r.renewals++
		r.value = fmt.Sprintf("new%d", r.renewals)
	}
	return ampauth.Token{Value: ampauth.SecretFromString(r.value)}, nil
}

func TestRefusalIsToldFromOtherAnswers(t *testing.T) {
	for _, test := range []struct {
		name    string
		resp    func() *http.Response
		refusal bool
	}{
		{"401 of any form", func() *http.Response { return stubResponse(401, "<html>", "Content-Type", "text/html") }, true},
		{"403 invalid token", func() *http.Response {
			return stubResponse(403, `{"detail":"Invalid token."}`, "Content-Type", "application/json")
		}, true},
		{"403 inactive, charset", func() *http.Response {
			return stubResponse(403, `{"detail":"User inactive or deleted."}`, "Content-Type", "application/json; charset=utf-8")
		}, true},
		{"403 no permission", func() *http.Response {
			return stubResponse(403, `{"detail":"You do not have permission to perform this action."}`, "Content-Type", "application/json")
		}, false},
		{"403 in another language", func() *http.Response {
			return stubResponse(403, `{"detail":"Token inválido."}`, "Content-Type", "application/json")
		}, false},
		{"401 in another language", func() *http.Response {
			return stubResponse(401, `{"detail":"Token inválido."}`, "Content-Type", "application/json")
		}, true},
		{"403 HTML that quotes it", func() *http.Response {
			return stubResponse(403, `{"detail":"Invalid token."}`, "Content-Type", "text/html")
		}, false},
		{"403 too long", func() *http.Response {
			return stubResponse(403, `{"detail":"Invalid token."}`+strings.Repeat(" ", 1<<10), "Content-Type", "application/json")
		}, false},
		{"403 too long, length unknown", func() *http.Response {
			r := stubResponse(403, `{"detail":"Invalid token."}`+strings.Repeat(" ", 1<<10), "Content-Type", "application/json")
			r.ContentLength = -1
			return r
		}, false},
		{"404", func() *http.Response {
			return stubResponse(404, `{"detail":"Invalid token."}`, "Content-Type", "application/json")
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := &renewer{value: "old"}
			auth := &ampauth.AuthTransport{Source: source, Origin: "https://amp.test"}
			var sent []string
			auth.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent = append(sent, req.Header.Get("Authorization"))
				return test.resp(), nil
			})
			req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
			resp, err := (&ampauth.RetryTransport{Base: auth}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := io.ReadAll(test.resp().Body)
			if got, _ := io.ReadAll(resp.Body); string(got) != string(want) {
				t.Errorf("the body is %q, want it whole", got)
			}
			if replayed := len(sent) == 2; replayed != test.refusal {
				t.Errorf("sent %q; replay is wanted: %v", sent, test.refusal)
			}
		})
	}
}

func TestAloneARefusalStartsARenewalThatNobodyWaitsFor(t *testing.T) {
	source := &renewer{value: "old", wait: make(chan struct{})}
	rt := &ampauth.AuthTransport{Source: source, Origin: "https://amp.test",
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "token old" {
				return stubResponse(401, `{"detail":"Invalid token."}`, "Content-Type", "application/json"), nil
			}
			return stubResponse(200, ""), nil
		})}
	status := func() int {
		req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for range 5 { // the renewal is stuck, and nobody is
		if got := status(); got != 401 {
			t.Fatalf("status %d before the renewal, want the refusal", got)
		}
	}
	close(source.wait)
	deadline := time.Now().Add(10 * time.Second)
	for status() != 200 {
		if time.Now().After(deadline) {
			t.Fatal("no request ever had the new token")
		}
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.renewals != 1 {
		t.Errorf("%d renewals, want 1", source.renewals)
	}
}

func TestAloneEachRefusalStartsARenewalByAForeignRenewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var renewing []context.Context
		source := tokenThatIsRenewed()
		source.renewed = func(ctx context.Context) (ampauth.Token, error) {
			renewing = append(renewing, ctx)
			return oneToken("new")
		}
		auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(401)), Source: source, Origin: "https://api.test"}
		for range 3 {
			stubStatus(t, auth, stubRequest(t.Context(), ampauth.SafeOperation, nil))
			synctest.Wait()
		}
		if len(renewing) != 3 {
			t.Errorf("%d renewals of 3 refusals, want 3", len(renewing))
		}
		for _, ctx := range renewing {
			if ctx.Err() == nil {
				t.Error("the context of a renewal outlives it")
			}
		}
	})
}

func TestRefusalOfAnEarlierTryOfALayerIsForgotten(t *testing.T) {
	source, renewals := tokenThatIsRenewed(), 0
	source.renewed = func(context.Context) (ampauth.Token, error) { renewals++; return oneToken("new") }
	base := stubScript(stubAnswer(401), stubAnswer(403))
	auth := &ampauth.AuthTransport{Base: base, Source: source, Origin: "https://api.test"}
	repeats := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			stubText(t, resp)
		}
		return auth.RoundTrip(req)
	})
	status := stubStatus(t, &ampauth.RetryTransport{Base: repeats}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if status != 403 || base.attempts() != 2 || renewals != 0 {
		t.Errorf("status %d after %d requests and %d renewals, want 403 after 2 and none", status, base.attempts(), renewals)
	}
}

func TestRefusalThatALayerMadeGoodIsNoRefusal(t *testing.T) {
	base := stubScript(stubAnswer(401))
	auth := &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"}
	cache := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := auth.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		stubText(t, resp)
		return stubResponse(200, "from the cache"), nil
	})
	resp, err := (&ampauth.RetryTransport{Base: cache}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if err != nil || resp.StatusCode != 200 || stubText(t, resp) != "from the cache" || base.attempts() != 1 {
		t.Errorf("got (%v, %v) after %d attempts, want the layer's 200 after 1", resp, err, base.attempts())
	}
}

func TestRefusalOfALayerThatHadNoTokenIsReturned(t *testing.T) {
	auth := &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stubNoToken(io.EOF), Origin: "https://api.test"}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			return resp, nil
		}
		return stubResponse(401, "please log in"), nil
	})
	resp, err := (&ampauth.RetryTransport{Base: layer}).RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
	if err != nil || resp.StatusCode != 401 || stubText(t, resp) != "please log in" {
		t.Errorf("got (%v, %v), want the layer's own 401", resp, err)
	}
}

// Behind a manager the login is under way before anybody else asks.
func TestAloneARefusalStartsALoginOfTheManager(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		rt := &ampauth.AuthTransport{Base: w.transport, Source: m}
		client := &http.Client{Transport: rt}
		w.wantStatus(client, "/assets", 200)
		w.Revoke("issuer")
		w.wantStatus(client, "/assets", 401)
		synctest.Wait()
		w.wantSent(2, 0)
		w.wantStatus(client, "/assets", 200)
		w.wantSent(2, 0)
	})
}
