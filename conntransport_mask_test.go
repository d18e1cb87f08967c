package ampauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/memnet"
)

// net/http repeats by itself what has no body, or a GetBody. Over a base that is
// not known a mutation has neither.
func TestMutationIsMaskedFromTheBase(t *testing.T) {
	for _, method := range []string{"GET", "DELETE", "POST", "PUT", "HEAD"} {
		for _, body := range []io.Reader{nil, http.NoBody, strings.NewReader("payload")} {
			t.Run(fmt.Sprintf("%s %T", method, body), func(t *testing.T) {
				base := stubScript(stubAnswer(200))
				ctx := ampauth.WithOperation(t.Context(), ampauth.MutatingOperation)
				req, err := http.NewRequestWithContext(ctx, method, "https://api.test/", body)
				if err != nil {
					t.Fatal(err)
				}
				stubStatus(t, &ampauth.RetryTransport{Base: base}, req)
				sent := base.seen()[0].request
				if sent.GetBody != nil || sent.Body == nil || sent.Body == http.NoBody {
					t.Errorf("GetBody is nil: %v, Body is %T; want nil, and one that hides what it is", sent.GetBody == nil, sent.Body)
				}
				if sent.ContentLength != req.ContentLength {
					t.Errorf("ContentLength is %d, want %d", sent.ContentLength, req.ContentLength)
				}
			})
		}
	}
}

func TestOtherOperationsAreNotMasked(t *testing.T) {
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.IdempotentOperation} {
		base := stubScript(stubAnswer(200))
		rt := &ampauth.RetryTransport{Base: base}
		stubStatus(t, rt, stubRequest(t.Context(), op, []byte("x")))
		stubStatus(t, rt, stubRequest(t.Context(), op, nil))
		calls := base.seen()
		if calls[0].request.GetBody == nil || calls[1].request.Body != nil {
			t.Errorf("%v: GetBody is nil: %v, an absent body became %T", op, calls[0].request.GetBody == nil, calls[1].request.Body)
		}
	}
}

func TestMaskOutlivesALayerThatDropsTheBody(t *testing.T) {
	var sent *http.Request
	auth := authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		return stubResponse(200, ""), nil
	}))
	for _, none := range []io.ReadCloser{nil, http.NoBody} {
		layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			clone := req.Clone(req.Context())
			clone.Body = none
			return auth.RoundTrip(clone)
		})
		req, _ := http.NewRequest("GET", "https://amp.test/api/assets/6f0e/register", nil)
		if _, err := (&ampauth.RetryTransport{Base: layer, Classify: func(*http.Request) ampauth.Operation { return ampauth.MutatingOperation }}).RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if sent.Body == nil || sent.Body == http.NoBody {
			t.Error("the body is gone: net/http may repeat the mutation")
		}
	}
}

func TestMaskOutlivesALayerThatMakesTheBodyAnew(t *testing.T) {
	var sent *http.Request
	auth := authOver(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req
		return stubResponse(200, ""), nil
	}))
	signing := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		clone := req.Clone(req.Context())
		clone.Body = io.NopCloser(strings.NewReader("signed"))
		clone.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("signed")), nil }
		return auth.RoundTrip(clone)
	})
	req, _ := http.NewRequest("POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
	if _, err := (&ampauth.RetryTransport{Base: signing}).RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if sent.GetBody != nil || sent.Body == nil {
		t.Error("GetBody is back: net/http may repeat the mutation")
	}
}

func TestMutationOfALayerBelowIsMaskedWhereverItGoes(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"same URL":     func(*http.Request) {},
		"copy of URL":  func(r *http.Request) { u := *r.URL; r.URL = &u },
		"other path":   func(r *http.Request) { u := *r.URL; u.Path = "/api/assets/issue"; r.URL = &u },
		"other host":   func(r *http.Request) { u := *r.URL; u.Host = "other.test"; r.URL = &u },
		"other scheme": func(r *http.Request) { u := *r.URL; u.Scheme = "http"; r.URL = &u },
	} {
		t.Run(name, func(t *testing.T) {
			masked := false
			inner := &ampauth.RetryTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					masked = req.GetBody == nil && req.Body != nil
					return stubResponse(200, ""), nil
				}),
				Classify: func(*http.Request) ampauth.Operation { return ampauth.MutatingOperation },
			}
			method := "GET" // the other's
			if name == "same URL" || name == "copy of URL" {
				method = "POST"
			}
			outer := &ampauth.RetryTransport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					post := req.WithContext(req.Context())
					post.Method, post.Body = "POST", io.NopCloser(strings.NewReader("{}"))
					post.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("{}")), nil }
					if method == "GET" {
						post.Method = req.Method
					}
					change(post)
					return inner.RoundTrip(post)
				}),
				Classify: func(*http.Request) ampauth.Operation { return ampauth.SafeOperation },
			}
			req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
			if _, err := outer.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
			if !masked {
				t.Error("the layer's mutation went out as net/http may repeat it")
			}
		})
	}
}

func TestMutationOfALayerBelowIsMaskedOnItsOwnAccount(t *testing.T) {
	masked := false
	inner := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		masked = req.Method == "POST" && req.GetBody == nil && req.Body != nil
		return stubResponse(200, ""), nil
	})}
	outer := &ampauth.RetryTransport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		post, _ := http.NewRequestWithContext(req.Context(), "POST", "https://amp.test/api/assets/issue", strings.NewReader("{}"))
		return inner.RoundTrip(post)
	})}
	req, _ := http.NewRequest("GET", "https://amp.test/api/assets", nil)
	if _, err := outer.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if !masked {
		t.Error("the layer's mutation went out as net/http may repeat it")
	}
}

func TestMutationWithoutABodyHasNoneOnTheWire(t *testing.T) {
	type seen struct {
		encoding []string
		length   string
		n        int64
	}
	var got seen
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		got = seen{r.TransferEncoding, r.Header.Get("Content-Length"), r.ContentLength}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base}
		for method, length := range map[string]string{"POST": "0", "PUT": "0", "GET": "", "DELETE": ""} {
			req, err := http.NewRequestWithContext(t.Context(), method, url+"/unknown", nil)
			if err != nil {
				t.Fatal(err)
			}
			stubStatus(t, rt, req)
			if got.encoding != nil || got.length != length || got.n != 0 {
				t.Errorf("%s was sent with Transfer-Encoding %q and Content-Length %q, want none and %q", method, got.encoding, got.length, length)
			}
		}
	})
}

func TestTransportThatSpeaksHTTP2OnlyIsUsedMasked(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	base := stubPooled(t)
	base.Protocols = new(http.Protocols)
	base.Protocols.SetUnencryptedHTTP2(true)
	rt := &ampauth.RetryTransport{Base: base, Retry: stubQuick}
	resp, err := rt.RoundTrip(stubRequestTo(t.Context(), server.URL, ampauth.MutatingOperation, []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	if text := stubText(t, resp); resp.ProtoMajor != 2 || text != "x" {
		t.Errorf("%s, %q; want HTTP/2 and the body back", resp.Proto, text)
	}
}
