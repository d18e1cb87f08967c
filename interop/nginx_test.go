//go:build unix

package interop

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// A front is a running nginx with a backend behind it that counts what it performs.
type front struct {
	url     string
	pool    *http.Transport   // to nginx
	client  http.RoundTripper // ampauth over pool
	backend *httptest.Server
	ledger  *ledger
	master  *os.Process
	exited  chan struct{} // closed once nginx has ended
}

// A listener says how nginx takes connections.
type listener struct {
	name       string
	tls, http2 bool
}

var (
	plain     = listener{name: "http"}
	overTLS   = listener{name: "https", tls: true}
	withHTTP2 = listener{name: "https with HTTP/2", tls: true, http2: true}
)

// nginxConfig needs no user directive, which only root may use: workers write no
// file, since bodies fit into their buffers. Relative paths are below the directory of
// the configuration.
const nginxConfig = `
daemon off;
master_process on;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path client_body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	scgi_temp_path scgi;
	uwsgi_temp_path uwsgi;
	client_body_buffer_size 1m;
	client_max_body_size 1m;
	ssl_certificate certificate.pem;
	ssl_certificate_key key.pem;
	server {
		listen %s;
		add_header X-Worker $pid always;
		add_header X-Connection $connection always;
		add_header X-Protocol $server_protocol always;
		proxy_http_version 1.1;
		%s
		location / { proxy_pass %s; }
	}
}
`

// newFront starts nginx with further directives for its server, which may be empty. If
// handler is nil, the backend answers what it performed with 200.
func newFront(t *testing.T, l listener, directives string, handler http.Handler) *front {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		t.Skip("there is no nginx here, in PATH or /usr/sbin")
	}
	f := &front{ledger: &ledger{effects: make(map[string]int)}}
	if handler == nil {
		handler = f.ledger
	}
	f.backend = httptest.NewServer(handler)
	t.Cleanup(f.backend.Close)

	dir := t.TempDir()
	f.pool = &http.Transport{ForceAttemptHTTP2: l.http2, TLSClientConfig: writeCertificate(t, dir)}
	t.Cleanup(f.pool.CloseIdleConnections)

	// The port is free when it is chosen, and may be taken when nginx wants it.
	for try := 1; ; try++ {
		address := freeAddress(t)
		listen := address
		f.url = "http://" + address
		if l.tls {
			listen += " ssl"
			f.url = "https://" + address
		}
		if l.http2 {
			listen += " http2"
		}
		writeFile(t, filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, nginxConfig, listen, directives, f.backend.URL))
		if f.start(t, program, dir) {
			break
		}
		told, _ := os.ReadFile(filepath.Join(dir, "error.log"))
		if try == 5 || !strings.Contains(string(told), "Address already in use") {
			t.Fatalf("nginx does not start:\n%s", told)
		}
	}
	t.Cleanup(func() {
		if told, _ := os.ReadFile(filepath.Join(dir, "error.log")); t.Failed() && len(told) > 0 {
			t.Logf("nginx wrote:\n%s", told)
		}
	})

	retry := &ampauth.RetryTransport{
		Base: &ampauth.AuthTransport{
			Base:   f.pool,
			Source: ampauth.StaticTokenSource(ampauth.SecretFromString("0123456789abcdef0123456789abcdef01234567")),
			Origin: f.url,
		},
		Retry: ampauth.RetryConfig{BaseDelay: 10 * time.Millisecond},
	}
	t.Cleanup(retry.CloseIdleConnections)
	f.client = retry
	return f
}

// start runs nginx until the test is over. It reports whether nginx listens: it writes
// its pid after it has bound its address.
func (f *front) start(t *testing.T, program, dir string) bool {
	t.Helper()
	pidFile := filepath.Join(dir, "nginx.pid")
	cmd := exec.CommandContext(t.Context(), program, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that workers can be found without their master
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.master, f.exited = cmd.Process, make(chan struct{})
	exited := f.exited
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		<-exited
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // workers whose master had to be killed
	})
	for {
		if info, err := os.Stat(pidFile); err == nil && info.Size() > 0 {
			return true
		}
		select {
		case <-exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop lets nginx and the backend end what they have begun, so that nothing is
// performed after it.
func (f *front) stop(t *testing.T) {
	t.Helper()
	f.signal(t, syscall.SIGQUIT)
	select {
	case <-f.exited:
	case <-time.After(time.Minute):
		t.Error("nginx does not stop")
	}
	f.backend.Close()
}

func (f *front) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := f.master.Signal(s); err != nil {
		t.Error(err)
	}
}

// An answer is how the caller saw one mutation end.
type answer struct {
	id     string
	status int
	header http.Header
	err    error
}

// mutate makes a mutation, and read a request that is none.
func (f *front) mutate(t *testing.T, id string, body io.Reader) answer {
	return send(t, f.client, http.MethodPost, f.url+"/api/assets/issue", id, body)
}

func (f *front) read(t *testing.T) answer {
	return send(t, f.client, http.MethodGet, f.url+"/api/info", "", nil)
}

func send(t *testing.T, client http.RoundTripper, method, url, id string, body io.Reader) answer {
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Error(err)
		return answer{id: id, err: err}
	}
	req.Header.Set("X-Operation-Id", id)
	resp, err := client.RoundTrip(req)
	if err != nil {
		return answer{id: id, err: err}
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return answer{id, resp.StatusCode, resp.Header, err}
}

// A tally says how many mutations ended how.
type tally struct{ answered, inDoubt, notSent int }

func (c tally) String() string {
	return fmt.Sprintf("%d answered, %d in doubt, %d not sent", c.answered, c.inDoubt, c.notSent)
}

// count stops nginx and fails the test for each answer that is not true to what the
// backend performed.
func (f *front) count(t *testing.T, answers []answer) tally {
	t.Helper()
	f.stop(t)
	var c tally
	for _, a := range answers {
		effects := f.ledger.performed(a.id)
		e, _ := errors.AsType[*ampauth.Error](a.err)
		switch {
		case effects > 1:
			t.Errorf("%s was performed %d times, and the caller got %d, %v", a.id, effects, a.status, a.err)
		case a.err == nil && a.status == http.StatusOK:
			c.answered++
			if effects != 1 {
				t.Errorf("%s was answered with 200 and performed %d times", a.id, effects)
			}
		case errors.Is(a.err, ampauth.ErrAmbiguous):
			c.inDoubt++
		case e != nil && e.Outcome == ampauth.NotSent:
			c.notSent++
			if effects != 0 {
				t.Errorf("%s was performed, and the caller got %v", a.id, a.err)
			}
		default:
			t.Errorf("%s: got %d, %v", a.id, a.status, a.err)
		}
	}
	return c
}

// A ledger is a server that performs each mutation that arrives whole, and counts it
// by its id.
type ledger struct {
	mu      sync.Mutex // guards effects
	effects map[string]int
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	if r.Method == http.MethodPost {
		l.mu.Lock()
		l.effects[r.Header.Get("X-Operation-Id")]++
		l.mu.Unlock()
	}
	_, _ = io.WriteString(w, `{}`)
}

func (l *ledger) performed(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.effects[id]
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// writeCertificate lends nginx the certificate of a test server, and returns what its
// clients need.
func writeCertificate(t *testing.T, dir string) *tls.Config {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "certificate.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	writeFile(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{RootCAs: roots}
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
