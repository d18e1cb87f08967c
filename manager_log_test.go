package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestLoginsAndRefreshesAreLoggedWithOutcomeAndTime(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log ampLog
		m := w.manager(log.into)
		check := func(message, level, outcome string, elapsed time.Duration) {
			t.Helper()
			synctest.Wait()
			found := log.records(t, message)
			if len(found) != 1 {
				t.Fatalf("%d records %q, want 1:\n%s", len(found), message, log.String())
			}
			r := found[0]
			if r["level"] != level || r["outcome"] != outcome || r["elapsed"] != float64(elapsed) {
				t.Errorf("record is %v", r)
			}
		}
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second})
		w.token(m)
		check("ampauth: logged in", "INFO", "ok", 2*time.Second)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 3 * time.Second})
		_, _ = m.Refresh(t.Context())
		check("ampauth: token refreshed", "INFO", "ok", 3*time.Second)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500, Delay: time.Second})
		_, _ = m.Refresh(t.Context())
		check("ampauth: refresh failed, logging in instead", "WARN", "Answered", time.Second)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 404, Delay: 4 * time.Second})
		_, _ = m.Obtain(t.Context())
		check("ampauth: login failed", "WARN", "Answered", 4*time.Second)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Delay: 5 * time.Second})
		for range 10 { // the pause is not logged
			_, _ = m.Obtain(t.Context())
		}
		check("ampauth: the credentials were refused", "WARN", "Answered", 5*time.Second)
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, `"ERROR"`) {
				t.Errorf("unexpected record %s", line)
			}
			if strings.Contains(line, `"WARN"`) {
				for _, name := range []string{"http.request.method", "server.address", "server.port", "url.path", "http.response.status_code", "error.type", "attempts"} {
					if !strings.Contains(line, fmt.Sprintf("%q:", name)) {
						t.Errorf("no %s in %s", name, line)
					}
				}
			}
		}
	})
}

func TestLogsAndErrorsOfTheTokenManagerShowNoSecret(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log ampLog
		var said strings.Builder
		m := w.manager(log.into)
		tokens := []string{ampReveal(w.token(m).Value)}
		call := func(do func(context.Context) (ampauth.Token, error), faults ...fakeamp.Fault) {
			w.Inject(faults...)
			token, err := do(t.Context())
			fmt.Fprintf(&said, "%v %+v %#v %v %+v %#v\n", err, err, err, token, token, token)
			for e := err; e != nil; e = errors.Unwrap(e) {
				fmt.Fprintf(&said, "%v %+v %#v\n", e, e, e)
			}
			if err == nil {
				tokens = append(tokens, ampReveal(token.Value))
			}
			w.ClearFaults()
			fmt.Fprintf(&said, "%v %+v %#v\n", w.config(), w.config(), w.config())
		}
		echo := func() string {
			return fmt.Sprintf("user issuer password %s token %s", ampPassword, tokens[len(tokens)-1])
		}
		renew := func(ctx context.Context) (ampauth.Token, error) { return m.Renew(ctx, w.token(m)) }
		call(m.Refresh)
		call(m.Refresh, fakeamp.Fault{Route: ampRefresh, Status: 401, Body: echo()})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 500, Body: echo(), Times: -1})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Body: echo()})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Body: `{"token":"` + echo() + `"}`})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Do: fakeamp.CutBody, Times: -1})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 302, Header: http.Header{"Location": {"/?" + echo()}}})
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 429, Header: http.Header{"Retry-After": {echo()}}, Times: -1})
		call(renew)
		call(renew)
		call(m.Obtain, fakeamp.Fault{Route: ampObtain, Status: 400, Body: `"` + echo() + `"`})
		call(m.Obtain)
		call(m.ForceRefresh)
		w.answer(ampObtain, func(rw http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", echo())
			_ = conn.Close()
		})
		call(m.Obtain)
		synctest.Wait()

		if !strings.Contains(log.String(), "ampauth: the credentials were refused") {
			t.Error("the log is not that of a rough day")
		}
		for _, secret := range append(tokens, ampPassword) {
			if strings.Contains(log.String(), secret) || strings.Contains(said.String(), secret) {
				t.Error("a log or an error shows a secret")
			}
		}
		if slices.Contains(tokens, "") {
			t.Error("a token is empty")
		}
	})
}

func TestWithoutALoggerNothingIsWritten(t *testing.T) {
	var written capture
	release := sync.OnceFunc(written.start())
	defer release()
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(func(c *ampauth.Config) { c.Logger = nil })
		w.token(m)
		for _, route := range []string{ampRefresh, ampObtain} {
			w.Inject(fakeamp.Fault{Route: route, Status: 400})
			_, _ = m.Refresh(t.Context())
		}
		_, err := m.Obtain(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
	})
	release()
	if text := written.String(); strings.Contains(text, "ampauth") {
		t.Errorf("without a logger the manager writes %q", text)
	}
}

// An ampHandler is somebody's log handler.
type ampHandler struct {
	slog.Handler
	enabled, handle func(message string)
}

func (h ampHandler) Enabled(context.Context, slog.Level) bool {
	if h.enabled != nil {
		h.enabled("")
	}
	return true
}

func (h ampHandler) Handle(_ context.Context, r slog.Record) error {
	if h.handle != nil {
		h.handle(r.Message)
	}
	return nil
}

func ampLoggedTo(h ampHandler) func(*ampauth.Config) {
	h.Handler = slog.DiscardHandler
	return func(c *ampauth.Config) { c.Logger = slog.New(h) }
}

func TestLogHandlerThatTakesAMinuteDelaysNobody(t *testing.T) {
	minute := func(string) { time.Sleep(time.Minute) }
	for name, handler := range map[string]ampHandler{"Handle": {handle: minute}, "Enabled": {enabled: minute}} {
		for _, stored := range []string{"", ", with a broken store"} {
			t.Run(name+stored, func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					store := &faultyStore{memoryStore: newMemoryStore(), load: func(context.Context) error { return errors.New("down") }}
					m := w.manager(ampLoggedTo(handler), func(c *ampauth.Config) {
						if stored != "" {
							c.Store = store
						}
					})
					calls := []struct {
						name   string
						call   func(context.Context) (ampauth.Token, error)
						faults []fakeamp.Fault
						fails  bool
					}{
						{"a login", m.Token, nil, false},
						{"a refresh", m.Refresh, nil, false},
						{"a refresh that fails", m.Refresh, []fakeamp.Fault{{Route: ampRefresh, Status: 500}}, false},
						{"a login that fails", m.Obtain, []fakeamp.Fault{{Route: ampObtain, Status: 404}}, true},
						{"refused credentials", m.Obtain, []fakeamp.Fault{{Route: ampObtain, Status: 400}}, true},
					}
					for _, c := range calls {
						w.Inject(c.faults...)
						var err error
						if took := ampElapsed(func() { _, err = c.call(t.Context()) }); took != 0 || (err != nil) != c.fails {
							t.Errorf("%s: took %v: %v", c.name, took, err)
						}
					}
					if took := ampElapsed(func() { _ = m.Close() }); took != 0 {
						t.Errorf("Close took %v", took)
					}
					time.Sleep(time.Hour) // all is logged in the end
				})
			})
		}
	}
}

func TestLogHandlerMayCallTheManager(t *testing.T) {
	for name, call := range map[string]func(*ampauth.TokenManager){
		"Close":          func(m *ampauth.TokenManager) { _ = m.Close() },
		"Clear":          func(m *ampauth.TokenManager) { _ = m.Clear(context.Background()) },
		"SetCredentials": func(m *ampauth.TokenManager) { _ = m.SetCredentials(ampUser("issuer")) },
		"Obtain":         func(m *ampauth.TokenManager) { _, _ = m.Obtain(context.Background()) },
		"Token":          func(m *ampauth.TokenManager) { _, _ = m.Token(context.Background()) },
		"ends":           func(*ampauth.TokenManager) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var m *ampauth.TokenManager
				var calls, returned atomic.Int32
				m = w.manager(ampLoggedTo(ampHandler{handle: func(message string) {
					if message == "ampauth: logged in" && calls.Add(1) == 1 {
						defer returned.Add(1)
						call(m)
					}
				}}))
				var err error
				took := ampElapsed(func() { _, err = m.Token(t.Context()) })
				if took != 0 || err != nil && !(name == "Close" && errors.Is(err, ampauth.ErrClosed)) {
					t.Errorf("Token took %v: %v", took, err)
				}
				synctest.Wait()
				if returned.Load() != 1 {
					t.Error("the handler hangs")
				}
				if took := ampElapsed(func() { _ = m.Close() }); took != 0 {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// A login that was ended says nothing of the server.
func TestLoginThatWasEndedIsNoFailure(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Do: fakeamp.StallHeaders})
		var log ampLog
		c := w.client(log.into)
		waiter := ampStart(func() (ampauth.Token, error) { return c.Tokens.Token(t.Context()) })
		_ = c.Tokens.Clear(t.Context())
		if r := <-waiter; r.err != nil {
			t.Error(r.err)
		}
		synctest.Wait()
		if s := c.Stats(); s.ObtainFailures != 0 || s.Obtains != 1 {
			t.Errorf("Stats = %+v", s)
		}
		if n := len(log.records(t, "ampauth: login failed")); n != 0 {
			t.Errorf("%d records of a failure:\n%s", n, log.String())
		}
	})
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("a handler that panics") }

func TestPanickingLogHandlerCostsNobodyTheToken(t *testing.T) {
	_, server := startFake(t, fakeamp.Config{})
	cfg := configFor(server)
	cfg.Logger = slog.New(panickingHandler{slog.DiscardHandler})
	client := newTestClient(t, cfg)
	for range 2 {
		if _, err := client.Tokens.Obtain(t.Context()); err != nil {
			t.Errorf("got %v", err)
		}
	}
}
