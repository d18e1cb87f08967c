package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// profilePassword is in a form that only the reading of the file undoes.
const profilePassword = "canary 100% = # ; horse"

// configureProfile puts a file of profiles into a home directory of its own, in which URL
// stands for the fake's, and leaves the environment without an account.
func configureProfile(t *testing.T, content string) (path, url string) {
	t.Helper()
	_, server := configureWith(t, map[string]string{"issuer": profilePassword, "another": rightPassword})
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	for _, name := range []string{"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD"} {
		t.Setenv(name, "")
	}
	path = filepath.Join(home, ".amp", "profiles")
	url = server.URL + "/api"
	mustDo(t, os.Mkdir(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(content, "URL!", url)), 0o600))
	return path, url
}

const goodProfiles = "# mine\r\n[default]\r\nAPI_URL=URL!/\r\nBLOCKSTREAM_AMP_USERNAME = issuer\r\nBLOCKSTREAM_AMP_PASSWORD: canary 100%% = # ; horse\r\n" +
	"[wrong]\r\nAPI_URL=URL!\r\nBLOCKSTREAM_AMP_USERNAME=issuer\r\nBLOCKSTREAM_AMP_PASSWORD=canary-wrong\r\n[empty]\r\n"

// withProfile runs a command as a process, and looks for a password in what it printed.
func withProfile(t *testing.T, args ...string) output {
	t.Helper()
	got := process(t, args...)
	if strings.Contains(got.stdout+got.stderr, "canary") {
		t.Errorf("%q shows a password:\n%s%s", args, got.stdout, got.stderr)
	}
	return got
}

func TestProfileIsTheAccountOfEveryCommand(t *testing.T) {
	_, url := configureProfile(t, goodProfiles)
	for _, args := range [][]string{
		{"get", "/managers/me"}, {"call", "GET", "/managers/me"}, {"token"}, {"header"}, {"status"}, {"logout"},
	} {
		code := exitOK
		if args[0] == "status" {
			code = exitNotAuthenticated // none is stored
		}
		for _, given := range [][]string{append([]string{args[0], "-profile", "default"}, args[1:]...), append(args, "-profile=default")} {
			got := withProfile(t, given...)
			if got.code != code || got.stdout == "" || got.stderr != "" {
				t.Errorf("%q: %+v", given, got)
			}
			if args[0] == "status" && !strings.HasPrefix(got.stdout, "base URL  "+url+"\nuser      issuer\n") {
				t.Errorf("%+v", got)
			}
		}
		t.Setenv("AMP_PROFILE", "default")
		if got := withProfile(t, args...); got.code != code || got.stderr != "" {
			t.Errorf("%q: %+v", args, got)
		}
		t.Setenv("AMP_PROFILE", "empty")
		if got := withProfile(t, append(args, "-profile=default")...); got.code != code {
			t.Errorf("the flag is not before AMP_PROFILE: %+v", got)
		}
		t.Setenv("AMP_PROFILE", "")
		if got := withProfile(t, args...); got.code != exitError || !strings.Contains(got.stderr, "AMP_USERNAME") {
			t.Errorf("the profile is used without being asked for: %+v", got)
		}
	}
}

// What is to be looked at is what was used.
func TestRefusedLoginNamesTheKeysThatWereUsed(t *testing.T) {
	path, _ := configureProfile(t, goodProfiles)
	keys := "(BLOCKSTREAM_AMP_USERNAME of [wrong] in " + path + ", BLOCKSTREAM_AMP_PASSWORD of [wrong] in " + path + ")"
	for _, args := range [][]string{{"get", "/managers/me"}, {"call", "DELETE", "/assets/1"}, {"token"}, {"header"}, {"doctor"}} {
		got := withProfile(t, append(args, "-profile", "wrong")...)
		said := strings.Join(strings.Fields(got.stdout+got.stderr), " ")
		want := keys
		if args[0] == "doctor" {
			want = "look at BLOCKSTREAM_AMP_USERNAME of [wrong] in " + path + " and BLOCKSTREAM_AMP_PASSWORD of [wrong] in " + path
		}
		if got.code != exitNotAuthenticated || !strings.Contains(said, want) || strings.Contains(strings.ReplaceAll(said, "BLOCKSTREAM_AMP_", ""), "AMP_USERNAME") {
			t.Errorf("%+v, want %q", got, want)
		}
	}
	t.Setenv("AMP_PASSWORD", "canary-wrong")
	if got := withProfile(t, "token", "-profile", "default"); got.code != exitNotAuthenticated ||
		!strings.Contains(got.stderr, "(BLOCKSTREAM_AMP_USERNAME of [default] in "+path+", AMP_PASSWORD or AMP_PASSWORD_FILE)") {
		t.Errorf("%+v", got)
	}
}

func TestDoctorTellsWhatCameFromTheProfile(t *testing.T) {
	path, url := configureProfile(t, goodProfiles)
	t.Setenv("AMP_USERNAME", "issuer")
	checks, _ := examined(t, nil, "-profile", "default")
	is(t, checks["configuration"], findingOK, "base URL "+url+" (profile default)")
	is(t, checks["configuration"], findingOK, "user issuer (AMP_USERNAME), password set (profile default)")
	is(t, checks["configuration"], findingOK, "profile default is in "+path)
	is(t, checks["login"], findingOK, "")
	t.Setenv("AMP_PROFILE", "empty")
	t.Setenv("API_RETRY_MAX_ATTEMPTS", "many")
	checks, _ = examined(t, nil)
	is(t, checks["configuration"], findingFailed, "section [empty]: API_URL is missing: add it, or set AMP_API_BASE_URL")
	is(t, checks["configuration"], findingFailed, "Retry.MaxAttempts (API_RETRY_MAX_ATTEMPTS) must be a whole number")
	is(t, checks["configuration"], findingFailed, "set: AMP_USERNAME, AMP_PROFILE, API_RETRY_MAX_ATTEMPTS")
}

func TestProxyTakesAProfile(t *testing.T) {
	path, _ := configureProfile(t, goodProfiles)
	for profile, want := range map[string]string{"default": "HTTP/1.1 200 ", "wrong": "BLOCKSTREAM_AMP_PASSWORD of [wrong] in " + path} {
		r := start(t, 1, "proxy", "-listen", "127.0.0.1:0", "-profile", profile)
		address := strings.TrimPrefix(strings.TrimSpace(r.stdout.String()), "http://")
		if got := rawExchange(t, address, "GET /managers/me HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n"); !strings.Contains(got, want) || strings.Contains(got, "canary") {
			t.Errorf("%s: %q, want %q", profile, got, want)
		}
		if got := r.stop(os.Interrupt); got.code != exitOK {
			t.Errorf("%+v", got)
		}
	}
}

func TestEnvironmentIsBeforeTheProfileFieldByField(t *testing.T) {
	_, url := configureProfile(t, goodProfiles+"[elsewhere]\r\nAPI_URL=https://127.0.0.1:1/api\r\nBLOCKSTREAM_AMP_USERNAME=nobody\r\nBLOCKSTREAM_AMP_PASSWORD=canary 100%% = # ; horse\r\n")
	status := func(profile string) (s status) {
		t.Helper()
		got := withProfile(t, "status", "-json", "-profile", profile)
		if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
			t.Fatalf("%v: %+v", err, got)
		}
		return s
	}
	if s := status("elsewhere"); s.BaseURL != "https://127.0.0.1:1/api" || s.User != "nobody" {
		t.Errorf("%+v", s)
	}
	t.Setenv("AMP_USERNAME", "issuer")
	if s := status("elsewhere"); s.BaseURL != "https://127.0.0.1:1/api" || s.User != "issuer" {
		t.Errorf("%+v", s)
	}
	t.Setenv("AMP_API_BASE_URL", url)
	if got := withProfile(t, "get", "/managers/me", "-profile", "elsewhere"); got.code != exitOK {
		t.Errorf("the password is not that of the profile: %+v", got)
	}
	t.Setenv("AMP_USERNAME", "another")
	t.Setenv("AMP_PASSWORD", rightPassword)
	if got := withProfile(t, "get", "/managers/me", "-profile", "empty"); got.code != exitOK {
		t.Errorf("the environment has all: %+v", got)
	}
	t.Setenv("AMP_PASSWORD", "")
	t.Setenv("AMP_PASSWORD_FILE", fileWith(t, rightPassword+"\n"))
	if got := withProfile(t, "get", "/managers/me", "-profile", "wrong"); got.code != exitOK {
		t.Errorf("the file of the environment is not before the profile: %+v", got)
	}
	for _, name := range []string{"AMP_USERNAME", "AMP_PASSWORD", "AMP_API_BASE_URL"} {
		before := os.Getenv(name)
		a, err := accountOf("default")
		if err != nil {
			t.Fatal(err)
		}
		a.Credentials.Password.Destroy()
		if os.Getenv(name) != before {
			t.Errorf("%s is another than before", name)
		}
	}
}

func TestFaultsOfAProfileNameFileSectionAndKey(t *testing.T) {
	const rest = "\nBLOCKSTREAM_AMP_USERNAME=issuer\nBLOCKSTREAM_AMP_PASSWORD=canary\n"
	for name, test := range map[string]struct {
		content string
		want    []string // FILE stands for the file
	}{
		"no section": {"[default]\n", []string{"the file FILE has no section [test]"}},
		"no keys": {"[test]\n", []string{
			"the file FILE, section [test]: API_URL is missing: add it, or set AMP_API_BASE_URL",
			"the file FILE, section [test]: BLOCKSTREAM_AMP_USERNAME is missing: add it, or set AMP_USERNAME",
			"the file FILE, section [test]: BLOCKSTREAM_AMP_PASSWORD is missing: add it, or set AMP_PASSWORD"}},
		"as in the manual of the Python command": {"[test]\nAPI_URL=https://x.example/api # canary\nBLOCKSTREAM_AMP_USERNAME= # canary\nBLOCKSTREAM_AMP_PASSWORD= # canary\n", []string{
			"section [test]: API_URL holds a comment", "section [test]: BLOCKSTREAM_AMP_USERNAME holds a comment", "section [test]: BLOCKSTREAM_AMP_PASSWORD is a comment"}},
		"quotes":                {"[test]\nAPI_URL='https://x.example/canary'" + rest, []string{"section [test]: API_URL is in quotes"}},
		"no https":              {"[test]\nAPI_URL=http://x.example/canary" + rest, []string{"section [test]: API_URL must use https"}},
		"a user in it":          {"[test]\nAPI_URL=https://canary:canary@x.example/" + rest, []string{"section [test]: API_URL must not hold user information"}},
		"a percent sign":        {"[test]\nAPI_URL=URL!\nBLOCKSTREAM_AMP_USERNAME=issuer\nBLOCKSTREAM_AMP_PASSWORD=%canary", []string{"section [test]: BLOCKSTREAM_AMP_PASSWORD holds a single %, which refers to another value: write %%"}},
		"empty":                 {"[test]\nAPI_URL=URL!\nBLOCKSTREAM_AMP_USERNAME=issuer\nBLOCKSTREAM_AMP_PASSWORD=", []string{"section [test]: BLOCKSTREAM_AMP_PASSWORD is empty"}},
		"twice":                 {"[test]\nAPI_URL=URL!\napi_url=canary" + rest, []string{"the file FILE: line 3 gives a key of this section once more"}},
		"no line of an INI":     {"[test]\ncanary\n", []string{"the file FILE: line 2 is no section"}},
		"UTF-16":                {"\xff\xfe[\x00", []string{"the file FILE: line 1 begins a file in UTF-16"}},
		"too large":             {strings.Repeat("# canary\n", maxProfiles), []string{"the file FILE is larger than 64 KiB"}},
		"and the environment's": {"[test]\nAPI_URL=ftp://canary" + rest, []string{"section [test]: API_URL must be an absolute https URL", "API_RETRY_MAX_ATTEMPTS"}},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := configureProfile(t, test.content)
			if strings.HasPrefix(name, "and the") {
				t.Setenv("API_RETRY_MAX_ATTEMPTS", "many")
			}
			got := withProfile(t, "get", "/assets", "-profile", "test")
			if got.code != exitError || got.stdout != "" || strings.Count(got.stderr, "\n") != len(test.want) {
				t.Errorf("%+v", got)
			}
			for _, want := range test.want {
				if want = strings.ReplaceAll(want, "FILE", path); !strings.Contains(got.stderr, want) {
					t.Errorf("it does not say %q:\n%s", want, got.stderr)
				}
			}
		})
	}
}

func TestProfileThatOthersCanReadIsRefusedWithTheChmodThatMendsIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	path, _ := configureProfile(t, goodProfiles)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604} {
		mustDo(t, os.Chmod(path, mode))
		for _, args := range [][]string{{"get", "/assets"}, {"status"}, {"token"}} {
			got := withProfile(t, append(args, "-profile", "default")...)
			if want := "ampauth: profile: the file " + path + " is open to other users: chmod 600 " + path + "\n"; got.code != exitError || got.stdout != "" || got.stderr != want {
				t.Errorf("%v: %+v, want %q", mode, got, want)
			}
		}
	}
	mustDo(t, os.Remove(path))
	if got := withProfile(t, "status", "-profile", "default"); got.code != exitError || !strings.Contains(got.stderr, "there is no file "+path) {
		t.Errorf("%+v", got)
	}
	t.Setenv("HOME", "relative")
	t.Setenv("USERPROFILE", "relative")
	if got := withProfile(t, "status", "-profile", "default"); got.code != exitError || !strings.Contains(got.stderr, "mend HOME") {
		t.Errorf("%+v", got)
	}
	t.Setenv("HOME", "")
	t.Setenv("USERPROFILE", "")
	if got := withProfile(t, "status", "-profile", "default"); got.code != exitError || !strings.Contains(got.stderr, "HOME") {
		t.Errorf("%+v", got)
	}
}
