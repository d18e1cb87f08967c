package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"
)

// A storyboard is when an API is down. Time begins with the outage.
type storyboard struct {
	before, outage, after time.Duration
	baseDelay, maxDelay   time.Duration // of the backoff
	bin                   time.Duration // of what is shown over time
}

// clients is how many callers there are. Each begins a call in every second,
// whatever became of those before.
const clients = 200

// outages measures how retries multiply an outage, and what comes after it. All
// contestants go through theirs at the same time, each with a server of its own.
func outages(o Options) (Section, error) {
	story := pick(o,
		storyboard{3 * time.Second, 20 * time.Second, 12 * time.Second, time.Second, 30 * time.Second, time.Second},
		storyboard{300 * time.Millisecond, 6 * time.Second, 1200 * time.Millisecond, 100 * time.Millisecond, 3 * time.Second, 300 * time.Millisecond})
	contestants := []layer{
		{"ampauth", ampauthRetry},
		{"ampauth, one client each", oneEach(ampauthRetry)},
		{"go-retryablehttp", retryablehttpRetry},
		{"failsafe-go", failsafeRetry},
		{"failsafe-go with its budget", failsafeBudgetRetry},
		{"failsafe-go with its circuit breaker", failsafeBreakerRetry},
		{"rehttp", rehttpRetry},
		{"rehttp, as in its example", rehttpExample},
		{"azcore", azureRetry},
	}
	records := make([]*outageRecord, len(contestants))
	var wg sync.WaitGroup
	for i, c := range contestants {
		wg.Go(func() { records[i] = goThrough(c, story, i == 0, o.progress) })
	}
	wg.Wait()

	t := table("", "contestant", "requests per call of the outage", "calls that failed", "after it, first success", "half of the callers had one", "all had", "highest rate of requests in the outage, per second", "in the first second after it")
	picture := Picture{
		Name: "outage", X: "seconds", Y: "requests per second",
		Title: fmt.Sprintf("Requests that reach a server which is down from 0 to %s, of %d calls per second", inSeconds(story.outage), clients),
	}
	for i, r := range records {
		again := r.again()
		t.add(contestants[i].Name, fmt.Sprintf("%.2f", r.amplification()), fmt.Sprint(r.failed), asTime(quantile(again, 0)), asTime(quantile(again, .5)), asTime(quantile(again, 1)),
			asCount(r.peak(0, story.outage)), asCount(r.peak(story.outage, story.outage+time.Second)))
		picture.Lines = append(picture.Lines, r.line(contestants[i].Name))
	}
	ours := records[0].amplification()
	return Section{
		Text: fmt.Sprintf("%d callers each begin a GET in every second, whatever became of the one before. The server answers 200, then 503 without Retry-After for %s, then 200 again (HTTP/1.1 on loopback, real time). Three attempts, waits from %s to %s, each with its own jitter. The callers share one client, and with it ampauth's budget of retries; in the second row each has its own, as %d processes would. A budget has its price: calls that begin in the last seconds of an outage fail, where retries would have carried them over. failsafe-go's budget bounds the retries that are on their way at a time, which are few when the answer comes at once; its circuit breaker sends hardly anything, and refuses calls that could have succeeded.",
			clients, inSeconds(story.outage), inSeconds(story.baseDelay), inSeconds(story.maxDelay), clients),
		Tables:   []Table{t},
		Pictures: []Picture{picture},
		Goals: []Goal{counted("attempts per call in a lasting outage", fmt.Sprintf("itself (go-retryablehttp: %.1f)", records[2].amplification()),
			"at most 1.1", fmt.Sprintf("%.2f", ours), ours <= 1.1)},
	}, nil
}

// oneEach gives every caller a client of its own, over the same connections.
func oneEach(layer func(setup) sender) func(setup) sender {
	return func(s setup) sender {
		var turn atomic.Int64
		senders := make([]sender, clients)
		for i := range senders {
			senders[i] = layer(s)
		}
		return func(req *http.Request) (*http.Response, error) {
			return senders[turn.Add(1)%clients](req)
		}
	}
}

// An outageRecord is what a server and its callers saw.
type outageRecord struct {
	story storyboard
	start time.Time // of the outage

	mu       sync.Mutex // guards all below
	requests []time.Duration
	calls    int             // that were due in the outage
	attempts int             // at those
	failed   int             // calls
	success  []time.Duration // the first of each caller after the outage; 0: none yet
}

func (r *outageRecord) now() time.Duration { return time.Since(r.start) }

// isDown reports whether a moment is in the outage.
func (r *outageRecord) isDown(at time.Duration) bool { return at >= 0 && at < r.story.outage }

// ofTheOutage marks the requests of calls that were due in the outage, so that they
// are counted as such whenever they are sent.
const ofTheOutage = "X-Of-The-Outage"

// goThrough sends calls at a steady pace through an outage.
func goThrough(c layer, story storyboard, tells bool, progress func(done, of int)) *outageRecord {
	r := &outageRecord{story: story, start: time.Now().Add(story.before), success: make([]time.Duration, clients)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		at := r.now()
		r.mu.Lock()
		r.requests = append(r.requests, at)
		if req.Header.Get(ofTheOutage) != "" {
			r.attempts++
		}
		r.mu.Unlock()
		if r.isDown(at) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answerTwoBytes(w, req)
	}))
	defer server.Close()
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConns, base.MaxIdleConnsPerHost = 0, 1000
	defer base.CloseIdleConnections()
	s := setup{Base: base, URL: server.URL + "/api", Timeout: timeoutOfAttempt, BaseDelay: story.baseDelay, MaxDelay: story.maxDelay}
	send := c.Over(s.withDefaults())

	var wg sync.WaitGroup
	all := int((story.before + story.outage + story.after).Seconds() * clients)
	for i := range all {
		due := time.Duration(i)*time.Second/clients - story.before
		time.Sleep(due - r.now())
		wg.Go(func() {
			call := get(s.URL+"/assets", 6)
			if r.isDown(due) {
				call.Header.Set(ofTheOutage, "yes")
			}
			err := finish(send(call.Request))
			ended := r.now()
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.isDown(due) {
				r.calls++
			}
			if first := &r.success[i%clients]; err != nil {
				r.failed++
			} else if ended >= story.outage && (*first == 0 || ended < *first) {
				*first = ended
			}
		})
		if tells && i%clients == 0 {
			progress(i/clients, all/clients)
		}
	}
	wg.Wait()
	return r
}

// within counts the requests that came in a span of time.
func (r *outageRecord) within(from, to time.Duration) (n int) {
	for _, at := range r.requests {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

// amplification is how many requests the server got for each call of the outage.
func (r *outageRecord) amplification() float64 { return float64(r.attempts) / float64(r.calls) }

// again is when each caller had a success again, in seconds after the outage.
func (r *outageRecord) again() (seconds []float64) {
	for _, at := range r.success {
		seconds = append(seconds, (at - r.story.outage).Seconds())
	}
	return seconds
}

// peak is the highest rate of requests in any tenth of a bin, per second.
func (r *outageRecord) peak(from, to time.Duration) float64 {
	width := r.story.bin / 10
	most := 0
	for at := from; at+width <= to; at += width {
		most = max(most, r.within(at, at+width))
	}
	return float64(most) / width.Seconds()
}

// line is the rate of requests over time.
func (r *outageRecord) line(name string) line {
	l := line{Name: name}
	for at := -r.story.before; at < r.story.outage+r.story.after; at += r.story.bin {
		l.X = append(l.X, (at + r.story.bin/2).Seconds())
		l.Y = append(l.Y, float64(r.within(at, at+r.story.bin))/r.story.bin.Seconds())
	}
	return l
}
