package ampauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An eventLog keeps what OnEvent was told.
type eventLog struct {
	mu     sync.Mutex // guards events
	events []ampauth.Event
}

func (l *eventLog) add(_ context.Context, e ampauth.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *eventLog) into(cfg *ampauth.Config) { cfg.OnEvent = l.add }

// named are the events of a name so far.
func (l *eventLog) named(name ampauth.EventName) []ampauth.Event {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e ampauth.Event) bool { return e.Name != name })
}

// wantLast fails unless so many events of the name were told, and the last is want but for
// its Err, which Is kind, or is nil.
func (l *eventLog) wantLast(t *testing.T, count int, want ampauth.Event, kind error) {
	t.Helper()
	events := l.named(want.Name)
	if len(events) != count {
		t.Fatalf("%d events %q, want %d: %+v", len(events), want.Name, count, events)
	}
	got := events[count-1]
	err := got.Err
	if got.Err = nil; got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	_, ours := errors.AsType[*ampauth.Error](err)
	if (err != nil) != (kind != nil) || kind != nil && (!ours || !errors.Is(err, kind)) {
		t.Errorf("event %q has the error %v, want one of ours that is %v", want.Name, err, kind)
	}
	if err != nil {
		if found := leaks(everythingErrorsSay(err)); len(found) > 0 {
			t.Errorf("the error of %q shows %v", want.Name, found)
		}
	}
}

func TestLoginsAndRefreshesAreTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		m := w.manager(log.into, func(c *ampauth.Config) { c.Retry.BaseDelay = 1 })
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 2 * time.Second, Status: 500}, fakeamp.Fault{Route: ampObtain, Delay: time.Second})
		began := time.Now()
		w.token(m)
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventObtain, Attempt: 2, Elapsed: time.Since(began)}, nil)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: 3 * time.Second})
		_, _ = m.Refresh(t.Context())
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventRefresh, Attempt: 1, Elapsed: 3 * time.Second}, nil)

		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500, Delay: time.Second}, fakeamp.Fault{Route: ampObtain, Delay: 5 * time.Second})
		_, _ = m.Refresh(t.Context())
		log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventRefresh, Attempt: 1, Elapsed: time.Second}, ampauth.ErrRefreshFailed)
		log.wantLast(t, 2, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 5 * time.Second}, nil)

		token := w.token(m)
		w.Revoke("issuer")
		if _, err := m.Renew(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		log.wantLast(t, 3, ampauth.Event{Name: ampauth.EventObtain, Reason: "refused", Attempt: 1}, nil)

		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400, Delay: 4 * time.Second})
		for range 5 { // in the pause nothing is tried
			_, _ = m.Obtain(t.Context())
		}
		log.wantLast(t, 4, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 4 * time.Second}, ampauth.ErrCredentialsRefused)

		time.Sleep(time.Minute)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Times: 3})
		_ = m.Clear(t.Context())
		_, _ = m.Obtain(t.Context())
		if last := log.named(ampauth.EventObtain); len(last) != 5 || last[4].Attempt != 3 || !errors.Is(last[4].Err, ampauth.ErrObtainFailed) {
			t.Errorf("told %+v, want a login that failed after 3 attempts", last)
		}
		if n := len(log.named(ampauth.EventRetry)); n != 0 {
			t.Errorf("the attempts of logins are told as %d retries", n)
		}
	})
}

func TestLoginWithoutTimeLeftIsToldOnce(t *testing.T) {
	for name, late := range map[string]func(base http.RoundTripper, req *http.Request) (*http.Response, error){
		"and fails in the end": func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, io.EOF },
		"and succeeds in the end": func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
			return base.RoundTrip(req.Clone(context.WithoutCancel(req.Context())))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				m := w.manager(log.into, func(c *ampauth.Config) { c.Retry = ampauth.RetryConfig{MaxAttempts: 1, Timeout: -1} }, w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
					time.Sleep(time.Hour) // whatever its context says
					return late(base, req)
				}))
				if _, err := m.Token(t.Context()); !errors.Is(err, ampauth.ErrTimeout) {
					t.Errorf("got %v", err)
				}
				log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventObtain, Attempt: 1, Elapsed: 2 * time.Minute}, ampauth.ErrTimeout)
				time.Sleep(2 * time.Hour)
				if s := m.Stats(); len(log.named(ampauth.EventObtain)) != 1 || s.ObtainFailures != 1 || s.Obtains != 0 {
					t.Errorf("%+v, counted %+v", log.events, s)
				}
			})
		})
	}
}

func TestTokenOfTheStoreIsTold(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		store := newMemoryStore()
		w.token(w.manager(storedIn(store)))
		m := w.manager(storedIn(store), log.into)
		w.token(m)
		log.wantLast(t, 1, ampauth.Event{Name: ampauth.EventAdopt}, nil)
		if len(log.events) != 1 || m.Stats() != (ampauth.Stats{Adoptions: 1}) {
			t.Errorf("told %+v, counted %+v", log.events, m.Stats())
		}
	})
}

func TestFaultsOfTheStoreAreToldEachTime(t *testing.T) {
	down := func(context.Context) error { return errors.New(`down: "` + canaryToken + `"`) }
	for reason, set := range map[string]func(*faultyStore){
		"load":   func(s *faultyStore) { s.load = down },
		"save":   func(s *faultyStore) { s.save = down },
		"delete": func(s *faultyStore) { s.deleteIf = down },
		"lock":   func(s *faultyStore) { s.lock = down },
	} {
		t.Run(reason, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				var records ampLog
				store := &faultyStore{memoryStore: newMemoryStore()}
				client := w.client(storedIn(store), log.into, records.into)
				w.assets(client)
				set(store)
				for n := range 3 {
					w.Revoke("issuer")
					if status := w.assets(client); status != 200 {
						t.Errorf("status %d", status)
					}
					log.wantLast(t, n+1, ampauth.Event{Name: ampauth.EventStore, Reason: reason}, ampauth.ErrStore)
					time.Sleep(time.Minute)
				}
				if s := client.Stats(); s.StoreFaults != 3 {
					t.Errorf("counted %d", s.StoreFaults)
				}
				if n := strings.Count(records.String(), "token store does not work"); n != 1 {
					t.Errorf("%d records, want 1", n)
				}
			})
		})
	}
}

// What is told and what is counted, over a run with every kind of trouble.
func TestEventsAndCountersAgree(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		var log eventLog
		store := &faultyStore{memoryStore: newMemoryStore()}
		w.token(w.manager(storedIn(store)))
		client := w.client(storedIn(store), log.into, func(c *ampauth.Config) { c.Retry = ampauth.RetryConfig{BaseDelay: time.Millisecond} })
		do := func(method, path string, faults ...fakeamp.Fault) {
			w.Inject(faults...)
			req, _ := http.NewRequestWithContext(t.Context(), method, w.url+"/api"+path, nil)
			if method == "POST" {
				req, _ = http.NewRequestWithContext(t.Context(), method, w.url+"/api"+path, strings.NewReader(`{"name":"Bond","amount":100}`))
				req.Header.Set("Content-Type", "application/json")
			}
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
			w.ClearFaults()
			time.Sleep(time.Minute)
		}
		read, issue := "GET /assets", "POST /assets/issue"
		do("GET", "/assets")
		for _, f := range []fakeamp.Fault{
			{Status: 429, Header: http.Header{"Retry-After": {"1"}}}, {Status: 503}, {Status: 425}, {Do: fakeamp.StallHeaders}, {Do: fakeamp.Close},
			{Status: 503, Times: -1}, {Status: 401}, {Status: 503, Header: http.Header{"Retry-After": {"3600"}}},
		} {
			f.Route = read
			do("GET", "/assets", f)
			f.Route = issue
			do("POST", "/assets/issue", f)
		}
		do("POST", "/assets/issue", fakeamp.Fault{Route: issue, When: fakeamp.After, Do: fakeamp.Close})
		_, _ = client.Tokens.Refresh(t.Context())
		w.Inject(fakeamp.Fault{Route: ampRefresh, Status: 500})
		_, _ = client.Tokens.Refresh(t.Context())
		down := func(context.Context) error { return errors.New("down") }
		store.load, store.save, store.deleteIf, store.lock = down, down, down, down
		w.Revoke("issuer")
		do("GET", "/assets")
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		_, _ = client.Tokens.Obtain(t.Context())
		synctest.Wait()

		told := make(map[string]uint64)
		for _, e := range log.events {
			key := string(e.Name)
			switch {
			case e.Name == ampauth.EventRetry:
				key += " " + e.Reason
			case e.Name == ampauth.EventObtain && e.Err == nil && e.Reason != "":
				told["obtain refused"]++
			case (e.Name == ampauth.EventObtain || e.Name == ampauth.EventRefresh) && e.Err != nil:
				key += " failed"
			}
			told[key]++
		}
		s := client.Stats()
		for key, counted := range map[string]uint64{
			"obtain": s.Obtains, "obtain failed": s.ObtainFailures, "obtain refused": s.Renewals,
			"refresh": s.Refreshes, "refresh failed": s.RefreshFailures, "adopt": s.Adoptions,
			"retry unprocessed": s.Retries.Unprocessed, "retry rate limited": s.Retries.RateLimited,
			"retry server error": s.Retries.ServerError, "retry timeout": s.Retries.Timeout, "retry broken connection": s.Retries.Broken,
			"replay": s.Replays, "ambiguous": s.Ambiguous, "exhausted": s.Exhausted, "store": s.StoreFaults,
		} {
			if told[key] != counted || counted == 0 {
				t.Errorf("%s: told %d times, counted %d", key, told[key], counted)
			}
			delete(told, key)
		}
		if len(told) > 0 {
			t.Errorf("told, and not counted: %v", told)
		}
	})
}

// The Kind of a login's error says no more than that it failed.
func TestWhyALoginFailedIsToldInOneWord(t *testing.T) {
	for word, set := range map[string]func(w *ampWorld, cfg *ampauth.Config){
		"credentials_refused": func(w *ampWorld, _ *ampauth.Config) {
			w.Inject(fakeamp.Fault{Route: ampObtain, Status: 400})
		},
		"request_failed": func(w *ampWorld, _ *ampauth.Config) {
			w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503})
		},
		"rate_limited": func(w *ampWorld, _ *ampauth.Config) {
			w.Inject(fakeamp.Fault{Route: ampObtain, Status: 429})
		},
		"timeout": func(w *ampWorld, cfg *ampauth.Config) {
			cfg.Retry.Timeout = time.Second
			w.Inject(fakeamp.Fault{Route: ampObtain, Delay: time.Hour})
		},
		"serialization": func(w *ampWorld, cfg *ampauth.Config) {
			w.over(func(http.RoundTripper, *http.Request) (*http.Response, error) {
				return stubResponse(200, "no token"), nil
			})(cfg)
		},
	} {
		t.Run(word, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				m := w.manager(log.into, func(cfg *ampauth.Config) {
					cfg.Retry.MaxAttempts = 1
					set(w, cfg)
				})
				if _, err := m.Token(t.Context()); err == nil {
					t.Fatal("logged in")
				}
				if told := log.named(ampauth.EventObtain); len(told) != 1 || told[0].ErrorType() != word {
					t.Errorf("told %+v, want %q", told, word)
				}
			})
		})
	}
}

func TestWhyIsThatOfTheLastAttemptOfTheLastCall(t *testing.T) {
	for status, word := range map[int]string{400: "credentials_refused", 503: "request_failed"} {
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
			var log eventLog
			m := w.manager(log.into, func(cfg *ampauth.Config) {
				cfg.Retry = ampauth.RetryConfig{MaxAttempts: 2, BaseDelay: 1, Timeout: time.Second}
			})
			w.token(m)
			w.Inject(fakeamp.Fault{Route: ampRefresh, Delay: time.Hour}, fakeamp.Fault{Route: ampObtain, Delay: time.Hour}, fakeamp.Fault{Route: ampObtain, Status: status})
			_, _ = m.Refresh(t.Context())
			obtains, refreshes := log.named(ampauth.EventObtain), log.named(ampauth.EventRefresh)
			if len(obtains) != 2 || obtains[0].ErrorType() != "" || obtains[1].ErrorType() != word {
				t.Errorf("told %+v, want %q last", obtains, word)
			}
			if len(refreshes) != 1 || refreshes[0].ErrorType() != "timeout" {
				t.Errorf("told %+v, want one refresh that took too long", refreshes)
			}
		})
	}
}

func TestWordOfAnEventIsThatOfItsError(t *testing.T) {
	for _, test := range []struct {
		event ampauth.Event
		want  string
	}{
		{ampauth.Event{Name: ampauth.EventObtain}, ""},
		{ampauth.Event{Name: ampauth.EventObtain, Err: &ampauth.Error{Kind: ampauth.ErrObtainFailed, Err: io.EOF}}, "obtain_failed"},
		{ampauth.Event{Name: ampauth.EventRefresh, Err: &ampauth.Error{Kind: ampauth.ErrRefreshFailed}}, "refresh_failed"},
		{ampauth.Event{Name: ampauth.EventAmbiguous, Err: &ampauth.Error{Kind: ampauth.ErrAmbiguous, Err: &ampauth.Error{Kind: ampauth.ErrTimeout}}}, "ambiguous"},
		{ampauth.Event{Name: ampauth.EventStore, Err: &ampauth.Error{Kind: ampauth.ErrStore}}, "store"},
		{ampauth.Event{Name: ampauth.EventStore, Err: io.EOF}, "_OTHER"},
	} {
		if got := test.event.ErrorType(); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.event, got, test.want)
		}
	}
}
