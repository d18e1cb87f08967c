package interop

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/quic-go/quic-go/http3"
)

// overHTTP3 serves handler by HTTP/3 and returns its base URL and a transport to it.
func overHTTP3(t *testing.T, handler http.Handler) (base string, transport *http3.Transport) {
	t.Helper()
	trusted := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(trusted.Close)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: trusted.TLS.Certificates})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(conn) }()
	transport = &http3.Transport{TLSClientConfig: trusted.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	t.Cleanup(func() {
		_ = transport.Close()
		_ = server.Close()
		_ = conn.Close()
		<-served
	})
	return "https://" + conn.LocalAddr().String() + "/api", transport
}

// clientOver is a client of a fake AMP whose requests go over transport.
func clientOver(t *testing.T, amp *ampauthtest.Server, base string, transport http.RoundTripper) *ampauth.Client {
	t.Helper()
	cfg := amp.Config()
	cfg.BaseURL, cfg.HTTPClient = base, &http.Client{Transport: transport}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestHTTP3BelowIsLoggedInAndReadsAgain(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	base, transport := overHTTP3(t, amp)
	client := clientOver(t, amp, base, transport)
	amp.Inject(ampauthtest.Fault{Route: listing, Status: 503})
	for range 2 {
		resp, err := client.Get(base + "/assets")
		if ended(resp, err) != nil || resp.StatusCode != 200 || resp.ProtoMajor != 3 {
			t.Errorf("%v, want 200 over HTTP/3", err)
		}
		amp.Revoke()
	}
	resp, err := client.Post(base+"/assets/issue", "application/json", strings.NewReader("{}"))
	if ended(resp, err) != nil || resp.StatusCode != 201 || len(amp.Effects()) != 1 {
		t.Errorf("%v and %d effects after a token that was ended, want 201 and 1", err, len(amp.Effects()))
	}
}

// mutationTo makes a mutation with a body, or without one.
func mutationTo(t *testing.T, base string, body bool) *http.Request {
	t.Helper()
	method, path, content := "GET", "/assets/x/register", ""
	if body {
		method, path, content = "POST", "/assets/issue", "{}"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestMutationOverHTTP3IsPerformedOnceOrInDoubt(t *testing.T) {
	for _, body := range []bool{true, false} {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{})
		var performed atomic.Int32
		base, transport := overHTTP3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/obtain_token") {
				performed.Add(1)
				panic(http.ErrAbortHandler) // resets the stream
			}
			amp.ServeHTTP(w, r)
		}))
		err := ended(clientOver(t, amp, base, transport).Do(mutationTo(t, base, body)))
		if !errors.Is(err, ampauth.ErrAmbiguous) || performed.Load() != 1 {
			t.Errorf("body %v: %v after %d effects, want ErrAmbiguous after 1", body, err, performed.Load())
		}
	}
}

// It is the body that nobody began to read that proves it.
func TestMutationOverHTTP3ThatHadNoConnectionIsProvedByItsBodyOnly(t *testing.T) {
	for _, body := range []bool{true, false} {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{})
		base, transport := overHTTP3(t, amp)
		client := clientOver(t, amp, base, transport)
		if err := ended(client.Get(base + "/assets")); err != nil {
			t.Fatal(err)
		}
		_ = transport.Close()
		err := ended(client.Do(mutationTo(t, base, body)))
		if err == nil || errors.Is(err, ampauth.ErrAmbiguous) == body || len(amp.Effects()) != 0 {
			t.Errorf("body %v: %v after %d effects, want it in doubt if it has none", body, err, len(amp.Effects()))
		}
	}
}
