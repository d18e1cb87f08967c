package ampauth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

func TestBadConfigurationIsOneFaultThatNamesItsField(t *testing.T) {
	const canary = "zq7value"
	for _, test := range []struct {
		name  string
		spoil func(*ampauth.Config)
		field string
		rule  string
	}{
		{"no base URL", func(c *ampauth.Config) { c.BaseURL = "" }, "BaseURL (AMP_API_BASE_URL)", "is required"},
		{"blank base URL", func(c *ampauth.Config) { c.BaseURL = "  " }, "BaseURL", "is required"},
		{"relative", func(c *ampauth.Config) { c.BaseURL = "/zq7value/api" }, "BaseURL", "absolute"},
		{"no scheme", func(c *ampauth.Config) { c.BaseURL = "zq7value.test/api" }, "BaseURL", "absolute"},
		{"other scheme", func(c *ampauth.Config) { c.BaseURL = "ftp://zq7value.test/api" }, "BaseURL", "https"},
		{"no host", func(c *ampauth.Config) { c.BaseURL = "https:///zq7value" }, "BaseURL", "absolute"},
		{"user information", func(c *ampauth.Config) { c.BaseURL = "https://zq7value:zq7value@amp.test/api" }, "BaseURL", "user information"},
		{"query", func(c *ampauth.Config) { c.BaseURL = "https://amp.test/api?k=zq7value" }, "BaseURL", "query"},
		{"empty query", func(c *ampauth.Config) { c.BaseURL = "https://zq7value.test/api?" }, "BaseURL", "query"},
		{"fragment", func(c *ampauth.Config) { c.BaseURL = "https://amp.test/api#zq7value" }, "BaseURL", "fragment"},
		{"http, not loopback", func(c *ampauth.Config) { c.BaseURL = "http://zq7value.test/api" }, "BaseURL", "must use https"},
		{"not a URL", func(c *ampauth.Config) { c.BaseURL = "https://zq7value\x7f/" }, "BaseURL", "must not hold line breaks or control characters"},
		{"line break behind the URL", func(c *ampauth.Config) { c.BaseURL = "https://zq7value.test/api\n" }, "BaseURL (AMP_API_BASE_URL)", "must not hold line breaks"},
		{"space behind the URL", func(c *ampauth.Config) { c.BaseURL = "https://zq7value.test/api " }, "BaseURL (AMP_API_BASE_URL)", "must not begin or end with white space"},
		{"space before the URL", func(c *ampauth.Config) { c.BaseURL = " https://zq7value.test/api" }, "BaseURL", "must not begin or end with white space"},
		{"user with a line break", func(c *ampauth.Config) { c.Credentials.Username = "zq7value\n" }, "Credentials.Username (AMP_USERNAME)", "must not hold line breaks"},
		{"user with a tab", func(c *ampauth.Config) { c.Credentials.Username = "zq7\tvalue" }, "Credentials.Username", "control characters"},
		{"user with a space behind", func(c *ampauth.Config) { c.Credentials.Username = "zq7value " }, "Credentials.Username", "must not begin or end with white space"},
		{"user with a byte order mark", func(c *ampauth.Config) { c.Credentials.Username = "\ufeffzq7value" }, "Credentials.Username", "must not begin or end with white space"},
		{"lifetime in nanoseconds", func(c *ampauth.Config) { c.Lifetime = 777 }, "Lifetime", "24*time.Hour"},
		{"refresh window in nanoseconds", func(c *ampauth.Config) { c.RefreshWindow = 777 }, "RefreshWindow", "5*time.Minute"},
		{"timeout in nanoseconds", func(c *ampauth.Config) { c.Retry.Timeout = 777 }, "Retry.Timeout", "10*time.Second"},
		{"timeout of mutations below a millisecond", func(c *ampauth.Config) { c.Retry.MutationTimeout = 777777 }, "Retry.MutationTimeout", "time.Minute"},
		{"port too large", func(c *ampauth.Config) { c.BaseURL = "https://zq7value.test:99999/" }, "BaseURL", "port"},
		{"port not a number", func(c *ampauth.Config) { c.BaseURL = "https://amp.test:zq7value/api" }, "BaseURL", "is not a URL"},
		{"port negative", func(c *ampauth.Config) { c.BaseURL = "https://amp.test:-7771/api" }, "BaseURL", "is not a URL"},
		{"http, loopback only by its look", func(c *ampauth.Config) { c.BaseURL = "http://127.0.0.1.zq7value.test/api" }, "BaseURL", "must use https"},
		{"http, localhost only by its look", func(c *ampauth.Config) { c.BaseURL = "http://localhost.zq7value.test/api" }, "BaseURL", "must use https"},
		{"bad escape", func(c *ampauth.Config) { c.BaseURL = "https://amp.test/%zq7value" }, "BaseURL", "is not a URL"},
		{"no user", func(c *ampauth.Config) { c.Credentials.Username = "" }, "Credentials.Username (AMP_USERNAME)", "is required"},
		{"blank user", func(c *ampauth.Config) { c.Credentials.Username = " \t" }, "Credentials.Username", "is required"},
		{"user not UTF-8", func(c *ampauth.Config) { c.Credentials.Username = "zq7value\xff" }, "Credentials.Username", "UTF-8"},
		{"no password", func(c *ampauth.Config) { c.Credentials.Password = ampauth.Secret{} }, "Credentials.Password (AMP_PASSWORD or AMP_PASSWORD_FILE)", "is required"},
		{"blank password", func(c *ampauth.Config) { c.Credentials.Password = ampauth.SecretFromString(" \n") }, "Credentials.Password", "is required"},
		{"password not UTF-8", func(c *ampauth.Config) { c.Credentials.Password = ampauth.SecretFromString("zq7value\xff") }, "Credentials.Password", "UTF-8"},
		{"password destroyed", func(c *ampauth.Config) { c.Credentials.Password.Destroy() }, "Credentials.Password", "destroyed"},
		{"attempts negative", func(c *ampauth.Config) { c.Retry.MaxAttempts = -7771 }, "Retry.MaxAttempts (API_RETRY_MAX_ATTEMPTS)", "negative"},
		{"base delay negative", func(c *ampauth.Config) { c.Retry.BaseDelay = -7771 }, "Retry.BaseDelay (API_RETRY_BASE_DELAY_MS)", "negative"},
		{"max delay negative", func(c *ampauth.Config) { c.Retry.MaxDelay = -7771 }, "Retry.MaxDelay (API_RETRY_MAX_DELAY_MS)", "negative"},
		{"max below base", func(c *ampauth.Config) { c.Retry.BaseDelay, c.Retry.MaxDelay = 7772, 7771 }, "Retry.MaxDelay", "must not be below Retry.BaseDelay"},
		{"max below default base", func(c *ampauth.Config) { c.Retry.MaxDelay = 7771 }, "Retry.MaxDelay", "must not be below Retry.BaseDelay"},
		{"relative store", func(c *ampauth.Config) { c.Store = &ampauth.FileStore{Dir: "zq7value/tokens"} }, "Store.Dir (AMP_TOKEN_DIR)", "absolute path"},
		{"store without a directory", func(c *ampauth.Config) { c.Store = new(ampauth.FileStore) }, "Store.Dir", "absolute path"},
		{"nil file store", func(c *ampauth.Config) { c.Store = (*ampauth.FileStore)(nil) }, "Store.Dir", "absolute path"},
		{"policy", func(c *ampauth.Config) { c.Renewal = 7771 }, "Renewal", "neither"},
		{"refresh method", func(c *ampauth.Config) { c.RefreshMethod = "zq7value zq7value" }, "RefreshMethod", "not an HTTP method"},
		{"refresh path elsewhere", func(c *ampauth.Config) { c.RefreshPath = "https://zq7value.test/" }, "RefreshPath", "starts with a slash"},
		{"refresh path of another host", func(c *ampauth.Config) { c.RefreshPath = "//zq7value.test/" }, "RefreshPath", "starts with a slash"},
		{"refresh path with query", func(c *ampauth.Config) { c.RefreshPath = "/zq7value?a" }, "RefreshPath", "without query"},
		{"obtain path elsewhere", func(c *ampauth.Config) { c.ObtainPath = "https://zq7value.test/" }, "ObtainPath", "starts with a slash"},
		{"obtain path of another host", func(c *ampauth.Config) { c.ObtainPath = "//zq7value.test/" }, "ObtainPath", "starts with a slash"},
		{"obtain path with query", func(c *ampauth.Config) { c.ObtainPath = "/zq7value?a" }, "ObtainPath", "without query"},
		{"obtain path with fragment", func(c *ampauth.Config) { c.ObtainPath = "/zq7value#a" }, "ObtainPath", "without query"},
		{"obtain path without a slash", func(c *ampauth.Config) { c.ObtainPath = "zq7value" }, "ObtainPath", "starts with a slash"},
		{"obtain path with a bad escape", func(c *ampauth.Config) { c.ObtainPath = "/%zq7value" }, "ObtainPath", "starts with a slash"},
		{"scheme", func(c *ampauth.Config) { c.Scheme = "zq7value\r\nX" }, "Scheme", "not an authentication scheme"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := validConfig()
			test.spoil(&cfg)
			err := cfg.Validate()
			list := faults(err)
			if len(list) != 1 || !errors.Is(err, ampauth.ErrConfig) {
				t.Fatalf("got %v, want one fault", err)
			}
			text := err.Error()
			if !strings.Contains(text, test.field+" ") || !strings.Contains(text, test.rule) || !strings.HasPrefix(text, "ampauth: ") {
				t.Errorf("%q does not say %q ... %q", text, test.field, test.rule)
			}
			if strings.Contains(text, canary) || strings.Contains(text, "777") {
				t.Errorf("%q shows the value", text)
			}
			if _, err := ampauth.NewClient(cfg); !errors.Is(err, ampauth.ErrConfig) {
				t.Errorf("NewClient did not fail closed: %v", err)
			}
			if _, err := ampauth.NewTokenManager(cfg); !errors.Is(err, ampauth.ErrConfig) {
				t.Errorf("NewTokenManager did not fail closed: %v", err)
			}
		})
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	err := ampauth.Config{Retry: ampauth.RetryConfig{MaxAttempts: -1, BaseDelay: -1}}.Validate()
	if n := len(faults(err)); n != 5 {
		t.Errorf("%d faults, want 5:\n%v", n, err)
	}
}

func TestGoodConfigurations(t *testing.T) {
	for name, change := range map[string]func(*ampauth.Config){
		"plain":           func(*ampauth.Config) {},
		"loopback":        func(c *ampauth.Config) { c.BaseURL = "http://127.0.0.1:8080/api" },
		"loopback, IPv6":  func(c *ampauth.Config) { c.BaseURL = "http://[::1]:8080" },
		"localhost":       func(c *ampauth.Config) { c.BaseURL = "http://LOCALHOST/api/" },
		"http on request": func(c *ampauth.Config) { c.BaseURL, c.AllowHTTP = "http://amp.test", true },
		"everything off": func(c *ampauth.Config) {
			c.Lifetime, c.RefreshWindow = -1, -1
			c.Retry = ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1, MaxRetryAfter: -1, Budget: -1}
		},
		"a millisecond": func(c *ampauth.Config) {
			c.Lifetime, c.RefreshWindow, c.Retry.Timeout, c.Retry.MutationTimeout = time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond
		},
		"tiny where it is harmless": func(c *ampauth.Config) { c.Retry.BaseDelay, c.Retry.MaxRetryAfter, c.MutationIdle = 1, 1, 1 },
		"user with a space inside":  func(c *ampauth.Config) { c.Credentials.Username = "issuer of assets" },
		"password of many lines":    func(c *ampauth.Config) { c.Credentials.Password = ampauth.SecretFromString("\ta\nb\n") },
		"final slashes":             func(c *ampauth.Config) { c.BaseURL += "//" },
		"AMP2":                      func(c *ampauth.Config) { c.Scheme, c.Renewal = "Bearer", ampauth.ObtainOnly },
		"refresh of the other":      func(c *ampauth.Config) { c.RefreshMethod, c.RefreshPath = "POST", "/user/refresh_token" },
		"another login":             func(c *ampauth.Config) { c.ObtainPath = "/auth/login" },
	} {
		cfg := validConfig()
		change(&cfg)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestURLIsBelowTheBaseURL(t *testing.T) {
	for _, base := range []string{"https://amp.test/api", "https://amp.test/api/", "https://amp.test/api//"} {
		cfg := validConfig()
		cfg.BaseURL = base
		for path, want := range map[string]string{
			"/assets": "/assets", "assets": "/assets", "//assets": "/assets", "": "",
			"/assets/6f0e/distributions/create/": "/assets/6f0e/distributions/create/",
			"/assets/?count=10&start=20":         "/assets/?count=10&start=20",
			"//evil.example/x":                   "/evil.example/x",
			"https://evil.example/x":             "/https://evil.example/x",
			"../../admin":                        "/admin",
			"/assets/%2e%2e/%2e%2e/admin":        "/assets/%252e%252e/%252e%252e/admin",
			"/assets/a%2Fb":                      "/assets/a%2Fb",
		} {
			if got := cfg.URL(path); got != "https://amp.test/api"+want {
				t.Errorf("%s and %s: %s, want ...%s", base, path, got, want)
			}
		}
	}
}

// With a final slash the sum of both has two slashes. Known reads stay reads all the same.
func TestFinalSlashOfTheBaseURLTurnsNoReadIntoAMutation(t *testing.T) {
	cfg := validConfig()
	cfg.BaseURL += "/"
	for _, url := range []string{cfg.URL("/assets"), cfg.BaseURL + "/assets"} {
		if got := ampauth.ClassifyAMP(requestOf(t, "GET", url)); got != ampauth.SafeOperation {
			t.Errorf("GET %s is taken for %v", url, got)
		}
		if got := ampauth.ClassifyAMP(requestOf(t, "GET", url+"/6f0e/register")); got != ampauth.MutatingOperation {
			t.Errorf("GET %s/6f0e/register is taken for %v", url, got)
		}
	}
}
