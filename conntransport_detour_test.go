package ampauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
	"golang.org/x/time/rate"
)

// To find out which protocols a server speaks takes a connection or two. That is
// no attempt: it costs no token, no retry, and does not show.
func TestDetourIsNoAttempt(t *testing.T) {
	numbers := make(chan string, 10)
	address, base := stubHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		numbers <- r.Proto + " " + r.Header.Get("X-Attempt")
	})
	const burst = 10
	limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
	config := stubQuick
	config.MaxAttempts = 1
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("token"))
	auth := &ampauth.AuthTransport{Base: base, Source: source, Origin: address}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		copied := req.Clone(req.Context())
		n, _ := ampauth.AttemptFromContext(req.Context())
		copied.Header.Set("X-Attempt", fmt.Sprint(n))
		return auth.RoundTrip(copied)
	})
	rt := &ampauth.RetryTransport{Base: layer, Retry: config, Limiter: limiter}
	ctx := ampauth.WithoutRetry(t.Context())
	if status := stubStatus(t, rt, stubRequestTo(ctx, address, ampauth.MutatingOperation, newStubBody("x"))); status != 200 {
		t.Fatalf("status %d", status)
	}
	if got := <-numbers; got != "HTTP/2.0 1" || len(numbers) != 0 {
		t.Errorf("the server saw %q and %d more, want HTTP/2 and attempt 1 alone", got, len(numbers))
	}
	if used := burst - limiter.Tokens(); used > 1.1 {
		t.Errorf("one attempt took %.0f tokens of the limiter", used)
	}
}

// What comes after it counts as ever: a 429 proves that the mutation was not performed,
// and the next attempt takes a token of the limiter.
func TestAttemptsAfterADetourCount(t *testing.T) {
	answers := []int{429, 200}
	url, base := stubHTTP2(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[0])
		answers = answers[1:]
	})
	const burst = 10
	limiter := rate.NewLimiter(rate.Every(1000*time.Hour), burst)
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick, Limiter: limiter}
	if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x"))); status != 200 || len(answers) != 0 {
		t.Errorf("status %d with %d answers left, want 200 in two attempts", status, len(answers))
	}
	if used := burst - limiter.Tokens(); used < 1.9 || used > 2.1 {
		t.Errorf("two attempts took %.0f tokens of the limiter", used)
	}
}

// Many at once may be the first to a host.
func TestDetoursAtOnceAllArrive(t *testing.T) {
	var effects, http2 atomic.Int32
	url, base := stubHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		effects.Add(1)
		http2.Add(int32(r.ProtoMajor - 1))
	})
	config := stubQuick
	config.MaxAttempts = 1
	rt := &ampauth.RetryTransport{Base: base, Retry: config}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, newStubBody("x")))
		})
	}
	wg.Wait()
	if effects.Load() != 50 || http2.Load() != 50 {
		t.Errorf("%d effects of 50 mutations, %d of them over HTTP/2; want 50 each", effects.Load(), http2.Load())
	}
}

func TestDetourClosesEveryBodyItOpens(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	rt := &ampauth.RetryTransport{Base: base}
	opened := []*stubAwaited{newStubAwaited()}
	req := stubRequestTo(t.Context(), url, ampauth.MutatingOperation, opened[0])
	req.GetBody = func() (io.ReadCloser, error) {
		opened = append(opened, newStubAwaited())
		return opened[len(opened)-1], nil
	}
	stubStatus(t, rt, req)
	if len(opened) != 3 {
		t.Errorf("%d bodies were opened, want the caller's and one for each other way", len(opened))
	}
	for i, body := range opened {
		select {
		case <-body.done:
		case <-time.After(10 * time.Second):
		}
		if n := body.closed.Load(); n != 1 {
			t.Errorf("body %d was closed %d times, want once", i+1, n)
		}
	}
}

func TestDetourFromAServerThatAlertsIsNoAttempt(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	// crypto/tls is lenient with clients of HTTP/1.1 only; others end the handshake.
	server.TLS = &tls.Config{NextProtos: []string{"h2"}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil
		}
		return &tls.Config{Certificates: server.TLS.Certificates, NextProtos: []string{"something else"}}, nil
	}}
	server.Config.ErrorLog = stubQuiet()
	server.StartTLS()
	defer server.Close()
	config := stubQuick
	config.MaxAttempts = 1
	rt := &ampauth.RetryTransport{Base: server.Client().Transport, Retry: config}
	if status := stubStatus(t, rt, stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x"))); status != 200 {
		t.Errorf("status %d, want 200 in one attempt", status)
	}
}

// closeNoted is a connection that tells when it is first closed.
type closeNoted struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *closeNoted) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

func TestDetourClosesTheConnectionItDoesNotUse(t *testing.T) {
	url, base := stubHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	var open sync.WaitGroup
	dial := base.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &closeNoted{Conn: conn, closed: open.Done}, nil
	}
	rt := &ampauth.RetryTransport{Base: base}
	stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.MutatingOperation, []byte("x")))
	closed := make(chan struct{})
	go func() { open.Wait(); close(closed) }()
	late := time.After(10 * time.Second)
	for {
		rt.CloseIdleConnections() // a connection of HTTP/2 is idle a moment after its last stream
		select {
		case <-closed:
			return
		case <-late:
			t.Fatal("a connection is left open")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestDetourLeavesNoDoubt(t *testing.T) {
	url, base := stubHTTP2(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(421) }, "h2", "http/1.1")
	dial, dials := base.DialContext, 0
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials > 1 { // that of the 421
			return nil, errStubDial
		}
		return dial(ctx, network, address)
	}
	_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
	if e := stubError(t, err); e.Outcome == ampauth.Ambiguous || e.Attempts != 3 || dials < 3 {
		t.Errorf("got %v (%v) after %d dials, yet nothing is in doubt", err, e.Outcome, dials)
	}
}

// A dial that nobody waits for any more must not stay behind, with its connection.
func TestDialsThatWereLeftEnd(t *testing.T) {
	s := hostile.New(hostile.HTTP1TLS, hostile.Script{}.OnConns(hostile.StallInHandshake))
	defer s.Close()
	var open atomic.Int32
	base := stubPooled(t)
	base.TLSClientConfig = s.TLSConfig()
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &closeNoted{Conn: conn, closed: func() { open.Add(-1) }}, nil
	}
	config := stubQuick
	config.MutationTimeout = 30 * time.Millisecond
	rt := &ampauth.RetryTransport{Base: base, Retry: config}
	for range 3 {
		_, err := rt.RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
		if e := stubError(t, err); e.Outcome != ampauth.NotSent {
			t.Fatal(err)
		}
	}
	rt.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); open.Load() > 0; time.Sleep(time.Millisecond) { // real sockets
		if time.Now().After(deadline) {
			t.Fatalf("%d connections stay behind", open.Load())
		}
	}
}

type stubCounting struct {
	net.Listener
	accepted *atomic.Int32
}

func (l stubCounting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

func TestUntrustedCertificateIsNotDialedAgain(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			var accepted atomic.Int32
			server := httptest.NewUnstartedServer(nil)
			server.Listener = stubCounting{server.Listener, &accepted}
			server.Config.ErrorLog = stubQuiet()
			server.StartTLS()
			defer server.Close()
			_, err := (&ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), server.URL, op, []byte("x")))
			e := stubError(t, err)
			_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
			_, verification := errors.AsType[*tls.CertificateVerificationError](err)
			if !unknown || !verification || e.Outcome != ampauth.NotSent || e.Attempts != 1 || accepted.Load() != 1 {
				t.Errorf("got %v (%v) after %d attempts and %d dials, want the certificate's error, NotSent, 1, 1", err, e.Outcome, e.Attempts, accepted.Load())
			}
		})
	}
}

// 421 says: another connection (RFC 9110 15.5.20).
func TestMisdirectedRequestGoesOverAnotherConnection(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run(op.String(), func(t *testing.T) {
			wrong := ""
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/prime" {
					return
				}
				conn := fmt.Sprintf("%p", r.Context().Value(stubConnKey{}))
				if wrong == "" || wrong == conn {
					wrong = conn
					w.WriteHeader(421)
				}
			}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
				rt := &ampauth.RetryTransport{Base: base}
				stubStatus(t, rt, stubRequestTo(t.Context(), url+"/prime", ampauth.SafeOperation, nil))
				synctest.Wait()
				if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, op, nil)); status != 200 {
					t.Errorf("status %d over %d connections, want 200 over a second one", status, l.Dials())
				}
			})
		})
	}
}
