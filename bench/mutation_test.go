package bench

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// copies starts processes of this program.
func TestMain(m *testing.M) {
	RunTask()
	os.Exit(m.Run())
}

func TestPeersOfMutationsSpeakHTTP1(t *testing.T) {
	server := serve(true, 0, answerTwoBytes)
	defer server.Close()
	shared := server.transport(1)
	defer shared.CloseIdleConnections()
	for name, base := range map[string]*http.Transport{"new": server.transport(1), "used": shared} {
		for _, test := range []struct {
			base  *http.Transport
			major int
		}{{base, 2}, {onlyHTTP1(base), 1}} {
			defer test.base.CloseIdleConnections()
			r := post(server.apiURL()+"/assets/issue", 1<<10)
			r.Header.Set("Authorization", "token "+staticToken)
			resp, err := test.base.RoundTrip(r.again())
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.ProtoMajor != test.major {
				t.Errorf("%s: HTTP/%d, want %d", name, resp.ProtoMajor, test.major)
			}
		}
	}
}

func TestCarefulPairRepeatsGETAndNoPOST(t *testing.T) {
	for _, test := range []struct {
		request  *http.Request
		attempts int64
	}{
		{get("", 7).Request, attempts},
		{post("", 1<<10).again(), 1},
	} {
		tries := int64(0)
		s := setup{Base: sender(func(req *http.Request) (*http.Response, error) {
			tries++
			return nil, errors.New("broken")
		}), Logins: staticLogin, URL: staticURL, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}
		if _, err := carefulPair.Over(s.withDefaults())(test.request); err == nil || tries != test.attempts {
			t.Errorf("%s: %d attempts, %v", test.request.Method, tries, err)
		}
	}
}

// In real time, with a lower bound alone.
func TestRelayDelaysBothWaysAndTheStart(t *testing.T) {
	server := serve(false, 0, answerTwoBytes)
	defer server.Close()
	const rtt = 60 * time.Millisecond
	relay, err := startRelay(server.Listener.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	base := server.transport(1)
	defer base.CloseIdleConnections()
	r := post("http://"+relay.Addr().String()+"/api/assets/issue", 1<<20)
	r.Header.Set("Authorization", "token "+staticToken)
	for i, least := range []time.Duration{2 * rtt, rtt, rtt} {
		began := time.Now()
		if err := finish(base.RoundTrip(r.again())); err != nil {
			t.Fatal(err)
		}
		// A relay that slept for every piece of a mebibyte would take 16 delays.
		if took := time.Since(began); took < least || took > least+8*rtt/2 {
			t.Errorf("request %d took %s, at least %s were due", i, took, least)
		}
	}
}

func TestRelayPassesOnHowAConnectionEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	relay, err := startRelay(listener.Addr().String(), 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	for _, resets := range []bool{false, true} {
		client, err := net.Dial("tcp", relay.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := conn.(*net.TCPConn)
		defer server.Close()
		if resets {
			abort(server)
		} else {
			_ = server.CloseWrite()
		}
		if _, err := client.Read(make([]byte, 1)); (err == io.EOF) == resets {
			t.Errorf("reset %t: %v", resets, err)
		}
		if resets {
			continue
		}
		// The other direction stays open.
		if _, err := client.Write([]byte("on")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(server, make([]byte, 2)); err != nil {
			t.Errorf("after a half-close: %v", err)
		}
	}
}

func TestLinkTakesARoundTrip(t *testing.T) {
	const rtt = 30 * time.Millisecond
	link, err := openLink(rtt)
	if err != nil {
		t.Skip(err)
	}
	stop, err := link.watch()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * rtt) // of a real link, which no bubble can slow down
	trips, err := stop()
	if err != nil || len(trips) < 2 || slices.Min(trips) < rtt.Seconds() || slices.Min(trips) > 2*rtt.Seconds() {
		t.Errorf("%v, %v", trips, err)
	}
	near := link.near
	if err := link.Close(); err != nil {
		t.Error(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if strings.HasPrefix(address.String(), near.String()+"/") {
			t.Errorf("the device is still there: %s", address)
		}
	}
}

func TestTallyTellsWrongFromRight(t *testing.T) {
	unsent := &ampauth.Error{Op: "request", Outcome: ampauth.NotSent}
	for _, test := range []struct {
		name      string
		err       error
		performed int
		want      reckoning
	}{
		{"answered", nil, 1, reckoning{sent: 1}},
		{"answered, performed twice", nil, 2, reckoning{sent: 1, repeated: 1}},
		{"in doubt, not performed", io.EOF, 0, reckoning{sent: 1, inDoubt: 1}},
		{"in doubt, performed", io.EOF, 1, reckoning{sent: 1, inDoubt: 1, doubtPerformed: 1}},
		{"NotSent", unsent, 0, reckoning{sent: 1, notSent: 1}},
		{"NotSent, performed", unsent, 1, reckoning{sent: 1, notSent: 1, denied: 1}},
	} {
		tally := newTally()
		tally.send(func(req *http.Request) (*http.Response, error) {
			for range test.performed {
				tally.perform(req)
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody}, test.err
		}, post(staticURL, 10))
		if got := tally.reckon(); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestMutationsToAnIdleServerAreCounted(t *testing.T) {
	link, err := openLink(10 * time.Millisecond)
	if err != nil {
		t.Skip(err)
	}
	defer link.Close()
	server := idleServer{"keep-alive of 50 ms", func() time.Duration { return 50 * time.Millisecond }, 0}
	for _, c := range []layer{stacks[0], carefulPair} {
		const workers, each = 40, 3
		r, err := server.meet(c, link, workers, each, 100*time.Millisecond, func() {})
		if err != nil || r.sent != workers*each || r.wrong() != 0 || r.inDoubt > r.sent/2 {
			t.Errorf("%s: %+v, %v", c.Name, r, err)
		}
	}
}

func TestCutMutationsAreCounted(t *testing.T) {
	for _, way := range []cutWay{{false, 0, ""}, {true, 10 * time.Millisecond, ""}} {
		const workers, cycles = 8, 3
		ours, err := way.meet(stacks[0], workers, cycles)
		if err != nil || ours.cut() != workers*cycles || ours.wrong() != 0 {
			t.Errorf("%s, ampauth: %+v, %v", way, ours, err)
		}
		pair, err := way.meet(cheapestPair, workers, cycles)
		if err != nil || pair.repeated != workers*cycles {
			t.Errorf("%s, the pair, which repeats: %+v, %v", way, pair, err)
		}
	}
}

func TestNeedleIsCountedAcrossPieces(t *testing.T) {
	needle := []byte("needle")
	for _, at := range []int{0, 1<<20 - 6, 1<<20 - 3, 1 << 20, 1<<20 - 5 + 1<<20 - 5} {
		hay := make([]byte, 3<<20)
		copy(hay[at:], needle)
		if n, err := countIn(bytes.NewReader(hay), needle); n != 1 || err != nil {
			t.Errorf("at %d: %d, %v", at, n, err)
		}
	}
}

func TestWorksOnMutationsRun(t *testing.T) {
	for _, name := range []string{"mutation", "series", "early", "copies"} {
		t.Run(name, func(t *testing.T) {
			w := Works[slices.IndexFunc(Works, func(w Work) bool { return w.Name == name })]
			s, err := w.Measure(Options{Quick: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Tables) == 0 && !strings.Contains(s.Text, "eft out here") {
				t.Errorf("no table, and no word why: %s", s.Text)
			}
		})
	}
}
