package bench

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// series measures mutations that one caller sends one after the other, to a server
// that is a round trip away, and counts the connections that they take.
func series(o Options) (Section, error) {
	n := pick(o, 100, 10)
	distances := []struct {
		rtt    time.Duration
		rounds int
	}{
		{0, pick(o, 25, 1)},
		{20 * time.Millisecond, pick(o, 5, 1)},
		{100 * time.Millisecond, pick(o, 3, 1)},
	}
	done, all := 0, 0
	for _, d := range distances {
		all += d.rounds
	}
	server := serve(true, 0, answerTwoBytes)
	defer server.Close()

	took := make([][][]float64, len(stacks)) // by contestant and distance, a value for each round
	for i := range took {
		took[i] = make([][]float64, len(distances))
	}
	for j, d := range distances {
		for range d.rounds {
			times, err := seriesRound(server, d.rtt, n)
			if err != nil {
				return Section{}, err
			}
			for i, t := range times {
				took[i][j] = append(took[i][j], t.Seconds())
			}
			done++
			o.progress(done, all)
		}
	}

	heads, section := []string{"contestant"}, Section{}
	picture := Picture{Name: "mutations", Title: fmt.Sprintf("%d mutations in a row, over TLS", n), X: "round trip time, milliseconds", Y: "seconds"}
	for _, d := range distances {
		heads = append(heads, fmt.Sprintf("RTT %s, time", inMilliseconds(d.rtt)), "ampauth ÷ it")
	}
	t := table("", append(heads, "connections", "TLS handshakes of the first mutation")...)
	for i, c := range stacks {
		row, l := []string{c.Name}, line{Name: c.Name}
		for j, d := range distances {
			quotient := ""
			if i > 0 {
				quotient = asRatio(ratio(took[0][j], took[i][j]))
			}
			row = append(row, asTime(median(took[i][j])), quotient)
			l.X, l.Y = append(l.X, d.rtt.Seconds()*1e3), append(l.Y, median(took[i][j]))
			if c.Name == cheapestPair.Name {
				section.Goals = append(section.Goals, atMost(fmt.Sprintf("%d mutations in a row, RTT %s, time", n, inMilliseconds(d.rtt)),
					cheapestPair.Name+", "+bothTimeout, 1.05, ratio(took[0][j], took[i][j]), asRatio))
			}
		}
		const many = 100
		connections, handshakes, err := connectionsFor(c, many)
		if err != nil {
			return Section{}, fmt.Errorf("%s: %w", c.Name, err)
		}
		t.add(append(row, fmt.Sprint(connections), fmt.Sprint(handshakes))...)
		picture.Lines = append(picture.Lines, l)
		if i == 0 {
			section.Goals = append(section.Goals,
				counted(fmt.Sprintf("connections for %d mutations in a row", many), "itself", "1", fmt.Sprint(connections), connections == 1),
				counted("TLS handshakes of the first mutation to a host that speaks HTTP/2 and HTTP/1.1", "itself", "1", fmt.Sprint(handshakes), handshakes == 1))
		}
	}
	section.Text = fmt.Sprintf("One caller sends %d mutations of 1 KiB, each when the one before is answered, over TLS. At the start nobody has a connection; a login is answered at once, without one. A relay delays both ways, and limits nothing; the first bytes of a connection wait for a round trip more, as they would for TCP. Peers speak HTTP/1.1, and repeat what they repeat elsewhere here. Rounds: %d without a delay, one contestant after the other; %d at 20 ms and %d at 100 ms, all at the same time. Connections and handshakes are those of 100 mutations without a delay, counted by a server that speaks HTTP/2 and HTTP/1.1, as everybody does there.",
		n, distances[0].rounds, distances[1].rounds, distances[2].rounds)
	section.Tables, section.Pictures = []Table{t}, []Picture{picture}
	return section, nil
}

// seriesRound has every stack send its mutations: at the same time if they mostly wait.
func seriesRound(server *server, rtt time.Duration, n int) ([]time.Duration, error) {
	relay, err := startRelay(server.Listener.Addr().String(), rtt)
	if err != nil {
		return nil, err
	}
	defer relay.Close()
	times, errs := make([]time.Duration, len(stacks)), make([]error, len(stacks))
	var wg sync.WaitGroup
	for i, c := range stacks {
		base := server.transport(2)
		if i > 0 {
			base = onlyHTTP1(base)
		}
		defer base.CloseIdleConnections()
		wg.Go(func() {
			times[i], errs[i] = inARow(c, base, "https://"+relay.Addr().String()+"/api", n)
		})
		if rtt == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s, RTT %s: %w", stacks[i].Name, inMilliseconds(rtt), err)
		}
	}
	return times, nil
}

// inARow is how long n mutations take one caller, who has no connection yet.
func inARow(c layer, base *http.Transport, url string, n int) (time.Duration, error) {
	s := setup{Base: base, Logins: staticLogin, URL: url, Timeout: timeoutOfAttempt}
	send, r := c.Over(s.withDefaults()), post(url+"/assets/issue", 1<<10)
	began := time.Now()
	for range n {
		if err := finish(send(r.again())); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// connectionsFor counts the connections that n mutations in a row take, and the
// handshakes of the first of them.
func connectionsFor(c layer, n int) (connections, handshakes int64, err error) {
	server := serve(true, 0, answerTwoBytes)
	defer server.Close()
	base := server.transport(2)
	defer base.CloseIdleConnections()
	s := server.setup(base)
	s.Logins = staticLogin
	send, r := c.Over(s), post(server.apiURL()+"/assets/issue", 1<<10)
	for i := range n {
		if err := finish(send(r.again())); err != nil {
			return 0, 0, err
		}
		if i == 0 {
			handshakes = server.handshakes.Load()
		}
	}
	return server.connections.Load(), handshakes, nil
}

// inMilliseconds shows a round duration.
func inMilliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
