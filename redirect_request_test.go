package ampauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
)

// A mutation is not performed once more for a redirect whose request cannot be seen.
func TestRedirectOfWhatHasNoHostOrNoRequestIsNotFollowed(t *testing.T) {
	var performed atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		performed.Add(1)
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(307)
	}))
	defer server.Close()
	local := new(http.Transport)
	local.RegisterProtocol("local", roundTripFunc(func(req *http.Request) (*http.Response, error) {
		there := req.Clone(req.Context())
		there.URL.Scheme, there.URL.Host = "http", strings.TrimPrefix(server.URL, "http://")
		resp, err := server.Client().Transport.RoundTrip(there)
		if err == nil {
			resp.Request = req
		}
		return resp, err
	}))
	for name, client := range map[string]*http.Client{
		"no host, with CheckRedirect": {Transport: &ampauth.RetryTransport{Base: local}, CheckRedirect: ampauth.CheckRedirect},
		"no host, without":            {Transport: &ampauth.RetryTransport{Base: local}},
		"a layer that makes the response anew": {Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := (&ampauth.RetryTransport{Base: server.Client().Transport}).RoundTrip(req)
			if err == nil {
				resp = &http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: resp.Body}
			}
			return resp, err
		})},
		"one that makes the body anew as well": {Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := (&ampauth.RetryTransport{Base: server.Client().Transport}).RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
				resp = &http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: http.NoBody}
			}
			return resp, err
		})},
	} {
		performed.Store(0)
		to := server.URL
		if strings.HasPrefix(name, "no host") {
			to = "local://"
		}
		resp, err := client.Post(to+"/api/payments", "text/plain", strings.NewReader("x"))
		if err == nil {
			_ = resp.Body.Close()
		}
		if performed.Load() != 1 {
			t.Errorf("%s: performed %d times, then %v", name, performed.Load(), err)
		}
	}
}

// Who takes the request of a response as the model of another makes a call of its own.
func TestRequestMadeOfOneThatARedirectLedToIsItsOwn(t *testing.T) {
	for name, newClient := range redirectClients {
		server := newRedirector(t)
		client := newClient(t, server, nil)
		resp, err := client.Get(server.URL + "/302/assets")
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		req := resp.Request.Clone(t.Context())
		req.Method, req.URL.Path = "POST", "/assets/issue"
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		if resp, err = client.Do(req); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", name, resp, err)
		}
		_ = resp.Body.Close()
	}
}

// The caller's own user information goes along with a relative Location.
func TestUserInformationOfTheCallersIsKeptOverARedirect(t *testing.T) {
	var seen spy
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.note(r)
		if r.URL.Path == "/assets" {
			http.Redirect(w, r, "/info", http.StatusFound)
		}
	}))
	defer home.Close()
	client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Source: static("tok"), Origin: home.URL}}}
	if status, _ := get(t, client, strings.Replace(home.URL, "http://", "http://me:mine@", 1)+"/assets"); status != 200 {
		t.Fatal(status)
	}
	if got := seen.saw(); len(got) != 2 || got[0] != got[1] || !strings.HasPrefix(got[0], "Basic ") {
		t.Errorf("the server saw %q", got)
	}
}

// http.Client makes an Authorization field of it. That switches no token off, and is
// sent to nobody.
func TestUserInformationInALocationIsNoCredential(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		var fields spy
		target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { fields.note(r) }))
		defer target.Close()
		var home *httptest.Server
		home = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/assets" {
				fields.note(r)
				return
			}
			to := home.URL
			if elsewhere {
				to = target.URL
			}
			http.Redirect(w, r, strings.Replace(to, "http://", "http://them:secret@", 1)+"/info", http.StatusFound)
		}))
		defer home.Close()
		client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Source: static("tok"), Origin: home.URL}}}
		if status, _ := get(t, client, home.URL+"/assets"); status != 200 {
			t.Fatal(status)
		}
		want := "[token tok]"
		if elsewhere {
			want = "[]"
		}
		if got := fmt.Sprint(fields.saw()); got != want {
			t.Errorf("elsewhere %t: the server saw %q, want %q", elsewhere, got, want)
		}
	}
	// What the caller writes into a URL is.
	var fields spy
	home := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { fields.note(r) }))
	defer home.Close()
	client := &http.Client{Transport: &ampauth.AuthTransport{Source: static("tok"), Origin: home.URL}}
	if status, _ := get(t, client, strings.Replace(home.URL, "http://", "http://me:mine@", 1)); status != 200 || !strings.HasPrefix(fmt.Sprint(fields.saw()), "[Basic ") {
		t.Errorf("status %d; the server saw %q, want the caller's own credential", status, fields.saw())
	}
}
