package bench

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A server is an API behind a login, on a loopback socket. Every login yields
// another token; those of before stay good until they are revoked.
type server struct {
	*httptest.Server
	loginTime time.Duration    // how long a login takes
	api       http.HandlerFunc // what it does for who is logged in

	logins atomic.Int64

	mu   sync.Mutex // guards good
	good map[string]bool
}

// serve starts a server. Close it.
func serve(http2 bool, loginTime time.Duration, api http.HandlerFunc) *server {
	s := &server{loginTime: loginTime, api: api, good: make(map[string]bool)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.handle))
	if http2 {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}} // httptest's own would be h2 alone
		s.StartTLS()
	} else {
		s.Start()
	}
	return s
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
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
