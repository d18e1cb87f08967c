package ampauthtest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/ampauth/ampauth/internal/memnet"
)

// The one account of a Server.
const (
	username = "issuer"
	password = "correct horse"
)

// Options say how a [Server] behaves where it is not known how AMP does, and what does
// not fail the test. The zero value is AMP as it is best known, and strict.
type Options struct {
	// Lifetime of a token, from its login or refresh. If zero, a token does not end by
	// time. It must not be negative.
	Lifetime time.Duration

	// Forbidden answers a request without a living token with 403 in place of 401.
	Forbidden bool

	// NoRefresh leaves out the refresh endpoint: it answers 404.
	NoRefresh bool

	// TLS serves https, HTTP/2 as well as HTTP/1.1. Config, Client and Transport trust
	// its certificate.
	TLS bool

	// Repeat are the routes whose mutations the test performs more than once on purpose
	// with the same path and body, in the form "POST /assets/issue": a second distribution
	// of an asset, for one, is the same GET. What is twice on any other route still fails
	// the test.
	Repeat []string

	// Tolerant lets pass whatever the client does: nothing but a wrong use of this
	// package fails the test. Look at Effects yourself then.
	Tolerant bool
}

// A Server is an AMP with one account and nothing issued yet. Make it with [NewServer].
// Its methods are safe for concurrent use.
type Server struct {
	// URL is the base of the API, such as "http://127.0.0.1:41234/api". Routes are
	// below it: URL + "/assets".
	URL string

	t         testing.TB
	options   Options
	fake      *fakeamp.Server
	transport *http.Transport
	bubble    bool // it was made in one

	mu     sync.Mutex // guards all below
	ended  bool       // the test is over
	faults []string   // names of those that were injected
	served sync.WaitGroup
}

// NewServer starts a Server that ends with the test. It listens on a loopback socket,
// or inside a testing/synctest bubble on connections in memory.
//
// When the test ends it fails if a mutation was performed twice, or if a client did what
// a client of AMP must not do; the package documentation says what that is.
func NewServer(t testing.TB, o Options) *Server {
	if t == nil {
		panic("ampauthtest: NewServer needs the t of a test")
	}
	t.Helper()
	o.Repeat = slices.Clone(o.Repeat)
	s := &Server{t: t, options: o, bubble: inBubble()}
	s.checkOptions()
	s.fake = fakeamp.New(fakeamp.Config{
		Users:     map[string]string{username: password},
		Lifetime:  max(o.Lifetime, 0),
		Forbidden: o.Forbidden,
		NoRefresh: o.NoRefresh,
		MayLeave:  true,
	})
	s.transport = &http.Transport{MaxIdleConnsPerHost: 100} // and no proxy: the environment has no say
	var server *httptest.Server
	if s.bubble {
		l := memnet.Listen()
		server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(s.serve)}}
		s.transport.DialContext = s.fromItsOwnSide(l.DialContext)
	} else {
		server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
		s.transport.DialContext = s.fromItsOwnSide(new(net.Dialer).DialContext)
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if o.TLS {
		server.EnableHTTP2 = true
		server.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		s.transport.TLSClientConfig, s.transport.ForceAttemptHTTP2 = &tls.Config{RootCAs: roots}, true
	} else {
		server.Start()
	}
	s.URL = server.URL + "/api"
	t.Cleanup(func() {
		t.Helper()
		if s.bubble && !inBubble() { // its channels cannot be touched from here
			s.refuse("NewServer was called in a testing/synctest bubble with a t of outside: give it the t of the bubble")
			return
		}
		s.end(server)
		s.judge()
	})
	return s
}

// end cuts off what is under way and waits for it, so that everything is in the log.
func (s *Server) end(server *httptest.Server) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.fake.Close()
	_ = server.Config.Close() // also those that are in the middle of a request
	server.Close()
	s.transport.CloseIdleConnections()
	s.served.Wait()
	s.fake.PerformLate()
}

// serve is the handler of the server that end closes.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.served.Add(1)
	s.mu.Unlock()
	defer s.served.Done()
	s.fake.ServeHTTP(w, r)
}

// ServeHTTP makes the Server an [http.Handler], for those who bring a listener: the same
// AMP under another address. Its paths begin with /api. Once the test is over it breaks
// every connection. Close your own server before that, or after it, as you like.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isOver() {
		panic(http.ErrAbortHandler)
	}
	s.fake.ServeHTTP(w, r)
}

func (s *Server) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Config is a configuration for this server and its account as it is now, with the waits
// and timeouts of [ampauth.RetryConfigForTests], no store and no logger. Change it as you
// like, but keep its HTTPClient, or take [Server.Transport] for your own.
func (s *Server) Config() ampauth.Config {
	return ampauth.Config{
		BaseURL:     s.URL,
		Credentials: ampauth.Credentials{Username: username, Password: ampauth.SecretFromString(s.fake.Password(username))},
		HTTPClient:  &http.Client{Transport: s.transport},
		Retry:       ampauth.RetryConfigForTests(),
	}
}

// Client is a new client of [Server.Config], which is closed when the test ends. It has
// not logged in yet.
func (s *Server) Client() *ampauth.Client {
	s.t.Helper()
	s.mustLive("Client")
	c, err := ampauth.NewClient(s.Config())
	if err != nil {
		panic("ampauthtest: " + err.Error()) // Config is valid.
	}
	if wrong := s.otherSide(); wrong != "" {
		s.refuse("Client: %s", wrong)
		return c // that cannot be closed from where t ends
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Transport reaches this server, in a bubble and over TLS too. It is the same one each
// time and adds no token: put your own layers over it, or a [ampauth.ConnTransport]. The
// server closes its connections.
func (s *Server) Transport() *http.Transport { return s.transport }

// Revoke ends the token of the account, as an administrator can. The next login makes
// another one. Before the first login there is none to end.
func (s *Server) Revoke() {
	s.t.Helper()
	if s.mustLive("Revoke") {
		s.fake.Revoke(username)
	}
}

// RefreshElsewhere replaces the token of the account, as another program that shares it
// can. The next login gets the new one.
func (s *Server) RefreshElsewhere() {
	s.t.Helper()
	if s.mustLive("RefreshElsewhere") {
		s.fake.Rotate(username)
	}
}

// Count is how many requests a route has seen, with those that met a fault, and those
// that were refused. Routes are those of [Fault].
func (s *Server) Count(route string) int {
	s.t.Helper()
	known, wrong := fakeamp.KnownRoute(route)
	if wrong != "" {
		s.refuse("Count: %s", wrong)
		return 0
	}
	sum := 0
	for counted, n := range s.fake.Counts() {
		if fakeamp.RouteMatches(known, counted) {
			sum += n
		}
	}
	return sum
}
