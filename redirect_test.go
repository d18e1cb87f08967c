package ampauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/google/go-cmp/cmp"
)

// A redirector answers /STATUS/REST with that status and a redirect to /REST, and
// everything else with 200 and a word of its own.
type redirector struct {
	*httptest.Server

	mu       sync.Mutex // guards arrivals
	arrivals []string   // method, path and body of each request
}

func newRedirector(t *testing.T) *redirector {
	r := new(redirector)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.arrivals = append(r.arrivals, strings.TrimSpace(fmt.Sprintf("%s %s %s", req.Method, req.URL.Path, body)))
		r.mu.Unlock()
		first, rest, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		if status, err := strconv.Atoi(first); err == nil {
			w.Header().Set("Location", "/"+rest)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "moved")
			return
		}
		_, _ = io.WriteString(w, "arrived")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *redirector) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrivals)
}

func TestRedirectIsFollowedUnlessItChangesTheMethod(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		status             int
		arrivals           []string
	}{
		{"POST", "/301/end", "issue", 301, []string{"POST /301/end issue"}},
		{"POST", "/302/end", "issue", 302, []string{"POST /302/end issue"}},
		{"POST", "/303/end", "issue", 303, []string{"POST /303/end issue"}},
		{"POST", "/302/end", "", 302, []string{"POST /302/end"}},
		{"PUT", "/301/end", "edit", 301, []string{"PUT /301/end edit"}},
		{"PUT", "/303/end", "edit", 303, []string{"PUT /303/end edit"}},
		{"DELETE", "/302/end", "", 302, []string{"DELETE /302/end"}},
		{"POST", "/307/end", "issue", 200, []string{"POST /307/end issue", "POST /end issue"}},
		{"POST", "/308/end", "issue", 200, []string{"POST /308/end issue", "POST /end issue"}},
		{"POST", "/307/303/end", "issue", 303, []string{"POST /307/303/end issue", "POST /303/end issue"}},
		{"DELETE", "/308/end", "", 200, []string{"DELETE /308/end", "DELETE /end"}},
		{"GET", "/301/end", "", 200, []string{"GET /301/end", "GET /end"}},
		{"GET", "/302/303/307/308/end", "", 200, []string{"GET /302/303/307/308/end", "GET /303/307/308/end", "GET /307/308/end", "GET /308/end", "GET /end"}},
		{"HEAD", "/303/end", "", 200, []string{"HEAD /303/end", "HEAD /end"}},
		{"", "/302/end", "", 200, []string{"GET /302/end", "GET /end"}},
	} {
		t.Run(test.method+test.path, func(t *testing.T) {
			server := newRedirector(t)
			client := &http.Client{Transport: server.Client().Transport, CheckRedirect: ampauth.CheckRedirect}
			req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Method = test.method // NewRequest makes a GET of the empty one
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != test.status {
				t.Errorf("status %d, want %d", resp.StatusCode, test.status)
			}
			if got := server.seen(); !slices.Equal(got, test.arrivals) {
				t.Errorf("the server saw %q, want %q", got, test.arrivals)
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

func TestEleventhRedirectIsNotFollowed(t *testing.T) {
	for redirects, followed := range map[int]bool{10: true, 11: false, 20: false} {
		t.Run(strconv.Itoa(redirects), func(t *testing.T) {
			server := newRedirector(t)
			client := &http.Client{Transport: server.Client().Transport, CheckRedirect: ampauth.CheckRedirect}
			resp, err := client.Get(server.URL + strings.Repeat("/302", redirects) + "/end")
			if resp != nil {
				_ = resp.Body.Close()
			}
			if (err == nil) != followed {
				t.Errorf("error %v, want one: %t", err, !followed)
			}
			if err != nil && !strings.Contains(err.Error(), "stopped after 10 redirects") {
				t.Errorf("got %v, which does not say why", err)
			}
			if n := len(server.seen()); n != 11 {
				t.Errorf("the server saw %d requests, want 11: the first and 10 redirects", n)
			}
		})
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

// Four of AMP's mutations are GETs: the success of what a redirect leads to is not
// theirs. A final slash that Django adds is the same mutation.
func TestRedirectOfAMutationByGetLeadsToNothingElse(t *testing.T) {
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
		{"/assets/6f0e/register", "/assets/6f0e/register/", nil},
		{"/assets/6f0e", "/assets/6f0e/", nil},
		{"/assets", "/info", nil},
	} {
		if got := ampauth.CheckRedirect(at(test.to), []*http.Request{at(test.from)}); got != test.want {
			t.Errorf("from %s to %s: got %v, want %v", test.from, test.to, got, test.want)
		}
	}
}

// http.Client follows a 307 and 308 with the method and body kept; to the layers
// below that is another request, whose body is made anew.
func TestMutationFollowsARedirectThatKeepsItsMethod(t *testing.T) {
	for _, status := range []string{"307", "308"} {
		t.Run(status, func(t *testing.T) {
			server := newRedirector(t)
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			there, _ := url.Parse(server.URL)
			jar.SetCookies(there, []*http.Cookie{{Name: "theirs", Value: "kept"}})
			var cookies []string
			cfg := canaryConfig()
			login := cfg.HTTPClient.Transport
			cfg.BaseURL = server.URL + "/api"
			cfg.HTTPClient = &http.Client{Jar: jar, Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "/obtain_token") {
					return login.RoundTrip(req)
				}
				cookies = append(cookies, req.Header.Get("Cookie"))
				return server.Client().Transport.RoundTrip(req)
			})}
			client, err := ampauth.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			resp, err := client.Post(server.URL+"/"+status+"/end", "text/plain", strings.NewReader("issue"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			want := []string{"POST /" + status + "/end issue", "POST /end issue"}
			if diff := cmp.Diff(want, server.seen()); diff != "" || resp.StatusCode != 200 {
				t.Errorf("status %d; the requests: %s", resp.StatusCode, diff)
			}
			if diff := cmp.Diff([]string{"theirs=kept", "theirs=kept"}, cookies); diff != "" {
				t.Errorf("the user's cookies: %s", diff)
			}
		})
	}
}

func TestUsersCheckRedirectIsKept(t *testing.T) {
	server := newRedirector(t)
	asked := 0
	for _, test := range []struct {
		name    string
		theirs  func(*http.Request, []*http.Request) error
		status  int
		arrived int
	}{
		{"theirs follows anything", func(*http.Request, []*http.Request) error { asked++; return nil }, 200, 2},
		{"theirs follows nothing", func(*http.Request, []*http.Request) error { asked++; return http.ErrUseLastResponse }, 302, 1},
		{"none", nil, 302, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := canaryConfig()
			login := cfg.HTTPClient.Transport
			cfg.BaseURL = server.URL + "/api"
			cfg.HTTPClient = &http.Client{
				CheckRedirect: test.theirs,
				Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if strings.HasSuffix(req.URL.Path, "/obtain_token") {
						return login.RoundTrip(req)
					}
					return server.Client().Transport.RoundTrip(req)
				}),
			}
			client, err := ampauth.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			askedBefore, arrivedBefore := asked, len(server.seen())
			resp, err := client.Post(server.URL+"/302/end", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != test.status || len(server.seen())-arrivedBefore != test.arrived {
				t.Errorf("status %d after %d requests, want %d after %d", resp.StatusCode, len(server.seen())-arrivedBefore, test.status, test.arrived)
			}
			if theirs := test.theirs != nil; (asked > askedBefore) != theirs {
				t.Errorf("the user's was asked: %t, want %t", asked > askedBefore, theirs)
			}
		})
	}
}
