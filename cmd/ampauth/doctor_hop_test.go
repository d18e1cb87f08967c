package main

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestDoctorTellsWhereTheWayEnds(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	mustDo(t, err)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	secure := quietTLS(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	mustDo(t, closed.Close())
	for name, tt := range map[string]struct{ base, check, says string }{
		"no such name":       {"https://" + noName + "/api", "dns", noName},
		"nobody listens":     {"http://" + closed.Addr().String() + "/api", "tcp", "connection refused"},
		"no TLS":             {strings.Replace(plain.URL, "http:", "https:", 1) + "/api", "tls", "does not speak TLS"},
		"issuer not trusted": {secure.URL + "/api", "tls", "not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			configure(t)
			t.Setenv("AMP_API_BASE_URL", tt.base)
			noProxies(t)
			checks, got := examined(t, nil)
			is(t, checks[tt.check], findingFailed, tt.says)
			if checks["login"].WaitsFor != tt.check || checks["read"].WaitsFor != tt.check || got.code != exitError {
				t.Errorf("%+v, exit code %d", checks["login"], got.code)
			}
		})
	}
}

// quietTLS is a server that says nothing of connections that bring no handshake.
func quietTLS(handler http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return server
}

// noName is no name of a host, so that nobody is asked for its address.
const noName = "amp..invalid"

func noProxies(t *testing.T) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
}

// secureFake serves a fake over TLS, as example.com, with a certificate that the processes
// of this test trust.
func secureFake(t *testing.T) (fake *fakeamp.Server, address string) {
	t.Helper()
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("SSL_CERT_FILE is not looked at there")
	}
	fake, _ = configure(t)
	server := quietTLS(fake)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	mustDo(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	t.Setenv("SSL_CERT_FILE", file)
	noProxies(t)
	return fake, server.Listener.Addr().String()
}

func TestDoctorTellsOfTheCertificate(t *testing.T) {
	fake, address := secureFake(t)
	t.Setenv("AMP_API_BASE_URL", "https://"+address+"/api")
	checks, got := examined(t, fake)
	is(t, checks["tls"], findingOK, "TLS 1.3, issuer Acme Co")
	is(t, checks["tls"], findingOK, "days left")
	if got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

func TestDoctorSaysWhatGoesThroughAProxy(t *testing.T) {
	fake, address := secureFake(t)
	var refusal atomic.Int64 // a status; 0 for none
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" || refusal.Load() != 0 {
			w.WriteHeader(int(refusal.Load()))
			return
		}
		server, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer server.Close()
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(server, client); _ = server.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(client, server)
	}))
	t.Cleanup(proxy.Close)
	host := proxy.Listener.Addr().String()
	t.Setenv("AMP_API_BASE_URL", "https://example.com/api")
	t.Setenv("HTTPS_PROXY", "http://somebody:"+wrongPassword+"@"+host)
	checks, got := examined(t, fake)
	is(t, checks["dns"], findingOK, "it looks up the name of the server")
	is(t, checks["tcp"], findingOK, "the proxy 127.0.0.1")
	is(t, checks["tls"], findingOK, "through the proxy "+host+": TLS 1.3, issuer Acme Co")
	is(t, checks["read"], findingOK, "")
	if got.code != exitOK {
		t.Errorf("%+v", got)
	}
	refusal.Store(http.StatusProxyAuthRequired)
	checks, _ = examined(t, fake)
	is(t, checks["tls"], findingFailed, "refused to connect, HTTP 407")
	t.Setenv("HTTPS_PROXY", "%zz"+wrongPassword) // net/http passes over it without a word
	t.Setenv("AMP_API_BASE_URL", "https://"+noName+"/api")
	checks, _ = examined(t, fake)
	is(t, checks["dns"], findingFailed, "HTTPS_PROXY is set and not used")
}

func TestDoctorComparesTheClock(t *testing.T) {
	now := time.Now()
	for server, want := range map[time.Duration]struct{ state, says string }{
		0:                 {findingOK, "within 1s of the server's"},
		-50 * time.Second: {findingOK, "within 5"},
		-time.Hour:        {findingWarning, "ahead of the server's"},
		time.Hour:         {findingWarning, "behind the server's"},
	} {
		p := probe{date: now.Add(server).UTC().Format(http.TimeFormat), sent: now, came: now}
		is(t, p.clock(), want.state, want.says)
	}
	none := probe{date: "today"}
	is(t, none.clock(), findingWarning, "no Date")
}

func TestDoctorTellsOfAnEndThatIsNear(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	leaf := *server.Certificate()
	leaf.NotAfter = time.Now().Add(3*24*time.Hour + time.Hour)
	leaf.Issuer.Organization = []string{"Acme\x1b[2K"}
	at, _ := firstHop(server.URL)
	p := probe{state: &tls.ConnectionState{Version: tls.VersionTLS13}}
	p.state.PeerCertificates = append(p.state.PeerCertificates, &leaf)
	f := p.certificate(at)
	is(t, f, findingWarning, "3 days left")
	if strings.Contains(fmt.Sprint(f), "\x1b") {
		t.Errorf("a terminal would obey it: %+q", f)
	}
}
