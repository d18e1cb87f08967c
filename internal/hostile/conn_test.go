package hostile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Windows has numbers of its own for the same things.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.Errno(10061))
}

func isReset(err error) bool {
	// EPIPE is what a write meets once the reset is known.
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.Errno(10054))
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func isNotTLS(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

func isUntrusted(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// Each action is done to the first connection; the second is served.
func TestConnActions(t *testing.T) {
	tests := []struct {
		name   string
		do     ConnAction
		plain  func(error) bool // what a read meets on a bare socket
		secure func(error) bool // what a TLS handshake meets
	}{
		{"ResetAtAccept", ResetAtAccept, isReset, isReset},
		{"CloseAtAccept", CloseAtAccept, isEOF, nil}, // a reset if the hello is later than the end
		{"ResetInHandshake", ResetInHandshake, isReset, isReset},
		{"CloseInHandshake", CloseInHandshake, isEOF, isEOF},
		{"GarbageInHandshake", GarbageInHandshake, nil, isNotTLS},
		{"StallInHandshake", StallInHandshake, isTimeout, isTimeout},
		{"UntrustedCertificate", UntrustedCertificate, nil, isUntrusted},
	}
	for _, test := range tests {
		for name, p := range protocols {
			want := test.secure
			if p == HTTP1 {
				want = test.plain
			}
			if want == nil {
				continue
			}
			t.Run(test.name+name, func(t *testing.T) {
				s := start(t, p, Script{}.OnConns(test.do, Serve))
				if err := greet(s, test.do); !want(err) {
					t.Errorf("got %v", err)
				}
				if _, _, err := post(newClient(t, s), s, "a", ""); err != nil {
					t.Errorf("the next connection is not served: %v", err)
				}
				if s.Conns() != 2 || s.Requests() != 1 {
					t.Errorf("%d connections, %d requests", s.Conns(), s.Requests())
				}
			})
		}
	}
}

// greet sends the first bytes of a connection and returns what came of it.
func greet(s *Server, do ConnAction) error {
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return err // a reset can be as quick as that
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if do == StallInHandshake {
		conn.SetDeadline(time.Now().Add(30 * time.Millisecond))
	}
	if config := s.TLSConfig(); config != nil {
		config.ServerName = "127.0.0.1"
		return tls.Client(conn, config).Handshake()
	}
	if do != ResetAtAccept && do != CloseAtAccept {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestGarbageOnABareSocket(t *testing.T) {
	s := start(t, HTTP1, Script{}.OnConns(GarbageInHandshake))
	if _, _, err := post(newClient(t, s), s, "a", ""); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("got %v", err)
	}
}

func TestOtherConfigurationsDoNotTrust(t *testing.T) {
	s := start(t, HTTP1TLS, Script{})
	if _, err := http.Get(s.URL()); !isUntrusted(err) {
		t.Errorf("got %v", err)
	}
}

func TestALPN(t *testing.T) {
	tests := []struct {
		name    string
		p       Protocol
		offer   []string
		want    string
		refused bool
	}{
		{"h2 only, offered both", HTTP2, []string{"h2", "http/1.1"}, "h2", false},
		{"h2 only, offered http/1.1", HTTP2, []string{"http/1.1"}, "", true},
		{"both, offered both", HTTP2AndHTTP1, []string{"http/1.1", "h2"}, "h2", false},
		{"both, offered http/1.1", HTTP2AndHTTP1, []string{"http/1.1"}, "http/1.1", false},
		{"both, offered nothing", HTTP2AndHTTP1, nil, "", false},
		{"http/1.1 only, offered h2", HTTP1TLS, []string{"h2"}, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, test.p, Script{})
			config := s.TLSConfig()
			config.NextProtos = test.offer
			conn, err := tls.Dial("tcp", s.Addr(), config)
			if test.refused {
				op, ok := errors.AsType[*net.OpError](err)
				if !ok || reflect.ValueOf(op.Err).Kind() != reflect.Uint8 || reflect.ValueOf(op.Err).Uint() != 120 {
					t.Errorf("got %v, want alert 120", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.ConnectionState().NegotiatedProtocol; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
