package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// The secrets of these tests, which nothing may print.
const (
	rightPassword = "correct horse"
	wrongPassword = "canary-password"
	privateQuery  = "canary-query"
)

// configure points the environment at a fake.
func configure(t *testing.T) (*fakeamp.Server, *httptest.Server) {
	t.Helper()
	return configureWith(t, nil)
}

// configureWith is configure with other users.
func configureWith(t *testing.T, users map[string]string) (*fakeamp.Server, *httptest.Server) {
	t.Helper()
	fake := fakeamp.New(fakeamp.Config{Users: users})
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	t.Cleanup(fake.Close)
	setEnvironment(t, map[string]string{
		"AMP_API_BASE_URL":        server.URL + "/api",
		"AMP_USERNAME":            "issuer",
		"AMP_PASSWORD":            rightPassword,
		"API_RETRY_BASE_DELAY_MS": "1",
	})
	return fake, server
}

func setEnvironment(t *testing.T, environment map[string]string) {
	t.Helper()
	for _, name := range []string{
		"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD", "AMP_PASSWORD_FILE", "API_RETRY_MAX_ATTEMPTS",
		"API_RETRY_BASE_DELAY_MS", "API_RETRY_MAX_DELAY_MS", "API_REQUEST_TIMEOUT_SECONDS",
		"AMP_TOKEN_DIR", "AMP_TOKEN_PERSISTENCE", "AMP_PROFILE",
	} {
		t.Setenv(name, environment[name])
	}
}

// get runs the command and looks for secrets in what it printed.
func get(t *testing.T, ctx context.Context, path string) output {
	t.Helper()
	got := runCommand(ctx, "get", path)
	for _, secret := range []string{rightPassword, wrongPassword, privateQuery} {
		if strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("the output shows %q:\n%s%s", secret, got.stdout, got.stderr)
		}
	}
	return got
}

func TestGetWritesTheBodyAndNothingElse(t *testing.T) {
	for _, path := range []string{"/managers/me", "managers/me", "managers/me?x=" + privateQuery} {
		fake, _ := configure(t)
		noGoroutineLeft(t)
		got := get(t, t.Context(), path)
		if got.code != 0 || !strings.HasPrefix(got.stdout, `{"username":"manager"`) || !strings.HasSuffix(got.stdout, "}") || got.stderr != "" {
			t.Errorf("%s: %+v", path, got)
		}
		if n, v := fake.Count("GET /managers/me"), fake.Violations(); n != 1 || len(v) > 0 {
			t.Errorf("%s: %d requests, violations %q", path, n, v)
		}
	}
}

func TestGetTakesABaseURLThatEndsInASlash(t *testing.T) {
	_, server := configure(t)
	t.Setenv("AMP_API_BASE_URL", server.URL+"/api/")
	if got := get(t, t.Context(), "/managers/me"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestGetSendsTheTokenNowhereElse(t *testing.T) {
	for _, path := range []string{
		"", "?x=" + privateQuery, "https://elsewhere.example/assets", "HTTP://127.0.0.1/api/assets", "//elsewhere.example/assets",
		"///elsewhere.example", "mailto:somebody", "../admin", "/assets/../../admin", "/..", "/assets/%2e%2e/%2E%2E/admin",
		"/..%2fadmin", `\..\admin`, "/./assets", "/assets#" + privateQuery, "/%zz?" + privateQuery, "\x7f",
		"/assets/%252e%252e/admin", "/%25252e%25252e/admin", "/assets/..;/admin", "/assets/..;x=1/admin", "/assets/.;/..%3b/admin", "/assets/%2e%2e%3B/admin",
		`/assets/..%5cadmin`, "/assets/%20../admin", "/assets/..%09/admin", "/assets/%0d%0aHost:%20elsewhere", "/assets/%00", "/assets/%250a", "/assets\n", "/assets/%c2%9b2J",
		"/assets/%c0%ae%c0%ae/admin", "/assets/%ff", "/user/obtain_token", "/user/refresh-token?" + privateQuery, "/user/refresh_token/", "/user//refresh-token",
		"/assets/100%25", "/assets/a;b", "/assets//x", "/assets/x%2fregister", "/assets/%e2%80%ae", "/assets/%ef%bb%bf",
	} {
		t.Run(path, func(t *testing.T) {
			fake, _ := configure(t)
			got := get(t, t.Context(), path)
			if got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, "PATH") && !strings.Contains(got.stderr, "see ampauth token -h") {
				t.Errorf("%+v, want a usage error", got)
			}
			if n := len(fake.Counts()); n > 0 {
				t.Errorf("%d routes were asked for, want none", n)
			}
		})
	}
}

// What looks like dots and is none goes where it is meant to.
func TestGetTakesWhatASegmentMayHold(t *testing.T) {
	for _, path := range []string{"/assets/...", "/assets/a..b", "/assets/..a", "/assets/a,b=..", "/assets/%E6%96%87", "assets/", "/assets?a=../..", "/assets?a=%0a"} {
		configure(t)
		if got := get(t, t.Context(), path); got.code == exitUsage {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestGetTellsAllFaultsOfTheConfigurationAtOnce(t *testing.T) {
	fake, server := configure(t)
	setEnvironment(t, map[string]string{
		"AMP_API_BASE_URL":            server.URL + "/api?" + privateQuery,
		"AMP_PASSWORD":                wrongPassword,
		"AMP_PASSWORD_FILE":           "somewhere",
		"API_RETRY_MAX_ATTEMPTS":      "many",
		"API_REQUEST_TIMEOUT_SECONDS": "0",
	})
	got := get(t, t.Context(), "/assets")
	if got.code != 1 || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD_FILE", "API_RETRY_MAX_ATTEMPTS", "API_REQUEST_TIMEOUT_SECONDS"} {
		if !strings.Contains(got.stderr, name) {
			t.Errorf("%s is not named:\n%s", name, got.stderr)
		}
	}
	if n := len(fake.Counts()); n > 0 {
		t.Errorf("%d routes were asked for, want none", n)
	}
}

func TestGetTellsWhoIsNotAuthenticated(t *testing.T) {
	t.Run("wrong password", func(t *testing.T) {
		fake, _ := configure(t)
		t.Setenv("AMP_PASSWORD", wrongPassword)
		got := get(t, t.Context(), "/assets?"+privateQuery)
		if got.code != 4 || got.stdout != "" || !strings.Contains(got.stderr, "credentials were refused") {
			t.Errorf("%+v", got)
		}
		if n := fake.Count("POST /user/obtain_token"); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	})
	for name, status := range map[string]int{"login answered 401": 401, "login answered 403": 403} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			fake.Inject(fakeamp.Fault{Route: "POST /user/obtain_token", Status: status})
			if got := get(t, t.Context(), "/assets"); got.code != 4 || got.stdout != "" {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, status := range []int{400, 401, 403} {
		t.Run(fmt.Sprint("a proxy answers the login ", status), func(t *testing.T) {
			fake, _ := configure(t)
			fake.Inject(fakeamp.Fault{Route: "POST /user/obtain_token", Status: status, HTML: true, Times: -1})
			got := get(t, t.Context(), "/assets")
			if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "a proxy may have sent it") {
				t.Errorf("%+v", got)
			}
		})
	}
	for name, status := range map[string]int{"answer 401": 401, "answer 403": 403} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			fake.Inject(fakeamp.Fault{Route: "GET /assets", Status: status, Times: -1})
			got := get(t, t.Context(), "/assets?"+privateQuery)
			if got.code != 4 || !strings.HasPrefix(got.stdout, `{"detail":`) || !strings.Contains(got.stderr, "HTTP 40") {
				t.Errorf("%+v, want the body and exit code 4", got)
			}
		})
	}
}

func TestGetOfAnotherAnswerExits1WithItsBody(t *testing.T) {
	for _, tt := range []struct {
		path   string
		fault  fakeamp.Fault
		stdout string
		stderr string
	}{
		{path: "/nothing?" + privateQuery, stdout: `{"detail":"Not found."}`, stderr: "ampauth: HTTP 404 Not Found\n"},
		{path: "/assets", fault: fakeamp.Fault{Route: "GET /assets", Status: 503, Times: -1}, stdout: `{"detail":"Service`, stderr: "HTTP 503 Service Unavailable"},
		{path: "/assets", fault: fakeamp.Fault{Route: "GET /assets", Do: fakeamp.CutBody, Body: "[1,2]"}, stdout: "[1", stderr: "ampauth: answer broke off"},
		{path: "/assets?" + privateQuery, fault: fakeamp.Fault{Route: "GET /assets", Do: fakeamp.Close, Times: -1}, stderr: "ampauth: request failed after 3 attempts"},
		{
			path: "/assets", fault: fakeamp.Fault{Route: "GET /assets", Status: 302, Header: http.Header{"Location": {"http://%zz?" + privateQuery}}},
			stderr: "ampauth: failed to parse Location header ...",
		},
		{path: "/assets", fault: fakeamp.Fault{Route: "POST /user/obtain_token", Status: 500, Times: -1}, stderr: "ampauth: token obtain failed after 3 attempts"},
	} {
		t.Run(tt.path+" "+tt.stderr, func(t *testing.T) {
			fake, _ := configure(t)
			if tt.fault.Route != "" {
				fake.Inject(tt.fault)
			}
			got := get(t, t.Context(), tt.path)
			if got.code != 1 || !strings.HasPrefix(got.stdout, tt.stdout) || tt.stdout == "" && got.stdout != "" || !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("%+v, want stdout %q, stderr %q", got, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestGetEndsWhenInterrupted(t *testing.T) {
	for _, route := range []string{"GET /assets", "POST /user/obtain_token"} {
		fake, _ := configure(t)
		noGoroutineLeft(t)
		fake.Inject(fakeamp.Fault{Route: route, Do: fakeamp.StallHeaders, Times: -1})
		ctx, interrupt := context.WithCancel(t.Context())
		go func() {
			awaitRequest(fake, route)
			interrupt()
		}()
		began := time.Now()
		got := get(t, ctx, "/assets?"+privateQuery)
		if got.code != 1 || !strings.Contains(got.stderr, "context canceled") || time.Since(began) > 4*time.Second {
			t.Errorf("%s: %+v after %v", route, got, time.Since(began))
		}
	}
}

func TestGetReportsAStdoutThatIsGone(t *testing.T) {
	configure(t)
	var stderr strings.Builder
	if code := run(t.Context(), []string{"get", "/assets"}, brokenPipe{}, &stderr); code != 1 || stderr.String() != "ampauth: broken pipe\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
