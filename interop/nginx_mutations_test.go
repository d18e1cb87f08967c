//go:build unix

package interop

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// callers runs n callers at once. Each makes one mutation after the other for as long
// as next reports true; next is told how many the caller has made, and may wait.
func (f *front) callers(t *testing.T, n int, next func(made int) bool) []answer {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex // guards answers
		answers []answer
	)
	for caller := range n {
		wg.Go(func() {
			for made := 0; next(made); made++ {
				a := f.mutate(t, fmt.Sprintf("%d-%d", caller, made), strings.NewReader(`{"amount": 1}`))
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers
}

// A pacer makes callers wait, and counts how often one woke late. On a machine that
// is so busy, more connections end while a mutation is on its way.
type pacer struct{ late atomic.Int32 }

func (p *pacer) wait(shortest, longest time.Duration) {
	d := shortest + rand.N(longest-shortest)
	begun := time.Now()
	time.Sleep(d)
	if time.Since(begun) > d+5*time.Millisecond {
		p.late.Add(1)
	}
}

// wantInDoubt fails the test if more mutations are in doubt than a machine with nothing
// else to do leaves.
func (p *pacer) wantInDoubt(t *testing.T, c tally, most int) {
	t.Helper()
	late := int(p.late.Load())
	t.Logf("%v, and a caller woke late %d times", c, late)
	if c.inDoubt > most+late {
		t.Errorf("%d are in doubt, want at most %d, and %d because the machine was busy", c.inDoubt, most, late)
	}
}

// A worker that a reload ends closes its idle connections one after the other. A
// mutation that has just been written to one of them is in doubt.
func TestMutationsArePerformedOnceWhileNginxReloads(t *testing.T) {
	reloads := 15
	if testing.Short() {
		reloads = 4
	}
	t.Parallel()
	f := newFront(t, overTLS, "", nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range reloads {
			time.Sleep(time.Second)
			f.reload(t)
		}
	}()
	var p pacer
	answers := f.callers(t, 20, func(int) bool {
		p.wait(0, 300*time.Millisecond)
		select {
		case <-over:
			return false
		default:
			return true
		}
	})
	p.wantInDoubt(t, f.count(t, answers), 5+reloads) // of 20 connections a reload
}

// reload makes nginx read its configuration again, and returns once a new worker has
// taken over.
func (f *front) reload(t *testing.T) {
	apart := &http.Transport{TLSClientConfig: f.pool.TLSClientConfig.Clone(), DisableKeepAlives: true}
	worker := func() string {
		a := send(t, apart, http.MethodGet, f.url+"/api/info", "", nil)
		return a.header.Get("X-Worker")
	}
	before := worker()
	f.signal(t, syscall.SIGHUP)
	for now := ""; now == "" || now == before; now = worker() {
		select {
		case <-f.exited:
			t.Error("nginx has ended")
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// The answer says that the connection ends with it, so there is nothing to doubt.
func TestMutationsOutliveTheRequestsOfAConnectionOfNginx(t *testing.T) {
	const mutations, perConnection = 200, 10
	// As many again as it takes, for a machine on which a caller is sometimes late for the
	// connection that is kept.
	const mostConnections = 2 * mutations / perConnection
	for _, l := range []listener{plain, overTLS} {
		t.Run(l.name, func(t *testing.T) {
			f := newFront(t, l, fmt.Sprintf("keepalive_requests %d;", perConnection), nil)
			answers := f.callers(t, 1, func(made int) bool { return made < mutations })
			if c := f.count(t, answers); c.answered != mutations {
				t.Errorf("%v, want all of %d answered", c, mutations)
			}
			connections := make(map[string]bool)
			for _, a := range answers {
				connections[a.header.Get("X-Connection")] = true
			}
			t.Logf("%d connections", len(connections))
			if n := len(connections); n < mutations/perConnection || n > mostConnections {
				t.Errorf("they took %d connections, want %d to %d", n, mutations/perConnection, mostConnections)
			}
		})
	}
}

// Here callers wait for as long as nginx keeps an idle connection, or not quite.
func TestMutationsAreNotInDoubtWhereNginxEndsIdleConnections(t *testing.T) {
	const callers = 60
	rounds := 9
	if testing.Short() {
		rounds = 4
	}
	for _, keepalive := range []string{"1s", "2s"} {
		t.Run(keepalive, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, overTLS, fmt.Sprintf("keepalive_timeout %s;", keepalive), nil)
			var p pacer
			answers := f.callers(t, callers, func(made int) bool {
				if made == 0 {
					p.wait(0, time.Second) // so that they do not all come at once
				} else {
					p.wait(900*time.Millisecond, 1200*time.Millisecond)
				}
				return made < rounds
			})
			c := f.count(t, answers)
			if keepalive == "1s" {
				// ampauth uses a connection for 1 s after its last answer. nginx starts to
				// count a little before, when it sends that answer, so that a mutation can
				// leave just when the connection ends.
				p.wantInDoubt(t, c, len(answers)/100)
			} else if c.inDoubt != 0 {
				t.Errorf("%v, want none in doubt", c)
			}
			if c.notSent != 0 {
				t.Errorf("%v, want none not sent", c)
			}
		})
	}
}

// nginx speaks HTTP/2 to whoever offers it. Mutations do not.
func TestMutationsArriveOverHTTP1WhereNginxSpeaksHTTP2(t *testing.T) {
	const callers, each = 10, 10
	f := newFront(t, withHTTP2, "", nil)
	answers := f.callers(t, callers, func(made int) bool {
		if a := f.read(t); a.err != nil || a.header.Get("X-Protocol") != "HTTP/2.0" {
			t.Errorf("a read arrived over %q and ended in %v, want HTTP/2.0", a.header.Get("X-Protocol"), a.err)
		}
		return made < each
	})
	if c := f.count(t, answers); c.answered != callers*each {
		t.Errorf("%v, want all of %d answered", c, callers*each)
	}
	for _, a := range answers {
		if protocol := a.header.Get("X-Protocol"); protocol != "HTTP/1.1" {
			t.Errorf("%s arrived over %q, want HTTP/1.1", a.id, protocol)
		}
	}
}
