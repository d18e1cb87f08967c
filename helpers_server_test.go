package ampauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// stubTLS is a loopback server's certificate, and what trusts it.
func stubTLS(t *testing.T) (server tls.Certificate, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], &tls.Config{RootCAs: pool}
}

// stubHTTP2 is a server of HTTP/2, or of these protocols in its order, and a transport
// that prefers HTTP/2. One of HTTP/2 alone lets a client pass that offers HTTP/1.1
// alone, without naming a protocol.
func stubHTTP2(t *testing.T, handler http.HandlerFunc, protocols ...string) (url string, base *http.Transport) {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{NextProtos: protocols}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, server.Client().Transport.(*http.Transport)
}

// primed uses a connection and gives it back to the pool. On a busy machine net/http
// closes one now and then instead, so it makes sure.
func primed(t *testing.T, rt http.RoundTripper, url string) {
	t.Helper()
	for pooled := false; !pooled; {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{PutIdleConn: func(err error) { pooled = err == nil }})
		stubStatus(t, rt, stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
	}
}

// A proofWorld is a server that counts effects, and a transport that reaches it.
type proofWorld struct {
	*hostile.Server
	base *http.Transport
}

func (w *proofWorld) request(t *testing.T, body string) *http.Request {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.URL()+"/api/assets/issue", content)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Operation-Id", "op")
	return req
}

func newProofWorld(t *testing.T, protocol hostile.Protocol, steps ...hostile.Step) *proofWorld {
	t.Helper()
	w := &proofWorld{Server: hostile.New(protocol, hostile.ByID(map[string][]hostile.Step{"op": steps}))}
	t.Cleanup(w.Close)
	w.base = stubPooled(t)
	w.base.TLSClientConfig, w.base.ForceAttemptHTTP2 = w.TLSConfig(), true
	return w
}

// refusedDial dials where nobody listens.
func refusedDial(req *http.Request) (*http.Response, error) {
	t := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, hostile.ClosedAddr)
	}}
	defer t.CloseIdleConnections()
	return t.RoundTrip(req)
}

// A spy records the Authorization headers that reach a server.
type spy struct {
	mu   sync.Mutex
	seen []string
}

func (s *spy) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, strings.Join(r.Header.Values("Authorization"), ","))
}

func (s *spy) saw() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// A redirector answers /STATUS/REST with that status and a redirect to /REST, and
// everything else with 200 and a word of its own.
type redirector struct {
	*httptest.Server

	mu       sync.Mutex // guards arrivals
	arrivals []string   // method, path and body of each request
}

func (r *redirector) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrivals)
}

// newClient is a client whose logins go elsewhere.
func (r *redirector) newClient(t *testing.T, change func(*ampauth.Config)) *http.Client {
	cfg := canaryConfig()
	login := cfg.HTTPClient.Transport
	cfg.BaseURL = r.URL + "/api"
	cfg.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/obtain_token") {
			return login.RoundTrip(req)
		}
		return r.Client().Transport.RoundTrip(req)
	})}
	change(&cfg)
	return newTestClient(t, cfg).Client
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

// redirectClients are the ways to an http.Client that asks CheckRedirect.
var redirectClients = map[string]func(*testing.T, *redirector, func(*http.Request) ampauth.Operation) *http.Client{
	"by hand": func(_ *testing.T, r *redirector, classify func(*http.Request) ampauth.Operation) *http.Client {
		return &http.Client{Transport: &ampauth.RetryTransport{Base: r.Client().Transport, Classify: classify}, CheckRedirect: ampauth.CheckRedirect}
	},
	"NewClient": func(t *testing.T, r *redirector, classify func(*http.Request) ampauth.Operation) *http.Client {
		return r.newClient(t, func(cfg *ampauth.Config) { cfg.Classify = classify })
	},
}

// followsByItself is a RoundTripper that follows redirects, as an http.Client does that
// somebody has wrapped.
func followsByItself(t *testing.T) http.RoundTripper {
	client := &http.Client{Transport: stubPooled(t)}
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		return client.Do(req)
	})
}

// A stranger takes what it is sent, and hands out a token.
func newStranger(t *testing.T, got *atomic.Value) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(r.Header.Get("Authorization") + string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"token":"taken-from-a-stranger"}`)
	}))
	t.Cleanup(s.Close)
	return s
}
