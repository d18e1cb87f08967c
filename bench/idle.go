package bench

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// An idleServer is one that closes connections on which nothing happens.
type idleServer struct {
	what  string
	idle  func() time.Duration // how long a connection may be idle; asked each time
	limit int                  // of 10,000 mutations in doubt
}

// idleServers counts the mutations that are left in doubt, because the server closed
// the connection while they were on their way.
func idleServers(o Options) (Section, error) {
	const rtt, longest, full = 20 * time.Millisecond, 3 * time.Second, 10_000
	workers, each := 400, pick(o, full/400, 1)
	section := Section{Text: fmt.Sprintf("%d callers, each with a client of its own, send a mutation every 0 to %s, over HTTP/1.1 in clear. The server closes connections that are idle, %s away: what it closes while a mutation is on its way to it nobody has read, but the caller cannot know. The distance is made by a network device that sends packets back late, with the kernel's TCP at both ends. In doubt are ErrAmbiguous, and of a peer all errors. Mutations: %d to each server.",
		workers, inSeconds(longest), inMilliseconds(rtt), workers*each)}
	link, err := openLink(rtt)
	if err != nil {
		section.Text += fmt.Sprintf(" Left out here, since that takes Linux and root: %v.", err)
		return section, nil
	}
	defer link.Close()
	servers := []idleServer{
		{"keep-alive of 2 s", func() time.Duration { return 2 * time.Second }, 0},
		{"keep-alive of 0.1 to 3 s", func() time.Duration { return 100*time.Millisecond + rand.N(2900*time.Millisecond) }, 60},
	}
	contestants := []layer{{"ampauth", ampauthStack}, carefulPair}

	stop, err := link.watch()
	if err != nil {
		return Section{}, err
	}
	var wg sync.WaitGroup
	var sent atomic.Int64
	all := len(servers) * len(contestants) * workers * each
	outcomes, errs := make([]reckoning, len(servers)*len(contestants)), make([]error, len(servers)*len(contestants))
	for i, server := range servers {
		for j, c := range contestants {
			k := i*len(contestants) + j
			wg.Go(func() {
				outcomes[k], errs[k] = server.meet(c, link, workers, each, longest, func() {
					if n := int(sent.Add(1)); n%100 == 0 {
						o.progress(n, all)
					}
				})
			})
		}
	}
	wg.Wait()
	trips, err := stop()
	if err != nil {
		return Section{}, err
	}
	section.Text += fmt.Sprintf(" The round trip as it was meanwhile: half took at most %s, 99 of 100 at most %s.", asTime(quantile(trips, .5)), asTime(quantile(trips, .99)))
	loaded := quantile(trips, .5) > 1.5*rtt.Seconds()
	if loaded {
		section.Text += " So the machine was too busy for the distance to be right, and what is too much is no verdict."
	}
	t := table("", "server", "contestant", "mutations", "in doubt", "of them performed", "called NotSent, but performed", "performed more than once")
	var ours reckoning
	for i, server := range servers {
		for j, c := range contestants {
			k := i*len(contestants) + j
			if errs[k] != nil {
				return Section{}, fmt.Errorf("%s, %s: %w", c.Name, server.what, errs[k])
			}
			r := outcomes[k]
			t.add(server.what, c.Name, fmt.Sprint(r.sent), fmt.Sprint(r.inDoubt), fmt.Sprint(r.doubtPerformed), fmt.Sprint(r.denied), fmt.Sprint(r.repeated))
			if j == 0 {
				ours.add(r)
				pair := outcomes[k+1]
				goal := rarely("mutations in doubt, server with a "+server.what+", RTT "+inMilliseconds(rtt),
					fmt.Sprintf("itself (%s: %d)", cheapestPair.Name, pair.inDoubt), server.limit, full, r.inDoubt, r.sent)
				if loaded && goal.Missed && server.limit > 0 {
					goal.Missed, goal.Doubtful = false, true
				}
				section.Goals = append(section.Goals, goal)
			}
		}
	}
	section.Tables = []Table{t}
	section.Goals = append(section.Goals, counted("of those servers' mutations, called NotSent but performed, or performed twice", "itself",
		"0", fmt.Sprintf("%d of %d", ours.wrong(), ours.sent), ours.wrong() == 0))
	return section, nil
}

// meet has workers send mutations to the server from over the link.
func (s idleServer) meet(c layer, link *link, workers, each int, longest time.Duration, tick func()) (reckoning, error) {
	listener, err := link.listen()
	if err != nil {
		return reckoning{}, err
	}
	t := newTally()
	server := newServer(func(w http.ResponseWriter, r *http.Request) {
		t.perform(r)
		answerTwoBytes(w, r)
	})
	_ = server.Listener.Close()
	server.Listener = impatientListener{listener, s.idle}
	server.Config.IdleTimeout = time.Hour // an impatientConn puts its own in its place
	server.start(false)
	defer server.Close()
	url := "http://" + link.beyond(listener) + "/api"

	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			base := new(http.Transport)
			defer base.CloseIdleConnections()
			setup := setup{Base: base, Logins: staticLogin, URL: url, Timeout: timeoutOfAttempt, BaseDelay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond}
			send, r := c.Over(setup.withDefaults()), post(url+"/assets/issue", 1<<10)
			time.Sleep(rand.N(longest)) // so that they do not begin together
			_ = finish(send(r.again())) // opens a connection; not counted
			for range each {
				time.Sleep(rand.N(longest))
				t.send(send, r)
				tick()
			}
		})
	}
	wg.Wait()
	server.Close()
	return t.reckon(), nil
}

// An impatientListener accepts connections that are closed when they were idle for so
// long.
type impatientListener struct {
	net.Listener
	idle func() time.Duration
}

func (l impatientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &impatientConn{conn, l.idle}, nil
}

// An impatientConn has its own idea of its server's IdleTimeout, which net/http sets as
// a deadline after every answer, and takes back when the next request begins.
type impatientConn struct {
	net.Conn
	idle func() time.Duration
}

func (c *impatientConn) SetReadDeadline(at time.Time) error {
	if time.Until(at) > time.Minute {
		at = time.Now().Add(c.idle())
	}
	return c.Conn.SetReadDeadline(at)
}
