package ampauth_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// The ways to a server that performs and then hangs up: whatever is in between, the
// mutation is performed once, and nobody is told that it was not sent.

// startProxy starts a proxy of HTTP: CONNECT, and requests with a whole URL.
func startProxy(t *testing.T) func(*http.Request) (*url.URL, error) {
	address := startRelay(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		defer up.Close()
		if req.Method == http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			relay(c, up, br)
			return
		}
		_ = req.Write(up)
		_, _ = io.Copy(c, up)
	})
	return http.ProxyURL(&url.URL{Scheme: "http", Host: address})
}

// startSOCKS starts a proxy of SOCKS 5 (RFC 1928) that leads to one address.
func startSOCKS(t *testing.T, to string) func(*http.Request) (*url.URL, error) {
	address := startRelay(t, func(c net.Conn) {
		b := make([]byte, 512)
		_, _ = io.ReadFull(c, b[:2])
		_, _ = io.ReadFull(c, b[:int(b[1])])
		_, _ = c.Write([]byte{5, 0})
		_, _ = io.ReadFull(c, b[:4])
		if rest := 6; b[3] == 1 {
			_, _ = io.ReadFull(c, b[:rest])
		} else {
			_, _ = io.ReadFull(c, b[:1])
			_, _ = io.ReadFull(c, b[:int(b[0])+2])
		}
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		relay(c, up, c)
	})
	return http.ProxyURL(&url.URL{Scheme: "socks5", Host: address})
}

func relay(c, up net.Conn, from io.Reader) {
	go func() {
		_, _ = io.Copy(up, from)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
}

func startRelay(t *testing.T, serve func(net.Conn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// A namelessConn has no address.
type namelessConn struct{ net.Conn }

func (namelessConn) RemoteAddr() net.Addr { return nil }

func TestMutationThatWasCutOffIsInDoubtOverAnyWay(t *testing.T) {
	dialTo := func(address string) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	for name, change := range map[string]func(*testing.T, *proofWorld, *http.Request){
		"directly": func(*testing.T, *proofWorld, *http.Request) {},
		"a proxy":  func(t *testing.T, w *proofWorld, _ *http.Request) { w.base.Proxy = startProxy(t) },
		"SOCKS":    func(t *testing.T, w *proofWorld, _ *http.Request) { w.base.Proxy = startSOCKS(t, w.Addr()) },
		"no address": func(_ *testing.T, w *proofWorld, _ *http.Request) {
			w.base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return namelessConn{conn}, err
			}
		},
		"a name beyond ASCII": func(_ *testing.T, w *proofWorld, req *http.Request) {
			_, port, _ := net.SplitHostPort(w.Addr())
			w.base.DialContext, req.URL.Host = dialTo(w.Addr()), "bücher.test:"+port
		},
		"a proxy, another server name": func(t *testing.T, w *proofWorld, _ *http.Request) {
			w.base.Proxy, w.base.TLSClientConfig = startProxy(t), &tls.Config{ServerName: "api.internal", InsecureSkipVerify: true}
		},
	} {
		for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2} {
			for _, layered := range []bool{false, true} {
				for _, body := range []string{"{}", ""} {
					t.Run(fmt.Sprint(name, " ", protocol, " layered ", layered, " body ", body), func(t *testing.T) {
						w := newProofWorld(t, protocol, hostile.Step{Perform: true, Do: hostile.Close})
						if w.base.TLSClientConfig != nil {
							w.base.TLSClientConfig.InsecureSkipVerify = true
						}
						req := w.request(t, body)
						change(t, w, req)
						var base http.RoundTripper = w.base
						if layered {
							base = stubLayer(w.base.RoundTrip)
						}
						_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(req)
						if !errors.Is(err, ampauth.ErrAmbiguous) || w.Effects("op") != 1 {
							t.Errorf("performed %d times, then %v", w.Effects("op"), err)
						}
					})
				}
			}
		}
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
			layer := stubLayer(func(req *http.Request) (*http.Response, error) { return test.layer(w, req) })
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
	hides := stubLayer(func(req *http.Request) (*http.Response, error) { return w.base.RoundTrip(untraced(req)) })
	auth := &ampauth.AuthTransport{Base: hides, Source: source, Origin: w.URL()}
	layer := stubLayer(func(req *http.Request) (*http.Response, error) {
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

// A mutation is not performed once more for a redirect whose request cannot be seen.
func TestRedirectOfWhatHasNoHostOrNoRequestIsNotFollowed(t *testing.T) {
	var performed atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		performed.Add(1)
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(307)
	}))
	defer server.Close()
	local := new(http.Transport)
	local.RegisterProtocol("local", stubLayer(func(req *http.Request) (*http.Response, error) {
		there := req.Clone(req.Context())
		there.URL.Scheme, there.URL.Host = "http", strings.TrimPrefix(server.URL, "http://")
		resp, err := server.Client().Transport.RoundTrip(there)
		if err == nil {
			resp.Request = req
		}
		return resp, err
	}))
	for name, client := range map[string]*http.Client{
		"no host, with CheckRedirect": {Transport: &ampauth.RetryTransport{Base: local}, CheckRedirect: ampauth.CheckRedirect},
		"no host, without":            {Transport: &ampauth.RetryTransport{Base: local}},
		"a layer that makes the response anew": {Transport: stubLayer(func(req *http.Request) (*http.Response, error) {
			resp, err := (&ampauth.RetryTransport{Base: server.Client().Transport}).RoundTrip(req)
			if err == nil {
				resp = &http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: resp.Body}
			}
			return resp, err
		})},
		"one that makes the body anew as well": {Transport: stubLayer(func(req *http.Request) (*http.Response, error) {
			resp, err := (&ampauth.RetryTransport{Base: server.Client().Transport}).RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
				resp = &http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: http.NoBody}
			}
			return resp, err
		})},
	} {
		performed.Store(0)
		to := server.URL
		if strings.HasPrefix(name, "no host") {
			to = "local://"
		}
		resp, err := client.Post(to+"/api/payments", "text/plain", strings.NewReader("x"))
		if err == nil {
			_ = resp.Body.Close()
		}
		if performed.Load() != 1 {
			t.Errorf("%s: performed %d times, then %v", name, performed.Load(), err)
		}
	}
}

// Who takes the request of a response as the model of another makes a call of its own.
func TestRequestMadeOfOneThatARedirectLedToIsItsOwn(t *testing.T) {
	for name, newClient := range redirectClients {
		server := newRedirector(t)
		client := newClient(t, server, nil)
		resp, err := client.Get(server.URL + "/302/assets")
		if err != nil {
			t.Fatal(err)
		}
		stubText(t, resp)
		req := resp.Request.Clone(t.Context())
		req.Method, req.URL.Path = "POST", "/assets/issue"
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		if resp, err = client.Do(req); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", name, resp, err)
		}
		_ = resp.Body.Close()
	}
}

// The caller's own user information goes along with a relative Location.
func TestUserInformationOfTheCallersIsKeptOverARedirect(t *testing.T) {
	var seen spy
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.note(r)
		if r.URL.Path == "/assets" {
			http.Redirect(w, r, "/info", http.StatusFound)
		}
	}))
	defer home.Close()
	client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Source: static("tok"), Origin: home.URL}}}
	if status, _ := get(t, client, strings.Replace(home.URL, "http://", "http://me:mine@", 1)+"/assets"); status != 200 {
		t.Fatal(status)
	}
	if got := seen.saw(); len(got) != 2 || got[0] != got[1] || !strings.HasPrefix(got[0], "Basic ") {
		t.Errorf("the server saw %q", got)
	}
}

func TestRetryHeedsEveryErrorThatIsJoined(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.CutBody}))
	defer s.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	calls := 0
	_, _ = ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (int, error) {
		calls++
		_, notSent := rt.RoundTrip(stubRequestTo(ctx, "http://"+hostile.ClosedAddr, ampauth.SafeOperation, nil))
		resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), ampauth.MutatingOperation, []byte("x")))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		return 0, errors.Join(notSent, err)
	})
	if calls != 1 {
		t.Errorf("a mutation whose answer broke off was sent %d times", calls)
	}
}

// What a read of the caller's own making ends in is not repeated as a broken answer.
func TestRetryDoesNotRepeatAReadThatItsCallerEnded(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Do: hostile.StallBody}))
	defer s.Close()
	rt := &ampauth.RetryTransport{Base: stubPooled(t), Retry: stubQuick}
	for name, end := range map[string]func(cancel func(), resp *http.Response){
		"cancelled": func(cancel func(), _ *http.Response) { cancel() },
		"closed":    func(_ func(), resp *http.Response) { _ = resp.Body.Close() },
	} {
		calls := 0
		_, err := ampauth.Retry(t.Context(), stubQuick, func(ctx context.Context) (int, error) {
			calls++
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			resp, err := rt.RoundTrip(stubRequestTo(ctx, s.URL(), ampauth.SafeOperation, nil))
			if err != nil {
				return 0, err
			}
			defer resp.Body.Close()
			end(cancel, resp)
			_, err = io.ReadAll(resp.Body)
			return 0, err
		})
		if err == nil || calls != 1 {
			t.Errorf("%s: %d calls, %v", name, calls, err)
		}
	}
}

// An oddError can be compared by its type, and panics when it is.
type oddError struct{ v any }

func (oddError) Error() string { return "an odd one" }

// A nilError is one whose Error method panics.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestOddErrorsOfOthersDoNotPanic(t *testing.T) {
	for name, odd := range map[string]error{"not comparable": oddError{[]int{1}}, "a nil pointer": (*nilError)(nil)} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
			t.Run(fmt.Sprint(name, ", ", op), func(t *testing.T) {
				for _, base := range []http.RoundTripper{
					stubScript(stubFail(odd)), stubScript(stubUnconnected(odd)), stubScript(stubBreak(odd)), stubScript(stubStall()),
				} {
					ctx, cancel := context.WithCancelCause(t.Context())
					time.AfterFunc(20*time.Millisecond, func() { cancel(odd) })
					_, err := (&ampauth.RetryTransport{Base: base, Retry: stubQuick}).RoundTrip(stubRequest(ctx, op, []byte("x")))
					if stubError(t, err).Error() == "" {
						t.Error("no text")
					}
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(odd)
				_, err := (&ampauth.RetryTransport{Base: stubScript(stubAnswer(200))}).RoundTrip(stubRequest(ctx, op, nil))
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}
