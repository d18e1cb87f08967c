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
	loginTime, rounds := pick(o, 500*time.Millisecond, 50*time.Millisecond), pick(o, 3, 1)
	contestants := []layer{
		stacks[0],
		cheapestPair,
		{"rehttp over cloud.google.com/go/auth", over(rehttpRetry, googleAuth)},
		{"rehttp over smithy-go", over(rehttpRetry, smithyAuth)},
		{"azcore", azureBoth},
		{"azcore, told to repeat 401", azureRepeatingRefusals},
	}
	section := Section{Text: fmt.Sprintf("%d goroutines send a GET at the same moment (HTTP/1.1 on loopback, 64 connections); a login takes %s. Served are those that got a 2xx: most leave a refusal to their caller. Rounds: %d; shown are the least served, the most logins, the median of the times.", callers, inSeconds(loginTime), rounds)}
	for turn, cold := range []bool{true, false} {
		title, what := "**cold: nobody has a token yet**", "logins of 10,000 callers, cold"
		if !cold {
			title, what = "**refused: the token that all have was revoked**", "logins of 10,000 callers, all refused at once"
		}
		all := make([][]herd, len(contestants))
		for round := range rounds {
			for i, c := range contestants {
				h, err := stampede(c, callers, loginTime, cold)
				if err != nil {
					return Section{}, fmt.Errorf("%s: %w", c.Name, err)
				}
				all[i] = append(all[i], h)
			}
			o.progress(turn*rounds+round+1, 2*rounds)
		}
		t := table(title, "contestant", "served", "logins", "until all were served")
		for i, c := range contestants {
			served, logins, times := int64(callers), int64(0), []float64(nil)
			for _, h := range all[i] {
				served, logins, times = min(served, h.served), max(logins, h.logins), append(times, h.took.Seconds())
			}
			took := "never"
			if served == callers {
				took = asTime(median(times))
			}
			t.add(c.Name, fmt.Sprint(served), fmt.Sprint(logins), took)
			if i == 0 {
				section.Goals = append(section.Goals, counted(what, "itself", "1, and all served",
					fmt.Sprintf("%d, %d served", logins, served), logins == 1 && served == callers))
			}
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

func stampede(holder layer, callers int, loginTime time.Duration, cold bool) (herd, error) {
	server := serve(false, loginTime, answerTwoBytes)
	defer server.Close()
	base := server.transport(64)
	defer base.CloseIdleConnections()
	send := holder.Over(server.setup(base))
	if !cold {
		if err := finish(send(get(server.apiURL()+"/assets", 7).Request)); err != nil {
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
			r := get(server.apiURL()+"/assets", 7)
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
