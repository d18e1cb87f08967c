package ampauth_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

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
