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
	contestants := []Layer{
		{"ampauth", ampauthRetry},
		{"ampauth, one client each", oneEach(ampauthRetry)},
		{"go-retryablehttp", retryablehttpRetry},
		{"failsafe-go", failsafeRetry},
		{"failsafe-go with its budget", failsafeBudgetRetry},
		{"rehttp", rehttpRetry},
		{"azcore", azureRetry},
	}
	records := make([]*outageRecord, len(contestants))
	var wg sync.WaitGroup
	for i, c := range contestants {
		wg.Go(func() { records[i] = goThrough(c, story, i == 0, o.progress) })
	}
	wg.Wait()

	t := table("", "contestant", "attempts per call in the outage", "calls that failed", "first success after it", "highest rate of requests in the outage, per second", "in the first second after it")
	picture := Picture{Name: "outage", Title: "Requests that reach a server which is down from 0 to 20 s, 200 calls per second", X: "seconds", Y: "requests per second"}
	for i, r := range records {
		t.add(contestants[i].Name, fmt.Sprintf("%.2f", r.amplification()), fmt.Sprint(r.failed.Load()),
			asTime(r.firstSuccess().Seconds()), asCount(r.peak(0, story.outage)), asCount(r.peak(story.outage, story.outage+time.Second)))
		picture.Lines = append(picture.Lines, r.line(contestants[i].Name))
	}
	ours := records[0].amplification()
	return Section{
		Text: fmt.Sprintf("%d callers each begin a GET in every second. The server answers 200, then 503 without Retry-After for %s, then 200 again (HTTP/1.1 on loopback, real time). Three attempts, backoff from %s to %s. The callers share one client, and with it ampauth's budget of retries; in the second row each has its own, as %d processes would. A budget has its price: calls that begin in the last seconds of an outage fail, where retries would have carried them over.",
			clients, story.outage, story.baseDelay, story.maxDelay, clients),
		Tables:   []Table{t},
		Pictures: []Picture{picture},
		Goals: []Goal{counted("attempts per call in a lasting outage", "itself (the worst peer: "+fmt.Sprintf("%.1f", worst(records[2:]))+")",
			"at most 1.1", fmt.Sprintf("%.2f", ours), ours <= 1.1)},
	}, nil
}

func worst(records []*outageRecord) float64 {
	most := 0.
	for _, r := range records {
		most = max(most, r.amplification())
	}
	return most
}

// oneEach gives every caller a client of its own, over the same connections.
func oneEach(layer func(Setup) Sender) func(Setup) Sender {
	return func(s Setup) Sender {
		var turn atomic.Int64
		senders := make([]Sender, clients)
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
	story  storyboard
	start  time.Time // of the outage
	failed atomic.Int64

	mu       sync.Mutex // guards all below
	attempts []time.Duration
	calls    []time.Duration
	success  time.Duration // the first after the outage
}

func (r *outageRecord) now() time.Duration { return time.Since(r.start) }

// goThrough sends calls at a steady pace through an outage.
func goThrough(c Layer, story storyboard, tells bool, progress func(done, of int)) *outageRecord {
	r := &outageRecord{story: story, start: time.Now().Add(story.before)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		at := r.now()
		r.mu.Lock()
		r.attempts = append(r.attempts, at)
		r.mu.Unlock()
		if at >= 0 && at < story.outage {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answerTwoBytes(w, nil)
	}))
	defer server.Close()
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = 1000
	defer base.CloseIdleConnections()
	s := Setup{Base: base, URL: server.URL + "/api", Timeout: timeoutOfAttempt, BaseDelay: story.baseDelay, MaxDelay: story.maxDelay}
	send := c.Over(s.withDefaults())

	var wg sync.WaitGroup
	first := r.start.Add(-story.before)
	all := int((story.before + story.outage + story.after).Seconds() * clients)
	for i := range all {
		time.Sleep(time.Until(first.Add(time.Duration(i) * time.Second / clients)))
		wg.Go(func() {
			began := r.now()
			err := finish(send(get(s.URL + "/assets").Request))
			ended := r.now()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls = append(r.calls, began)
			if err != nil {
				r.failed.Add(1)
			} else if ended >= story.outage && (r.success == 0 || ended < r.success) {
				r.success = ended
			}
		})
		if tells && i%clients == 0 {
			progress(i/clients, all/clients)
		}
	}
	wg.Wait()
	return r
}

func within(times []time.Duration, from, to time.Duration) int {
	n := 0
	for _, at := range times {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

// amplification is how many requests the server got in the outage for each call
// that was begun in it.
func (r *outageRecord) amplification() float64 {
	return float64(within(r.attempts, 0, r.story.outage)) / float64(within(r.calls, 0, r.story.outage))
}

func (r *outageRecord) firstSuccess() time.Duration { return r.success - r.story.outage }

// peak is the highest rate of requests in any tenth of a bin, per second.
func (r *outageRecord) peak(from, to time.Duration) float64 {
	width := r.story.bin / 10
	most := 0
	for at := from; at+width <= to; at += width {
		most = max(most, within(r.attempts, at, at+width))
	}
	return float64(most) / width.Seconds()
}

// line is the rate of requests over time.
func (r *outageRecord) line(name string) line {
	l := line{Name: name}
	for at := -r.story.before; at < r.story.outage+r.story.after; at += r.story.bin {
		l.X = append(l.X, (at + r.story.bin/2).Seconds())
		l.Y = append(l.Y, float64(within(r.attempts, at, at+r.story.bin))/r.story.bin.Seconds())
	}
	return l
}
