package bench

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A server is an API behind a login, on a loopback socket. Every login yields
// another token; those of before stay good until they are revoked,
// and so does that of staticLogin.
type server struct {
	*httptest.Server
	loginTime time.Duration    // how long a login takes
	api       http.HandlerFunc // what it does for who is logged in

	logins, connections, handshakes atomic.Int64 // that were begun

	mu   sync.Mutex // guards good
	good map[string]bool
}

// serve starts a server: HTTP/1.1 in clear, or HTTP/2 and HTTP/1.1 over TLS. Close it.
func serve(secure bool, loginTime time.Duration, api http.HandlerFunc) *server {
	s := newServer(api)
	s.loginTime = loginTime
	s.start(secure)
	return s
}

// newServer returns a server that is not started yet.
func newServer(api http.HandlerFunc) *server {
	s := &server{api: api, good: map[string]bool{staticToken: true}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.handle))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of connections that broke
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	return s
}

func (s *server) start(secure bool) {
	if !secure {
		s.Start()
		return
	}
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{
		NextProtos: []string{"h2", "http/1.1"}, // httptest's own would be h2 alone
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			s.handshakes.Add(1)
			return nil, nil
		},
	}
	s.StartTLS()
}

// apiURL is where the API is.
func (s *server) apiURL() string { return s.URL + "/api" }

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, loginPath) {
		s.logins.Add(1)
		time.Sleep(s.loginTime)
		token := rand.Text()
		s.mu.Lock()
		s.good[token] = true
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token":%q}`, token)
		return
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ") // azcore says Bearer
	s.mu.Lock()
	good := s.good[token]
	s.mu.Unlock()
	if !good {
		w.Header().Set("WWW-Authenticate", "Token")
		http.Error(w, `{"detail":"Invalid token."}`, http.StatusUnauthorized)
		return
	}
	s.api(w, r)
}

// issued returns the tokens that logins have yielded.
func (s *server) issued() (tokens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.good {
		if token != staticToken {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// revoke ends all tokens.
func (s *server) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.good)
}

// transport returns connections to s, at most n of them, kept alive.
func (s *server) transport(n int) *http.Transport {
	t := s.Client().Transport.(*http.Transport).Clone()
	t.MaxConnsPerHost, t.MaxIdleConns, t.MaxIdleConnsPerHost = n, n, n
	return t
}

// onlyHTTP1 returns a transport like t, for HTTP/1.1 alone.
func onlyHTTP1(t *http.Transport) *http.Transport {
	t = t.Clone()
	t.ForceAttemptHTTP2, t.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return t
}

// setup is that of a contestant that calls s.
func (s *server) setup(base http.RoundTripper) setup {
	return setup{Base: base, URL: s.apiURL()}.withDefaults()
}

// answerTwoBytes reads the request and gives the shortest answer.
func answerTwoBytes(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}"))
}

// reset breaks the connection of a request, so that the client gets ECONNRESET.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	abort(tcpOf(conn))
}

// abort closes conn so that the other side gets a reset.
func abort(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// tcpOf returns conn, or what is below its TLS.
func tcpOf(conn net.Conn) *net.TCPConn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return conn.(*net.TCPConn)
}

// endWriting ends the server's side of conn, with a FIN and, over TLS, close_notify.
func endWriting(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	_ = tcpOf(conn).CloseWrite()
}
