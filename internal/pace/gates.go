package pace

import (
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
)

// Gates hold requests back from hosts that asked for it by Retry-After. The zero value
// holds nothing back.
type Gates struct {
	shut atomic.Bool // whether byHost may hold anything; spares the lock otherwise

	mu     sync.Mutex      // guards byHost
	byHost map[string]gate // by scheme, host and port in normal form
}

// A gate opens at two times: after a 429 nothing may pass, after a 503 no retry.
type gate struct{ everything, retries time.Time }

// Hold shuts the gate of a host for a while; retriesOnly lets first attempts pass.
func (g *Gates) Hold(u *url.URL, d time.Duration, retriesOnly bool) {
	host := keyOf(u)
	until := time.Now().Add(d)
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := g.byHost[host]
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
	for h, entry := range g.byHost {
		if !entry.retries.After(now) && !entry.everything.After(now) {
			delete(g.byHost, h)
		}
	}
	if len(g.byHost) == 0 {
		g.shut.Store(false)
		return 0
	}
	until := g.byHost[host].everything
	if isRetry {
		until = g.byHost[host].retries
	}
	return max(until.Sub(now), 0)
}

func keyOf(u *url.URL) string {
	o, _ := origin.Of(u.Scheme, u.Host)
	return o.String()
}
