package pace

import (
	"container/heap"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
)

// Gates hold requests back from hosts that asked for it by Retry-After. The zero value
// holds nothing back. A host is forgotten after its gate has opened.
type Gates struct {
	shut atomic.Bool // whether byHost may hold anything; spares the lock otherwise

	mu      sync.Mutex      // guards what follows
	byHost  map[string]gate // by scheme, host and port in normal form
	opening openings        // of each host in byHost
}

const (
	// forgetAtOnce is how many hosts are forgotten at once, so that nobody waits for a look
	// at all of them. Each Hold brings one host at most.
	forgetAtOnce = 4
	// maxGates bounds what is remembered.
	maxGates = 1 << 16
)

// A gate opens at two times: after a 429 nothing may pass, after a 503 no retry.
type gate struct{ everything, retries time.Time }

// opens is when the gate holds nothing back any more.
func (g gate) opens() time.Time {
	if g.everything.After(g.retries) {
		return g.everything
	}
	return g.retries
}

// Hold shuts the gate of a host for a while; retriesOnly lets first attempts pass.
func (g *Gates) Hold(u *url.URL, d time.Duration, retriesOnly bool) {
	host := keyOf(u)
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	until := now.Add(d)
	g.forget(now)
	entry, known := g.byHost[host]
	if until.After(entry.retries) {
		entry.retries = until
	}
	if !retriesOnly && until.After(entry.everything) {
		entry.everything = until
	}
	if g.byHost == nil {
		g.byHost = make(map[string]gate)
	}
	g.byHost[host] = entry
	g.shut.Store(true)
	if known {
		return
	}
	heap.Push(&g.opening, opening{host, entry.opens()})
	if len(g.opening) > maxGates {
		delete(g.byHost, heap.Pop(&g.opening).(opening).host)
	}
}

// Remaining is the time until the gate of a host opens, 0 if it is open.
func (g *Gates) Remaining(u *url.URL, isRetry bool) time.Duration {
	if !g.shut.Load() {
		return 0
	}
	host := keyOf(u)
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.forget(now)
	entry := g.byHost[host]
	until := entry.everything
	if isRetry {
		until = entry.retries
	}
	return max(until.Sub(now), 0)
}

// forget removes a few of the hosts whose gates are open. mu must be held.
func (g *Gates) forget(now time.Time) {
	for range forgetAtOnce {
		if len(g.opening) == 0 || g.opening[0].at.After(now) {
			break
		}
		first := &g.opening[0]
		if later := g.byHost[first.host].opens(); later.After(now) {
			first.at = later
			heap.Fix(&g.opening, 0)
			continue
		}
		delete(g.byHost, first.host)
		heap.Pop(&g.opening)
	}
	if len(g.opening) == 0 {
		g.byHost, g.opening = nil, nil // a map does not shrink
		g.shut.Store(false)
	}
}

// An opening is when the gate of a host was to open; it may have been extended since.
type opening struct {
	host string
	at   time.Time
}

// openings are a heap with the first one in front.
type openings []opening

func (o openings) Len() int           { return len(o) }
func (o openings) Less(i, j int) bool { return o[i].at.Before(o[j].at) }
func (o openings) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }
func (o *openings) Push(x any)        { *o = append(*o, x.(opening)) }
func (o *openings) Pop() any {
	last := len(*o) - 1
	x := (*o)[last]
	(*o)[last] = opening{}
	*o = (*o)[:last]
	return x
}

func keyOf(u *url.URL) string {
	o, _ := origin.Of(u.Scheme, u.Host)
	return o.String()
}
