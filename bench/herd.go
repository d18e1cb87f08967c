package bench

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// herds measures what happens when very many callers want a token at once: at the
// start, and when the one they all have was revoked.
func herds(o Options) (Section, error) {
	const callers = 10_000
	loginTime := pick(o, 500*time.Millisecond, 50*time.Millisecond)
	holders := append([]Layer{{"ampauth", ampauthStack}}, tokenHolders[1:]...)
	section := Section{Text: fmt.Sprintf("%d goroutines send a GET at the same moment (HTTP/1.1 on loopback, 64 connections); a login takes %s. Served are those that got a 2xx.", callers, loginTime)}
	for turn, cold := range []bool{true, false} {
		title, what := "**cold: nobody has a token yet**", "logins of 10,000 callers, cold"
		if !cold {
			title, what = "**refused: the token that all have was revoked**", "logins of 10,000 callers, all refused at once"
		}
		t := table(title, "contestant", "served", "logins", "until the last had its answer")
		for i, holder := range holders {
			h, err := stampede(holder, callers, loginTime, cold)
			if err != nil {
				return Section{}, fmt.Errorf("%s: %w", holder.Name, err)
			}
			t.add(holder.Name, fmt.Sprint(h.served), fmt.Sprint(h.logins), asTime(h.took.Seconds()))
			if i == 0 {
				section.Goals = append(section.Goals, counted(what, "itself", "1, and all served",
					fmt.Sprintf("%d, %d served", h.logins, h.served), h.logins == 1 && h.served == callers))
			}
			o.progress(turn*len(holders)+i+1, 2*len(holders))
		}
		section.Tables = append(section.Tables, t)
	}
	return section, nil
}

// A herd is how a stampede went.
type herd struct {
	served, logins int64
	took           time.Duration
}

func stampede(holder Layer, callers int, loginTime time.Duration, cold bool) (herd, error) {
	server := serve(false, loginTime, answerTwoBytes)
	defer server.Close()
	base := server.transport(64)
	defer base.CloseIdleConnections()
	send := holder.Over(server.setup(base))
	if !cold {
		if err := finish(send(get(server.apiURL() + "/assets").Request)); err != nil {
			return herd{}, err
		}
		server.revoke()
	}
	before := server.logins.Load()

	var served atomic.Int64
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(callers)
	for range callers {
		done.Go(func() {
			r := get(server.apiURL() + "/assets")
			ready.Done()
			<-start
			if finish(send(r.Request)) == nil {
				served.Add(1)
			}
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	return herd{served.Load(), server.logins.Load() - before, time.Since(began)}, nil
}
