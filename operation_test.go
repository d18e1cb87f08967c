package ampauth_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
)

func TestClassifyAMPGoesByTheRouteNotByTheVerb(t *testing.T) {
	for _, test := range []struct {
		method, path string
		want         ampauth.Operation
	}{
		{"POST", "/assets/issue", mutating},
		{"POST", "/assets/c4a7e1f0/burn-request", mutating},
		{"GET", "/assets/c4a7e1f0/distributions/create/", mutating},
		{"GET", "/assets/c4a7e1f0/register", mutating},
		{"GET", "/assets/c4a7e1f0/register-authorized", mutating},
		{"GET", "/user/refresh-token", mutating},
		{"DELETE", "/assets/c4a7e1f0/distributions/77/cancel", mutating},
		{"POST", "/assets/c4a7e1f0/burn-confirm", idempotent},
		{"PUT", "/categories/7/edit", idempotent},
		{"DELETE", "/registered_users/7/delete", idempotent},
		{"GET", "/assets", safe},
		{"", "/assets", safe},
		{"GET", "/assets/", safe},
		{"GET", "/assets/c4a7e1f0", safe},
		{"GET", "/info", safe},
		{"GET", "/no/such/route", mutating},
		{"GET", "/", mutating},
		{"PUT", "/assets/issue", mutating},
		{"BREW", "/assets", mutating},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			for _, base := range []string{"https://amp.test", "https://amp.test/api", "https://amp.test/proxied/api"} {
				if got := ampauth.ClassifyAMP(requestOf(t, test.method, base+test.path)); got != test.want {
					t.Errorf("below %s: %v, want %v", base, got, test.want)
				}
			}
		})
	}
}

// instancesOf returns paths of a template: with identifiers of several sorts, and
// with an encoding that changes nothing.
func instancesOf(template string) []string {
	var paths []string
	for _, id := range []string{"6f0e3b1a-0000-4000-8000-00000000abcd", "42", "no-such-thing", "%36f0e", "a%20b", "caf%C3%A9"} {
		segments := strings.Split(template, "/")
		for i, s := range segments {
			if strings.HasPrefix(s, "{") {
				segments[i] = id
			}
		}
		paths = append(paths, strings.Join(segments, "/"))
		for i, s := range segments {
			if i > 0 && !strings.Contains(s, "%") {
				segments[i] = fmt.Sprintf("%%%02X%s", s[0], s[1:])
			}
		}
		paths = append(paths, strings.Join(segments, "/"))
	}
	return paths
}

// testdata/amp-operations.tsv has every operation of the Swagger document of AMP
// 0.1.12, as far as it can be reconstructed, and what is known of a repeat: safe,
// idempotent, resend (the official script says to send it again) or never.
func TestClassifyAMPHoldsForEveryOperationOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("testdata/amp-operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]ampauth.Operation{"safe": safe, "idempotent": idempotent, "resend": idempotent, "never": mutating}
	bases := []string{"https://amp.test", "https://amp.test/api", "https://amp.test:8443/proxied/v1/api", "http://[::1]:8000/api"}
	counted := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			t.Fatalf("not a line of three fields: %q", line)
		}
		method, template, class := fields[0], fields[1], fields[2]
		want, known := classes[class]
		if !known {
			t.Fatalf("not a class: %q", class)
		}
		counted[class]++
		t.Run(method+" "+template, func(t *testing.T) {
			for _, path := range instancesOf(strings.TrimSuffix(template, "/")) {
				for _, base := range bases {
					for _, end := range []string{"", "/", "?start=1&next=/info", "/?x=%2F"} {
						if got := ampauth.ClassifyAMP(requestOf(t, method, base+path+end)); got != want {
							t.Errorf("%s%s%s: %v, want %v", base, path, end, got, want)
						}
					}
				}
				// The same path under another verb is not in the document. A HEAD runs what GET runs.
				for _, other := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
					expected := mutating
					if other == method || other == "HEAD" && method == "GET" {
						expected = want
					}
					if got := ampauth.ClassifyAMP(requestOf(t, other, bases[1]+path)); got != expected {
						t.Errorf("%s %s: %v, want %v", other, path, got, expected)
					}
				}
				if got := ampauth.ClassifyAMP(requestOf(t, method, bases[1]+path+"/no/such")); got != mutating {
					t.Errorf("%s %s/no/such: %v, want a mutation", method, path, got)
				}
			}
		})
	}
	if counted["safe"] != 34 || counted["idempotent"] != 25 || counted["resend"] != 3 || counted["never"] != 16 {
		t.Errorf("the document has %v", counted)
	}
}

func TestClassifyHTTPGoesByTheMethod(t *testing.T) {
	for method, want := range map[string]ampauth.Operation{ // RFC 9110 9.2.1 and 9.2.2
		"GET": safe, "": safe, "HEAD": safe, "OPTIONS": safe, "TRACE": safe,
		"PUT": idempotent, "DELETE": idempotent,
		"POST": mutating, "PATCH": mutating, "CONNECT": mutating, "get": mutating, "BREW": mutating,
	} {
		if got := ampauth.ClassifyHTTP(requestOf(t, method, "https://amp.test/assets/issue")); got != want {
			t.Errorf("%q: %v, want %v", method, got, want)
		}
	}
}

func TestOperationsAndOutcomesHaveNames(t *testing.T) {
	for value, want := range map[interface{ String() string }]string{
		mutating: "MutatingOperation", idempotent: "IdempotentOperation", safe: "SafeOperation",
		ampauth.Operation(3): "Operation(3)", ampauth.Operation(-1): "Operation(-1)",
		ampauth.Ambiguous: "Ambiguous", ampauth.NotSent: "NotSent", ampauth.Unprocessed: "Unprocessed",
		ampauth.Rejected: "Rejected", ampauth.Answered: "Answered",
		ampauth.Outcome(5): "Outcome(5)", ampauth.Outcome(-1): "Outcome(-1)",
	} {
		if got := value.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var (
		operation ampauth.Operation
		outcome   ampauth.Outcome
	)
	if operation != mutating || outcome != ampauth.Ambiguous {
		t.Errorf("the zero values are %v and %v, want those that forbid a repeat", operation, outcome)
	}
}

// A 503 after a request that arrived tells what a request is taken for: only a
// mutation is not repeated.
func TestWhatTheCallerSaysWinsOverTheClassification(t *testing.T) {
	saying := func(ops ...ampauth.Operation) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context {
			for _, op := range ops {
				ctx = ampauth.WithOperation(ctx, op)
			}
			return ctx
		}
	}
	always := func(op ampauth.Operation) func(*http.Request) ampauth.Operation {
		return func(*http.Request) ampauth.Operation { return op }
	}
	for _, test := range []struct {
		name     string
		classify func(*http.Request) ampauth.Operation
		context  func(context.Context) context.Context
		path     string
		attempts int
	}{
		{"nothing said, a safe route", nil, saying(), "/assets", 3},
		{"nothing said, a mutation by GET", nil, saying(), "/assets/c4a7e1f0/register", 1},
		{"classified as safe", always(safe), saying(), "/assets/c4a7e1f0/register", 3},
		{"classified as a mutation", always(mutating), saying(), "/assets", 1},
		{"said to be a mutation", always(safe), saying(mutating), "/assets", 1},
		{"said to be safe", always(mutating), saying(safe), "/assets", 3},
		{"said to be idempotent", always(mutating), saying(idempotent), "/assets", 3},
		{"said to be a mutation of a safe route", nil, saying(mutating), "/assets", 1},
		{"said twice, the last counts", nil, saying(safe, mutating), "/assets", 1},
		{"classified out of range", always(3), saying(), "/assets", 1},
		{"classified below range", always(-1), saying(), "/assets", 1},
		{"said to be out of range", always(safe), saying(77), "/assets", 1},
		{"said to be below range", always(safe), saying(-1), "/assets", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(stubAnswer(503))
				transport := &ampauth.RetryTransport{Base: base, Classify: test.classify}
				req := requestOf(t, "GET", "https://amp.test/api"+test.path)
				resp, err := transport.RoundTrip(req.WithContext(test.context(req.Context())))
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := base.attempts(); got != test.attempts {
					t.Errorf("%d attempts, want %d", got, test.attempts)
				}
			})
		})
	}
}

func TestClassifyIsNotAskedWhenTheCallerKnows(t *testing.T) {
	transport := &ampauth.RetryTransport{
		Base:     stubScript(stubAnswer(200)),
		Classify: func(*http.Request) ampauth.Operation { t.Error("Classify was called"); return safe },
	}
	req := requestOf(t, "GET", "https://amp.test/api/assets")
	resp, err := transport.RoundTrip(req.WithContext(ampauth.WithOperation(req.Context(), safe)))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

func TestWithoutRetryIsOneAttempt(t *testing.T) {
	base := stubScript(stubAnswer(503))
	transport := &ampauth.RetryTransport{Base: base}
	req := requestOf(t, "GET", "https://amp.test/api/assets")
	resp, err := transport.RoundTrip(req.WithContext(ampauth.WithoutRetry(req.Context())))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 503 || base.attempts() != 1 {
		t.Errorf("status %d after %d attempts, want 503 after 1", resp.StatusCode, base.attempts())
	}
}
