package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ampauth/ampauth"
)

// loopback measures requests over real sockets: HTTP/1.1 in clear and HTTP/2 over
// TLS, client and server in this process.
func loopback(o Options) (Section, error) {
	rounds, done := pick(o, 25, 3), 0
	section := Section{Text: fmt.Sprintf("Client and server share the process and the cores. Added is what the layers take on top of a bare transport: CPU (getrusage, user and system) in the same round; allocations, bytes and goroutines of one caller, the least of all rounds, since what the runtime does by itself only adds to them. Over HTTP/2 all callers share one connection. All have a timeout per attempt of 10 s. Rounds: %d.\n\nA POST here is a mutation. ampauth sends it over HTTP/1.1, also where the server speaks HTTP/2, so that it knows which bytes of which mutation were written; these connections are kept for a second. \"May be repeated\" is the same POST without that (WithOperation), over the same connections as the others: what the layers alone cost. What a mutation costs beside the pair's over HTTP/1.1 is in the next section.", rounds)}
	kinds := []struct {
		name   string
		secure bool
		body   int
	}{
		{"GET, HTTP/1.1", false, 0},
		{"GET, HTTP/2", true, 0},
		{"POST of 1 KiB, HTTP/1.1", false, 1 << 10},
		{"POST of 1 KiB, HTTP/2", true, 1 << 10},
		{"POST of 64 KiB, HTTP/1.1", false, 64 << 10},
		{"POST of 64 KiB, HTTP/2", true, 64 << 10},
	}
	tick := func() {
		done++
		o.progress(done, 2*len(kinds)*rounds)
	}
	for _, kind := range kinds {
		contestants := append([]layer{{"bare transport", bareTransport}}, stacks...)
		n := pick(o, 4000, 1000)
		layers := 1 // the contestant that tells what the layers take
		if kind.body > 0 {
			contestants = slices.Insert(contestants, 2, layer{"ampauth, may be repeated", idempotent(ampauthStack)})
			n, layers = pick(o, 500, 64), 2
		}
		one, err := loopbackRounds(contestants, exchange{kind.secure, kind.body, 1, n}, rounds, tick)
		if err != nil {
			return Section{}, err
		}
		many, err := loopbackRounds(contestants, exchange{kind.secure, kind.body, 64, n}, rounds, tick)
		if err != nil {
			return Section{}, err
		}
		t := table("**"+kind.name+"**", "contestant", "requests per second, 1 caller", "64 callers", "CPU added to a request, 1 caller", "64 callers", "CPU in all, ampauth ÷ it, 1 caller", "64 callers", "allocations added", "bytes added", "goroutines started")
		added := func(i int) (allocs, bytes, goroutines float64) {
			return slices.Min(one[i].allocs) - slices.Min(one[0].allocs), slices.Min(one[i].bytes) - slices.Min(one[0].bytes), slices.Min(one[i].goroutines) - slices.Min(one[0].goroutines)
		}
		for i, c := range contestants {
			row := []string{c.Name, asCount(median(one[i].rate)), asCount(median(many[i].rate))}
			if i == 0 {
				t.add(append(row, "("+asUs(estimateOf(one[i].cpu))+" in all)", "("+asUs(estimateOf(many[i].cpu))+" in all)", "", "", "", "", "")...)
				continue
			}
			row = append(row, asUs(estimateOf(excess(one[i].cpu, one[0].cpu))), asUs(estimateOf(excess(many[i].cpu, many[0].cpu))), "", "")
			if i > 1 {
				row[5], row[6] = asRatio(ratio(one[1].cpu, one[i].cpu)), asRatio(ratio(many[1].cpu, many[i].cpu))
			}
			allocs, bytes, goroutines := added(i)
			t.add(append(row, fmt.Sprintf("%.1f", allocs), asCount(bytes), fmt.Sprintf("%.2f", max(goroutines, 0)))...)
		}
		section.Tables = append(section.Tables, t)

		pair := slices.IndexFunc(contestants, func(l layer) bool { return l.Name == cheapestPair.Name })
		more := func(what string, samples []loopbackSample, i int) {
			section.Goals = append(section.Goals, atMost(kind.name+", "+what+", CPU more than the pair's", cheapestPair.Name+", "+bothTimeout, 0,
				estimateOf(excess(samples[i].cpu, samples[pair].cpu)), asUs))
		}
		if kind.body == 0 {
			more("1 caller", one, layers)
			more("64 callers", many, layers)
			allocs, bytes, goroutines := added(layers)
			section.Goals = append(section.Goals,
				counted(kind.name+", timeout on, added", "the bare transport", "at most 11 allocations, 1792 B", fmt.Sprintf("%.0f, %.0f B", allocs, bytes), allocs < 11.5 && bytes < 1792),
				counted(kind.name+", goroutines started by the layers", "the bare transport", "none", fmt.Sprintf("%.2f", max(goroutines, 0)), goroutines < .1))
			continue
		}
		more("64 callers, may be repeated", many, layers)
	}
	return section, nil
}

func bareTransport(s setup) sender { return s.Base.RoundTrip }

// idempotent says of every request that it may be repeated.
func idempotent(layer func(setup) sender) func(setup) sender {
	return func(s setup) sender {
		send := layer(s)
		return func(req *http.Request) (*http.Response, error) {
			return send(req.WithContext(ampauth.WithOperation(req.Context(), ampauth.IdempotentOperation)))
		}
	}
}

// An exchange is n requests by so many callers.
type exchange struct {
	secure     bool // over TLS, where the server speaks HTTP/2 as well
	body       int  // bytes; 0: a GET
	callers, n int
}

func (e exchange) request(url string) *request {
	if e.body > 0 {
		return post(url+"/assets/issue", e.body)
	}
	return get(url+"/assets", 7)
}

// A loopbackSample is what one request takes, a value for each round.
type loopbackSample struct{ rate, cpu, allocs, bytes, goroutines []float64 }

// loopbackRounds lets every contestant have the exchange in each round, over
// connections of its own.
func loopbackRounds(contestants []layer, e exchange, rounds int, tick func()) ([]loopbackSample, error) {
	server := serve(e.secure, 0, answerTwoBytes)
	defer server.Close()
	senders := make([]sender, len(contestants))
	for i, c := range contestants {
		base := server.transport(e.callers)
		defer base.CloseIdleConnections()
		s := server.setup(base)
		s.Timeout = timeoutOfAttempt
		senders[i] = c.Over(s)
	}
	// The bare transport cannot log in, so it is given a token.
	logins := server.transport(1)
	defer logins.CloseIdleConnections()
	g, err := server.setup(logins).logIn(context.Background())
	if err != nil {
		return nil, err
	}

	samples := make([]loopbackSample, len(contestants))
	for round := -1; round < rounds; round++ { // the first warms connections and caches
		for i := range senders {
			i = (i + round + 1) % len(senders)
			token := ""
			if i == 0 {
				token = g.value
			}
			use, err := e.sendWarm(senders[i], server.apiURL(), token)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contestants[i].Name, err)
			}
			if round >= 0 {
				samples[i].add(use, float64(e.n))
			}
		}
		if round >= 0 {
			tick()
		}
	}
	return samples, nil
}

// add notes what n requests took.
func (s *loopbackSample) add(u usage, n float64) {
	s.rate = append(s.rate, n/u.wall.Seconds())
	s.cpu = append(s.cpu, float64(u.cpu.Nanoseconds())/1e3/n)
	s.allocs = append(s.allocs, float64(u.allocs)/n)
	s.bytes = append(s.bytes, float64(u.bytes)/n)
	s.goroutines = append(s.goroutines, float64(u.goroutines)/n)
}

// A usage is what the process took meanwhile.
type usage struct {
	wall, cpu                 time.Duration
	allocs, bytes, goroutines uint64
}

// sendWarm has the exchange after a short one, which opens what connections are lacking:
// those for mutations end when they are idle, while others have their turn.
func (e exchange) sendWarm(send sender, url, token string) (usage, error) {
	warm := e
	warm.n = 4 * e.callers
	if _, err := warm.send(send, url, token); err != nil {
		return usage{}, err
	}
	return e.send(send, url, token)
}

// send has the exchange, each caller with a request of its own, and with a token,
// unless that is empty.
func (e exchange) send(send sender, url, token string) (usage, error) {
	runtime.GC()
	before := usageNow()
	began := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, e.callers)
	for caller := range e.callers {
		wg.Go(func() {
			r := e.request(url)
			if token != "" {
				r.Header.Set("Authorization", "token "+token)
			}
			for i := caller; i < e.n; i += e.callers {
				if err := finish(send(r.again())); err != nil {
					errs[caller] = err
					return
				}
			}
		})
	}
	wg.Wait()
	after := usageNow()
	return usage{
		wall: time.Since(began), cpu: after.cpu - before.cpu,
		allocs: after.allocs - before.allocs, bytes: after.bytes - before.bytes, goroutines: after.goroutines - before.goroutines,
	}, errors.Join(errs...)
}

// finish reads a response to its end. One that is no success is an error.
func finish(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

// usageNow is what the process took so far. The memory statistics are exact, and stop
// the world for it.
func usageNow() (u usage) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.allocs, u.bytes = m.Mallocs, m.TotalAlloc
	goroutines := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(goroutines)
	u.goroutines = goroutines[0].Value.Uint64()
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	return u
}
