package amproutes

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestEveryOperationHasItsClass(t *testing.T) {
	for _, op := range Operations() {
		// With and without a final slash, whichever the table has.
		path := strings.TrimSuffix(filled(op.Path), "/")
		for _, path := range []string{path, path + "/"} {
			t.Run(op.Method+" "+path, func(t *testing.T) {
				check(t, op.Method, "https://amp.example"+path, op.Class)
			})
		}
	}
}

// Counted by hand in the sources, so that a row does not get lost or change
// sides unnoticed.
func TestTableIsComplete(t *testing.T) {
	const (
		never      = 16
		resend     = 3 // official advice is to send it again
		idempotent = 25
		safe       = 34
	)
	got := map[Class]int{}
	seen := map[string]bool{}
	for _, op := range Operations() {
		got[op.Class]++
		path := filled(strings.TrimSuffix(op.Path, "/"))
		if seen[path] {
			t.Errorf("%s is there twice", path) // the tree holds one operation for a path
		}
		seen[path] = true
	}
	if got[Mutation] != never || got[Idempotent] != resend+idempotent || got[Safe] != safe {
		t.Errorf("counted %v", got)
	}
}

func TestRootWords(t *testing.T) {
	documented := []string{"info", "changelog", "user", "registered_users", "categories", "assets", "gaids", "managers"}
	for _, w := range root.words {
		if !slices.Contains(documented, w.segment) {
			t.Errorf("%s starts a route, but is not in the documentation of Classify", w.segment)
		}
	}
	if len(root.words) != len(documented) {
		t.Errorf("%d root words, %d documented", len(root.words), len(documented))
	}
}

// Written out a second time on purpose: to repeat one of these moves money or
// ends a token, and the table must not be its own witness.
func TestWhatMustNeverBeRepeated(t *testing.T) {
	never := []struct{ method, path string }{
		{"POST", "/assets/issue"},
		{"GET", "/assets/6f0e/distributions/create/"},
		{"POST", "/assets/6f0e/assignments/create"},
		{"POST", "/assets/6f0e/reissue-request"},
		{"POST", "/assets/6f0e/burn-request"},
		{"GET", "/assets/6f0e/register"},
		{"GET", "/assets/6f0e/register-authorized"},
		{"DELETE", "/assets/6f0e/distributions/91ab/cancel"},
		{"POST", "/assets/6f0e/treasury-addresses/add"},
		{"POST", "/registered_users/add"},
		{"POST", "/registered_users/7/gaids/add"},
		{"POST", "/categories/add"},
		{"POST", "/managers/create"},
		{"POST", "/managers/7/change-password"},
		{"POST", "/user/change-password"},
		{"GET", "/user/refresh-token"},
	}
	for _, n := range never {
		t.Run(n.method+" "+n.path, func(t *testing.T) {
			listed := slices.ContainsFunc(Operations(), func(op Operation) bool {
				return op.Method == n.method && op.Class == Mutation && fits(op.Path, strings.Split(strings.Trim(n.path, "/"), "/"))
			})
			if !listed {
				t.Error("not in the table")
			}
			for _, base := range []string{"", "/api", "/v1/x/api"} {
				check(t, n.method, "https://amp.example"+base+n.path, Mutation)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name   string
		method string
		url    string
		want   Class
	}{
		{"no base path", "GET", "https://amp.example/assets", Safe},
		{"AMP's base path", "GET", "https://amp.example/api/assets", Safe},
		{"a long base path", "PUT", "https://amp.example/v1/x/api/assets/6f0e/lock", Idempotent},
		{"base path only", "GET", "https://amp.example/api", Mutation},
		{"no path", "GET", "https://amp.example", Mutation},
		{"root only", "GET", "https://amp.example/", Mutation},
		{"root word within a segment", "GET", "https://amp.example/my-assets/info", Safe},
		{"root word in the base path", "GET", "https://amp.example/assets/api/categories", Mutation},
		{"root word twice", "GET", "https://amp.example/user/categories", Mutation},
		{"root word in another case", "GET", "https://amp.example/Assets", Mutation},
		{"query", "GET", "https://amp.example/api/assets?start=1&next=/register", Safe},
		{"relative", "GET", "/api/assets", Safe},
		{"relative without a slash", "GET", "api/assets", Mutation},
		{"opaque", "GET", "amp:assets", Mutation},

		{"unknown id", "GET", "https://amp.example/api/assets/no-such-asset", Safe},
		{"root word as id", "GET", "https://amp.example/api/categories/assets", Safe},
		{"id with a colon", "GET", "https://amp.example/api/assets/a:b/memo", Safe},

		{"HEAD of a list", "HEAD", "https://amp.example/api/assets", Safe},
		{"HEAD of a mutation", "HEAD", "https://amp.example/api/assets/6f0e/distributions/create/", Mutation},
		{"HEAD of a POST", "HEAD", "https://amp.example/api/user/obtain_token", Mutation},
		{"OPTIONS", "OPTIONS", "https://amp.example/api/assets", Mutation},
		{"another method", "POST", "https://amp.example/api/assets", Mutation},
		{"method in lower case", "get", "https://amp.example/api/assets", Mutation},
		{"no method", "", "https://amp.example/api/assets", Mutation},

		{"word before parameter", "GET", "https://amp.example/api/assets/6f0e/distributions/create", Mutation},
		{"word before parameter, no second try", "GET", "https://amp.example/api/assets/6f0e/assignments/create", Mutation},
		{"word before parameter, in its middle", "PUT", "https://amp.example/api/managers/me/lock", Mutation},
		{"word before parameter, both known", "GET", "https://amp.example/api/managers/me", Safe},

		{"encoded word", "GET", "https://amp.example/%61pi/%61ssets/6f0e/m%65mo", Safe},
		{"encoded word of a mutation", "GET", "https://amp.example/api/assets/6f0e/%72egister", Mutation},
		{"encoded word before parameter", "GET", "https://amp.example/api/assets/6f0e/distributions/%63reate", Mutation},
		{"encoded id", "GET", "https://amp.example/api/assets/%36f0e", Safe},
		{"encoded percent", "GET", "https://amp.example/api/assets/a%252Fb", Safe},
		{"encoded slash in an id", "GET", "https://amp.example/api/assets/6f0e%2Fregister", Mutation},
		{"encoded slash in a known route", "GET", "https://amp.example/api/assets%2f6f0e", Mutation},
		{"encoded slash in the base path", "GET", "https://amp.example/a%2Fb/assets", Mutation},
		{"encoded slash at the end", "GET", "https://amp.example/api/assets/%2F", Mutation},

		{"two final slashes", "GET", "https://amp.example/api/assets//", Mutation},
		{"double slash before the route", "GET", "https://amp.example/api//assets", Safe},
		{"double slash before a route that is not known", "GET", "https://amp.example/api//wallets", Mutation},
		{"double slash before a mutation", "GET", "https://amp.example/api//assets/6f0e/register", Mutation},
		{"double slash before an encoded word", "GET", "https://amp.example/api//%61ssets", Safe},
		{"double slash at the start", "GET", "https://amp.example//api/assets", Safe},
		{"many slashes before the route", "GET", "https://amp.example//api///assets", Safe},
		{"slashes alone", "GET", "https://amp.example///", Mutation},
		{"double slash behind the first word", "GET", "https://amp.example/api/assets//6f0e", Mutation},
		{"encoded slash before the route", "GET", "https://amp.example/api/%2Fassets", Mutation},
		{"dot segment before the route", "GET", "https://amp.example/api//./assets", Mutation},
		{"two dots before the route", "GET", "https://amp.example/x/..//assets", Mutation},
		{"double slash for an id", "GET", "https://amp.example/api/assets//memo", Mutation},
		{"dot segment", "GET", "https://amp.example/api/./assets", Mutation},
		{"dot segment for an id", "GET", "https://amp.example/api/assets/.", Mutation},
		{"two dots", "GET", "https://amp.example/api/assets/6f0e/../issue", Mutation},
		{"encoded dots", "GET", "https://amp.example/api/assets/%2e%2E", Mutation},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.method, tt.url, tt.want) })
	}
}

// Where one slash more stands before the route, servers either merge the two, which is
// the same route, or have nothing there. Behind its first word an empty segment may be
// taken for a parameter: /assets//register is then a registration.
func TestDoubleSlashNeverMakesAReadOfAMutation(t *testing.T) {
	for _, op := range Operations() {
		const base = "/v1/api"
		path := base + filled(op.Path)
		for i := range len(path) {
			if path[i] != '/' {
				continue
			}
			want := Mutation
			if i <= len(base) {
				want = op.Class
			}
			for _, more := range []string{"/", "//"} {
				check(t, op.Method, "https://amp.example"+path[:i]+more+path[i:], want)
			}
		}
	}
}

func TestUnknownRouteIsMutation(t *testing.T) {
	paths := []string{
		"/api/wallets",                     // unknown root
		"/api/info/spec",                   // below a known route
		"/api/assets/6f0e/burn",            // unknown word
		"/api/assets/6f0e/memo/get",        // unknown word, a level down
		"/api/assets/6f0e/txs/ab/raw",      // below a parameter
		"/api/assets/6f0e/burn/info",       // a root word after an unknown one
		"/api/user",                        // part of a route
		"/api/gaids/GA1",                   // part of a route, with its parameter
		"/api/tx/broadcast",                // of another client, in no official source
		"/api/registered_users/7/gaids/GA", // a parameter where there is none
	}
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PURGE"}
	for _, path := range paths {
		for _, method := range methods {
			t.Run(method+" "+path, func(t *testing.T) {
				check(t, method, "https://amp.example"+path, Mutation)
			})
		}
	}
}

func TestClassifyOfHandMadeURL(t *testing.T) {
	tests := []struct {
		name string
		url  *url.URL
		want Class
	}{
		{"nil", nil, Mutation},
		{"zero", &url.URL{}, Mutation},
		{"asterisk", &url.URL{Path: "*"}, Mutation},
		{"path alone", &url.URL{Path: "/assets/6f0e"}, Safe},
		{"opaque beside a path", &url.URL{Opaque: "//amp.example/assets/6f0e/register", Path: "/assets"}, Mutation},
		{"raw path of another path", &url.URL{Path: "/assets/6f0e/register", RawPath: "/assets/6f0e"}, Mutation},
		{"raw path that is none", &url.URL{Path: "/assets/6f0e", RawPath: "/assets/%zz"}, Safe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Classify("GET", tt.url); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOperationsIsACopy(t *testing.T) {
	Operations()[0].Path = "/spoilt"
	if Operations()[0].Path == "/spoilt" {
		t.Error("a caller can change the table")
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	u := parse(t, "https://amp.example/api/assets/6f0e/distributions/91ab/confirm")
	if n := testing.AllocsPerRun(1000, func() { Classify("POST", u) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzClassify(f *testing.F) {
	f.Fuzz(func(t *testing.T, method, path string) {
		Classify(method, &url.URL{Path: path, RawPath: path})
		u, err := url.Parse("https://amp.example" + path)
		if err != nil {
			return
		}
		got := Classify(method, u)
		checkAgainstTable(t, method, u, got)

		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			return
		}
		if based := Classify(method, parse(t, "https://amp.example/base"+path)); based != got {
			t.Errorf("%q %q: %v, but %v below a base path", method, path, got, based)
		}
		if doubled := Classify(method, parse(t, "https://amp.example/base/"+path)); doubled != got {
			t.Errorf("%q %q: %v, but %v with a double slash before it", method, path, got, doubled)
		}
		if got != Mutation && strings.Contains(path, "//") && Mutates(method, u) {
			t.Errorf("%q %q: %v, but a server that merges slashes may mutate", method, path, got)
		}
		if !strings.HasSuffix(path, "/") {
			if slashed := Classify(method, parse(t, "https://amp.example"+path+"/")); slashed != got {
				t.Errorf("%q %q: %v, but %v with a final slash", method, path, got, slashed)
			}
		}
	})
}

// checkAgainstTable walks the table instead of a tree. A class better than
// Mutation must come from a row that fits the path in full, and must not be
// bolder than any other row that fits it.
func checkAgainstTable(t *testing.T, method string, u *url.URL, got Class) {
	t.Helper()
	if method == "HEAD" {
		method = "GET"
	}
	segments := strings.Split(strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), "/"), "/"), "/")
	for i, s := range segments {
		s, err := url.PathUnescape(s)
		if s == "" && err == nil && !slices.ContainsFunc(segments[:i], startsRoute) {
			continue // before the route
		}
		if got != Mutation && (err != nil || s == "" || s == "." || s == ".." || strings.Contains(s, "/")) {
			t.Errorf("%q %q is %v in spite of segment %q", method, u, got, segments[i])
		}
		segments[i] = s
	}
	start := slices.IndexFunc(segments, startsRoute)
	from := false
	if start >= 0 {
		for _, op := range operations {
			if op.Method == method && fits(op.Path, segments[start:]) {
				from = from || op.Class == got
				if got > op.Class {
					t.Errorf("%q %q is %v, but %s %s is %v", method, u, got, op.Method, op.Path, op.Class)
				}
			}
		}
	}
	if got != Mutation && !from {
		t.Errorf("%q %q is %v, but no operation says so", method, u, got)
	}
}

// startsRoute reports whether an operation of the table begins with the segment.
func startsRoute(segment string) bool {
	return slices.ContainsFunc(operations, func(op Operation) bool {
		first, _, _ := strings.Cut(op.Path[1:], "/")
		return first == segment
	})
}

// fits reports whether segments are an instance of the template.
func fits(template string, segments []string) bool {
	want := strings.Split(strings.Trim(template, "/"), "/")
	return slices.EqualFunc(want, segments, func(w, s string) bool {
		return w == s || strings.HasPrefix(w, "{")
	})
}

// filled returns the template with an identifier for every parameter.
func filled(template string) string {
	segments := strings.Split(template, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "6f0e-42"
		}
	}
	return strings.Join(segments, "/")
}

func check(t *testing.T, method, rawURL string, want Class) {
	t.Helper()
	if got := Classify(method, parse(t, rawURL)); got != want {
		t.Errorf("Classify(%q, %q) = %v, want %v", method, rawURL, got, want)
	}
}

func parse(tb testing.TB, rawURL string) *url.URL {
	tb.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func BenchmarkClassify(b *testing.B) {
	for _, bb := range []struct{ name, method, url string }{
		{"short", "GET", "https://amp.example/api/info"},
		{"asset", "GET", "https://amp.example/api/assets/6f0e/balance"},
		{"deep", "POST", "https://amp.example/api/assets/6f0e/distributions/91ab/confirm"},
		{"unknown", "GET", "https://amp.example/api/wallets/7"},
		{"encoded", "GET", "https://amp.example/api/assets/%36f0e/balance"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			u := parse(b, bb.url)
			b.ReportAllocs()
			for b.Loop() {
				Classify(bb.method, u)
			}
		})
	}
}
