package ampauth_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"golang.org/x/time/rate"
)

func TestTransientFailuresOfTheLoginAreTriedAgain(t *testing.T) {
	for name, fault := range map[string]fakeamp.Fault{
		"500":             {Status: 500},
		"408":             {Status: 408},
		"520":             {Status: 520},
		"502 HTML":        {Status: 502, HTML: true},
		"503":             {Status: 503},
		"504 HTML":        {Status: 504, HTML: true},
		"429":             {Status: 429},
		"closed":          {Do: fakeamp.Close},
		"closed after":    {Do: fakeamp.Close, When: fakeamp.After},
		"reset":           {Do: fakeamp.Reset},
		"cut body":        {Do: fakeamp.CutBody},
		"400 HTML":        {Status: 400, HTML: true},
		"401 HTML":        {Status: 401, HTML: true},
		"403 HTML":        {Status: 403, HTML: true},
		"stalled headers": {Do: fakeamp.StallHeaders},
		"stalled body":    {Do: fakeamp.StallBody},
		"stalled failure": {Do: fakeamp.StallBody, Status: 500},
	} {
		fault.Route = ampObtain
		retry := ampauth.RetryConfig{MaxAttempts: 4, BaseDelay: 100 * time.Millisecond, MaxDelay: 300 * time.Millisecond, Timeout: 2 * time.Second}
		t.Run(name+" passes", func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Times = 2
				w.Inject(fault)
				w.token(w.manager(func(c *ampauth.Config) { c.Retry = retry }))
				w.wantSent(3, 0)
			})
		})
		t.Run(name+" lasts", func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				fault.Times = -1
				w.Inject(fault)
				m := w.manager(func(c *ampauth.Config) { c.Retry = retry })
				_, err := m.Token(t.Context())
				e := stubError(t, err, ampauth.ErrObtainFailed)
				if e.Attempts != 4 {
					t.Errorf("Attempts = %d, want 4: %v", e.Attempts, err)
				}
				if fault.Status != 0 && e.StatusCode != fault.Status {
					t.Errorf("StatusCode = %d, want %d", e.StatusCode, fault.Status)
				}
				w.wantSent(4, 0)
				// It is not held against the account: the next login is sent at once.
				w.ClearFaults()
				if took := ampElapsed(func() { w.token(m) }); took != 0 {
					t.Errorf("the next login took %v", took)
				}
			})
		})
	}
}

func TestNetworkThatRefusesConnectionsIsTriedAgain(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager()
		w.listener.Refuse(2)
		w.token(m)
		if got := w.listener.Dials(); got != 3 {
			t.Errorf("%d dials, want 3", got)
		}
		_ = m.Clear(t.Context())
		w.transport.CloseIdleConnections()
		w.listener.Refuse(3)
		_, err := m.Token(t.Context())
		if e := stubError(t, err, ampauth.ErrObtainFailed); e.Attempts != 3 || e.Outcome != ampauth.NotSent {
			t.Errorf("error is %+v", e)
		}
	})
}

func TestWaitsBetweenLoginAttemptsGrowWithJitter(t *testing.T) {
	var longest [3]time.Duration
	for i := range 40 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 500, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 4 })
				_, _ = m.Token(t.Context())
				sent := w.requests(ampObtain)
				for n := range longest {
					wait := sent[n+1].at.Sub(sent[n].at)
					if limit := time.Second << n; wait >= limit {
						t.Errorf("wait %d is %v, want less than %v", n+1, wait, limit)
					}
					longest[n] = max(longest[n], wait)
				}
			})
		})
	}
	for n, got := range longest {
		if least := time.Second << n / 2; got < least {
			t.Errorf("the longest wait %d of 40 is %v, want at least %v", n+1, got, least)
		}
	}
}

func TestRetryAfterOfTheLoginIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		value  string
		least  time.Duration
	}{
		"429, seconds": {429, "7", 7 * time.Second},
		"503, seconds": {503, "7", 7 * time.Second},
		// The bubble begins on Saturday, 1 January 2000, and so does the server's Date.
		"429, nearly the cap": {429, "59", 59 * time.Second},
		"429, date":           {429, "Sat, 01 Jan 2000 00:00:09 GMT", 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: test.status, Header: http.Header{"Retry-After": {test.value}}})
				took := ampElapsed(func() { w.token(w.manager()) })
				if took < test.least || took >= test.least+time.Second {
					t.Errorf("took %v, want from %v to a BaseDelay more", took, test.least)
				}
				w.wantSent(2, 0)
			})
		})
	}
}

// In the queue of the limiter a login would stand behind those who wait for it.
func TestLoginDoesNotWaitForTheLimiter(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Delay: 5 * time.Second})
		limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
		limiter.Allow()
		m := w.manager(func(c *ampauth.Config) { c.Limiter = limiter })
		if took := ampElapsed(func() { w.token(m) }); took != 5*time.Second {
			t.Errorf("took %v, want the 5 s of the server", took)
		}
		w.wantSent(1, 0)
	})
}

func TestOtherFailuresOfTheLoginAreFinal(t *testing.T) {
	for _, status := range []int{402, 404, 405, 406, 409, 410, 413, 415, 422, 451, 501, 505, 511, 204, 202, 304} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: status, Times: -1})
				m := w.manager()
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					if e := stubError(t, err, ampauth.ErrObtainFailed); e.StatusCode != status || e.Attempts != 1 || e.Outcome != ampauth.Answered {
						t.Errorf("error is %+v", e)
					}
				})
				if took != 0 {
					t.Errorf("it took %v", took)
				}
				w.wantSent(1, 0)
				// A wrong BaseURL is no reason to fear for the account.
				w.ClearFaults()
				w.token(m)
			})
		})
	}
}

func TestUntrustedCertificateIsFinal(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	m, err := ampauth.NewTokenManager(ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(ampPassword)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = m.Token(t.Context())
	if e := stubError(t, err, ampauth.ErrObtainFailed); e.Attempts != 1 || e.Outcome != ampauth.NotSent {
		t.Errorf("error is %+v", e)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("the cause is lost: %v", err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestLoginThatTimesOutSaysAfterWhatTime(t *testing.T) {
	for name, do := range map[string]fakeamp.Action{"headers": fakeamp.StallHeaders, "body": fakeamp.StallBody} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Do: do, Times: -1})
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts, c.Retry.Timeout = 1, 7*time.Second })
				took := ampElapsed(func() {
					_, err := m.Token(t.Context())
					e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrTimeout, context.DeadlineExceeded)
					if !e.Timeout() || e.Limit != 7*time.Second || e.Attempts != 1 {
						t.Errorf("Timeout() = %v, Limit = %v, Attempts = %d", e.Timeout(), e.Limit, e.Attempts)
					}
					if !strings.Contains(err.Error(), "within 7s (Retry.Timeout,") {
						t.Errorf("the error does not say after what time: %v", err)
					}
				})
				if took != 7*time.Second {
					t.Errorf("took %v, want 7s", took)
				}
			})
		})
	}
}

func TestErrorsOfTheLoginReadWell(t *testing.T) {
	for name, test := range map[string]struct {
		faults []fakeamp.Fault
		twice  bool // the error of the second call, within a pause
	}{
		"outage":        {faults: []fakeamp.Fault{{Route: ampObtain, Status: 500, Times: -1}}},
		"rate limit":    {faults: []fakeamp.Fault{{Route: ampObtain, Status: 429, Times: -1, Header: http.Header{"Retry-After": {"90"}}}}},
		"cut":           {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.CutBody, Times: -1}}},
		"closed":        {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.Close, Times: -1}}},
		"stalled":       {faults: []fakeamp.Fault{{Route: ampObtain, Do: fakeamp.StallHeaders, Times: -1}}},
		"refused":       {faults: []fakeamp.Fault{{Route: ampObtain, Status: 400, Times: -1}}},
		"in a pause":    {faults: []fakeamp.Fault{{Route: ampObtain, Status: 400, Times: -1}}, twice: true},
		"proxy":         {faults: []fakeamp.Fault{{Route: ampObtain, Status: 403, HTML: true, Times: -1}}},
		"not an answer": {faults: []fakeamp.Fault{{Route: ampObtain, HTML: true, Times: -1}}},
		"refresh, too":  {faults: []fakeamp.Fault{{Route: ampRefresh, Status: 500}, {Route: ampObtain, Status: 503, Times: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				m := w.manager(func(c *ampauth.Config) { c.Retry.MaxAttempts = 2 })
				w.token(m)
				w.Inject(test.faults...)
				call := m.Obtain
				if test.faults[0].Route == ampRefresh {
					call = m.Refresh
				}
				_, err := call(t.Context())
				if test.twice {
					_, err = m.Obtain(t.Context())
				}
				stubError(t, err, ampauth.ErrObtainFailed)
				text := err.Error()
				if !strings.HasPrefix(text, "ampauth: ") || strings.Count(text, "ampauth: ") != 1 {
					t.Errorf("the prefix is not there once: %s", text)
				}
				if strings.ContainsAny(text, "\n\r") || strings.Contains(text, "%!") {
					t.Errorf("%q", text)
				}
			})
		})
	}
}
