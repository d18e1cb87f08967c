// Package livepool sends requests over the connections of an http.Transport, and over
// others once those to a host have gone silent.
package livepool

import (
	"crypto/tls"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

// Pools are the connections of Base, host by host. A connection of HTTP/2 that answers
// nothing any more is used by all requests to its host until somebody closes it, and no
// request can do that without ending those that still wait for it. So what is silent is
// left alone: from then on requests to the host go over a clone of Base.
//
// It is safe for concurrent use.
type Pools struct {
	Base *http.Transport // Required. It is read, and never changed

	last atomic.Pointer[Pool] // that was used last, most often the only one; written under mu

	mu    sync.Mutex // guards what follows
	hosts map[string]*Pool
	left  []*http.Transport // clones that requests may still wait in, the last ones
}

// A Pool is the connections to one host.
type Pool struct {
	host      string
	transport *http.Transport // Base, or a clone of it
	config    *tls.Config     // of Base when it was cloned
	made      time.Time

	arrivals   atomic.Uint64 // answers, and parts of answers
	unanswered atomic.Int32  // requests in a row that ended with nothing arriving, but not by their own clock
	since      atomic.Int64  // when the first of them began, in Unix nanoseconds
	http2      atomic.Bool   // the last answer came over HTTP/2
}

const (
	// connectTime is how long connections may take to come about. A pool that has answered
	// nothing yet is kept for so long, and so are its dials, for callers with less time.
	connectTime = 10 * time.Second
	// minSilence is how long nothing must have arrived for it to mean something that callers
	// left of their own accord.
	minSilence = time.Second
	// maxLeft bounds the pools that were left and are remembered.
	maxLeft = 16
	// idleTime is how long a clone keeps idle connections if Base keeps its own for ever.
	idleTime = 90 * time.Second
	// maxHosts bounds what is remembered.
	maxHosts = 128
	// maxUnanswered is how many callers in a row may give a host up without an answer, each
	// after a time of its own, until its connections count as silent. A caller with little
	// time needs a connection that is there already.
	maxUnanswered = 3
)

// A Use is the part that one request has in a Pool.
type Use struct {
	*Pool
	from  uint64 // arrivals when it began
	began time.Time
}

// Use begins a request to host, and returns what it is to be sent over.
func (p *Pools) Use(host string) (Use, *http.Transport) {
	of := p.last.Load()
	if of == nil || of.host != host || p.outdated(of) {
		of = p.of(host)
	}
	return Use{of, of.arrivals.Load(), time.Now()}, of.transport
}

// outdated reports whether Base has had its TLS configuration replaced since of was
// cloned from it.
func (p *Pools) outdated(of *Pool) bool {
	return of.transport != p.Base && of.config != p.Base.TLSClientConfig
}

func (p *Pools) of(host string) *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.hosts[host]
	switch {
	case of == nil:
		p.put(&Pool{host: host, transport: p.Base, made: time.Now()})
	case p.outdated(of):
		p.put(p.clone(of, of.transport.HTTP2.SendPingTimeout))
	default:
		p.last.Store(of)
	}
	return p.hosts[host]
}

// put makes of the pool of its host; mu must be held.
func (p *Pools) put(of *Pool) {
	if p.hosts == nil {
		p.hosts = make(map[string]*Pool)
	}
	before := p.hosts[of.host]
	for _, other := range p.hosts {
		if before != nil || len(p.hosts) < maxHosts {
			break
		}
		before = other
		delete(p.hosts, other.host)
	}
	if before != nil && before.transport != p.Base {
		before.transport.CloseIdleConnections()
		if len(p.left) == maxLeft {
			p.left = slices.Delete(p.left, 0, 1) // which also clears what was there
		}
		p.left = append(p.left, before.transport)
	}
	p.hosts[of.host] = of
	p.last.Store(of)
}

// clone returns a pool for the host of of, whose HTTP/2 connections end themselves when
// they are silent for twice as long as ping.
func (p *Pools) clone(of *Pool, ping time.Duration) *Pool {
	t := p.Base.Clone()
	if _, ok := t.TLSNextProto["h2"]; ok {
		// It is bound to the connections of Base.
		t.TLSNextProto, t.ForceAttemptHTTP2 = nil, true
	}
	t.HTTP2 = Pinging(t.HTTP2, ping)
	t.OnProxyConnectResponse = viaproxy.Telling(t.OnProxyConnectResponse)
	if t.IdleConnTimeout == 0 {
		t.IdleConnTimeout = idleTime
	}
	return &Pool{host: of.host, transport: t, config: p.Base.TLSClientConfig, made: time.Now()}
}

// Pinging returns config, or a new one if that is nil, with a ping to each connection
// that has been silent for d, and d for the answer to it, unless config says otherwise.
func Pinging(config *http.HTTP2Config, d time.Duration) *http.HTTP2Config {
	pinging := new(http.HTTP2Config)
	if config != nil {
		*pinging = *config
	}
	if pinging.SendPingTimeout == 0 {
		pinging.SendPingTimeout = d
	}
	if pinging.PingTimeout == 0 {
		pinging.PingTimeout = d
	}
	return pinging
}

// Answered says that the answer to the request has come.
func (u Use) Answered(resp *http.Response) {
	if http2 := resp.ProtoMajor == 2; u.http2.Load() != http2 {
		u.http2.Store(http2)
	}
	u.Arrived()
}

// Arrived says that a part of an answer has come.
func (p *Pool) Arrived() {
	p.arrivals.Add(1)
	if p.unanswered.Load() != 0 {
		p.unanswered.Store(0)
	}
}

// TimedOut says that the request's own clock has ended it without an answer. Where
// nothing arrived from the host meanwhile, its connections are not used again: the next
// one has a ping when it is silent for as long as ping. avoid is true if a connection of
// HTTP/1.1 that was not used before may do better than one of the pool.
func (p *Pools) TimedOut(u Use, ping time.Duration) (avoid bool) {
	return p.leave(u, ping) || u.arrivals.Load() > 0 && !u.http2.Load()
}

// GivenUp says that the request ended without an answer in another way that may be for
// silence: its caller ran out of time, which can be short, or left, or net/http has waited
// for long enough.
func (p *Pools) GivenUp(u Use, left bool, ping time.Duration) {
	if !u.silent() {
		return
	}
	n := u.unanswered.Add(1)
	if n == 1 {
		u.since.Store(u.began.UnixNano())
	}
	if n >= maxUnanswered && !(left && time.Since(time.Unix(0, u.since.Load())) < minSilence) {
		p.leave(u, ping)
	}
}

func (u Use) silent() bool { return u.arrivals.Load() == u.from }

// leave replaces the pool of u if nothing arrived while the request waited.
func (p *Pools) leave(u Use, ping time.Duration) bool {
	connecting := u.arrivals.Load() == 0 && time.Since(u.made) < connectTime
	if !u.silent() || connecting {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hosts[u.host] == u.Pool { // otherwise somebody else has seen to it
		p.put(p.clone(u.Pool, ping))
	}
	return true
}

// CloseIdleConnections closes what is idle, but what is Base's.
func (p *Pools) CloseIdleConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.hosts {
		if of.transport != p.Base {
			of.transport.CloseIdleConnections()
		}
	}
	for _, t := range p.left {
		t.CloseIdleConnections()
	}
}
