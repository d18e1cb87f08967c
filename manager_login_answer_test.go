package ampauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestUnusableAnswerIsOneClearError(t *testing.T) {
	const canary = "canary-0123456789"
	for name, body := range map[string]string{
		"HTML":              "<html><body>" + canary + "</body></html>",
		"truncated JSON":    `{"token":"` + canary,
		"JSON and more":     `{"token":"` + canary + `"} {}`,
		"no JSON":           canary,
		"array":             `["` + canary + `"]`,
		"text":              `"` + canary + `"`,
		"no token":          `{"key":"` + canary + `"}`,
		"null":              `{"token":null,"key":"` + canary + `"}`,
		"null after text":   `{"token":"` + canary + `","token":null}`,
		"number":            `{"token":12345678901234567890}`,
		"object":            `{"token":{"value":"` + canary + `"}}`,
		"empty":             `{"token":""}`,
		"empty body":        ``,
		"space":             `{"token":"` + canary + ` x"}`,
		"space at the end":  `{"token":"` + canary + ` "}`,
		"carriage return":   `{"token":"` + canary + `\rX-Injected: 1"}`,
		"line feed":         `{"token":"` + canary + `\nX-Injected: 1"}`,
		"raw line feed":     "{\"token\":\"" + canary + "\n\"}",
		"NUL":               `{"token":"` + canary + `\u0000"}`,
		"beyond ASCII":      `{"token":"` + canary + `é"}`,
		"no UTF-8":          "{\"token\":\"" + canary + "\xff\"}",
		"8 KiB":             `{"token":"` + canary + strings.Repeat("a", 8<<10) + `"}`,
		"one too long":      `{"token":"` + strings.Repeat("a", 4097) + `"}`,
		"above 64 KiB":      `{"token":"` + canary + `","padding":"` + strings.Repeat("a", 64<<10) + `"}`,
		"64 KiB of spaces":  `{"token":"` + canary + `"}` + strings.Repeat(" ", 64<<10),
		"byte order mark":   "\ufeff" + `{"token":"` + canary + `"}`,
		"unfinished escape": `{"token":"` + canary + `\u00"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, 200, body)
				var log ampLog
				m := w.manager(log.into)
				_, err := m.Token(t.Context())
				e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrSerialization)
				if e.Op != "obtain" || e.StatusCode != 200 || e.Attempts != 1 || e.Outcome != ampauth.Answered {
					t.Errorf("error is %+v", e)
				}
				synctest.Wait()
				if said := fmt.Sprintf("%v %+v %#v", err, err, err) + log.String(); strings.Contains(said, "canary") || strings.Contains(said, "aaaa") {
					t.Errorf("the answer is echoed: %v", err)
				}
				if _, ok := m.Info(); ok {
					t.Error("there is a token")
				}
				w.wantSent(1, 0) // final: the same server would answer the same
			})
		})
	}
}

func TestUsualAndUnusualTokensAreTaken(t *testing.T) {
	long := strings.Repeat("a", 4096)
	for name, test := range map[string]struct {
		status     int
		body, want string
	}{
		"as AMP":             {200, `{"token":"0123456789abcdef0123456789abcdef01234567"}`, "0123456789abcdef0123456789abcdef01234567"},
		"created":            {201, `{"token":"abc"}`, "abc"},
		"escapes":            {200, `{"token":"a\u0062\/c\"d"}`, `ab/c"d`},
		"longest":            {200, `{"token":"` + long + `"}`, long},
		"one character":      {200, `{"token":"a"}`, "a"},
		"white space":        {200, " {\r\n\t\"token\" : \"abc\" } \n", "abc"},
		"more fields":        {200, `{"user":{"token":1},"token":"abc","expires":null}`, "abc"},
		"exactly 64 KiB":     {200, `{"token":"abc"}` + strings.Repeat(" ", 64<<10-len(`{"token":"abc"}`)), "abc"},
		"punctuation":        {200, `{"token":"a.b-c_d~e+f/g=="}`, "a.b-c_d~e+f/g=="},
		"the last duplicate": {200, `{"token":"abc","token":"def"}`, "def"},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, test.status, test.body)
				if got := ampReveal(w.token(w.manager()).Value); got != test.want {
					t.Errorf("token %.60q, want %.60q", got, test.want)
				}
			})
		})
	}
}

// An ampCounted body adds up what is read of it.
type ampCounted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *ampCounted) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func TestEndlessAnswerIsReadInBounds(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"of a success": {Route: ampObtain, Do: fakeamp.EndlessBody, Times: -1},
		"of a failure": {Route: ampObtain, Do: fakeamp.EndlessBody, Times: -1, Status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var read atomic.Int64
				w.Inject(fault)
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(req)
					if err == nil {
						resp.Body = &ampCounted{resp.Body, &read}
					}
					return resp, err
				}))
				_, err := m.Token(t.Context())
				stubError(t, err, ampauth.ErrObtainFailed)
				if n := read.Load(); n > 64<<10+1 {
					t.Errorf("%d bytes were read", n)
				}
				w.wantSent(1, 0)
			})
		})
	}
}

// An ampClosed body counts in n when it is first closed.
type ampClosed struct {
	io.ReadCloser
	n    *atomic.Int32
	once sync.Once
}

func (b *ampClosed) Close() error {
	b.once.Do(func() { b.n.Add(1) })
	return b.ReadCloser.Close()
}

func TestEveryAnswerToALoginIsClosed(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"token": {}, "no token": {Body: "{}"}, "refused": {Status: 400}, "not found": {Status: 404}, "outage": {Status: 500},
		"redirect": {Status: 302}, "cut": {Do: fakeamp.CutBody}, "too large": {Body: strings.Repeat("a", 65<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Route, fault.Times = ampObtain, -1
				w.Inject(fault)
				var opened, closed atomic.Int32
				m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(req)
					if err == nil {
						opened.Add(1)
						resp.Body = &ampClosed{ReadCloser: resp.Body, n: &closed}
					}
					return resp, err
				}))
				_, _ = m.Token(t.Context())
				if o, c := opened.Load(), closed.Load(); o == 0 || c != o {
					t.Errorf("%d of %d bodies were closed", c, o)
				}
			})
		})
	}
}

// What is left unread costs the connection, and a handshake for each attempt.
func TestFailedLoginKeepsItsConnection(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500}, fakeamp.Fault{Route: ampObtain, Status: 502, HTML: true})
		w.token(w.manager())
		if n := w.listener.Dials(); n != 1 {
			t.Errorf("3 attempts took %d connections, want 1", n)
		}
	})
}

func TestCutAnswerIsAnUnexpectedEnd(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.CutBody, Times: -1})
		_, err := w.manager().Token(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed, io.ErrUnexpectedEOF)
		if errors.Is(err, ampauth.ErrSerialization) {
			t.Errorf("a broken connection is taken for a broken answer: %v", err)
		}
	})
}

func TestWordsOfAServerThatCouldBeASecretAreNotShown(t *testing.T) {
	for name, header := range map[string][2]string{
		"media type":               {"Content-Type", "text/" + canaryToken},
		"media type without slash": {"Content-Type", canaryToken},
		"short media type":         {"Content-Type", "canary/short"},
		"scheme of a Location":     {"Location", "c" + canaryToken + "://sso.example"},
		"user of a Location":       {"Location", "https://" + canaryToken + "@sso.example/"},
		"path of a Location":       {"Location", "https://sso.example/" + canaryToken},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				status := 200
				if header[0] == "Location" {
					status = 302
				}
				w.answerText(ampObtain, status, "x", header[0], header[1])
				_, err := w.manager().Token(t.Context())
				e := stubError(t, err, ampauth.ErrObtainFailed)
				if e.StatusCode != status || strings.Contains(strings.ToLower(err.Error()), "canary") || len(leaks(err.Error())) > 0 {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
