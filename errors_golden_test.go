//go:build unix

// The words of the system are those of Unix.

package ampauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"
)

// A saidCase is a thing that goes wrong, and the error that its user sees.
type saidCase struct {
	name string
	err  func(t *testing.T) error
}

// inBubble is a case over the fake AMP on virtual time.
func inBubble(err func(t *testing.T, w *ampWorld) error) func(t *testing.T) error {
	return func(t *testing.T) (said error) {
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) { said = err(t, w) })
		return said
	}
}

// atLogin is the error of a GET whose login meets a fault.
func atLogin(f fakeamp.Fault) func(t *testing.T) error {
	return inBubble(func(t *testing.T, w *ampWorld) error {
		f.Route, f.Times = ampObtain, -1
		w.Inject(f)
		return sayGet(w.client(), w)
	})
}

// afterLogin is the error of a request that meets a fault, of a client that is logged in.
func afterLogin(method, path string, f fakeamp.Fault, change ...func(*ampauth.Config)) func(t *testing.T) error {
	return inBubble(func(t *testing.T, w *ampWorld) error {
		client := w.client(change...)
		w.token(client.Tokens)
		f.Route, f.Times = method+" "+path, -1
		w.Inject(f)
		return say(client.Client, method, w.url+"/api"+path)
	})
}

func sayGet(client *ampauth.Client, w *ampWorld) error {
	return say(client.Client, "GET", w.url+"/api/assets?page=2")
}

// say makes a request and returns how it ended.
func say(client *http.Client, method, url string) error {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("{}")
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	return fmt.Errorf("no error, but HTTP %d", resp.StatusCode)
}

// overSocket is the error of a GET over a real transport, changed by the case.
func overSocket(baseURL string, transport *http.Transport) error {
	defer transport.CloseIdleConnections()
	client, err := ampauth.NewClient(ampauth.Config{
		BaseURL:     baseURL,
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
		HTTPClient:  &http.Client{Transport: transport},
		Retry:       ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	return say(client.Client, "GET", baseURL+"/assets")
}

// untrustedServer is the error of a GET from a TLS server of this process.
func untrustedServer(host string, ends time.Time, trusted bool) func(t *testing.T) error {
	return func(t *testing.T) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: ends,
			DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return err
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = stubQuiet()
		server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		server.StartTLS()
		defer server.Close()
		transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}}
		if trusted {
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			roots.AddCert(certificate)
			transport.TLSClientConfig = &tls.Config{RootCAs: roots}
		}
		return overSocket("https://amp.example/api", transport)
	}
}

// dialFails is the error of a GET whose host cannot be connected to.
func dialFails(cause error) func(t *testing.T) error {
	return func(*testing.T) error {
		return overSocket("https://amp.example/api", &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: cause}
		}})
	}
}

// proxied is the error of a GET through a proxy that answers CONNECT with a status.
func proxied(status int) func(t *testing.T) error {
	return func(*testing.T) error {
		proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) }))
		defer proxy.Close()
		at, err := url.Parse(proxy.URL)
		if err != nil {
			return err
		}
		return overSocket("https://amp.example/api", &http.Transport{Proxy: http.ProxyURL(at)})
	}
}

// fromEnv is the error of a configuration of the environment.
func fromEnv(variables ...string) func(t *testing.T) error {
	return func(t *testing.T) error {
		set := map[string]string{"AMP_API_BASE_URL": "https://amp.example/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": ampPassword}
		for i := 0; i < len(variables); i += 2 {
			set[variables[i]] = variables[i+1]
		}
		for name, value := range set {
			t.Setenv(name, value)
		}
		_, err := ampauth.ConfigFromEnv()
		return err
	}
}

func wrongPassword(cfg *ampauth.Config) { cfg.Credentials.Password = ampauth.SecretFromString("wrong") }

// saidCases are the troubles that a user of the package meets most.
func saidCases() []saidCase {
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	return []saidCase{
		{"wrong password", inBubble(func(t *testing.T, w *ampWorld) error { return sayGet(w.client(wrongPassword), w) })},
		{"wrong password, in the pause after it", inBubble(func(t *testing.T, w *ampWorld) error {
			client := w.client(wrongPassword)
			_ = sayGet(client, w)
			return sayGet(client, w)
		})},
		{"host unknown", dialFails(&net.DNSError{Err: "no such host", Name: "amp.example", IsNotFound: true})},
		{"connection refused", func(t *testing.T) error {
			server := httptest.NewServer(nil)
			server.Close()
			return overSocket(server.URL+"/api", new(http.Transport))
		}},
		{"certificate of an unknown authority", untrustedServer("amp.example", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), false)},
		{"certificate has expired", untrustedServer("amp.example", time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), true)},
		{"certificate of another host", untrustedServer("other.example", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), true)},
		{"connection timed out", dialFails(theirTimeout{})},
		{"proxy is not there", func(t *testing.T) error {
			server := httptest.NewServer(nil)
			server.Close()
			at, err := url.Parse(server.URL)
			if err != nil {
				return err
			}
			return overSocket("https://amp.example/api", &http.Transport{Proxy: http.ProxyURL(at)})
		}},
		{"proxy wants a password", proxied(407)},
		{"proxy does not reach the host", proxied(502)},
		{"login timed out", atLogin(fakeamp.Fault{Do: fakeamp.StallHeaders})},
		{"login was reset", atLogin(fakeamp.Fault{Do: fakeamp.Reset})},
		{"login answers 429", atLogin(fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}})},
		{"login answers 429, an hour", atLogin(fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}})},
		{"login answers 503", atLogin(fakeamp.Fault{Status: 503})},
		{"login answers 503, in the pause after it", inBubble(func(t *testing.T, w *ampWorld) error {
			w.Inject(fakeamp.Fault{Route: ampObtain, Times: -1, Status: 503})
			client := w.client()
			_ = sayGet(client, w)
			return sayGet(client, w)
		})},
		{"login answers 404", atLogin(fakeamp.Fault{Status: 404, HTML: true})},
		{"login answers 403 in HTML", atLogin(fakeamp.Fault{Status: 403, HTML: true})},
		{"login page in HTML", atLogin(fakeamp.Fault{Status: 200, Header: html, Body: "<html><title>Sign in</title></html>"})},
		{"login without a token", atLogin(fakeamp.Fault{Status: 200, Body: `{"key":"value"}`})},
		{"login is redirected", atLogin(fakeamp.Fault{Status: 301, Header: http.Header{"Location": {"https://sso.example/login?next=/api"}}})},
		{"refresh and login fail", inBubble(func(t *testing.T, w *ampWorld) error {
			client := w.client()
			w.token(client.Tokens)
			w.Inject(fakeamp.Fault{Route: ampRefresh, Times: -1, Status: 500}, fakeamp.Fault{Route: ampObtain, Times: -1, Status: 502})
			_, err := client.Tokens.Refresh(t.Context())
			return err
		})},
		{"token is still refused after a login", inBubble(func(t *testing.T, w *ampWorld) error {
			tokens := w.manager()
			w.answer("GET /assets", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(401) })
			token := w.token(tokens)
			for range 9 {
				next, err := tokens.Renew(t.Context(), token)
				if err != nil {
					return err
				}
				token = next
			}
			return errors.New("it was renewed nine times")
		})},
		{"caller leaves during the login", inBubble(func(t *testing.T, w *ampWorld) error {
			w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.StallHeaders})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := w.manager().Token(ctx)
			return err
		})},
		{"GET timed out", afterLogin("GET", "/assets", fakeamp.Fault{Do: fakeamp.StallHeaders})},
		{"GET timed out by http.Client.Timeout", afterLogin("GET", "/assets", fakeamp.Fault{Do: fakeamp.StallHeaders}, func(cfg *ampauth.Config) {
			cfg.HTTPClient.Timeout = 12 * time.Second
		})},
		{"GET was reset", afterLogin("GET", "/assets", fakeamp.Fault{Do: fakeamp.Reset})},
		{"GET broke off in its body", afterLogin("GET", "/assets", fakeamp.Fault{Do: fakeamp.CutBody})},
		{"429 that would outlast the deadline", inBubble(func(t *testing.T, w *ampWorld) error {
			client := w.client()
			w.token(client.Tokens)
			w.Inject(fakeamp.Fault{Route: "GET /assets", Times: -1, Status: 429, Header: http.Header{"Retry-After": {"30"}}})
			client.Timeout = 5 * time.Second
			_ = sayGet(client, w) // its answer is the 429
			return sayGet(client, w)
		})},
		{"429 exhausted, in Retry", answered("GET", 429, "Retry-After", "7")},
		{"503 exhausted, in Retry", answered("GET", 503)},
		{"limiter, beyond the deadline", inBubble(func(t *testing.T, w *ampWorld) error {
			client := w.client(func(cfg *ampauth.Config) { cfg.Limiter = rate.NewLimiter(rate.Every(time.Minute), 1) })
			w.token(client.Tokens)
			_ = sayGet(client, w)
			client.Timeout = 5 * time.Second
			return sayGet(client, w)
		})},
		{"mutation was reset", afterLogin("POST", "/assets/issue", fakeamp.Fault{Do: fakeamp.Reset, When: fakeamp.After})},
		{"mutation timed out", afterLogin("POST", "/assets/issue", fakeamp.Fault{Do: fakeamp.StallHeaders})},
		{"mutation was answered, and the rest is missing", afterLogin("POST", "/assets/issue", fakeamp.Fault{Do: fakeamp.CutBody})},
		{"Once: in doubt, and reading fails", performed(ampauth.Mutation[issuance]{},
			fakeamp.Fault{Route: ampIssue, Do: fakeamp.Reset}, fakeamp.Fault{Route: "GET /assets", Times: -1, Status: 503})},
		{"Once: in doubt, and not there, three times", performed(ampauth.Mutation[issuance]{},
			fakeamp.Fault{Route: ampIssue, Times: -1, Do: fakeamp.Reset})},
		{"Once: in doubt, not there, and then 409", performed(ampauth.Mutation[issuance]{},
			fakeamp.Fault{Route: ampIssue, Status: 500}, fakeamp.Fault{Route: ampIssue, Status: 409})},
		{"Once: the caller's deadline comes while it is in doubt", performed(ampauth.Mutation[issuance]{Settle: time.Hour},
			fakeamp.Fault{Route: ampIssue, Status: 502})},
		{"Once: after a crash, and reading fails", performed(ampauth.Mutation[issuance]{FindFirst: true},
			fakeamp.Fault{Route: "GET /assets", Times: -1, Do: fakeamp.StallHeaders})},
		{"Once: answered with success, and not there", performed(ampauth.Mutation[issuance]{},
			fakeamp.Fault{Route: ampIssue, Status: 201, Body: "<html>created"})},
		{"Once: a Retry-After above the cap", performed(ampauth.Mutation[issuance]{},
			fakeamp.Fault{Route: ampIssue, Status: 503, Header: http.Header{"Retry-After": {"3600"}}})},
		{"Once: Find has no error for a 503", performed(ampauth.Mutation[issuance]{
			Find: func(ctx context.Context) (issuance, bool, error) {
				call(ctx, oneAttempt(stubAnswer(503)), safe)
				return issuance{}, false, nil
			}}, fakeamp.Fault{Route: ampIssue, Do: fakeamp.Reset})},
		{"Once: Send has no error for a 400", performed(ampauth.Mutation[issuance]{
			Send: func(ctx context.Context) (issuance, error) {
				call(ctx, oneAttempt(stubAnswer(400)), mutating)
				return issuance{}, nil
			}})},
		{"mutation that is redirected by hand", func(t *testing.T) error {
			base := stubScript(stubAnswer(307, "Location", "https://other.example/api/assets/issue"), stubAnswer(200))
			return say(&http.Client{Transport: &ampauth.RetryTransport{Base: base}}, "POST", "https://amp.example/api/assets/issue")
		}},
		{"header that cannot be sent", func(t *testing.T) error {
			req := requestOf(t, "GET", "https://amp.example/api/assets")
			req.Header["X-Bad"] = []string{"line\nbreak"}
			_, err := (&ampauth.RetryTransport{Base: stubScript(stubAnswer(200))}).RoundTrip(req)
			return err
		}},
		{"closed", inBubble(func(t *testing.T, w *ampWorld) error {
			client := w.client()
			_ = client.Close()
			return sayGet(client, w)
		})},
		{"store is open to others", func(t *testing.T) error {
			key, err := ampauth.NewStoreKey("https://amp.example/api", "issuer")
			if err != nil {
				return err
			}
			_, _, err = (&ampauth.FileStore{Dir: openDirectory(t)}).TryLock(t.Context(), key)
			return err
		}},
		{"AMP_PASSWORD_FILE is missing", func(t *testing.T) error {
			return fromEnv("AMP_PASSWORD", "", "AMP_PASSWORD_FILE", filepath.Join(t.TempDir(), "amp-password"))(t)
		}},
		{"AMP_API_BASE_URL over plain http", fromEnv("AMP_API_BASE_URL", "http://amp.example/api")},
		{"nothing is configured", fromEnv("AMP_API_BASE_URL", "", "AMP_USERNAME", "", "AMP_PASSWORD", "")},
		{"AuthTransport without a source", func(t *testing.T) error {
			return say(&http.Client{Transport: &ampauth.AuthTransport{}}, "GET", "https://amp.example/api/assets")
		}},
	}
}

// performed is the error of Once, for an issuance over the fake AMP that meets faults.
func performed(m ampauth.Mutation[issuance], faults ...fakeamp.Fault) func(t *testing.T) error {
	return inBubble(func(t *testing.T, w *ampWorld) error {
		client := w.client()
		w.token(client.Tokens)
		w.Inject(faults...)
		usual := issuing(client.Client, w.url+"/api", "T")
		if m.Send == nil {
			m.Send = usual.Send
		}
		if m.Find == nil {
			m.Find = usual.Find
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := ampauth.Once(ctx, ampauth.RetryConfig{}, m)
		return err
	})
}

// answered is the error of Retry for work whose requests are all answered so.
func answered(method string, status int, header ...string) func(t *testing.T) error {
	return inBubble(func(t *testing.T, w *ampWorld) error {
		_, err := ampauth.Retry(t.Context(), ampauth.RetryConfig{}, func(context.Context) (int, error) {
			e := &ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.Answered, StatusCode: status}
			if len(header) > 0 {
				e.Kind, e.Outcome, e.RetryAfter = ampauth.ErrRateLimited, ampauth.Rejected, 7*time.Second
			}
			return 0, e
		})
		return err
	})
}

// TestErrorsSayWhatFailedWhatWasTriedAndWhatToDo holds the texts of the common troubles,
// as their users see them, to testdata/errors.txt, so that a change of one is read.
func TestErrorsSayWhatFailedWhatWasTriedAndWhatToDo(t *testing.T) {
	loopback := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	clock := regexp.MustCompile(`current time \S+`)
	var all strings.Builder
	for _, c := range saidCases() {
		t.Run(c.name, func(t *testing.T) {
			err := c.err(t)
			if err == nil {
				t.Fatal("no error")
			}
			text := loopback.ReplaceAllString(err.Error(), "127.0.0.1:PORT")
			text = strings.ReplaceAll(text, filepath.Dir(t.TempDir()), "/tmp/test")
			text = clock.ReplaceAllString(text, "current time NOW")
			fmt.Fprintf(&all, "%s:\n    %s\n\n", c.name, strings.ReplaceAll(text, "\n", "\n    "))
		})
	}
	const file = "testdata/errors.txt"
	if *update {
		if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(all.String(), "\n")); diff != "" {
		t.Errorf("the texts are not those of %s; read them, then go test -run %s -update .\n%s", file, t.Name(), diff)
	}
}
