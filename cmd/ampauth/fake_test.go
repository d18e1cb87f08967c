package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestFakeRefusesWhatItCannotMean(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-listen|0.0.0.0:0", "the host of -listen"},
		{"-listen|:0", "the host of -listen"},
		{"-listen|[::]:0", "the host of -listen"},
		{"-listen|amp.example:0", "the host of -listen"},
		{"-listen|127.0.0.1", "an address and a port"},
		{"-listen|127.0.0.1:http", "the port of -listen"},
		{"-listen|127.0.0.1:65536", "the port of -listen"},
		{"-lifetime|0s", "-lifetime must be above zero"},
		{"-lifetime|day", "-lifetime"},
		{"now", "takes no arguments"},
		{"-fault|503", "needs a colon"},
		{"-fault|/nothing:503", `Route "/nothing" is none of AMP's`},
		{"-fault|GET /asset:503", `is it "GET /assets"?`},
		{"-fault|get /assets:503", "methods are in upper case"},
		{"-fault|/assets:", "WHAT is empty"},
		{"-fault|/assets:x2", "WHAT is empty"},
		{"-fault|/assets:broken", `WHAT is "broken"`},
		{"-fault|/assets:503,", `WHAT is ""`},
		{"-fault|/assets:99", "the status is 99"},
		{"-fault|/assets:302", "the status is 302"},
		{"-fault|/assets:600", "the status is 600"},
		{"-fault|/assets:503x0", `TIMES is "0"`},
		{"-fault|/assets:503xmany", `TIMES is "many"`},
		{"-fault|/assets:503x-1", `TIMES is "-1"`},
		{"-fault|/assets:delay=2", `delay is "2"`},
		{"-fault|/assets:delay=-2s", `delay is "-2s"`},
		{"-fault|/assets:503,retry-after=soon", `retry-after is "soon"`},
		{"-fault|/assets:retry-after=2", "retry-after needs a status"},
		{"-fault|/assets:200,retry-after=2", "retry-after needs a status"},
		{"-fault|/assets:503,reset", "reset and a status exclude each other"},
		{"-fault|/assets:429,after", "after and the status 429 exclude each other"},
		{"-fault|/assets:after", "after alone changes nothing"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			got := runCommand(t.Context(), append([]string{"fake"}, strings.Split(tt.args, "|")...)...)
			if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, tt.want) || !strings.Contains(got.stderr, "usage: ampauth fake") {
				t.Errorf("%+v, want a usage error that says %q", got, tt.want)
			}
		})
	}
}

func TestFaultOfACommandLineIsThatOfTheEngine(t *testing.T) {
	for text, want := range map[string]fakeamp.Fault{
		"/assets:503":                           {Route: "/assets", Status: 503},
		"/assets/:503x2":                        {Route: "/assets", Status: 503, Times: 2},
		"GET /assets/{assetUuid}:404xall":       {Route: "GET /assets/{assetUuid}", Status: 404, Times: -1},
		":reset":                                {Do: fakeamp.Reset},
		"POST /assets/issue:reset,after":        {Route: "POST /assets/issue", Do: fakeamp.Reset, When: fakeamp.After},
		"/assets:429,retry-after=3x2":           {Route: "/assets", Status: 429, Times: 2, Header: http.Header{"Retry-After": {"3"}}},
		"/user/obtain_token:delay=200msxall":    {Route: "/user/obtain_token", Delay: 200_000_000, Times: -1},
		"POST /assets/issue:delay=1s,500,after": {Route: "POST /assets/issue", Delay: 1e9, Status: 500, When: fakeamp.After},
	} {
		got, wrong := parseFault(text)
		if wrong != "" || got.Name != text || got.Route != want.Route || got.Times != want.Times || got.Status != want.Status || got.Do != want.Do ||
			got.When != want.When || got.Delay != want.Delay || got.Header.Get("Retry-After") != want.Header.Get("Retry-After") {
			t.Errorf("%s: %+v, %q", text, got, wrong)
		}
	}
}

// useFake starts a fake as a process and has the environment of this test point at it, as
// a shell reads it.
func useFake(t *testing.T, args ...string) *running {
	t.Helper()
	setEnvironment(t, nil)
	fake := start(t, 3, append([]string{"fake"}, args...)...)
	file := filepath.Join(t.TempDir(), "fake.env")
	mustDo(t, os.WriteFile(file, []byte(fake.stdout.String()), 0o600))
	for _, name := range []string{"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD"} {
		value, err := exec.Command("sh", "-c", `. "$1"; eval "printf %s \"\$$2\""`, "sh", file, name).Output()
		mustDo(t, err)
		t.Setenv(name, string(value))
	}
	t.Setenv("API_RETRY_BASE_DELAY_MS", "1")
	return fake
}

func TestFakeServesWhoTakesItsEnvironment(t *testing.T) {
	for _, signal := range endings {
		fake := useFake(t, "-fault", "/assets:503x2", "-lifetime", "1h")
		if got := process(t, "get", "/assets"); got.code != exitOK || got.stdout != "[]" {
			t.Errorf("%+v", got)
		}
		if got := process(t, "get", "/no/such/path"); got.code != exitError {
			t.Errorf("%+v", got)
		}
		resp, err := http.Post(os.Getenv("AMP_API_BASE_URL")+"/user/obtain_token", "application/json",
			strings.NewReader(`{"username":"issuer","password":"correct horse"}`))
		mustDo(t, err)
		body, err := io.ReadAll(resp.Body)
		mustDo(t, err, resp.Body.Close())
		token := strings.TrimSuffix(strings.TrimPrefix(string(body), `{"token":"`), `"}`)
		if len(token) != 40 {
			t.Fatalf("no token in %q", body)
		}
		got := fake.stop(signal)
		for _, want := range []string{
			"served 7 requests", "    3  GET /assets\n", "    3  POST /user/obtain_token\n", "    1  of no route of AMP's\n", "fault met 2 times: /assets:503x2\n",
		} {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("it does not say %q:\n%s", want, got.stderr)
			}
		}
		if got.code != exitOK || strings.Contains(got.stderr, "must not do this") {
			t.Errorf("%+v", got)
		}
		showsNone(t, got.stdout+got.stderr, token, "no/such/path")
		showsNone(t, got.stderr, rightPassword)
	}
}

func TestFakeTellsWhatClientsMustNotDo(t *testing.T) {
	fake := useFake(t)
	base := os.Getenv("AMP_API_BASE_URL")
	resp, err := http.Get(base + "/assets?password=correct+horse")
	mustDo(t, err, resp.Body.Close())
	if got := fake.stop(endings[1]); got.code != exitOK || !strings.Contains(got.stderr, "a client must not do this: GET /assets: token or password in the query") {
		t.Errorf("%+v", got)
	}
}

// A request that a fault keeps waiting does not hold the end up.
func TestFakeEndsWhileARequestWaits(t *testing.T) {
	fake := useFake(t, "-fault", "/assets:delay=1hxall")
	done := make(chan output, 1)
	go func() { done <- process(t, "get", "/assets") }()
	eventually(t, "the login, after which the read comes", func() bool { return process(t, "get", "/managers/me").code == exitOK })
	if got := fake.stop(endings[0]); got.code != exitOK {
		t.Errorf("%+v", got)
	}
	if got := <-done; got.code != exitError {
		t.Errorf("%+v", got)
	}
}

func TestFakeUnsetsThePasswordFileOfItsReader(t *testing.T) {
	t.Setenv("AMP_PASSWORD_FILE", "/somewhere")
	fake := start(t, 4, "fake", "-listen", "[::1]:0")
	if got := fake.stop(endings[0]); !strings.HasPrefix(got.stdout, "unset AMP_PASSWORD_FILE\nexport AMP_API_BASE_URL=http://[::1]:") {
		t.Errorf("%+v", got)
	}
}

func TestFakeReportsAStdoutThatIsGone(t *testing.T) {
	noGoroutineLeft(t)
	var stderr strings.Builder
	if code := run(t.Context(), []string{"fake"}, brokenPipe{}, &stderr); code != exitError || stderr.String() != "ampauth fake: broken pipe\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}
