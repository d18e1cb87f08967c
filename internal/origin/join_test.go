package origin

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestJoinPutsOneSlashBetween(t *testing.T) {
	for _, base := range []string{"https://amp.test/api", "https://amp.test/api/", "https://amp.test/api//"} {
		for given, want := range map[string]string{
			"/assets": "/assets", "assets": "/assets", "//assets": "/assets", "///assets": "/assets",
			"/assets/": "/assets/", "assets//": "/assets//",
			"": "", "/": "/", "//": "/",
			"/assets?start=1&count=2": "/assets?start=1&count=2", "/assets/?": "/assets/?", "?a=/../b": "?a=/../b", "/assets?a=?": "/assets?a=?",
			"/assets#part": "/assets", "/assets?a#b?c": "/assets?a", "/#?": "/",
			"/assets/6f0e//memo": "/assets/6f0e//memo",
		} {
			if got := Join(base, given); got != "https://amp.test/api"+want {
				t.Errorf("%s and %q: %s, want ...%s", base, given, got, want)
			}
		}
	}
	if got := Join("https://amp.test", "/assets"); got != "https://amp.test/assets" {
		t.Errorf("without a base path: %s", got)
	}
}

func TestJoinStaysBelowTheBase(t *testing.T) {
	for given, want := range map[string]string{
		"//evil.example/x":                  "/evil.example/x",
		"https://evil.example/x":            "/https://evil.example/x",
		"\\\\evil.example\\x":               "/%5C%5Cevil.example%5Cx",
		"@evil.example":                     "/@evil.example",
		":443/x":                            "/:443/x",
		".evil.example":                     "/.evil.example",
		"..":                                "/",
		"../..":                             "/",
		"../../admin":                       "/admin",
		"/assets/../../admin":               "/admin",
		"/assets/./6f0e/..":                 "/assets/",
		"/a/..//evil.example":               "/evil.example",
		"/a/%2e%2e/%2E./b":                  "/a/%252e%252e/%252E./b",
		"/a/..%2f..%2Fadmin":                "/a/..%252f..%252Fadmin",
		"/a/..\\..\\admin":                  "/a/..%255C..%255Cadmin",
		"/assets/a%2Fb":                     "/assets/a%2Fb",
		"/assets/...":                       "/assets/...",
		"/assets/a b\r\nHost: evil.example": "/assets/a%20b%0D%0AHost:%20evil.example",
		"/assets/100%":                      "/assets/100%25",
		"/assets/\u00fc\xff?\u00fc \x00":    "/assets/%C3%BC%FF?%C3%BC%20%00",
	} {
		if got := Join("https://amp.test/api/", given); got != "https://amp.test/api"+want {
			t.Errorf("%q: %s, want ...%s", given, got, want)
		}
	}
}

func FuzzJoin(f *testing.F) {
	for _, seed := range []string{
		"/assets?start=1", "//evil.example/x", "https://evil.example/x", "../../admin", "/a/%2e%2e/..%2Fb", "a\\..\\..\\b", "/a/..//b", ".", "%", "%%2e", "#", "\r\n", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		for _, base := range []string{"https://amp.test/api", "https://amp.test:8443/v1/api/", "http://[::1]"} {
			got := Join(base, given)
			home, _ := url.Parse(Trim(base))
			u, err := url.ParseRequestURI(got)
			if err != nil {
				t.Fatalf("%q: %q is no URL: %v", given, got, err)
			}
			if u.Scheme != home.Scheme || u.Host != home.Host || u.User != nil || u.Opaque != "" || u.Fragment != "" {
				t.Errorf("%q: %q leaves the origin", given, got)
			}
			if !strings.HasPrefix(got, Trim(base)) {
				t.Errorf("%q: %q does not begin with the base", given, got)
			}
			for _, view := range []string{u.EscapedPath(), u.Path, strings.ReplaceAll(u.Path, `\`, "/")} {
				if view = path.Clean(view); home.Path != "" && view != home.Path && !strings.HasPrefix(view, home.Path+"/") {
					t.Errorf("%q: %q leads to %s", given, got, view)
				}
			}
			if strings.ContainsAny(got, " \t\r\n\"<>\\") || strings.ContainsFunc(got, func(r rune) bool { return r >= 0x7f }) {
				t.Errorf("%q: %q holds what no URL may hold", given, got)
			}
			if rest := strings.TrimPrefix(got, Trim(base)); strings.HasPrefix(rest, "//") {
				t.Errorf("%q: %q has two slashes between", given, got)
			}
			if again := Join(base, strings.TrimPrefix(got, Trim(base))); again != got {
				t.Errorf("%q: %q, and joined again %q", given, got, again)
			}
		}
	})
}
