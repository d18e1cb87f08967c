package livepool

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

const ping = 2 * time.Second

var (
	http1 = &http.Response{ProtoMajor: 1}
	http2 = &http.Response{ProtoMajor: 2}
)

// answering is Pools of which host has answered.
func answering(base *http.Transport, host string, resp *http.Response) *Pools {
	p := &Pools{Base: base}
	use, _ := p.Use(host)
	use.Answered(resp)
	return p
}

func TestSilentPoolIsLeftOnceForAll(t *testing.T) {
	p := &Pools{Base: new(http.Transport)}
	before, over := p.Use("host")
	if over != p.Base {
		t.Fatal("the first requests do not go over Base")
	}
	before.Answered(http2)
	var waiting []Use
	for range 100 {
		use, _ := p.Use("host")
		waiting = append(waiting, use)
	}
	var wg sync.WaitGroup
	for _, use := range waiting {
		wg.Go(func() {
			if !p.TimedOut(use, ping) {
				t.Error("nothing arrived, and yet the pool is not to be avoided")
			}
		})
	}
	wg.Wait()
	_, over = p.Use("host")
	_, again := p.Use("host")
	if over == p.Base || over != again {
		t.Error("want one clone of Base that all go over")
	}
	if h := over.HTTP2; h.SendPingTimeout != ping || h.PingTimeout != ping {
		t.Errorf("the clone pings after %v and waits for %v, want %v each", h.SendPingTimeout, h.PingTimeout, ping)
	}
	if _, other := p.Use("another"); other != p.Base {
		t.Error("another host does not go over Base")
	}
}

func TestSlowAnswerLeavesALivelyPool(t *testing.T) {
	for _, test := range []struct {
		lively *http.Response
		avoid  bool // over HTTP/1.1 the next connection of the pool may be as silent
	}{{http1, true}, {http2, false}} {
		p := &Pools{Base: new(http.Transport)}
		slow, _ := p.Use("host")
		lively, _ := p.Use("host")
		lively.Answered(test.lively)
		if avoid := p.TimedOut(slow, ping); avoid != test.avoid {
			t.Errorf("HTTP/%d: avoid %v, want %v", test.lively.ProtoMajor, avoid, test.avoid)
		}
		if _, over := p.Use("host"); over != p.Base {
			t.Errorf("HTTP/%d: the pool was left though answers came", test.lively.ProtoMajor)
		}
		stream, _ := p.Use("host")
		slow, _ = p.Use("host")
		stream.Arrived() // a part of a body
		if p.TimedOut(slow, ping); p.hosts["host"].transport != p.Base {
			t.Errorf("HTTP/%d: the pool was left though a body arrived", test.lively.ProtoMajor)
		}
	}
}

func TestThreeWhoGiveUpInARowLeaveThePool(t *testing.T) {
	p := answering(new(http.Transport), "host", http2)
	giveUp := func() {
		use, _ := p.Use("host")
		p.GivenUp(use, false, ping)
	}
	giveUp()
	giveUp()
	use, _ := p.Use("host")
	use.Answered(http2)
	giveUp()
	giveUp()
	if _, over := p.Use("host"); over != p.Base {
		t.Fatal("the pool was left after two in a row")
	}
	giveUp()
	if _, over := p.Use("host"); over == p.Base {
		t.Error("the pool was kept after three in a row")
	}
}

// Who leaves by a cancellation may do so because somebody else was faster.
func TestWhoLeavesAtOnceSaysNothingOfThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := answering(new(http.Transport), "host", http2)
		left := func() bool {
			_, over := p.Use("host")
			return over != p.Base
		}
		var uses []Use
		for range 10 {
			use, _ := p.Use("host")
			uses = append(uses, use)
		}
		time.Sleep(minSilence - 1)
		for _, use := range uses {
			p.GivenUp(use, true, ping)
		}
		if left() {
			t.Error("the pool was left by those who did not wait")
		}
		use, _ := p.Use("host")
		time.Sleep(minSilence / 10)
		if p.GivenUp(use, true, ping); !left() {
			t.Error("the pool was kept though one after the other has waited in vain")
		}
	})
}

// Connections that take longer than callers have would never come about if each caller
// began anew.
func TestPoolThatHasNotAnsweredYetIsKeptForItsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pools{Base: new(http.Transport)}
		for range 99 {
			use, _ := p.Use("host")
			time.Sleep(100 * time.Millisecond)
			p.GivenUp(use, false, ping)
			if p.TimedOut(use, ping) {
				t.Fatal("it is to be avoided")
			}
		}
		if _, over := p.Use("host"); over != p.Base {
			t.Error("it was left before its connections could come about")
		}
		use, _ := p.Use("host")
		time.Sleep(connectTime)
		if !p.TimedOut(use, ping) {
			t.Error("it was kept after all that time")
		}
	})
}

// Many at once use and leave pools: what is used last is never one that was left before.
func TestWhatWasLeftIsNotUsedAgain(t *testing.T) {
	p := answering(new(http.Transport), "host", http2)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				other, _ := p.Use("another")
				other.Answered(http2)
				use, _ := p.Use("host")
				if p.TimedOut(use, ping) {
					next, _ := p.Use("host")
					next.Answered(http2)
				}
			}
		})
	}
	wg.Wait()
	use, _ := p.Use("host")
	if p.hosts["host"] != use.Pool {
		t.Error("a pool is used that was left")
	}
}

func TestHostsAreBounded(t *testing.T) {
	p := &Pools{Base: new(http.Transport)}
	for i := range 10 * maxHosts {
		use, _ := p.Use(fmt.Sprint(i))
		use.Answered(http2)
		use, _ = p.Use(fmt.Sprint(i))
		p.TimedOut(use, ping)
	}
	if len(p.hosts) > maxHosts || len(p.left) > maxLeft {
		t.Errorf("%d hosts and %d clones are remembered, want at most %d and %d", len(p.hosts), len(p.left), maxHosts, maxLeft)
	}
}

// A host beyond the bound begins anew, and nothing holds its clone any more.
func TestHostsBeyondTheBoundAreForgotten(t *testing.T) {
	p := &Pools{Base: new(http.Transport)}
	const hosts = 3 * maxHosts
	clones := make(map[string]weak.Pointer[http.Transport])
	for i := range hosts {
		host := fmt.Sprint(i)
		use, _ := p.Use(host)
		use.Answered(http2)
		use, _ = p.Use(host)
		p.TimedOut(use, ping)
		_, clone := p.Use(host)
		clones[host] = weak.Make(clone)
	}
	runtime.GC()
	held := 0
	for host, clone := range clones {
		if clone.Value() != nil {
			held++
		}
		if p.hosts[host] != nil {
			continue
		}
		if _, over := p.Use(host); over != p.Base {
			t.Errorf("host %s was forgotten and does not go over Base", host)
		}
	}
	if held > maxHosts+maxLeft {
		t.Errorf("%d clones of %d are held, want at most %d", held, hosts, maxHosts+maxLeft)
	}
}

func TestCloneFollowsAReplacedTLSConfiguration(t *testing.T) {
	p := answering(&http.Transport{TLSClientConfig: new(tls.Config)}, "host", http2)
	use, _ := p.Use("host")
	p.TimedOut(use, ping)
	_, before := p.Use("host")
	p.Base.TLSClientConfig = &tls.Config{ServerName: "new"}
	_, after := p.Use("host")
	if before == after || after.TLSClientConfig.ServerName != "new" || after.HTTP2.SendPingTimeout != ping {
		t.Errorf("the clone has the server name %q and pings after %v", after.TLSClientConfig.ServerName, after.HTTP2.SendPingTimeout)
	}
}

// The protocols of TLSNextProto belong to the connections of Base.
func TestCloneHasConnectionsOfHTTP2OfItsOwn(t *testing.T) {
	p := answering(&http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{
		"h2": func(string, *tls.Conn) http.RoundTripper { return nil },
	}}, "host", http2)
	use, _ := p.Use("host")
	p.TimedOut(use, ping)
	if _, clone := p.Use("host"); clone.TLSNextProto != nil || !clone.ForceAttemptHTTP2 {
		t.Errorf("the clone has Base's protocols: %v; it offers HTTP/2: %v", clone.TLSNextProto, clone.ForceAttemptHTTP2)
	}
}

func TestPingsOfTheUsersAreKept(t *testing.T) {
	theirs := &http.HTTP2Config{SendPingTimeout: time.Minute, MaxReadFrameSize: 1 << 20}
	got := Pinging(theirs, ping)
	if got.SendPingTimeout != time.Minute || got.PingTimeout != ping || got.MaxReadFrameSize != 1<<20 || theirs.PingTimeout != 0 {
		t.Errorf("got %+v of %+v", got, theirs)
	}
}
