package atmostonce_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/atmostonce"
	"github.com/ampauth/ampauth/internal/hostile"
)

// net/http repeats these by itself over a connection that was used before; what has a key
// whatever the method.
func TestNothingIsSentTwiceOverAUsedConnection(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"} {
		for _, key := range []string{"", "Idempotency-Key", "X-Idempotency-Key"} {
			for _, body := range []string{"none", "NoBody", "content"} {
				for _, do := range []hostile.Action{hostile.Reset, hostile.Close} {
					t.Run(fmt.Sprintf("%s, key %q, body %s, %v", method, key, body, do), func(t *testing.T) {
						s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{
							"m": {{Perform: true, Do: do}, {Perform: true}},
						}))
						defer s.Close()
						tr := &atmostonce.Transport{Base: new(http.Transport), Idle: time.Minute}
						defer tr.CloseIdleConnections()
						if err := send(tr, post(t, s.URL(), "", nil)); err != nil {
							t.Fatal(err)
						}
						var content io.Reader
						switch body {
						case "NoBody":
							content = http.NoBody
						case "content":
							content = strings.NewReader("x") // with a GetBody
						}
						req := post(t, s.URL(), "m", content)
						req.Method = method
						if key != "" {
							req.Header.Set(key, "k")
						}
						if err := send(tr, req); err == nil || s.Effects("m") != 1 {
							t.Errorf("got %v after %d effects, want an error after 1", err, s.Effects("m"))
						}
						log := s.Log()
						fresh := key != "" && body != "content" || method == "TRACE" && body != "content"
						if last := log[len(log)-1]; last.FirstOnConn() != fresh {
							t.Errorf("over a fresh connection: %v, want %v", last.FirstOnConn(), fresh)
						}
					})
				}
			}
		}
	}
}

func TestConnectionsAreKeptOnlyWhereTheyMayBe(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*atmostonce.Transport)
		close  bool // Request.Close
	}{
		"Idle is 0":                        {change: func(tr *atmostonce.Transport) { tr.Idle = 0 }},
		"Idle is negative":                 {change: func(tr *atmostonce.Transport) { tr.Idle = -1 }},
		"Base has DisableKeepAlives":       {change: func(tr *atmostonce.Transport) { tr.Base.DisableKeepAlives = true }},
		"Base has a negative idle limit":   {change: func(tr *atmostonce.Transport) { tr.Base.MaxIdleConnsPerHost = -1 }},
		"the request is the last one":      {close: true},
		"the request asks for a fresh one": {},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(hostile.HTTP1, hostile.Script{})
			defer s.Close()
			tr := &atmostonce.Transport{Base: new(http.Transport), Idle: time.Minute}
			defer tr.CloseIdleConnections()
			if test.change != nil {
				test.change(tr)
			}
			for range 3 {
				req := post(t, s.URL(), "m", nil)
				req.Close = test.close
				round := tr.RoundTrip
				if name == "the request asks for a fresh one" {
					round = tr.RoundTripFresh
				}
				resp, err := round(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			for _, entry := range s.Log() {
				if closing := entry.Header.Get("Connection") == "close"; !entry.FirstOnConn() || closing != test.close {
					t.Errorf("request %d of connection %d, Connection: close %v; want the first, and %v", entry.OnConn, entry.Conn, closing, test.close)
				}
			}
		})
	}
}

// An error that answers a long body may come before all of it has arrived, and the server
// may then drop what comes.
func TestConnectionOfALongBodyThatWasRefusedIsNotUsedAgain(t *testing.T) {
	for size, again := range map[int]bool{100: true, 100 << 10: false} {
		s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{"refused": {{Status: 413}}}))
		defer s.Close()
		tr := &atmostonce.Transport{Base: new(http.Transport), Idle: time.Minute}
		defer tr.CloseIdleConnections()
		if err := send(tr, post(t, s.URL(), "refused", strings.NewReader(strings.Repeat("x", size)))); err != nil {
			t.Fatal(err)
		}
		if err := send(tr, post(t, s.URL(), "next", nil)); err != nil {
			t.Fatalf("%d bytes: %v", size, err) // what has no body moves on by itself
		}
		log := s.Log()
		if last := log[len(log)-1]; last.FirstOnConn() == again {
			t.Errorf("after %d bytes that were refused the connection was used again: %v, want %v", size, !last.FirstOnConn(), again)
		}
	}
}
