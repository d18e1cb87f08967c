package atmostonce

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth/internal/hostile"
)

// handshakes returns how many connections a first and a second request take, and how the
// first ends.
func handshakes(t *testing.T, s *hostile.Server) (first, second int, err error) {
	t.Helper()
	tr := &Transport{Base: &http.Transport{TLSClientConfig: s.TLSConfig(), ForceAttemptHTTP2: true}, Idle: time.Minute}
	defer tr.CloseIdleConnections()
	try := func() error {
		for {
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err == nil {
				return resp.Body.Close()
			}
			unsent, ok := errors.AsType[*UnsentError](err)
			switch {
			case !ok:
				t.Fatalf("got %v, want an UnsentError", err)
			case !unsent.OtherWay, !tr.SpeaksHTTP1(req.URL):
				return err
			}
		}
	}
	err = try()
	first = s.Conns()
	_ = try()
	return first, s.Conns() - first, err
}

func TestFirstRequestToAHostThatSpeaksHTTP1TakesOneHandshake(t *testing.T) {
	for name, test := range map[string]struct {
		protocol      hostile.Protocol
		first, second int
		err           error
	}{
		"HTTP/1.1": {hostile.HTTP1TLS, 1, 0, nil},
		"both":     {hostile.HTTP2AndHTTP1, 1, 0, nil},
		"HTTP/2":   {hostile.HTTP2, 2, 0, ErrNoHTTP1},
		"no TLS":   {hostile.HTTP1, 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(test.protocol, hostile.Script{})
			defer s.Close()
			first, second, err := handshakes(t, s)
			if first != test.first || second != test.second || !errors.Is(err, test.err) {
				t.Errorf("%d connections for the first and %d for the second, %v; want %d, %d, %v", first, second, err, test.first, test.second, test.err)
			}
		})
	}
}

func TestWhatIsRememberedOfHostsIsBoundedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hosts
		for i := range 10 * maxHosts {
			h.learn(fmt.Sprint(i), 0)
		}
		if len(h.known) > maxHosts {
			t.Errorf("%d hosts are remembered, want at most %d", len(h.known), maxHosts)
		}
		h.learn("host", 0)
		h.learn("host", 1)
		h.learn("host", 0) // by one that was slower
		if way := h.wayTo("host"); way != 2 {
			t.Errorf("way %d, want 2", way)
		}
		time.Sleep(lessonTime + 1)
		if way := h.wayTo("host"); way != 0 {
			t.Errorf("way %d after an hour, want 0", way)
		}
	})
}
