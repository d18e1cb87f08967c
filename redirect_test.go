package ampauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/google/go-cmp/cmp"
)

func TestOnlyAReadIsRedirectedAndOnlyToARead(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		status             int
		arrivals           []string
	}{
		// A mutation gets its answer, whatever the status and verb.
		{"POST", "/301/assets/issue", "issue", 301, []string{"POST /301/assets/issue issue"}},
		{"POST", "/302/assets/issue", "issue", 302, []string{"POST /302/assets/issue issue"}},
		{"POST", "/303/assets/issue", "", 303, []string{"POST /303/assets/issue"}},
		{"POST", "/307/assets/issue", "issue", 307, []string{"POST /307/assets/issue issue"}},
		{"POST", "/308/assets/issue", "issue", 308, []string{"POST /308/assets/issue issue"}},
		{"GET", "/302/assets/6f0e/register", "", 302, []string{"GET /302/assets/6f0e/register"}},
		{"GET", "/307/unknown", "", 307, []string{"GET /307/unknown"}},
		// A method does not change.
		{"PUT", "/301/assets/6f0e/edit", "edit", 301, []string{"PUT /301/assets/6f0e/edit edit"}},
		{"PUT", "/303/assets/6f0e/edit", "edit", 303, []string{"PUT /303/assets/6f0e/edit edit"}},
		{"DELETE", "/302/assets/6f0e/delete", "", 302, []string{"DELETE /302/assets/6f0e/delete"}},
		{"PUT", "/307/assets/6f0e/edit", "edit", 200, []string{"PUT /307/assets/6f0e/edit edit", "PUT /assets/6f0e/edit edit"}},
		{"DELETE", "/308/assets/6f0e/delete", "", 200, []string{"DELETE /308/assets/6f0e/delete", "DELETE /assets/6f0e/delete"}},
		// A read is followed to a read.
		{"GET", "/301/assets", "", 200, []string{"GET /301/assets", "GET /assets"}},
		{"HEAD", "/303/assets", "", 200, []string{"HEAD /303/assets", "HEAD /assets"}},
		{"", "/302/assets", "", 200, []string{"GET /302/assets", "GET /assets"}},
		{"GET", "/302/303/307/308/assets", "", 200, []string{"GET /302/303/307/308/assets", "GET /303/307/308/assets", "GET /307/308/assets", "GET /308/assets", "GET /assets"}},
		{"GET", "/302/unknown/assets", "", 200, []string{"GET /302/unknown/assets", "GET /unknown/assets"}},
	} {
		for name, newClient := range redirectClients {
			t.Run(name+": "+test.method+test.path, func(t *testing.T) {
				server := newRedirector(t)
				req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, strings.NewReader(test.body))
				if err != nil {
					t.Fatal(err)
				}
				req.Method = test.method // NewRequest makes a GET of the empty one
				resp, err := newClient(t, server, nil).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != test.status {
					t.Errorf("status %d, want %d", resp.StatusCode, test.status)
				}
				if diff := cmp.Diff(test.arrivals, server.seen()); diff != "" {
					t.Errorf("the server saw (-want +got):\n%s", diff)
				}
				if test.status != 200 {
					body, err := io.ReadAll(resp.Body)
					if resp.Header.Get("Location") == "" || string(body) != "moved" || err != nil {
						t.Error("the redirect itself is not whole")
					}
				}
			})
		}
	}
}

func TestRedirectedMutationIsReturnedNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			fake, server := startFake(t, fakeamp.Config{})
			client := newTestClient(t, configFor(server))
			fake.Inject(fakeamp.Fault{Route: "POST /assets/issue", Status: status, Header: http.Header{"Location": {"/api/assets"}}})
			resp, err := client.Do(issueRequest(t, server, "op"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("status %d, want the redirect itself: a GET in place of the POST looks like success", resp.StatusCode)
			}
		})
	}
}

// Below a RetryTransport alone, a mutation that a layer has redirected is no success.
func TestMutationThatALayerHasRedirectedIsToldByItsRedirect(t *testing.T) {
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/assets/issue" {
			http.Redirect(w, r, "/landing", http.StatusSeeOther)
		}
	}))
	defer home.Close()
	rt := &ampauth.RetryTransport{Base: followsByItself(t), Retry: stubQuick}
	_, err := rt.RoundTrip(stubRequestTo(t.Context(), home.URL+"/assets/issue", ampauth.MutatingOperation, []byte("x")))
	if e := stubError(t, err); e.Outcome != ampauth.Answered || e.StatusCode != 303 || e.Attempts != 1 {
		t.Errorf("got %v (%v), want that it was answered by a 303", err, e.Outcome)
	}
}

func TestMutationThatRedirectsToItselfIsPerformedOnce(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, newClient := range redirectClients {
			for _, method := range []string{"POST", "PUT", "DELETE", "GET"} {
				var performed atomic.Int32
				server := &redirector{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					performed.Add(1)
					w.Header().Set("Location", req.URL.Path)
					w.WriteHeader(status)
				}))}
				t.Cleanup(server.Close)
				req, err := http.NewRequestWithContext(ampauth.WithOperation(t.Context(), ampauth.MutatingOperation), method, server.URL+"/api/assets/6f0e", strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := newClient(t, server, nil).Do(req)
				if err != nil || resp.StatusCode != status || performed.Load() != 1 {
					t.Errorf("%s, %s, %d: performed %d times, then %v, %v", name, method, status, performed.Load(), resp, err)
					continue
				}
				_ = resp.Body.Close()
			}
		}
	}
}

func TestEleventhRedirectIsNotFollowed(t *testing.T) {
	for redirects, followed := range map[int]bool{10: true, 11: false, 20: false} {
		for name, newClient := range redirectClients {
			t.Run(fmt.Sprint(name, redirects), func(t *testing.T) {
				server := newRedirector(t)
				resp, err := newClient(t, server, nil).Get(server.URL + strings.Repeat("/302", redirects) + "/assets")
				if resp != nil {
					_ = resp.Body.Close()
				}
				if (err == nil) != followed {
					t.Errorf("error %v, want one: %t", err, !followed)
				}
				if err != nil {
					e := stubError(t, err)
					if e.Outcome != ampauth.Answered || e.StatusCode != 302 || !strings.Contains(err.Error(), "stopped after 10 redirects") {
						t.Errorf("got %v (%v), which does not say why", err, e.Outcome)
					}
				}
				if n := len(server.seen()); n != 11 {
					t.Errorf("the server saw %d requests, want 11: the first and 10 redirects", n)
				}
			})
		}
	}
}

func TestEmptyMethodIsGet(t *testing.T) {
	at := func(method string) *http.Request { return &http.Request{Method: method, URL: &url.URL{}} }
	for _, test := range []struct {
		from, to string
		want     error
	}{
		{"", "GET", nil}, {"GET", "", nil}, {"", "", nil}, {"POST", "", http.ErrUseLastResponse}, {"", "HEAD", http.ErrUseLastResponse},
	} {
		if got := ampauth.CheckRedirect(at(test.to), []*http.Request{at(test.from)}); got != test.want {
			t.Errorf("from %q to %q: got %v, want %v", test.from, test.to, got, test.want)
		}
	}
	if err := ampauth.CheckRedirect(at("GET"), nil); err != nil {
		t.Errorf("without a history: %v", err)
	}
}

// A server, or who can write to one, must not make a read perform something.
func TestReadIsNeverRedirectedToAMutation(t *testing.T) {
	at := func(path string) *http.Request {
		req, err := http.NewRequest("GET", "https://amp.test/api"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	for _, test := range []struct {
		from, to string
		want     error
	}{
		{"/assets/6f0e/distributions/create/", "/assets", http.ErrUseLastResponse},
		{"/assets/6f0e/register", "/assets/6f0e", http.ErrUseLastResponse},
		{"/assets/6f0e/register", "/assets/6f0e/register/", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e/register", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e/distributions/create/", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e/distributions/create", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e%2Fregister", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e/x/../register", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets//6f0e/./register", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/../v2/assets/6f0e/%72egister", http.ErrUseLastResponse},
		{"/assets/6f0e", "/user/assets/6f0e/register", http.ErrUseLastResponse},
		{"/assets/6f0e", "/user/refresh-token", http.ErrUseLastResponse},
		{"/assets/6f0e", "/assets/6f0e/", nil},
		{"/assets/6f0e", "/assets/6f0e/register/of/something", nil},
		{"/assets/6f0e", "/static/list.json", nil},
		{"/assets", "/info", nil},
	} {
		if got := ampauth.CheckRedirect(at(test.to), []*http.Request{at(test.from)}); got != test.want {
			t.Errorf("from %s to %s: got %v, want %v", test.from, test.to, got, test.want)
		}
	}
}

func TestCheckRedirectAsksTheClassifyOfItsTransport(t *testing.T) {
	writes := func(req *http.Request) ampauth.Operation {
		if strings.Contains(req.URL.Path, "write") {
			return ampauth.MutatingOperation
		}
		return ampauth.SafeOperation
	}
	for name, newClient := range redirectClients {
		for _, test := range []struct {
			method, path string
			classify     func(*http.Request) ampauth.Operation
			arrived      int
		}{
			{"GET", "/302/things", ampauth.ClassifyHTTP, 2},
			{"GET", "/302/things", nil, 1}, // to AMP it is not known
			{"PUT", "/307/things", ampauth.ClassifyHTTP, 2},
			{"POST", "/307/things", ampauth.ClassifyHTTP, 1},
			{"GET", "/302/assets/6f0e/register", ampauth.ClassifyHTTP, 2}, // not AMP's
			{"POST", "/307/read", writes, 2},
			{"GET", "/307/write", writes, 1},
		} {
			server := newRedirector(t)
			req, _ := http.NewRequest(test.method, server.URL+test.path, nil)
			resp, err := newClient(t, server, test.classify).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if n := len(server.seen()); n != test.arrived {
				t.Errorf("%s: %s %s: %d requests, want %d", name, test.method, test.path, n, test.arrived)
			}
		}
	}
}

// WithOperation is said of one request.
func TestOperationThatWasSaidDoesNotGoAlong(t *testing.T) {
	for name, newClient := range redirectClients {
		server := newRedirector(t)
		ctx := ampauth.WithOperation(t.Context(), ampauth.IdempotentOperation)
		req, _ := http.NewRequestWithContext(ctx, "POST", server.URL+"/307/307/307/assets/6f0e/memo/set", strings.NewReader("x"))
		resp, err := newClient(t, server, nil).Do(req)
		if err != nil || resp.StatusCode != 200 || len(server.seen()) != 4 {
			t.Fatalf("%s: %v, %v after %d requests: all of these are idempotent", name, resp, err, len(server.seen()))
		}
		_ = resp.Body.Close()

		server = newRedirector(t)
		req, _ = http.NewRequestWithContext(ctx, "POST", server.URL+"/307/307/new", strings.NewReader("x"))
		resp, err = newClient(t, server, func(req *http.Request) ampauth.Operation {
			if strings.HasPrefix(req.URL.Path, "/307/307") {
				t.Error("what is said of the first request goes before Classify")
			}
			return ampauth.MutatingOperation
		}).Do(req)
		if err != nil || resp.StatusCode != 307 || len(server.seen()) != 1 {
			t.Fatalf("%s: %v, %v after %d requests", name, resp, err, len(server.seen()))
		}
		_ = resp.Body.Close()
	}
}

// http.Client follows by itself where nobody gave it a CheckRedirect. The transport
// below it then has the last word.
func TestStackWithoutCheckRedirectEndsInAnError(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/307/assets/issue", 307},
		{"POST", "/302/assets/issue", 302},
		{"GET", "/302/assets/6f0e/register", 302},
		{"PUT", "/303/assets/6f0e/edit", 303},
		{"GET", "/302/303/assets/6f0e/register", 302},
	} {
		server := newRedirector(t)
		var closed atomic.Int32
		client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Response != nil && req.Body != nil {
				body := newStubBody("x")
				req = req.Clone(req.Context())
				req.Body = body
				defer func() { closed.Add(body.closed.Load()) }()
			}
			return (&ampauth.RetryTransport{Base: server.Client().Transport, Retry: stubQuick}).RoundTrip(req)
		})}
		calls := 0
		_, err := ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (int, error) {
			calls++
			req, err := http.NewRequestWithContext(ctx, test.method, server.URL+test.path, strings.NewReader("x"))
			if err != nil {
				return 0, err
			}
			resp, err := client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			return 0, err
		})
		e := stubError(t, err)
		if e.Outcome != ampauth.Answered || e.StatusCode != test.status || calls != 1 || len(server.seen()) != 1 {
			t.Errorf("%s %s: got %v (%v, %d) after %d calls and %q", test.method, test.path, err, e.Outcome, e.StatusCode, calls, server.seen())
		}
		if !strings.Contains(err.Error(), "CheckRedirect") {
			t.Errorf("%v does not say what to do", err)
		}
		if test.status == 307 && closed.Load() != 1 {
			t.Errorf("the body of the second hop was closed %d times", closed.Load())
		}
	}
}

func TestUsersCheckRedirectIsAskedAboutWhatMayBeFollowed(t *testing.T) {
	for _, test := range []struct {
		name, method, path string
		theirs             error
		status             int
		asked              bool
	}{
		{"a mutation", "POST", "/307/assets/issue", nil, 307, false},
		{"a read", "GET", "/302/assets", nil, 200, true},
		{"a read that they do not follow", "GET", "/302/assets", http.ErrUseLastResponse, 302, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, asked := newRedirector(t), false
			client := server.newClient(t, func(cfg *ampauth.Config) {
				cfg.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { asked = true; return test.theirs }
			})
			req, _ := http.NewRequest(test.method, server.URL+test.path, strings.NewReader("{}"))
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != test.status || asked != test.asked {
				t.Errorf("status %d, theirs was asked: %t; want %d, %t", resp.StatusCode, asked, test.status, test.asked)
			}
		})
	}
}
