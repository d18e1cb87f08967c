package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
)

func TestLayersAboveTheTokenNeverSeeIt(t *testing.T) {
	type stack func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper
	for name, build := range map[string]stack{
		"alone": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			return spy(authOver(base))
		},
		"below a RetryTransport": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: spy(authOver(base))}
		},
		"below one of another origin": func(spy func(http.RoundTripper) http.RoundTripper, base http.RoundTripper) http.RoundTripper {
			other := &ampauth.AuthTransport{Base: spy(authOver(base)), Source: static("tok"), Origin: "https://other.test"}
			return &ampauth.RetryTransport{Base: other}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent := 0
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Authorization") != "" {
					sent++
				}
				if sent == 1 {
					return stubResponse(503, ""), nil
				}
				resp := stubResponse(200, "")
				resp.Request = req
				return resp, nil
			})
			spied := 0
			spy := func(next http.RoundTripper) http.RoundTripper {
				return roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp, err := next.RoundTrip(req) // the very request, as layers that only log do
					spied++
					if err != nil || req.Header["Authorization"] != nil || resp.Request.Header["Authorization"] != nil {
						t.Errorf("a layer above sees %v (%v)", req.Header, err)
					}
					return resp, err
				})
			}
			synctest.Test(t, func(t *testing.T) {
				resp, err := build(spy, base).RoundTrip(sevenFields(t, "GET", "/assets", nil))
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			})
			if sent == 0 || spied != sent {
				t.Errorf("%d requests had the token, the layer above saw %d", sent, spied)
			}
		})
	}
}

func TestLayerBelowThatRewritesInPlaceSendsARequestOfItsOwn(t *testing.T) {
	var sent *http.Request
	inner := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		stubConnect(req, true)
		return nil, errStubReset
	})}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		u := *req.URL
		u.Path = "/unknown" // a mutation by GET
		req.URL = &u
		return inner.RoundTrip(req)
	})
	rt := &ampauth.RetryTransport{Base: authOver(layer), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
	_, err := rt.RoundTrip(sevenFields(t, "GET", "/assets", nil))
	if !errors.Is(err, ampauth.ErrAmbiguous) || sent.Body == nil {
		t.Errorf("%v; net/http may repeat the mutation: %t", err, sent.Body == nil)
	}
}

func TestBaseMayKeepItsRequest(t *testing.T) {
	for range 10 {
		var late sync.WaitGroup
		rt := &ampauth.RetryTransport{Base: authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
			late.Go(func() { req.Header.Set("X-Late", "v") })
			return stubResponse(417, ""), nil
		}))}
		resp, err := rt.RoundTrip(sevenFields(t, "GET", "/assets", nil))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		late.Wait()
	}
}

func TestCallersRequestIsUntouched(t *testing.T) {
	shared := make([]string, 1, 8)
	shared[0] = "value"
	req, _ := http.NewRequest("POST", "https://amp.test/assets/issue", strings.NewReader("body"))
	req.Header["X-Shared"] = shared
	before := req.Header.Clone()
	base := roundTripFunc(func(sent *http.Request) (*http.Response, error) {
		sent.Header["X-Shared"] = append(sent.Header["X-Shared"], "appended below")
		sent.Header.Set("Authorization", "edited in place")
		sent.Header.Add("X-New", "v")
		_, _ = io.Copy(io.Discard, sent.Body)
		_ = sent.Body.Close()
		resp := stubResponse(200, "")
		resp.Request = sent
		return resp, nil
	})
	for name, rt := range map[string]http.RoundTripper{
		"auth":       authOver(base),
		"retry":      &ampauth.RetryTransport{Base: authOver(base)},
		"auth first": &ampauth.AuthTransport{Base: &ampauth.RetryTransport{Base: base}, Source: static("tok"), Origin: "https://amp.test"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Request != req {
				t.Error("resp.Request is not the caller's request")
			}
			dump, _ := httputil.DumpRequestOut(resp.Request.WithContext(t.Context()), false)
			if strings.Contains(string(dump), "uthorization") {
				t.Error("resp.Request shows the token")
			}
			if fmt.Sprint(req.Header) != fmt.Sprint(before) || shared[:2][1] != "" {
				t.Errorf("the caller's header became %v", req.Header)
			}
			req.Body, _ = req.GetBody()
		})
	}
}

func TestErrorThatShowsTheTokenIsHidden(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef01234567"
	cause := errors.New("unexpected header token " + token)
	for name, rt := range map[string]http.RoundTripper{
		"auth":  &ampauth.AuthTransport{Source: static(token), Origin: "https://amp.test", Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })},
		"retry": &ampauth.RetryTransport{Base: authOver(roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })), Retry: ampauth.RetryConfig{MaxAttempts: 1}},
	} {
		req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
		_, err := rt.RoundTrip(req)
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v is not its cause", name, err)
		}
		for link := err; link != nil; link = errors.Unwrap(link) {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", link, link, link), token) {
				t.Errorf("%s: a link of the chain shows the token: %T", name, link)
			}
		}
	}
}

func TestErrorThatQuotesTheTokenDoesNotShowIt(t *testing.T) {
	for _, token := range []string{canaryToken, `a"quoted\token"<&>'%2F+/=`} {
		for name, quote := range map[string]func(string) string{
			"as it is": func(s string) string { return s },
			"%q":       func(s string) string { return fmt.Sprintf("%q", s) },
			"%+q":      func(s string) string { return fmt.Sprintf("%+q", "token "+s) },
			"a query":  url.QueryEscape,
			"a path":   url.PathEscape,
		} {
			rt := &ampauth.AuthTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return nil, fmt.Errorf("malformed HTTP response %s", quote(strings.TrimPrefix(req.Header.Get("Authorization"), "token ")))
				}),
				Source: static(token), Origin: "https://amp.test",
			}
			req, _ := http.NewRequest("GET", "https://amp.test/assets", nil)
			_, err := rt.RoundTrip(req)
			if err == nil || strings.Contains(err.Error(), quote(token)) || strings.Contains(err.Error(), token) {
				t.Errorf("%s: %v shows the token", name, err)
			}
		}
	}
}

type idleCloser struct {
	staticTransport
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }

func TestIdleConnectionsCanBeClosedThroughAllLayers(t *testing.T) {
	base := new(idleCloser)
	(&http.Client{Transport: &ampauth.RetryTransport{Base: authOver(base)}}).CloseIdleConnections()
	if base.closed != 1 {
		t.Error("CloseIdleConnections did not reach the base")
	}
}

func TestSwitchedProtocolKeepsItsConnection(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.CopyN(conn, rw, 4)
	}))
	defer server.Close()
	rt := &ampauth.RetryTransport{
		Base:     &ampauth.AuthTransport{Source: static("tok"), Origin: server.URL, Base: server.Client().Transport},
		Classify: ampauth.ClassifyHTTP,
	}
	req, _ := http.NewRequest("GET", server.URL, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body of a 101 is a %T, which cannot be written to", resp.Body)
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if echo, err := io.ReadAll(conn); err != nil || string(echo) != "ping" {
		t.Errorf("echo %q, %v", echo, err)
	}
}
