package ampauth_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// environment sets the variables of the package to exactly these.
func environment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, name := range []string{
		"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD", "AMP_PASSWORD_FILE", "API_RETRY_MAX_ATTEMPTS",
		"API_RETRY_BASE_DELAY_MS", "API_RETRY_MAX_DELAY_MS", "API_REQUEST_TIMEOUT_SECONDS",
		"AMP_TOKEN_DIR", "AMP_TOKEN_PERSISTENCE",
	} {
		t.Setenv(name, "")
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

func TestRetryConfigFromEnvPartial(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		want func(*ampauth.RetryConfig)
	}{
		{"nothing set", nil, func(*ampauth.RetryConfig) {}},
		{"attempts", map[string]string{"API_RETRY_MAX_ATTEMPTS": "7"}, func(c *ampauth.RetryConfig) { c.MaxAttempts = 7 }},
		{"base delay", map[string]string{"API_RETRY_BASE_DELAY_MS": "250"}, func(c *ampauth.RetryConfig) { c.BaseDelay = 250 * time.Millisecond }},
		{"base delay above the default maximum", map[string]string{"API_RETRY_BASE_DELAY_MS": "60000"},
			func(c *ampauth.RetryConfig) { c.BaseDelay, c.MaxDelay = time.Minute, time.Minute }},
		{"max delay", map[string]string{"API_RETRY_MAX_DELAY_MS": "5000"}, func(c *ampauth.RetryConfig) { c.MaxDelay = 5 * time.Second }},
		{"timeout", map[string]string{"API_REQUEST_TIMEOUT_SECONDS": "20"}, func(c *ampauth.RetryConfig) { c.Timeout = 20 * time.Second }},
		{"timeout above that of mutations", map[string]string{"API_REQUEST_TIMEOUT_SECONDS": "120"},
			func(c *ampauth.RetryConfig) { c.Timeout, c.MutationTimeout = 2*time.Minute, 2*time.Minute }},
		{"all", map[string]string{"API_RETRY_MAX_ATTEMPTS": "5", "API_RETRY_BASE_DELAY_MS": "500", "API_RETRY_MAX_DELAY_MS": "10000", "API_REQUEST_TIMEOUT_SECONDS": "3"},
			func(c *ampauth.RetryConfig) {
				c.MaxAttempts, c.BaseDelay, c.MaxDelay, c.Timeout = 5, 500*time.Millisecond, 10*time.Second, 3*time.Second
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			environment(t, test.env)
			want := ampauth.DefaultRetryConfig()
			test.want(&want)
			got, err := ampauth.RetryConfigFromEnv()
			if err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestRetryConfigFromEnvInvalid(t *testing.T) {
	variables := map[string]string{
		"API_RETRY_MAX_ATTEMPTS": "Retry.MaxAttempts", "API_RETRY_BASE_DELAY_MS": "Retry.BaseDelay",
		"API_RETRY_MAX_DELAY_MS": "Retry.MaxDelay", "API_REQUEST_TIMEOUT_SECONDS": "Retry.Timeout",
	}
	for value, rule := range map[string]string{
		"not_a_number": "whole number", "1.5": "whole number", "0x10": "whole number", "1e3": "whole number", "3 3": "whole number", "3\n3": "whole number",
		"0": "above zero", "-1": "above zero", "-99999999999999999999": "above zero",
		"99999999999999999999": "too large", "9223372036854775807": "too large",
	} {
		for variable, field := range variables {
			t.Run(variable+"="+value, func(t *testing.T) {
				environment(t, map[string]string{variable: value})
				_, err := ampauth.RetryConfigFromEnv()
				if !errors.Is(err, ampauth.ErrConfig) || len(faults(err)) != 1 {
					t.Fatalf("got %v, want one fault", err)
				}
				text := err.Error()
				if !strings.Contains(text, field+" ("+variable+")") || !strings.Contains(text, rule) {
					t.Errorf("%q does not name %s, %s and the rule %q", text, field, variable, rule)
				}
				if len(value) > 3 && strings.Contains(text, value) {
					t.Errorf("%q shows the value", text)
				}
			})
		}
	}
	environment(t, map[string]string{"API_RETRY_BASE_DELAY_MS": "2000", "API_RETRY_MAX_DELAY_MS": "1999"})
	if _, err := ampauth.RetryConfigFromEnv(); err == nil || !strings.Contains(err.Error(), "API_RETRY_MAX_DELAY_MS") {
		t.Errorf("maximum below base: %v", err)
	}
}

func TestConfigFromEnvironmentVariables(t *testing.T) {
	environment(t, map[string]string{
		"AMP_API_BASE_URL": "https://amp-test.blockstream.com/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": "correct horse",
		"API_RETRY_MAX_ATTEMPTS": "4",
	})
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.BaseURL != "https://amp-test.blockstream.com/api" || cfg.Credentials.Username != "issuer" ||
		!cfg.Credentials.Password.Equal(ampauth.SecretFromString("correct horse")) || cfg.Retry.MaxAttempts != 4 {
		t.Errorf("got %+v", cfg)
	}
}

func TestConfigFromEnvTellsEveryFaultAtOnce(t *testing.T) {
	environment(t, map[string]string{
		"AMP_API_BASE_URL": "http://zq7value.test", "AMP_PASSWORD": "zq7value", "AMP_PASSWORD_FILE": "/zq7value",
		"API_RETRY_MAX_ATTEMPTS": "zq7value", "API_REQUEST_TIMEOUT_SECONDS": "-1",
	})
	_, err := ampauth.ConfigFromEnv()
	if n := len(faults(err)); n != 6 {
		t.Errorf("%d faults, want 6:\n%v", n, err)
	}
	for _, name := range []string{"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD_FILE", "API_RETRY_MAX_ATTEMPTS", "API_REQUEST_TIMEOUT_SECONDS"} {
		if !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s is not named:\n%v", name, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "zq7value") {
		t.Errorf("a value is shown:\n%v", err)
	}
}

func TestConfigFromEnvironmentVariablesNamesEachFault(t *testing.T) {
	const canary = "zq7value"
	for _, test := range []struct {
		name            string
		variable, value string
		field, rule     string
	}{
		{"base URL missing", "AMP_API_BASE_URL", "", "BaseURL (AMP_API_BASE_URL)", "is required"},
		{"base URL with user information", "AMP_API_BASE_URL", "https://issuer:zq7value@amp.test/api", "BaseURL (AMP_API_BASE_URL)", "user information"},
		{"base URL of plain http", "AMP_API_BASE_URL", "http://zq7value.test/api", "BaseURL (AMP_API_BASE_URL)", "must use https"},
		{"base URL with a line break inside", "AMP_API_BASE_URL", "https://amp.test/api\nzq7value", "BaseURL (AMP_API_BASE_URL)", "must not hold line breaks"},
		{"user with a line break inside", "AMP_USERNAME", "issuer\nzq7value", "Credentials.Username (AMP_USERNAME)", "must not hold line breaks"},
		{"user with white space before it", "AMP_USERNAME", " zq7value", "Credentials.Username (AMP_USERNAME)", "must not begin or end with white space"},
		{"user with white space before the line break", "AMP_USERNAME", "zq7value \n", "Credentials.Username (AMP_USERNAME)", "must not begin or end with white space"},
		{"password with two line breaks", "AMP_PASSWORD", "zq7value\n\n", "Credentials.Password (AMP_PASSWORD)", "holds more than the password"},
		{"password with a line break inside", "AMP_PASSWORD", "zq7value\r\nzq7value", "Credentials.Password (AMP_PASSWORD)", "holds more than the password"},
		{"password in UTF-16", "AMP_PASSWORD", "\xff\xfezq7value", "Credentials.Password (AMP_PASSWORD)", "UTF-16"},
		{"token directory with a line break inside", "AMP_TOKEN_DIR", "/zq7value\n/zq7value", "Store (AMP_TOKEN_DIR)", "must not hold line breaks"},
		{"token directory with white space behind it", "AMP_TOKEN_DIR", "/zq7value ", "Store (AMP_TOKEN_DIR)", "must not begin or end with white space"},
		{"user missing", "AMP_USERNAME", "", "Credentials.Username (AMP_USERNAME)", "is required"},
		{"user not UTF-8", "AMP_USERNAME", "zq7value\xff", "Credentials.Username (AMP_USERNAME)", "UTF-8"},
		{"password missing", "AMP_PASSWORD", "", "Credentials.Password (AMP_PASSWORD or AMP_PASSWORD_FILE)", "is required"},
		{"password blank", "AMP_PASSWORD", " \t\n", "Credentials.Password (AMP_PASSWORD or AMP_PASSWORD_FILE)", "is required"},
		{"password not UTF-8", "AMP_PASSWORD", "zq7value\xff", "Credentials.Password (AMP_PASSWORD or AMP_PASSWORD_FILE)", "UTF-8"},
		{"attempts", "API_RETRY_MAX_ATTEMPTS", "zq7value", "Retry.MaxAttempts (API_RETRY_MAX_ATTEMPTS)", "whole number"},
		{"base delay", "API_RETRY_BASE_DELAY_MS", "zq7value", "Retry.BaseDelay (API_RETRY_BASE_DELAY_MS)", "whole number"},
		{"max delay", "API_RETRY_MAX_DELAY_MS", "zq7value", "Retry.MaxDelay (API_RETRY_MAX_DELAY_MS)", "whole number"},
		{"max delay below the default base", "API_RETRY_MAX_DELAY_MS", "777", "Retry.MaxDelay (API_RETRY_MAX_DELAY_MS)", "must not be below Retry.BaseDelay (API_RETRY_BASE_DELAY_MS)"},
		{"timeout", "API_REQUEST_TIMEOUT_SECONDS", "zq7value", "Retry.Timeout (API_REQUEST_TIMEOUT_SECONDS)", "whole number"},
	} {
		t.Run(test.name, func(t *testing.T) {
			variables := map[string]string{"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": canaryPassword}
			variables[test.variable] = test.value
			environment(t, variables)
			cfg, err := ampauth.ConfigFromEnv()
			if len(faults(err)) != 1 || !errors.Is(err, ampauth.ErrConfig) {
				t.Fatalf("got %v, want one fault", err)
			}
			text := err.Error()
			if want := "ampauth: configuration: " + test.field + " "; !strings.HasPrefix(text, want) || !strings.Contains(text, test.rule) {
				t.Errorf("%q does not say %q ... %q", text, want, test.rule)
			}
			if strings.Contains(text, canary) || strings.Contains(text, "777") || leaks(text) != nil {
				t.Error("the fault shows a value")
			}
			if strings.ContainsAny(text, "\r\n") {
				t.Errorf("%q is of more than one line", text)
			}
			if cfg.BaseURL != "" || cfg.Credentials.Username != "" || !cfg.Credentials.Password.IsZero() {
				t.Error("a faulty environment gives half a Config")
			}
		})
	}
}

func TestPasswordOfTheEnvironmentIsTakenAsItIs(t *testing.T) {
	for given, want := range map[string]string{
		canaryPassword: canaryPassword, " leading and trailing ": " leading and trailing ", "\u00fc\u2603": "\u00fc\u2603", "tab\t": "tab\t",
		// As from a file: no password ends with a line break, and many a file does.
		"with a line break\n": "with a line break", "with CRLF\r\n": "with CRLF", "\ufeffmarked": "marked",
	} {
		environment(t, map[string]string{"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": given})
		cfg, err := ampauth.ConfigFromEnv()
		if err != nil || !cfg.Credentials.Password.Equal(ampauth.SecretFromString(want)) {
			t.Errorf("the password is not that of the environment: %v", err)
		}
	}
}

func TestWhatFilesAndShellsAddIsTakenOff(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("correct horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, added := range []string{"", "\n", "\r\n", "\n\n"} {
		environment(t, map[string]string{
			"AMP_API_BASE_URL": " https://amp.test/api/ \t" + added, "AMP_USERNAME": "issuer of assets" + added, "AMP_PASSWORD_FILE": file + added,
			"API_RETRY_MAX_ATTEMPTS": " 4 " + added, "API_RETRY_BASE_DELAY_MS": "\t500" + added, "API_RETRY_MAX_DELAY_MS": " " + added,
			"API_REQUEST_TIMEOUT_SECONDS": "120" + added, "AMP_TOKEN_DIR": dir + added, "AMP_TOKEN_PERSISTENCE": "true " + added,
		})
		cfg, err := ampauth.ConfigFromEnv()
		if err != nil {
			t.Fatalf("with %q: %v", added, err)
		}
		want := ampauth.DefaultRetryConfig().WithTimeout(2 * time.Minute)
		want.MaxAttempts, want.BaseDelay = 4, 500*time.Millisecond
		if cfg.BaseURL+"/assets" != "https://amp.test/api/assets" || cfg.Credentials.Username != "issuer of assets" || cfg.Retry != want ||
			!cfg.Credentials.Password.Equal(ampauth.SecretFromString("correct horse")) || cfg.Store.(*ampauth.FileStore).Dir != dir {
			t.Errorf("with %q: got %+v", added, cfg)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "mounted-secret")
	if err := os.Symlink(write("target", "correct horse\n"), link); err != nil {
		t.Log("no symbolic links here:", err)
		link = filepath.Join(dir, "target")
	}
	for _, test := range []struct{ name, path, password, rule string }{
		{"wide mode", write("plain", "correct horse"), "correct horse", ""},
		{"final line break", write("lf", "correct horse\n"), "correct horse", ""},
		{"final CRLF", write("crlf", "correct horse\r\n"), "correct horse", ""},
		{"two line breaks", write("two", "correct horse\n\n"), "", "names a file that holds more than the password"},
		{"a line break inside", write("inside", "correct\nhorse\n"), "", "names a file that holds more than the password"},
		{"space stays", write("space", "  a\tb \n"), "  a\tb ", ""},
		{"byte order mark", write("mark", "\ufeffcorrect horse\r\n"), "correct horse", ""},
		{"UTF-16, little endian", write("little", "\xff\xfec\x00o\x00"), "", "names a file that is in UTF-16"},
		{"UTF-16, big endian", write("big", "\xfe\xff\x00c\x00o"), "", "names a file that is in UTF-16"},
		{"line break behind the path", write("behind", "correct horse") + "\n", "correct horse", ""},
		{"space behind the path", write("gap", "correct horse") + " ", "", "must not begin or end with white space"},
		{"link, as in a container", link, "correct horse", ""},
		{"64 KiB", write("limit", strings.Repeat("x", 64<<10)), strings.Repeat("x", 64<<10), ""},
		{"over 64 KiB", write("large", strings.Repeat("x", 64<<10+1)), "", "more than 64 KiB"},
		{"empty", write("empty", ""), "", "empty"},
		{"only a line break", write("newline", "\n"), "", "is required"},
		{"missing", filepath.Join(dir, "none"), "", "cannot be read: " + filepath.Join(dir, "none") + ": "},
		{"directory", dir, "", "cannot be read: " + dir + ": "},
		{"password in place of the path", "zq7value", "", "cannot be read: "},
		{"password that looks like a path", "/zq7value/Tr0ub4dor", "", "cannot be read: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			environment(t, map[string]string{"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD_FILE": test.path})
			cfg, err := ampauth.ConfigFromEnv()
			if test.rule != "" {
				if len(faults(err)) != 1 || !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), test.rule) ||
					!strings.Contains(err.Error(), "AMP_PASSWORD_FILE") || strings.Contains(err.Error(), "zq7value") {
					t.Errorf("got %v, want one fault that says %q and shows no value", err, test.rule)
				}
				return
			}
			if err != nil || !cfg.Credentials.Password.Equal(ampauth.SecretFromString(test.password)) {
				t.Errorf("the password is not that of the file: %v", err)
			}
		})
	}
}

func TestStoreOfTheEnvironment(t *testing.T) {
	cache := t.TempDir()
	own := filepath.Join(t.TempDir(), "tokens")
	for _, test := range []struct {
		name, dir, persistence string
		want, rule             string
	}{
		{"nothing", "", "", "", ""},
		{"a directory", own, "", own, ""},
		{"persistence", "", "true", filepath.Join(cache, "ampauth"), ""},
		{"persistence as a number", "", "1", filepath.Join(cache, "ampauth"), ""},
		{"no persistence", "", "false", "", ""},
		{"both", own, "true", own, ""},
		{"a directory and no persistence", own, "false", "", "AMP_TOKEN_PERSISTENCE) must not be false together with AMP_TOKEN_DIR"},
		{"a relative directory", "zq7value/tokens", "", "", "AMP_TOKEN_DIR) must be an absolute path"},
		{"nonsense", "", "zq7value", "", "AMP_TOKEN_PERSISTENCE) must be true or false"},
	} {
		t.Run(test.name, func(t *testing.T) {
			environment(t, map[string]string{
				"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": "correct horse",
				"AMP_TOKEN_DIR": test.dir, "AMP_TOKEN_PERSISTENCE": test.persistence,
				"XDG_CACHE_HOME": cache, "HOME": cache, "LocalAppData": cache,
			})
			if runtime.GOOS == "darwin" && strings.HasPrefix(test.want, cache) {
				test.want = filepath.Join(cache, "Library", "Caches", "ampauth")
			}
			cfg, err := ampauth.ConfigFromEnv()
			if test.rule != "" {
				if !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), test.rule) || strings.Contains(err.Error(), "zq7value") {
					t.Errorf("got %v, want the rule %q and no value", err, test.rule)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := ""
			if store, ok := cfg.Store.(*ampauth.FileStore); ok {
				dir = store.Dir
			}
			if dir != test.want {
				t.Errorf("tokens are kept in %q, want %q", dir, test.want)
			}
			if entries, err := os.ReadDir(cache); err != nil || len(entries) != 0 {
				t.Errorf("reading the environment made %v, %v", entries, err)
			}
		})
	}
}

func TestFaultyBaseDelayIsNotBlamedOnTheMaximum(t *testing.T) {
	environment(t, map[string]string{"API_RETRY_BASE_DELAY_MS": "half a second", "API_RETRY_MAX_DELAY_MS": "800"})
	_, err := ampauth.RetryConfigFromEnv()
	if list := faults(err); len(list) != 1 || !strings.Contains(err.Error(), "Retry.BaseDelay (API_RETRY_BASE_DELAY_MS) must be a whole number") {
		t.Errorf("got %v, want the one fault that there is", err)
	}
}
