package bench

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// cutHeader asks the server to perform a mutation and then to end its connection so.
const cutHeader = "X-Cut"

const (
	cutByFIN       = "FIN"
	cutByReset     = "RST"
	cutByHalfClose = "half-close" // and go on reading, and performing
	cutUnread      = "close without a word"
	answerLate     = "late" // what is in between has given up
)

// A cutWay is what is between a client and a server that cuts.
type cutWay struct {
	secure  bool
	rtt     time.Duration
	haproxy string // the program, if it is on the way
}

func (w cutWay) String() string {
	name := "HTTP/1.1"
	if w.secure {
		name += " over TLS"
	}
	if w.haproxy != "" {
		name += ", through HAProxy"
	}
	return name + ", RTT " + inMilliseconds(w.rtt)
}

// cuts counts what callers are told of mutations that were performed, when the
// connection was cut instead of an answer.
func cuts(o Options) (Section, error) {
	const full = 10_000
	workers, cycles := pick(o, 60, 10), pick(o, 42, 2)
	ways := []cutWay{
		{false, 0, ""}, {false, 20 * time.Millisecond, ""},
		{true, 0, ""}, {true, 20 * time.Millisecond, ""},
	}
	section := Section{Text: fmt.Sprintf("The server performs a mutation and then, instead of an answer, ends the connection: by FIN (over TLS with close_notify), by reset, by closing its side alone while it goes on reading and performing, or by a plain close with what is left unread. The connection is a used one: callers, each with a client of its own, send one to three mutations that are answered, 0 to 100 ms apart, before each that is cut; a relay makes the distance. The pair, which repeats what fails, sends a tenth of it. HAProxy passes TCP on with a timeout of %s for the server and 30 s for the client, while answers and gaps take about as long or longer. Only performed but unanswered mutations count as cut.", haproxyTimeout)}
	if program, err := exec.LookPath("haproxy"); err == nil {
		ways = append(ways, cutWay{false, 20 * time.Millisecond, program}, cutWay{true, 20 * time.Millisecond, program})
	} else {
		section.Text += " HAProxy is not installed here, so that it is left out."
	}

	contestants := []layer{{"ampauth", ampauthStack}, cheapestPair}
	outcomes := make([][]reckoning, len(contestants))
	errs := make([]error, len(contestants)*len(ways))
	var wg sync.WaitGroup
	var done atomic.Int64
	for i, c := range contestants {
		outcomes[i] = make([]reckoning, len(ways))
		workers := max(workers/(1+9*i), 1)
		for j, way := range ways {
			wg.Go(func() {
				outcomes[i][j], errs[i*len(ways)+j] = way.meet(c, workers, cycles)
				o.progress(int(done.Add(1)), len(errs))
			})
		}
	}
	wg.Wait()
	t := table("", "way", "contestant", "mutations", "performed, then cut", "called NotSent all the same", "performed more than once")
	var ours reckoning
	for j, way := range ways {
		for i, c := range contestants {
			if err := errs[i*len(ways)+j]; err != nil {
				return Section{}, fmt.Errorf("%s, %s: %w", c.Name, way, err)
			}
			r := outcomes[i][j]
			t.add(way.String(), c.Name, fmt.Sprint(r.sent), fmt.Sprint(r.cut()), fmt.Sprint(r.denied), fmt.Sprint(r.repeated))
			if i == 0 {
				ours.add(r)
			}
		}
	}
	section.Tables = []Table{t}
	section.Goals = []Goal{rarely("performed, then cut: called NotSent, or performed twice", "itself", 0, full, ours.wrong(), ours.cut())}
	return section, nil
}

const haproxyTimeout = 200 * time.Millisecond

// meet has workers send mutations, of which the last of each cycle is cut.
func (w cutWay) meet(c layer, workers, cycles int) (reckoning, error) {
	t := newTally()
	s := &cutServer{tally: t}
	server := serve(w.secure, 0, s.handle)
	defer server.Close()
	target := server.Listener.Addr().String()
	var said func() string
	if w.haproxy != "" {
		p, err := startHAProxy(w.haproxy, target, haproxyTimeout)
		if err != nil {
			return reckoning{}, err
		}
		said = sync.OnceValue(p.Close)
		defer said()
		target = p.address
	}
	relay, err := startRelay(target, w.rtt)
	if err != nil {
		return reckoning{}, err
	}
	defer relay.Close()
	scheme, _, _ := strings.Cut(server.URL, ":")
	url := scheme + "://" + relay.Addr().String() + "/api"

	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			base := server.transport(2)
			if c.Name != "ampauth" {
				base = onlyHTTP1(base)
			}
			defer base.CloseIdleConnections()
			s := setup{Base: base, Logins: staticLogin, URL: url, Timeout: timeoutOfAttempt, BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond}
			send := c.Over(s.withDefaults())
			for range cycles {
				for range 1 + rand.N(3) {
					time.Sleep(w.gap())
					t.send(send, post(url+"/assets/issue", 300))
				}
				time.Sleep(w.gap())
				last := post(url+"/assets/issue", 300+rand.N(2)*(16<<10))
				last.Header.Set(cutHeader, w.cutting())
				t.send(send, last)
			}
		})
	}
	wg.Wait()
	_ = relay.Close()
	server.Close()
	s.serving.Wait()
	r := t.reckon()
	if said != nil && r.cut() == 0 {
		return r, fmt.Errorf("it cut nothing: %s", said())
	}
	return r, nil
}

// gap is how long a caller waits before a mutation. HAProxy's FIN and a mutation are to
// meet on their ways.
func (w cutWay) gap() time.Duration {
	if w.haproxy != "" {
		return haproxyTimeout - 60*time.Millisecond + rand.N(80*time.Millisecond)
	}
	return rand.N(100 * time.Millisecond)
}

func (w cutWay) cutting() string {
	if w.haproxy != "" {
		return answerLate
	}
	ways := []string{cutByFIN, cutByReset, cutByHalfClose, cutUnread}
	return ways[rand.N(len(ways))]
}

// A cutServer performs mutations, and cuts the connections of those that ask for it.
type cutServer struct {
	tally   *tally
	serving sync.WaitGroup // all, those included whose connection the server has given away
}

func (s *cutServer) handle(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Done()
	cutting := r.Header.Get(cutHeader)
	if cutting != cutUnread {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	s.tally.perform(r)
	switch cutting {
	case answerLate:
		time.Sleep(haproxyTimeout + 100*time.Millisecond)
		fallthrough
	case "":
		answerTwoBytes(w, r)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch cutting {
	case cutByFIN:
		_ = conn.Close()
	case cutByReset:
		abort(tcpOf(conn))
	case cutByHalfClose:
		endWriting(conn)
		s.readOn(conn, buffered.Reader)
	case cutUnread:
		_ = tcpOf(conn).Close()
	}
}

// readOn performs what still comes over a connection whose other side sees its end.
func (s *cutServer) readOn(conn net.Conn, from *bufio.Reader) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		r, err := http.ReadRequest(from)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		s.tally.perform(r)
	}
}
