package bench

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// A pace is how fast requests come and the token ages.
type pace struct {
	perSecond int
	login     time.Duration // how long one takes
	lifetime  time.Duration // of a token; the second half of it is for replacing it
	before    time.Duration // that half, from which on requests are counted
	until     time.Duration // the requests end, after the first token came
	shown     time.Duration // what one point of the plot stands for
}

var tokenHolders = []layer{
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
		pace{perSecond: 2000, login: 2 * time.Second, lifetime: 10 * time.Second, before: 4 * time.Second, until: 10 * time.Second, shown: 200 * time.Millisecond},
		pace{perSecond: 500, login: 100 * time.Millisecond, lifetime: 400 * time.Millisecond, before: 150 * time.Millisecond, until: 400 * time.Millisecond, shown: 40 * time.Millisecond})
	rounds := pick(o, 3, 1)
	courses := make([][]timeline, len(tokenHolders))
	var late []float64
	for round := range rounds {
		for i, holder := range tokenHolders {
			course, err := refreshOnce(holder, p)
			if err != nil {
				return Section{}, fmt.Errorf("%s: %w", holder.Name, err)
			}
			courses[i], late = append(courses[i], course), append(late, course.late...)
			o.progress(round*len(tokenHolders)+i+1, rounds*len(tokenHolders))
		}
	}
	t := table("", "contestant", "steady, p50", "p99.9", "across the refresh, p50", "p99", "p99.9", "maximum", "requests that failed", "logins")
	var lines []line
	tails := make(map[string][2][]float64) // p99.9, steady and across, by round
	for i, holder := range tokenHolders {
		var columns [6][]float64
		failed, logins := 0, int64(0)
		for _, course := range courses[i] {
			for j, value := range []float64{
				quantile(course.steady, .5), quantile(course.steady, .999),
				quantile(course.across, .5), quantile(course.across, .99), quantile(course.across, .999), slices.Max(course.across),
			} {
				columns[j] = append(columns[j], value)
			}
			failed += course.failed
			logins = max(logins, course.logins)
		}
		row := []string{holder.Name}
		for _, values := range columns {
			row = append(row, asTime(median(values)))
		}
		t.add(append(row, fmt.Sprint(failed), fmt.Sprint(logins))...)
		lines = append(lines, courses[i][rounds-1].line(holder.Name, p.shown))
		tails[holder.Name] = [2][]float64{columns[1], columns[4]}
	}
	ours, theirs := tails["ampauth"], tails["x/oauth2"]
	return Section{
		Text: fmt.Sprintf("%d requests per second, whatever becomes of those before (HTTP/1.1 on loopback, 64 connections), while the token gets old enough to be replaced and a login takes %s. All replace it in the second half of a life of %s; steady is before that half begins. Medians of %d rounds; the plot shows the last. A request's time begins when it is sent; 999 of 1000 were sent at most %s late.",
			p.perSecond, inSeconds(p.login), inSeconds(p.lifetime), rounds, asTime(quantile(late, .999))),
		Tables: []Table{t},
		Pictures: []Picture{{
			Name: "refresh", Title: fmt.Sprintf("What 99 of 100 requests take at most, while a login takes %s", inSeconds(p.login)),
			X: "seconds since the token came", Y: "seconds", LogY: true, Lines: lines,
		}},
		Goals: []Goal{atMost("p99.9 across a refresh ÷ steady", "itself (x/oauth2: "+asTime(median(theirs[1]))+")", 2, ratio(ours[1], ours[0]), asRatio)},
	}, nil
}

// A timeline is how requests fared, by when they were sent.
type timeline struct {
	sent, took     []float64 // seconds
	steady, across []float64 // what they took, before the token was due and from then on
	late           []float64 // how much later than due they were sent
	failed         int
	logins         int64
}

// refreshOnce sends requests at a steady pace.
func refreshOnce(holder layer, p pace) (timeline, error) {
	var result timeline
	server := serve(false, p.login, answerTwoBytes)
	defer server.Close()
	base := server.transport(64)
	defer base.CloseIdleConnections()
	s := server.setup(base)
	logins := server.transport(1) // a login waits for no request
	defer logins.CloseIdleConnections()
	s.Logins = logins
	s.Lifetime, s.Window = p.lifetime, p.lifetime/2
	send := holder.Over(s)
	if err := finish(send(get(server.apiURL()+"/assets", 7).Request)); err != nil {
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
			err := finish(send(get(server.apiURL()+"/assets", 7).Request))
			took := time.Since(sent).Seconds()
			at := sent.Sub(began)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.failed++
			}
			result.late = append(result.late, sent.Sub(due).Seconds())
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

// line is the 99th percentile over time.
func (t timeline) line(name string, width time.Duration) line {
	bins := map[int][]float64{}
	last := 0
	for i, at := range t.sent {
		bin := int(at / width.Seconds())
		bins[bin] = append(bins[bin], t.took[i])
		last = max(last, bin)
	}
	l := line{Name: name}
	for bin := range last { // the last is not whole
		if took := bins[bin]; len(took) > 0 {
			l.X, l.Y = append(l.X, (float64(bin)+.5)*width.Seconds()), append(l.Y, quantile(took, .99))
		}
	}
	return l
}
