package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

// What one of them refuses, the others do not let pass.
func TestGetCallAndProxyRefuseTheSamePaths(t *testing.T) {
	for sent, refused := range map[string]bool{
		"/assets": false, "/assets/": false, "/assets/...": false, "/assets/a..b": false, "/assets/%E6%96%87": false, "/assets/a%20b": false,
		"/..": true, "/../x": true, "/assets/.": true, "/%2e%2e/x": true, "/.%2E/x": true, "/%252e%252e/x": true, "/%25252e%25252e/x": true,
		"/..;/x": true, "/..;a=b/x": true, "/..%3b/x": true, "/assets;a": true, "/..%2fx": true, `/..\x`: true, "/..%5cx": true,
		"/..%20/x": true, "/%20..": true, "/..%09/x": true, "/assets//x": true, "/assets/x//": true, "/100%25": true, "/%": true, "/%zz": true,
		"/%00": true, "/%0a": true, "/%1b[2J": true, "/%c2%9b2J": true, "/%7f": true, "/%c0%ae%c0%ae/x": true, "/%ff": true, "/%ef%bf%bd": true,
		"/%e2%80%a8": true, "/%e2%80%ae": true, "/%e2%80%8b": true, "/%ef%bb%bf": true, "/assets#x": true,
	} {
		if _, fault := belowBase(sent); (fault != "") != refused {
			t.Errorf("get and call: %q: %q", sent, fault)
		}
		p := &proxy{base: "https://amp.example/api"}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RequestURI = sent
		if status, why := p.refusal(r); (status == http.StatusBadRequest) != refused {
			t.Errorf("proxy: %q: %d %s", sent, status, why)
		}
	}
}

// A path that is let in is the same for every reader of URLs, below whatever base.
func FuzzPathThatIsLetIn(f *testing.F) {
	for _, seed := range []string{"/assets/", "/..;/x", "/%252e%252e/x", "/%2e./x", "//x", "/a/./b", "/a%2fb", `/a\b`, "/%c0%ae/", "/a;b", "/ä", "/%E4%B8%AD", "/#"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		if !strings.HasPrefix(sent, "/") || strings.Contains(sent, "?") || pathFault(sent) != "" {
			return // it is not let in
		}
		u, err := url.ParseRequestURI(sent)
		if err != nil {
			return // it is not let in by net/http
		}
		config := ampauth.Config{BaseURL: "https://amp.example/api"}
		target, err := url.Parse(config.URL(u.RequestURI()))
		if err != nil || target.Host != "amp.example" || target.Path != "/api"+u.Path {
			t.Errorf("%q leads to %v, %v", sent, target, err)
		}
		if clean := path.Clean(target.Path); clean != strings.TrimSuffix(target.Path, "/") {
			t.Errorf("%q is %q, which means %q", sent, target.Path, clean)
		}
	})
}
