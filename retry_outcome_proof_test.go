package ampauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// untraced is req as it comes out of a layer that drops the context.
func untraced(req *http.Request) *http.Request { return req.WithContext(context.Background()) }

// closedHandshake is a way whose TLS handshake ends in io.EOF, as the trace is told.
func closedHandshake(t *testing.T) http.RoundTripper {
	s := hostile.New(hostile.HTTP1TLS, hostile.Script{}.OnConns(hostile.CloseInHandshake))
	t.Cleanup(s.Close)
	base := stubPooled(t)
	base.TLSClientConfig = s.TLSConfig()
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Addr())
	}
	return base
}

// Layers that try again by themselves, out of sight of the trace, and show the last
// error alone. What they performed is never sent again.
func TestLayerThatTriesAgainOutOfSightProvesNothing(t *testing.T) {
	performed := hostile.Step{Perform: true, Do: hostile.Close}
	for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS} {
		for _, body := range []string{"{}", ""} {
			for name, layer := range map[string]func(t *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error){
				"context dropped, cut, then a refused dial": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, _ = base.RoundTrip(untraced(req))
					return refusedDial(untraced(req))
				},
				"context dropped, cut, then a refused dial in sight": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					content, _ := io.ReadAll(req.Body)
					hidden := untraced(req)
					hidden.Body = io.NopCloser(bytes.NewReader(content))
					_, _ = base.RoundTrip(hidden)
					_, err := refusedDial(untraced(req))
					return nil, err
				},
				"first way refused, second cut": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, _ = refusedDial(req.Clone(req.Context()))
					return base.RoundTrip(untraced(req))
				},
				"first way refused, second cut, then refused": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, _ = refusedDial(req.Clone(req.Context()))
					_, _ = base.RoundTrip(untraced(req))
					return refusedDial(untraced(req))
				},
				"first way refused, second cut, both told": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, first := refusedDial(req.Clone(req.Context()))
					_, second := base.RoundTrip(untraced(req))
					return nil, errors.Join(first, second)
				},
				"first way ends in the handshake, second in the same error": func(t *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					if req.URL.Scheme == "https" {
						_, _ = closedHandshake(t).RoundTrip(req.Clone(req.Context()))
					}
					_, err := base.RoundTrip(untraced(req))
					if err != nil {
						err = io.EOF
					}
					return nil, err
				},
				"first way refused, second cut in sight of the trace, elsewhere": func(_ *testing.T, base http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, first := refusedDial(req.Clone(req.Context()))
					elsewhere := req.Clone(req.Context())
					elsewhere.URL.Host = strings.Replace(req.URL.Host, "127.0.0.1", "localhost", 1)
					_, _ = base.RoundTrip(elsewhere)
					return nil, first
				},
			} {
				t.Run(fmt.Sprint(protocol)+"/"+name+"/body "+body, func(t *testing.T) {
					w := newProofWorld(t, protocol, performed)
					under := roundTripFunc(func(req *http.Request) (*http.Response, error) { return layer(t, w.base, req) })
					_, err := (&ampauth.RetryTransport{Base: under, Retry: stubQuick}).RoundTrip(w.request(t, body))
					if !errors.Is(err, ampauth.ErrAmbiguous) || w.Effects("op") != 1 {
						t.Errorf("performed %d times, then %v, want ErrAmbiguous after one", w.Effects("op"), err)
					}
				})
			}
		}
	}
}

// The answer to a hidden second try says nothing of the first.
func TestAnswerToAHiddenSecondTryProvesNothing(t *testing.T) {
	for _, status := range []int{421, 425, 429, 401} {
		w := newProofWorld(t, hostile.HTTP1, hostile.Step{Perform: true, Do: hostile.Close}, hostile.Step{Status: status}, hostile.Step{Perform: true})
		source, renewed := tokenThatIsRenewed(), make(chan struct{})
		source.renewed = func(context.Context) (ampauth.Token, error) {
			close(renewed)
			return oneToken("new")
		}
		layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if resp, err := w.base.RoundTrip(req.Clone(req.Context())); err == nil {
				return resp, nil
			}
			return w.base.RoundTrip(untraced(req))
		})
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: layer, Source: source, Origin: w.URL()}, Retry: stubQuick}
		resp, err := rt.RoundTrip(w.request(t, ""))
		if err != nil || resp.StatusCode != status || w.Effects("op") != 1 {
			t.Errorf("%d: performed %d times, then %v, %v; want the answer after one", status, w.Effects("op"), resp, err)
			continue
		}
		_ = resp.Body.Close()
		if status == 401 {
			<-renewed // all the same, for those who come later
		}
	}
}

// sideRequests are things that a layer or dialer asks by HTTP with the request's
// context. They are not the request.
var sideRequests = map[string]func(req *http.Request, other string){
	"a dump":   func(req *http.Request, _ string) { _, _ = httputil.DumpRequestOut(req, true) },
	"a signer": func(req *http.Request, other string) { ask(req.Context(), other) },
	"a signer, twice": func(req *http.Request, other string) {
		ask(req.Context(), other)
		ask(req.Context(), other)
	},
}

// refusingFirst is a dialer whose first dial is refused.
func refusingFirst(dials *atomic.Int32, before func(context.Context)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if before != nil {
			before(ctx)
		}
		if dials.Add(1) == 1 {
			address = hostile.ClosedAddr
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

func TestSideRequestsAreNotTakenForTheRequest(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "signed") }))
	defer other.Close()
	type stack func(w *proofWorld, dials *atomic.Int32) http.RoundTripper
	stacks := make(map[string]stack)
	for name, side := range sideRequests {
		stacks["a layer with "+name] = func(w *proofWorld, dials *atomic.Int32) http.RoundTripper {
			w.base.DialContext = refusingFirst(dials, nil)
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				side(req, other.URL)
				return w.base.RoundTrip(req)
			})
		}
	}
	asks := func(ctx context.Context) { ask(ctx, other.URL) }
	stacks["a dialer"] = func(w *proofWorld, dials *atomic.Int32) http.RoundTripper {
		w.base.DialContext = refusingFirst(dials, asks)
		return w.base
	}
	stacks["a dialer below a layer"] = func(w *proofWorld, dials *atomic.Int32) http.RoundTripper {
		w.base.DialContext = refusingFirst(dials, asks)
		return roundTripFunc(w.base.RoundTrip)
	}
	stacks["a proxy function"] = func(w *proofWorld, dials *atomic.Int32) http.RoundTripper {
		w.base.DialContext = refusingFirst(dials, nil)
		w.base.Proxy = func(req *http.Request) (*url.URL, error) { asks(req.Context()); return nil, nil }
		return w.base
	}
	for name, newStack := range stacks {
		for what, step := range map[string]*hostile.Step{
			"a refused dial": nil, "429": {Status: 429}, "401": {Status: 401}, "421": {Status: 421},
		} {
			for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2} {
				t.Run(name+"/"+what+"/"+fmt.Sprint(protocol), func(t *testing.T) {
					var dials atomic.Int32
					steps := []hostile.Step{{Perform: true}}
					if step != nil {
						steps = append([]hostile.Step{*step}, steps...)
						dials.Store(1) // none is refused
					}
					w := newProofWorld(t, protocol, steps...)
					rt := &ampauth.RetryTransport{
						Base:  &ampauth.AuthTransport{Base: newStack(w, &dials), Source: tokenThatIsRenewed(), Origin: w.URL()},
						Retry: stubQuick,
					}
					resp, err := rt.RoundTrip(w.request(t, "{}"))
					if err != nil || resp.StatusCode != 200 || w.Effects("op") != 1 {
						t.Fatalf("performed %d times, then %v, %v; want 200 after one", w.Effects("op"), resp, err)
					}
					_ = resp.Body.Close()
				})
			}
		}
	}
}

// A layer that tries again by itself spoils what its last answer proves.
func TestAnswerToALayersOwnRepeatIsNoProof(t *testing.T) {
	for _, status := range []int{401, 421, 425, 429} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Reset}, hostile.Step{Status: status}, hostile.Step{Perform: true}))
			defer s.Close()
			base := stubPooled(t)
			auth := &ampauth.AuthTransport{Source: new(stubRenewing), Origin: s.URL(), Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				again := req.Clone(req.Context())
				again.Body = io.NopCloser(strings.NewReader("x"))
				if resp, err := base.RoundTrip(req); err == nil {
					return resp, nil
				}
				return base.RoundTrip(again)
			})}
			got := stubStatus(t, &ampauth.RetryTransport{Base: auth, Retry: stubQuick}, stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
			if got != status || s.Requests() != 2 {
				t.Errorf("status %d after %d requests, want the %d after the layer's own two", got, s.Requests(), status)
			}
		})
	}
}

func TestWantOfATokenForALayersRepeatDoesNotUndoTheFirst(t *testing.T) {
	tokens := 0
	source := sourceFunc(func(context.Context) (ampauth.Token, error) {
		if tokens++; tokens > 1 {
			return ampauth.Token{}, io.EOF
		}
		return oneToken("t")
	})
	auth := &ampauth.AuthTransport{Base: stubScript(stubBreak(errStubReset)), Source: source, Origin: "https://api.test"}
	repeats := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if resp, err := auth.RoundTrip(req); err == nil {
			return resp, nil
		}
		return auth.RoundTrip(req)
	})
	_, err := (&ampauth.RetryTransport{Base: repeats, Retry: stubQuick}).RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, nil))
	if e := stubError(t, err); e.Outcome != ampauth.Ambiguous || !errors.Is(err, ampauth.ErrAmbiguous) || tokens != 2 {
		t.Errorf("got %v (%v) after %d tokens, want it ambiguous after 2", err, e.Outcome, tokens)
	}
}

// No token at the second try of a layer does not undo its first.
func TestNoTokenForASecondTryDoesNotUndoTheFirst(t *testing.T) {
	w := newProofWorld(t, hostile.HTTP1, hostile.Step{Perform: true, Do: hostile.Close})
	calls := 0
	source := sourceFunc(func(context.Context) (ampauth.Token, error) {
		if calls++; calls > 1 {
			return ampauth.Token{}, errors.New("no token today")
		}
		return oneToken("a")
	})
	hides := roundTripFunc(func(req *http.Request) (*http.Response, error) { return w.base.RoundTrip(untraced(req)) })
	auth := &ampauth.AuthTransport{Base: hides, Source: source, Origin: w.URL()}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		content, _ := io.ReadAll(req.Body)
		first := req.Clone(req.Context())
		first.Body = io.NopCloser(strings.NewReader(string(content)))
		if resp, err := auth.RoundTrip(first); err == nil {
			return resp, nil
		}
		return auth.RoundTrip(req)
	})
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(w.request(t, "{}"))
	if !errors.Is(err, ampauth.ErrAmbiguous) || w.Effects("op") != 1 {
		t.Errorf("performed %d times, then %v", w.Effects("op"), err)
	}
}

// More layers that do by themselves what nobody sees.
func TestLayerThatHidesItsTriesCausesNoSecondEffect(t *testing.T) {
	hide := func(req *http.Request) *http.Request {
		hidden := untraced(req)
		hidden.Body = nil // it has none, as far as the layer knows
		return hidden
	}
	for name, test := range map[string]struct {
		steps []hostile.Step
		layer func(w *proofWorld, req *http.Request) (*http.Response, error)
	}{
		"a dialer of the user's fails, then out of sight": {nil, func(w *proofWorld, req *http.Request) (*http.Response, error) {
			first := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route today") }}
			if resp, err := first.RoundTrip(req.Clone(req.Context())); err == nil {
				return resp, nil
			}
			return w.base.RoundTrip(hide(req))
		}},
		"elsewhere in sight, then a refused dial here": {nil, func(w *proofWorld, req *http.Request) (*http.Response, error) {
			elsewhere := req.Clone(req.Context())
			elsewhere.URL.Host = strings.Replace(req.URL.Host, "127.0.0.1", "localhost", 1)
			if resp, err := w.base.RoundTrip(elsewhere); err == nil {
				return resp, err
			}
			return refusedDial(req.Clone(req.Context()))
		}},
		"502 in sight, then 429 out of sight": {[]hostile.Step{{Perform: true, Status: 502}, {Status: 429}, {Perform: true}}, func(w *proofWorld, req *http.Request) (*http.Response, error) {
			resp, err := w.base.RoundTrip(req)
			if err != nil || resp.StatusCode < 500 {
				return resp, err
			}
			_ = resp.Body.Close()
			return w.base.RoundTrip(hide(req))
		}},
		"502 in sight, then 401 out of sight": {[]hostile.Step{{Perform: true, Status: 502}, {Status: 401}, {Perform: true}}, func(w *proofWorld, req *http.Request) (*http.Response, error) {
			resp, err := w.base.RoundTrip(req)
			if err != nil || resp.StatusCode < 500 {
				return resp, err
			}
			_ = resp.Body.Close()
			return w.base.RoundTrip(hide(req))
		}},
		"another scheme, after it was performed": {nil, func(w *proofWorld, req *http.Request) (*http.Response, error) {
			if resp, err := w.base.RoundTrip(req.Clone(req.Context())); err == nil {
				return resp, nil
			}
			unknown := req.Clone(req.Context())
			unknown.URL.Scheme = "amp"
			return w.base.RoundTrip(unknown)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.steps == nil {
				test.steps = []hostile.Step{{Perform: true, Do: hostile.Close}}
			}
			w := newProofWorld(t, hostile.HTTP1, test.steps...)
			layer := roundTripFunc(func(req *http.Request) (*http.Response, error) { return test.layer(w, req) })
			rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: layer, Source: tokenThatIsRenewed(), Origin: w.URL()}, Retry: stubQuick}
			resp, err := rt.RoundTrip(w.request(t, ""))
			if err == nil {
				_ = resp.Body.Close()
			} else if stubError(t, err).Outcome == ampauth.NotSent {
				t.Errorf("it was performed, and the error says %v", err)
			}
			if n := w.Effects("op"); n != 1 {
				t.Errorf("performed %d times, then %v", n, err)
			}
		})
	}
}

func ask(ctx context.Context, other string) {
	req, err := http.NewRequestWithContext(ctx, "GET", other, nil)
	if err != nil {
		panic(err)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}
