package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// configureStore is configure with a directory for tokens, which is not there yet.
func configureStore(t *testing.T) (fake *fakeamp.Server, dir string) {
	t.Helper()
	fake, _ = configure(t)
	dir = filepath.Join(t.TempDir(), "tokens")
	t.Setenv("AMP_TOKEN_DIR", dir)
	return fake, dir
}

// said runs a command of the token's and looks for the token in what it printed.
func said(t *testing.T, fake *fakeamp.Server, args ...string) output {
	t.Helper()
	got := runCommand(t.Context(), args...)
	for _, secret := range []string{rightPassword, fake.Token("issuer")} {
		if secret != "" && strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("%v shows a secret:\n%s%s", args, got.stdout, got.stderr)
		}
	}
	return got
}

func TestStoredTokenIsUsedByTheNextRun(t *testing.T) {
	fake, _ := configureStore(t)
	for range 3 {
		if got := get(t, t.Context(), "/managers/me"); got.code != exitOK {
			t.Fatalf("%+v", got)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n != 1 {
		t.Errorf("%d logins in three runs, want 1", n)
	}
}

func TestSpellingsOfTheBaseURLAreOneServer(t *testing.T) {
	fake, _ := configureStore(t)
	base := os.Getenv("AMP_API_BASE_URL")
	for _, spelling := range []string{base, base + "/", " " + base + "//\n"} {
		t.Setenv("AMP_API_BASE_URL", spelling)
		if got := get(t, t.Context(), "/managers/me"); got.code != exitOK {
			t.Errorf("%q: %+v", spelling, got)
		}
		if got := said(t, fake, "status"); got.code != exitOK || !strings.HasPrefix(got.stdout, "base URL  "+base+"\n") {
			t.Errorf("%q: %+v", spelling, got)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n != 1 || len(fake.Violations()) > 0 {
		t.Errorf("%d logins, want 1; violations %q", n, fake.Violations())
	}
}

func TestStatusTellsOfTheTokenAndSendsNothing(t *testing.T) {
	fake, dir := configureStore(t)
	get(t, t.Context(), "/managers/me")
	before := len(fake.Counts())
	got := said(t, fake, "status")
	for _, want := range []string{os.Getenv("AMP_API_BASE_URL"), "issuer", dir} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("it does not say %q:\n%s", want, got.stdout)
		}
	}
	if !regexp.MustCompile(`obtained \d+s ago, ends in 23h5\dm`).MatchString(got.stdout) {
		t.Errorf("it does not say how old the token is, and for how long it lives:\n%s", got.stdout)
	}
	if got.code != exitOK || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	var s status
	got = said(t, fake, "status", "-json")
	if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
		t.Fatal(err)
	}
	if s.User != "issuer" || s.KeptIn != dir || !s.Usable || s.LeftSeconds < 86000 || s.ExpiresAt.Sub(*s.ObtainedAt).Hours() != 24 || s.Refusal != "" {
		t.Errorf("%+v", s)
	}
	if len(fake.Counts()) != before || fake.Count("POST /user/obtain_token") != 1 {
		t.Error("it sent something")
	}
}

func TestStatusWithoutATokenSaysSo(t *testing.T) {
	fake, dir := configureStore(t)
	if got := said(t, fake, "status"); got.code != exitNotAuthenticated || !strings.Contains(got.stdout, "token     none") {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("looking made the directory")
	}
	t.Setenv("AMP_TOKEN_DIR", "")
	if got := said(t, fake, "status"); got.code != exitNotAuthenticated || !strings.Contains(got.stdout, "kept in   memory") {
		t.Errorf("%+v", got)
	}
}

func TestStatusSaysWhyTheStoredTokenIsNotUsed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	fake, dir := configureStore(t)
	get(t, t.Context(), "/managers/me")
	files, err := filepath.Glob(filepath.Join(dir, "*.token"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	got := said(t, fake, "status")
	if got.code != exitNotAuthenticated || !strings.Contains(got.stdout, "token     not used: the file") {
		t.Errorf("%+v", got)
	}
	if got := said(t, fake, "logout"); got.code != exitOK {
		t.Errorf("%+v", got)
	}
	if _, err := os.Lstat(files[0]); err == nil {
		t.Error("it says that a token is gone which it did not remove")
	}
	get(t, t.Context(), "/managers/me")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := said(t, fake, "logout"); got.code != exitError || !strings.Contains(got.stderr, "the directory "+dir+" is open to other users: chmod 700 "+dir+"; then log out again, or remove the token from "+dir+" by hand") {
		t.Errorf("%+v", got)
	}
}

func TestStatusQuotesWhatATerminalWouldObey(t *testing.T) {
	fake, _ := configureStore(t)
	t.Setenv("AMP_USERNAME", "issuer\u202etoken     obtained 1s ago") // from right to left
	if got := said(t, fake, "status"); strings.Contains(got.stdout, "\u202e") || strings.Count(got.stdout, "\n") != 4 {
		t.Errorf("%q", got.stdout)
	}
	t.Setenv("AMP_USERNAME", "issuer\ntoken     obtained 1s ago\x1b[2K")
	if got := said(t, fake, "status"); got.code != exitError || strings.Contains(got.stderr+got.stdout, "\x1b") || strings.Contains(got.stderr, "obtained") {
		t.Errorf("%+v", got)
	}
}

func TestLogoutRemovesTheStoredToken(t *testing.T) {
	fake, dir := configureStore(t)
	get(t, t.Context(), "/managers/me")
	token := fake.Token("issuer")
	for range 2 {
		if got := said(t, fake, "logout"); got.code != exitOK || !strings.Contains(got.stdout, "no token of issuer is kept") {
			t.Errorf("%+v", got)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil || strings.Contains(string(content), token) {
			t.Errorf("%s: %v, or it holds the token", entry.Name(), err)
		}
	}
	if got := said(t, fake, "status"); got.code != exitNotAuthenticated {
		t.Errorf("%+v", got)
	}
}

func TestStatusAndLogoutAreMisusedAloud(t *testing.T) {
	fake, _ := configureStore(t)
	for _, args := range [][]string{{"status", "x"}, {"logout", "x"}, {"logout", "-json"}} {
		if got := said(t, fake, args...); got.code != exitUsage || !strings.Contains(got.stderr, "usage: ampauth "+args[0]) {
			t.Errorf("%v: %+v", args, got)
		}
	}
	t.Setenv("AMP_USERNAME", "")
	if got := said(t, fake, "status"); got.code != exitError || !strings.Contains(got.stderr, "AMP_USERNAME") {
		t.Errorf("%+v", got)
	}
}
