package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestRequestsThatCannotBeSent(t *testing.T) {
	for name, spoil := range map[string]func(*http.Request){
		"no URL":    func(r *http.Request) { r.URL = nil },
		"no header": func(r *http.Request) { r.Header = nil },
	} {
		t.Run(name, func(t *testing.T) {
			body := newStubBody("x")
			req := stubRequest(t.Context(), ampauth.SafeOperation, body)
			spoil(req)
			base := stubScript(stubAnswer(200))
			_, err := (&ampauth.RetryTransport{Base: base}).RoundTrip(req)
			if e := stubError(t, err); e.Outcome != ampauth.NotSent || base.attempts() != 0 || body.closed.Load() != 1 {
				t.Errorf("got %v (%v), %d attempts, body closed %d times; want NotSent, 0, once", err, e.Outcome, base.attempts(), body.closed.Load())
			}
		})
	}
}

// What net/http would turn away is found before anything is tried or logged in for.
func TestRequestThatCanNeverBeSentIsFinalAtOnce(t *testing.T) {
	const secret = "hunter2"
	for name, test := range map[string]struct {
		spoil func(*http.Request)
		says  string
	}{
		"line break in a header field":  {func(r *http.Request) { r.Header.Set("X-Reference", secret+"\r\nX: y") }, "header field X-Reference"},
		"control character in one":      {func(r *http.Request) { r.Header.Set("X-Reference", secret+"\x00") }, "header field X-Reference"},
		"second value of one":           {func(r *http.Request) { r.Header.Add("X-Reference", "a"); r.Header.Add("X-Reference", secret+"\x7f") }, "header field X-Reference"},
		"name of a header field":        {func(r *http.Request) { r.Header[secret+" :"] = []string{"a"} }, "name of a header field"},
		"empty name":                    {func(r *http.Request) { r.Header[""] = []string{"a"} }, "name of a header field"},
		"trailer":                       {func(r *http.Request) { r.Trailer = http.Header{"X-Sum": {secret + "\n"}} }, "trailer field X-Sum"},
		"method":                        {func(r *http.Request) { r.Method = "PO ST" + secret }, "method"},
		"no host":                       {func(r *http.Request) { r.URL.Host = "" }, "no host"},
		"query":                         {func(r *http.Request) { r.URL.RawQuery = secret + "\n" }, "URL"},
		"tab in a query":                {func(r *http.Request) { r.URL.RawQuery = secret + "\t" }, "URL"},
		"length without a body":         {func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, 7 }, "ContentLength"},
		"unknown length without a body": {func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, -1 }, "ContentLength"},
		"no URL":                        {func(r *http.Request) { r.URL = nil }, "no URL"},
		"no header map":                 {func(r *http.Request) { r.Header = nil }, "header map"},
		"scheme":                        {func(r *http.Request) { r.URL.Scheme = "amp" }, "scheme"},
		"forbidden trailer":             {func(r *http.Request) { r.Trailer = http.Header{"Content-Length": {secret}} }, "trailer field Content-Length"},
		"no scheme":                     {func(r *http.Request) { r.URL.Scheme = "" }, "scheme"},
	} {
		for _, method := range []string{"GET", "POST"} {
			for layered, base := range map[string]http.RoundTripper{
				"":               new(http.Transport),
				" under a layer": roundTripFunc(func(r *http.Request) (*http.Response, error) { return new(http.Transport).RoundTrip(r) }),
			} {
				t.Run(name+", "+method+layered, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Budget: 1}}
						began := time.Now()
						calls := 0
						body := newStubBody("x")
						_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(ctx context.Context) (int, error) {
							calls++
							req, err := http.NewRequestWithContext(ctx, method, "https://amp.test/assets", body)
							if err != nil {
								return 0, err
							}
							test.spoil(req)
							_, err = rt.RoundTrip(req)
							return 0, err
						})
						e := stubError(t, err)
						if e.Outcome != ampauth.NotSent || errors.Is(err, ampauth.ErrAmbiguous) || calls != 1 || time.Since(began) != 0 {
							t.Errorf("got %v (%v) after %d calls and %v", err, e.Outcome, calls, time.Since(began))
						}
						if text := err.Error(); !strings.Contains(text, test.says) || strings.Contains(text, secret) {
							t.Errorf("%q does not say %q, or too much", text, test.says)
						}
						if n := body.closed.Load(); n != 1 && !strings.Contains(name, "without a body") {
							t.Errorf("the body was closed %d times", n)
						}
					})
				})
			}
		}
	}
}

// What can be sent is: net/http is no stricter than that.
func TestWhatNetHTTPSendsIsNotTurnedAway(t *testing.T) {
	var arrived atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer server.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t)}
	for i, change := range []func(*http.Request){
		func(r *http.Request) { r.Header["x-lower"] = []string{"tab\there", "", "ümlaut", "\xff"} },
		func(r *http.Request) { r.Header["!#$%&'*+-.^_`|~09azAZ"] = nil },
		func(r *http.Request) { r.Method = "" },
		func(r *http.Request) { r.Method = "PROPFIND" },
		func(r *http.Request) { r.URL.RawQuery = "a=b&ü" },
		func(r *http.Request) { r.Body = nil },
		func(r *http.Request) { r.Body = http.NoBody },
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/assets", nil)
		change(req)
		resp, err := rt.RoundTrip(req)
		if err != nil || int(arrived.Load()) != i+1 {
			t.Fatalf("change %d: %v, %v", i, resp, err)
		}
		_ = resp.Body.Close()
	}
}

// A scheme that is registered with the base is the base's own affair.
func TestRegisteredSchemeIsServed(t *testing.T) {
	base := new(http.Transport)
	fails := errors.New("the registered protocol fails")
	calls := 0
	base.RegisterProtocol("unix", roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if calls++; req.URL.Host == "fails" {
			return nil, fails
		}
		return stubResponse(200, "by unix"), nil
	}))
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	resp, err := rt.RoundTrip(stubRequestTo(t.Context(), "unix://socket/assets", ampauth.MutatingOperation, []byte("x")))
	if err != nil || stubText(t, resp) != "by unix" {
		t.Fatalf("got %v, %v", resp, err)
	}
	calls = 0
	_, err = rt.RoundTrip(stubRequestTo(t.Context(), "unix://fails/assets", ampauth.MutatingOperation, []byte("x")))
	if !errors.Is(err, ampauth.ErrAmbiguous) || !errors.Is(err, fails) || calls != 1 {
		t.Errorf("got %v after %d calls, want doubt after one", err, calls)
	}
}

// Sixty faulty requests of one caller must not cost the others their retries.
func TestFaultyRequestsLeaveTheBudgetAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := stubScript(stubAnswer(503), stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Budget: 2}}
		for range 60 {
			req := stubRequest(t.Context(), ampauth.SafeOperation, nil)
			req.Header.Set("X", "a\nb")
			if _, err := rt.RoundTrip(req); err == nil {
				t.Fatal("sent")
			}
		}
		if status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil)); status != 200 || base.attempts() != 2 {
			t.Errorf("status %d after %d attempts", status, base.attempts())
		}
	})
}
