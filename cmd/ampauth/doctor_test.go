package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// examined runs the command as a process, twice, and looks whether both forms say the
// same, show no secret, and fit a terminal.
func examined(t *testing.T, fake *fakeamp.Server, args ...string) (map[string]finding, output) {
	t.Helper()
	got := process(t, append([]string{"doctor", "-json"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil {
		t.Fatalf("%v in %+v", err, got)
	}
	checks := make(map[string]finding)
	var names []string
	for _, f := range d.Findings {
		checks[f.Name] = f
		names = append(names, f.Name)
		if f.State == findingFailed && (len(f.Seen) == 0 || len(f.Do) == 0) {
			t.Errorf("it says not what to do: %+v", f)
		}
	}
	if want := []string{"configuration", "dns", "tcp", "tls", "clock", "login", "read", "refresh", "store"}; !slices.Equal(names, want) {
		t.Errorf("the checks are %v", names)
	}
	failure := slices.ContainsFunc(d.Findings, func(f finding) bool { return f.State == findingFailed })
	if d.OK == failure || (got.code == exitOK) == failure {
		t.Errorf("ok is %v, the exit code %d: %s", d.OK, got.code, got.stdout)
	}
	text := process(t, append([]string{"doctor"}, args...)...)
	if text.code != got.code || got.stderr+text.stderr != "" {
		t.Errorf("%+v, in JSON %+v", text, got)
	}
	rows := strings.Split(strings.TrimSpace(text.stdout), "\n")
	for _, row := range rows {
		if utf8.RuneCountInString(row) > 80 {
			t.Errorf("it is wider than a terminal: %q", row)
		}
	}
	if len(rows) > 24 {
		t.Errorf("it is higher than a terminal:\n%s", text.stdout)
	}
	for _, name := range names {
		if !strings.Contains(text.stdout, fmt.Sprintf("%-9s  %s", checks[name].State, name)) {
			t.Errorf("%s is not there as it is in JSON:\n%s", name, text.stdout)
		}
	}
	printed := got.stdout + text.stdout
	showsNone(t, printed, rightPassword, wrongPassword, privateQuery)
	if fake != nil {
		showsNone(t, printed, fake.Token("issuer"))
		for _, e := range fake.Effects() {
			if e.Route != "GET /user/refresh-token" {
				t.Errorf("it performed %s", e.Route)
			}
		}
		if v := fake.Violations(); len(v) > 0 {
			t.Errorf("violations %q", v)
		}
	}
	return checks, text
}

// is wants a state, and words in what was seen or is to be done.
func is(t *testing.T, f finding, state, words string) {
	t.Helper()
	if text := strings.Join(append(f.Seen, f.Do...), "\n"); f.State != state || !strings.Contains(text, words) {
		t.Errorf("%+v, want %s and %q", f, state, words)
	}
}

func TestDoctorFindsNothingWrong(t *testing.T) {
	fake, server := configure(t)
	checks, _ := examined(t, fake)
	for _, name := range []string{"configuration", "dns", "tcp", "clock", "login", "read"} {
		is(t, checks[name], findingOK, "")
	}
	is(t, checks["configuration"], findingOK, "base URL "+server.URL+"/api (AMP_API_BASE_URL)")
	is(t, checks["configuration"], findingOK, "attempts 3 (default)")
	is(t, checks["configuration"], findingOK, "waits 1ms (API_RETRY_BASE_DELAY_MS)")
	is(t, checks["tls"], findingNotTried, "plain http")
	is(t, checks["refresh"], findingNotTried, "-refresh")
	is(t, checks["store"], findingNotTried, "AMP_TOKEN_DIR")
	if n := fake.Count("GET /user/refresh-token"); n > 0 {
		t.Error("it refreshed the token unasked")
	}
	if n := fake.Count("POST /user/obtain_token"); n != 2 {
		t.Errorf("%d logins in two runs", n)
	}
}

func TestDoctorTellsAllFaultsOfTheConfiguration(t *testing.T) {
	fake, server := configure(t)
	setEnvironment(t, map[string]string{
		"AMP_API_BASE_URL": server.URL + "/api?" + privateQuery, "AMP_PASSWORD": wrongPassword, "API_RETRY_MAX_ATTEMPTS": "many",
	})
	checks, got := examined(t, fake)
	for _, name := range []string{"AMP_API_BASE_URL", "AMP_USERNAME", "API_RETRY_MAX_ATTEMPTS"} {
		is(t, checks["configuration"], findingFailed, name)
	}
	is(t, checks["configuration"], findingFailed, "set: AMP_API_BASE_URL, AMP_PASSWORD, API_RETRY_MAX_ATTEMPTS")
	for name, f := range checks {
		if name != "configuration" && (f.State != findingNotTried || f.WaitsFor != "configuration") {
			t.Errorf("%+v", f)
		}
	}
	if got.code != exitError || len(fake.Counts()) > 0 {
		t.Errorf("%+v, %v", got, fake.Counts())
	}
}

func TestDoctorTellsWhoseFaultTheLoginIs(t *testing.T) {
	for name, tt := range map[string]struct {
		password string
		fault    fakeamp.Fault
		code     int
		login    string
		read     string // its state, and what it says or waits for
		says     string
	}{
		"wrong password":                {wrongPassword, fakeamp.Fault{}, 4, "AMP refused user name and password", findingNotTried, "login"},
		"login answers 503":             {rightPassword, fakeamp.Fault{Route: "POST /user/obtain_token", Status: 503, Times: -1}, 1, "503", findingNotTried, "login"},
		"login is cut off":              {rightPassword, fakeamp.Fault{Route: "POST /user/obtain_token", Do: fakeamp.Reset, Times: -1}, 1, "failed after 1 attempt", findingNotTried, "login"},
		"login is somebody else's page": {rightPassword, fakeamp.Fault{Route: "POST /user/obtain_token", Status: 403, HTML: true, Times: -1}, 1, "proxy", findingNotTried, "login"},
		"read answers 401":              {rightPassword, fakeamp.Fault{Route: "GET /managers/me", Status: 401, Times: -1}, 4, "", findingFailed, "ask Blockstream"},
		"read answers 403":              {rightPassword, fakeamp.Fault{Route: "GET /managers/me", Status: 403, Times: -1}, 4, "", findingFailed, "ask Blockstream"},
		"read answers 404":              {rightPassword, fakeamp.Fault{Route: "GET /managers/me", Status: 404, Times: -1}, 0, "", findingWarning, "no such route"},
		"read answers 500":              {rightPassword, fakeamp.Fault{Route: "GET /managers/me", Status: 500, Times: -1}, 1, "", findingFailed, "HTTP 500"},
		"read is cut off":               {rightPassword, fakeamp.Fault{Route: "GET /managers/me", Do: fakeamp.Reset, Times: -1}, 1, "", findingFailed, "failed after 1 attempt"},
		"no probe":                      {rightPassword, fakeamp.Fault{Route: "GET /info", Do: fakeamp.Reset, Times: -1}, 0, "", findingOK, "HTTP 200"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			t.Setenv("AMP_PASSWORD", tt.password)
			if tt.fault.Route != "" {
				fake.Inject(tt.fault)
			}
			checks, got := examined(t, fake)
			state := findingFailed
			if tt.login == "" {
				state = findingOK
			}
			is(t, checks["login"], state, tt.login)
			if read := checks["read"]; read.WaitsFor != "" {
				if read.State != tt.read || read.WaitsFor != tt.says {
					t.Errorf("%+v", read)
				}
			} else {
				is(t, read, tt.read, tt.says)
			}
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d", got.code, tt.code)
			}
		})
	}
}

func TestDoctorRefreshesOnlyWhenAsked(t *testing.T) {
	fake, _ := configure(t)
	checks, _ := examined(t, fake, "-refresh")
	is(t, checks["refresh"], findingOK, "exchanged")
	if n := fake.Count("GET /user/refresh-token"); n != 2 {
		t.Errorf("%d refreshes in two runs", n)
	}
	for status, state := range map[int]string{404: findingWarning, 405: findingWarning, 500: findingFailed} {
		fake.ClearFaults()
		fake.Inject(fakeamp.Fault{Route: "GET /user/refresh-token", Status: status, Times: -1})
		checks, _ := examined(t, fake, "-refresh")
		is(t, checks["refresh"], state, fmt.Sprint(status))
	}
}

func TestDoctorIsMisusedAloud(t *testing.T) {
	for _, args := range [][]string{{"doctor", "now"}, {"doctor", "-fix"}} {
		if got := runCommand(t.Context(), args...); got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "usage: ampauth doctor") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestInterruptedDoctorSaysSo(t *testing.T) {
	noGoroutineLeft(t)
	fake, _ := configure(t)
	ctx, interrupt := context.WithCancel(t.Context())
	fake.Inject(fakeamp.Fault{Route: "POST /user/obtain_token", Do: fakeamp.StallHeaders, Times: -1})
	go func() {
		awaitRequest(fake, "POST /user/obtain_token")
		interrupt()
	}()
	got := runCommand(ctx, "doctor")
	if got.code != exitError || !strings.Contains(got.stdout, "failed     login") || !strings.Contains(got.stdout, "interrupted") {
		t.Errorf("%+v", got)
	}
}
