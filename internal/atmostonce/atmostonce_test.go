package atmostonce_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/hostile"
)

func TestAHundredRequestsInARowShareAConnection(t *testing.T) {
	for _, protocol := range []hostile.Protocol{hostile.HTTP1, hostile.HTTP1TLS, hostile.HTTP2AndHTTP1} {
		s := hostile.New(protocol, hostile.Sequence(hostile.Step{Perform: true, Body: "done"}))
		defer s.Close()
		tr := &atmostonce.Transport{Base: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: s.TLSConfig()}, Idle: time.Minute}
		defer tr.CloseIdleConnections()
		for range 100 {
			req, _ := http.NewRequest("POST", s.URL(), strings.NewReader("x"))
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		log := s.Log()
		if last := log[len(log)-1]; last.Conn != 1 || len(log) != 100 {
			t.Errorf("%v: %d requests, the last over connection %d; want 100 over one", protocol, len(log), last.Conn)
		}
	}
}
