package ampauth_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"github.com/ampauth/ampauth/internal/memnet"
)

// stubNoWait has no backoff to speak of, so that durations are exact.
var stubNoWait = ampauth.RetryConfig{BaseDelay: 1, MaxDelay: 1}

func TestStalledBodyIsWaitedForAQuarterOfASecond(t *testing.T) {
	for name, config := range map[string]ampauth.RetryConfig{
		"with a timeout":    stubNoWait,
		"without a timeout": {BaseDelay: 1, MaxDelay: 1, Timeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
				if requests++; requests == 1 {
					stubHangs(503)(w, r)
				}
			}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
				start := time.Now()
				status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: config}, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
				if took := time.Since(start); status != 200 || took != 250*time.Millisecond {
					t.Errorf("status %d after %v, want 200 after exactly 250 ms", status, took)
				}
			})
		})
	}
}

// The same bound holds for the refusal of a token, whose body is read before the
// renewal: it does not count twice.
func TestStalledRefusalIsWaitedForAQuarterOfASecond(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(401)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: base, Source: &stubRenewing{wait: 2 * time.Second}, Origin: url}}
		start := time.Now()
		status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 200 || took != 2250*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after 250 ms and the 2 s of the renewal", status, took)
		}
	})
}

// A stalled 503 must not use up the time in which another attempt could succeed.
func TestStalledBodyLeavesTimeForAnotherAttempt(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(503)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		start := time.Now()
		status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubNoWait}, stubRequestTo(ctx, url, ampauth.SafeOperation, nil))
		if took := time.Since(start); status != 200 || took != 100*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after half of the time", status, took)
		}
	})
}

// A countingBody is not safe for concurrent use, which the race detector sees.
type countingBody struct {
	io.ReadCloser
	bytes int
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += n
	return n, err
}

func (b *countingBody) Close() error {
	b.bytes = -b.bytes
	return b.ReadCloser.Close()
}

// A layer's body need not bear to be closed while it is read.
func TestStalledBodyIsNotClosedWhileItIsRead(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			stubHangs(503)(w, r)
		}
	}, func(t *testing.T, url string, _ *memnet.Listener, base *http.Transport) {
		layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil {
				resp.Body = &countingBody{ReadCloser: resp.Body}
			}
			return resp, err
		})
		stubStatus(t, &ampauth.RetryTransport{Base: layer, Retry: stubNoWait}, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil))
	})
}

func TestEndlessBodyIsNotReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read atomic.Int64
		body := newStubBody("")
		body.Reader = stubReader(func(p []byte) (int, error) { read.Add(int64(len(p))); return len(p), nil })
		base := stubScript(func(*http.Request) (*http.Response, error) {
			resp := stubResponse(503, "")
			resp.Body = body
			return resp, nil
		}, stubAnswer(200))
		start := time.Now()
		status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubNoWait}, stubRequest(t.Context(), ampauth.SafeOperation, nil))
		if n := read.Load(); status != 200 || n > 64<<10 || time.Since(start) != 0 {
			t.Errorf("status %d after %v and %d bytes, want 200 at once after at most 64 KiB", status, time.Since(start), n)
		}
		if body.closed.Load() != 1 {
			t.Errorf("the body was closed %d times, want once", body.closed.Load())
		}
	})
}

// A countedConn counts what is read from the network.
type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func TestEndlessBodyIsNotReadOnFromTheNetwork(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Status: 503, Do: hostile.EndlessBody}, hostile.Step{}))
	defer s.Close()
	var read atomic.Int64
	base := stubPooled(t)
	base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.DialContext(ctx, network, address)
		return countedConn{conn, &read}, err
	}
	status := stubStatus(t, &ampauth.RetryTransport{Base: base, Retry: stubQuick}, stubRequestTo(t.Context(), s.URL(), ampauth.SafeOperation, nil))
	base.CloseIdleConnections()
	const most = 64<<10 + 8<<10 // headers, chunk sizes, and what net/http reads ahead
	if n := read.Load(); status != 200 || n > most {
		t.Errorf("status %d after %d bytes, want 200 after at most %d", status, n, most)
	}
	if n := s.Sent(); n > 8<<20 {
		t.Errorf("the server got rid of %d bytes, more than the buffers of two sockets hold", n)
	}
}

func TestRefusedResponsesGiveTheirConnectionBack(t *testing.T) {
	requests := 0
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests%3 != 0 {
			w.WriteHeader(503)
		}
		_, _ = w.Write(make([]byte, 1<<10))
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{Budget: -1}}
		call := func() {
			if status := stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)); status != 200 {
				t.Errorf("status %d", status)
			}
			synctest.Wait()
		}
		for range 30 {
			call()
		}
		if l.Dials() != 1 || requests != 90 {
			t.Errorf("%d connections for %d requests, want 1 for 90", l.Dials(), requests)
		}
	}) // which fails if a goroutine is left
}

func TestFailuresLeaveIdleConnectionsOpen(t *testing.T) {
	const idle = 8
	var failing atomic.Bool
	stubBubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/cut":
			panic(http.ErrAbortHandler)
		case failing.Load():
			w.WriteHeader(503)
		default:
			time.Sleep(time.Second)
		}
	}, func(t *testing.T, url string, l *memnet.Listener, base *http.Transport) {
		base.MaxIdleConnsPerHost = idle
		rt := &ampauth.RetryTransport{Base: base}
		all := func() {
			var wg sync.WaitGroup
			for range idle {
				wg.Go(func() { stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)) })
			}
			wg.Wait()
			synctest.Wait()
		}
		all()
		if l.Dials() != idle {
			t.Fatalf("%d connections, want %d", l.Dials(), idle)
		}
		failing.Store(true)
		stubStatus(t, rt, stubRequestTo(t.Context(), url, ampauth.SafeOperation, nil)) // three times 503
		failing.Store(false)
		all()
		if n := l.Dials() - idle; n != 0 {
			t.Errorf("%d new connections after a call that ended in 503, want none", n)
		}
		// Three attempts lose a connection each, and no more.
		_, err := rt.RoundTrip(stubRequestTo(t.Context(), url+"/cut", ampauth.IdempotentOperation, []byte("x")))
		if n := stubError(t, err).Attempts; n != 3 {
			t.Errorf("%d attempts", n)
		}
		all()
		if n := l.Dials() - idle; n > 3 {
			t.Errorf("%d new connections after three that broke, want at most 3", n)
		}
	})
}

// lockedBody is a body whose Close waits for its Read, which ends by its context.
type lockedBody struct {
	mu  sync.Mutex
	ctx context.Context
}

func (b *lockedBody) Read([]byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *lockedBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return nil
}

func TestStalledBodyEndsByItsContextBeforeItIsClosed(t *testing.T) {
	for _, status := range []int{503, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := stubScript(func(req *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: status, Header: http.Header{}, ContentLength: -1, Body: &lockedBody{ctx: req.Context()}}, nil
				}, stubAnswer(200))
				rt := &ampauth.RetryTransport{
					Base:  &ampauth.AuthTransport{Base: base, Source: tokenThatIsRenewed(), Origin: "https://api.test"},
					Retry: ampauth.RetryConfig{Timeout: time.Hour, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond},
				}
				start := time.Now()
				status := stubStatus(t, rt, stubRequest(t.Context(), ampauth.SafeOperation, nil))
				if took := time.Since(start); status != 200 || took > time.Second {
					t.Errorf("status %d after %v, want 200 within a second", status, took)
				}
			})
		})
	}
}

func TestBodyThatPanicsWhileItIsDrainedIsClosedAndHeard(t *testing.T) {
	body := newStubBody("")
	body.Reader = stubReader(func([]byte) (int, error) { panic("broken layer") })
	var attempt context.Context
	rt := &ampauth.RetryTransport{Retry: stubQuick, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		attempt = req.Context()
		return &http.Response{StatusCode: 503, Header: http.Header{}, ContentLength: -1, Body: body}, nil
	})}
	defer func() {
		if v := recover(); v != "broken layer" {
			t.Errorf("recovered %v, want the panic of the body", v)
		}
		if n := body.closed.Load(); n != 1 || attempt.Err() == nil {
			t.Errorf("the body was closed %d times and its context says %v, want once and over", n, attempt.Err())
		}
	}()
	_, _ = rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, nil))
}
