package bench

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A pace is how fast requests come and the token ages.
type pace struct {
	perSecond int
	login     time.Duration // how long one takes
	lifetime  time.Duration // of a token; the second half of it is for replacing it
	before    time.Duration // that half, from which on requests are counted
	until     time.Duration // the requests end, after the first token was had
}

var tokenHolders = []Layer{
	{"ampauth", ampauthAuth},
	{"x/oauth2", oauth2Auth},
	{"cloud.google.com/go/auth", googleAuth},
	{"azcore", azureAuth},
	{"smithy-go", smithyAuth},
}

// refreshes measures how long requests take while the token is replaced, by a
// login that takes two seconds.
func refreshes(o Options) (Section, error) {
	p := pick(o,
		pace{perSecond: 2000, login: 2 * time.Second, lifetime: 10 * time.Second, before: 4 * time.Second, until: 10 * time.Second},
		pace{perSecond: 500, login: 100 * time.Millisecond, lifetime: 400 * time.Millisecond, before: 150 * time.Millisecond, until: 400 * time.Millisecond})
	rounds := pick(o, 3, 1)
	t := table("", "contestant", "steady, p50", "p99.9", "across the refresh, p50", "p99", "p99.9", "maximum", "requests that failed", "logins")
	var lines []line
	var grown, most float64
	for i, holder := range tokenHolders {
		var steady, across [4][]float64 // p50, p99, p99.9, maximum, by round
		var course timeline             // the last
		failed, logins := 0, int64(0)
		for round := range rounds {
			r, err := refreshOnce(holder, p)
			if err != nil {
				return Section{}, fmt.Errorf("%s: %w", holder.Name, err)
			}
			for j, q := range []float64{.5, .99, .999, 1} {
				steady[j] = append(steady[j], quantile(r.steady, q))
				across[j] = append(across[j], quantile(r.across, q))
			}
			course = r
			failed += r.failed
			logins = max(logins, r.logins)
			o.progress(i*rounds+round+1, rounds*len(tokenHolders))
		}
		row := []string{holder.Name, asTime(estimateOf(steady[0]).median), asTime(estimateOf(steady[2]).median)}
		for j := range across {
			row = append(row, asTime(estimateOf(across[j]).median))
		}
		t.add(append(row, fmt.Sprint(failed), fmt.Sprint(logins))...)
		lines = append(lines, course.line(holder.Name))
		if i == 0 {
			grown = estimateOf(across[2]).median / estimateOf(steady[2]).median
		}
		if holder.Name == "x/oauth2" {
			most = estimateOf(across[2]).median
		}
	}
	return Section{
		Text: fmt.Sprintf("%d requests per second, whatever becomes of those before (HTTP/1.1 on loopback, 64 connections), while the token gets old enough to be replaced and a login takes %s. All replace it in the second half of a life of %s. Medians of %d rounds; steady is before that half begins.",
			p.perSecond, p.login, p.lifetime, rounds),
		Tables: []Table{t},
		Pictures: []Picture{{
			Name: "refresh", Title: fmt.Sprintf("The slowest of each 50 ms, while a login takes %s", p.login),
			X: "seconds since the token was had", Y: "seconds", LogY: true, Lines: lines,
		}},
		Goals: []Goal{atMost("p99.9 across a refresh ÷ steady", "itself (x/oauth2: "+asTime(most)+")", 2, estimate{median: grown}, asRatio)},
	}, nil
}

// A timeline is how requests fared, by when they were sent.
type timeline struct {
	sent, took     []float64 // seconds
	steady, across []float64 // what they took, before the token was due and from then on
	failed         int
	logins         int64
}

// refreshOnce sends requests at a steady pace.
func refreshOnce(holder Layer, p pace) (timeline, error) {
	var result timeline
	server := serve(false, p.login, answerTwoBytes)
	defer server.Close()
	base := server.transport(64)
	defer base.CloseIdleConnections()
	s := server.setup(base)
	s.Logins = http.DefaultTransport.(*http.Transport).Clone() // a login waits for no request
	s.Lifetime, s.Window = p.lifetime, p.lifetime/2
	send := holder.Over(s)
	if err := finish(send(get(server.apiURL() + "/assets").Request)); err != nil {
		return result, err
	}

	var mu sync.Mutex // guards result
	var wg sync.WaitGroup
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(p.perSecond))
		if due.Sub(began) > p.until {
			break
		}
		time.Sleep(time.Until(due))
		wg.Go(func() {
			sent := time.Now()
			err := finish(send(get(server.apiURL() + "/assets").Request))
			took := time.Since(sent).Seconds()
			at := sent.Sub(began)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.failed++
			}
			result.sent, result.took = append(result.sent, at.Seconds()), append(result.took, took)
			switch half := p.lifetime / 2; {
			case at < half-p.before, at >= half-p.before/10 && at < half:
				// The first warm up; at the edge it is uncertain which side they are on.
			case at < half:
				result.steady = append(result.steady, took)
			default:
				result.across = append(result.across, took)
			}
		})
	}
	wg.Wait()
	result.logins = server.logins.Load()
	return result, nil
}

// line is the slowest request of each 50 ms.
func (t timeline) line(name string) line {
	const width = .05
	var l line
	l.Name = name
	slowest := map[int]float64{}
	last := 0
	for i, at := range t.sent {
		bin := int(at / width)
		slowest[bin] = max(slowest[bin], t.took[i])
		last = max(last, bin)
	}
	for bin := range last {
		if took, ok := slowest[bin]; ok {
			l.X, l.Y = append(l.X, (float64(bin)+.5)*width), append(l.Y, took)
		}
	}
	return l
}
