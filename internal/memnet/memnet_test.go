package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth/internal/memnet"
)

func TestDialedConnectionReachesAccept(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "hello")
	}()

	conn, err := l.DialContext(t.Context(), "tcp", "example.com:443")
	if err != nil {
		t.Fatalf("DialContext: %v", err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v; want %q, nil", got, err, "hello")
	}
}

func TestAddressLooksLikeLoopback(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	if got := l.Addr().Network() + " " + l.Addr().String(); got != "tcp 127.0.0.1:80" {
		t.Errorf("Addr = %q, want tcp 127.0.0.1:80", got)
	}
}

func TestCloseEndsAcceptWithErrClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		accepted := make(chan error)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		synctest.Wait() // Accept waits now.

		l.Close()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("waiting Accept = %v, want net.ErrClosed", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("later Accept = %v, want net.ErrClosed", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close = %v, want nil", err)
		}
	})
}

func TestCloseRefusesDialers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		dialed := make(chan error)
		go func() {
			_, err := l.DialContext(t.Context(), "tcp", "example.com:80")
			dialed <- err
		}()
		synctest.Wait() // The dialer waits for Accept now.

		l.Close()
		checkRefused(t, <-dialed)
		_, err := l.DialContext(t.Context(), "tcp", "example.com:80")
		checkRefused(t, err)
	})
}

func TestRefuseFailsTheNextDialsOnly(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	}()

	l.Refuse(2)
	for range 2 {
		_, err := l.DialContext(t.Context(), "tcp", "example.com:80")
		checkRefused(t, err)
	}
	conn, err := l.DialContext(t.Context(), "tcp", "example.com:80")
	if err != nil {
		t.Fatalf("third dial: %v", err)
	}
	conn.Close()
	if got := l.Dials(); got != 3 {
		t.Errorf("Dials = %d, want 3: refused dials count", got)
	}
}

func TestDialerLeavesOnItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()

		start := time.Now()
		_, err := l.DialContext(ctx, "tcp", "example.com:80") // Nobody accepts.
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("dial took %v, want 3s", got)
		}
		opErr, ok := errors.AsType[*net.OpError](err)
		if !ok || opErr.Op != "dial" || !opErr.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial = %#v, want a dial *net.OpError that timed out", err)
		}
	})
}

func TestEndedContextDoesNotDial(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	go l.Accept()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if _, err := l.DialContext(ctx, "tcp", "example.com:80"); !errors.Is(err, context.Canceled) {
			t.Fatalf("dial = %v, want context.Canceled", err)
		}
	}
}

// The purpose of the package: an HTTP exchange that takes an hour of the
// bubble's time, exactly, and none of the test's.
func TestHTTPInsideABubbleRunsOnVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			io.Copy(w, r.Body)
		})}
		served := make(chan error)
		go func() { served <- server.Serve(l) }()
		transport := &http.Transport{DialContext: l.DialContext}

		start := time.Now()
		for range 2 {
			resp, err := (&http.Client{Transport: transport}).Post("http://amp.test/", "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatalf("Post: %v", err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != "hello" {
				t.Errorf("body %q, %v; want %q, nil", got, err, "hello")
			}
		}
		if got := time.Since(start); got != 2*time.Hour {
			t.Errorf("two requests took %v, want 2h", got)
		}
		if got := l.Dials(); got != 1 {
			t.Errorf("Dials = %d, want 1: the connection is kept alive", got)
		}

		transport.CloseIdleConnections()
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v, want http.ErrServerClosed", err)
		}
	})
}

func checkRefused(t *testing.T, err error) {
	t.Helper()
	opErr, ok := errors.AsType[*net.OpError](err)
	if !ok || opErr.Op != "dial" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial = %#v, want a dial *net.OpError around ECONNREFUSED", err)
	}
}
