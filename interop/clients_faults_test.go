package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/interop/generated/goswagger/client/operations"
	"github.com/ampauth/ampauth/interop/generated/goswagger/models"
	"github.com/ampauth/ampauth/interop/generated/ogen"
	httptransport "github.com/go-openapi/runtime/client"
	"github.com/ogen-go/ogen/ogenerrors"
)

const (
	login   = "POST /user/obtain_token"
	issuing = "POST /assets/issue"
	listing = "GET /assets"
	bond    = "Bond of 2027"
)

// overEach runs the test for the client of each generator, in a bubble of its own.
func overEach(t *testing.T, test func(t *testing.T, amp *ampauthtest.Server, client api)) {
	for name, over := range generators {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				amp := ampauthtest.NewServer(t, ampauthtest.Options{})
				test(t, amp, over(t, amp.Client(), amp.URL))
			})
		})
	}
}

func TestGeneratedClientIsLoggedInReadsAndIssues(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		for name, over := range generators {
			t.Run(name+", base URL with "+slash+" at its end", func(t *testing.T) {
				amp := ampauthtest.NewServer(t, ampauthtest.Options{})
				cfg := amp.Config()
				cfg.BaseURL += slash
				client, err := ampauth.NewClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				generated := over(t, client, cfg.BaseURL)
				uuid, err := generated.issue(t.Context(), bond)
				if err != nil || uuid == "" {
					t.Errorf("issued %q, %v", uuid, err)
				}
				names, err := generated.list(t.Context())
				if err != nil || !slices.Equal(names, []string{bond}) {
					t.Errorf("listed %q, %v, want the one that was issued", names, err)
				}
				if amp.Count(login) != 1 || amp.Count(issuing) != 1 || amp.Count(listing) != 1 {
					t.Errorf("%d logins, %d issued, %d listed, want 1 of each", amp.Count(login), amp.Count(issuing), amp.Count(listing))
				}
			})
		}
	}
}

// Whatever a generator puts between base URL and route: what is not known as a read is a
// mutation, and not tried again after a 503.
func TestReadOfAGeneratedClientIsKnownForOne(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		for name, over := range generators {
			t.Run(name+", base URL with "+slash+" at its end", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					amp := ampauthtest.NewServer(t, ampauthtest.Options{})
					amp.Inject(ampauthtest.Fault{Route: listing, Status: 503})
					if _, err := over(t, amp.Client(), amp.URL+slash).list(t.Context()); err != nil {
						t.Error(err)
					}
					if n := amp.Count(listing); n != 2 {
						t.Errorf("%d attempts, want 2", n)
					}
				})
			})
		}
	}
}

func TestGeneratedClientsMutationIsReplayedWithTheSameBody(t *testing.T) {
	for name, over := range generators {
		t.Run(name, func(t *testing.T) {
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			var mu sync.Mutex
			var bodies []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if strings.HasSuffix(r.URL.Path, "/issue") {
					mu.Lock()
					bodies = append(bodies, string(body))
					mu.Unlock()
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				amp.ServeHTTP(w, r)
			}))
			defer server.Close()
			cfg := amp.Config()
			cfg.BaseURL, cfg.HTTPClient = server.URL+"/api", server.Client()
			client, err := ampauth.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			generated := over(t, client, cfg.BaseURL)
			if _, err := generated.list(t.Context()); err != nil {
				t.Fatal(err)
			}
			amp.Revoke()
			if _, err := generated.issue(t.Context(), bond); err != nil {
				t.Error(err)
			}
			if len(bodies) != 2 || bodies[0] != bodies[1] || !strings.Contains(bodies[0], bond) {
				t.Errorf("the bodies were %q, want the same twice", bodies)
			}
			if amp.Count(login) != 2 || len(amp.Effects()) != 1 {
				t.Errorf("%d logins and %d effects, want 2 and 1", amp.Count(login), len(amp.Effects()))
			}
		})
	}
}

func TestGeneratedClientWaitsAsRetryAfterSays(t *testing.T) {
	overEach(t, func(t *testing.T, amp *ampauthtest.Server, client api) {
		amp.Inject(ampauthtest.Fault{Route: issuing, Status: 429, RetryAfter: "7"})
		start := time.Now()
		if _, err := client.issue(t.Context(), bond); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited < 7*time.Second || amp.Count(issuing) != 2 || len(amp.Effects()) != 1 {
			t.Errorf("%d requests and %d effects after %v, want 2 and 1 after 7 s", amp.Count(issuing), len(amp.Effects()), waited)
		}
	})
}

func TestGeneratedClientTellsTheLastAnswer(t *testing.T) {
	for _, status := range []int{429, 503, 400} {
		overEach(t, func(t *testing.T, amp *ampauthtest.Server, client api) {
			amp.Inject(ampauthtest.Fault{Route: issuing, Status: status, Times: -1})
			_, err := client.issue(t.Context(), bond)
			if told := statusOf(err); told != status {
				t.Errorf("%v tells status %d, want %d", err, told, status)
			}
		})
	}
}

func TestErrorOfAGeneratedClientIsErrAmbiguous(t *testing.T) {
	for name, fault := range map[string]ampauthtest.Fault{
		"reset":     {AfterIt: true, Reset: true},
		"no answer": {AfterIt: true, Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, amp *ampauthtest.Server, client api) {
				fault.Route = issuing
				amp.Inject(fault)
				_, err := client.issue(t.Context(), bond)
				if e, ok := errors.AsType[*ampauth.Error](err); !ok || !errors.Is(err, ampauth.ErrAmbiguous) || e.Outcome != ampauth.Ambiguous {
					t.Errorf("%v, want one that Is ErrAmbiguous", err)
				}
				if n := len(amp.Effects()); n != 1 {
					t.Errorf("issued %d times, want once", n)
				}
			})
		})
	}
}

func TestOnceOverAGeneratedClientIssuesOnce(t *testing.T) {
	for name, fault := range map[string]ampauthtest.Fault{
		"performed, then reset":     {AfterIt: true, Reset: true},
		"performed, then 503":       {AfterIt: true, Status: 503},
		"performed, then no answer": {AfterIt: true, Delay: time.Hour},
		"reset":                     {Reset: true},
		"503":                       {Status: 503},
		"nothing":                   {},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, amp *ampauthtest.Server, client api) {
				if fault != (ampauthtest.Fault{}) {
					fault.Route = issuing
					amp.Inject(fault)
				}
				name, err := ampauth.Once(t.Context(), ampauth.RetryConfig{}, ampauth.Mutation[string]{
					Send: func(ctx context.Context) (string, error) {
						_, err := client.issue(ctx, bond)
						return bond, err
					},
					Find: func(ctx context.Context) (string, bool, error) {
						names, err := client.list(ctx)
						return bond, slices.Contains(names, bond), err
					},
				})
				if name != bond || err != nil || len(amp.Effects()) != 1 {
					t.Errorf("%q, %v and issued %d times, want once", name, err, len(amp.Effects()))
				}
			})
		})
	}
}

func TestParametersOfGoSwaggerEndAMutationAfterThirtySeconds(t *testing.T) {
	for name, test := range map[string]struct {
		params *operations.IssueAssetParams
		ended  bool
	}{
		"NewIssueAssetParams":         {operations.NewIssueAssetParams(), true},
		"WithTimeout(0)":              {operations.NewIssueAssetParams().WithTimeout(0), false},
		"NewIssueAssetParams..., 0":   {operations.NewIssueAssetParamsWithTimeout(0), false},
		"NewIssueAssetParams..., 50s": {operations.NewIssueAssetParamsWithTimeout(50 * time.Second), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				amp := ampauthtest.NewServer(t, ampauthtest.Options{})
				amp.Inject(ampauthtest.Fault{Route: issuing, AfterIt: true, Delay: 45 * time.Second})
				cfg := amp.Config()
				cfg.Retry = ampauth.RetryConfig{} // not that of tests
				client, err := ampauth.NewClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				swagger := newGoSwagger(client, parsed(t, amp.URL))
				start := time.Now()
				_, err = swagger.Operations.IssueAssetContext(t.Context(), test.params.WithBody(&models.Issuance{Name: new(bond)}), nil)
				if took := time.Since(start); test.ended && (!errors.Is(err, ampauth.ErrAmbiguous) || took != 30*time.Second) ||
					!test.ended && (err != nil || took != 45*time.Second) {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// dumped is a logger of go-openapi's that keeps what it gets.
type dumped struct{ strings.Builder }

func (d *dumped) Printf(format string, args ...any) { fmt.Fprintf(d, format, args...) }
func (d *dumped) Debugf(format string, args ...any) { d.Printf(format, args...) }

func parsed(t *testing.T, base string) *url.URL {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The dump of go-swagger's DEBUG is made above the layer that knows the token.
func TestDebugOfGoSwaggerShowsNoToken(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	client := amp.Client()
	swagger := newGoSwagger(client, parsed(t, amp.URL))
	var dump dumped
	rt := swagger.Transport.(*httptransport.Runtime)
	rt.Debug = true
	rt.SetLogger(&dump)
	if _, err := swagger.Operations.ListAssetsContext(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	token, err := client.Tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = token.Value.Expose(func(value []byte) error {
		if text := dump.String(); !strings.Contains(text, "/assets/") || strings.Contains(text, string(value)) {
			t.Errorf("the dump is without the request, or with the token:\n%s", text)
		}
		return nil
	})
}

// skipping is a SecuritySource that says that there is no credential.
type skipping struct{}

func (skipping) Token(context.Context, ogen.OperationName) (ogen.Token, error) {
	return ogen.Token{}, ogenerrors.ErrSkipClientSecurity
}

func TestSecuritySourceOfOgenMustNotSkip(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	client, err := ogen.NewClient(amp.URL, skipping{}, ogen.WithClient(amp.Client()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ListAssets(t.Context()); !errors.Is(err, ogenerrors.ErrSecurityRequirementIsNotSatisfied) || amp.Count(listing) != 0 {
		t.Errorf("%v, want that ogen sends nothing", err)
	}
}

// doer answers each request with the same.
type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(req *http.Request) (*http.Response, error) { return d(req) }

func TestOgenTellsNoStatusOfAnAnswerInHTML(t *testing.T) {
	client, err := ogen.NewClient("http://amp.test/api", noToken{}, ogen.WithClient(doer(func(req *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: 503, Header: http.Header{"Content-Type": {"text/html"}},
			Body: io.NopCloser(strings.NewReader("<h1>no</h1>")), Request: req,
		}, nil
	})))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.IssueAsset(t.Context(), &ogen.Issuance{})
	if err == nil || statusOf(err) != 0 || errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("%v, want an error of ogen's own", err)
	}
}
