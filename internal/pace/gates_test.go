package pace

import (
	"net/url"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func at(scheme, host string) *url.URL { return &url.URL{Scheme: scheme, Host: host} }

func TestGateOf503LetsFirstAttemptsPass(t *testing.T) {
	for _, test := range []struct {
		name           string
		retriesOnly    []bool // one minute, then two, and so on
		first, retries time.Duration
	}{
		{"429", []bool{false}, time.Minute, time.Minute},
		{"503", []bool{true}, 0, time.Minute},
		{"503, then a longer 429", []bool{true, false}, 2 * time.Minute, 2 * time.Minute},
		{"429, then a longer 503", []bool{false, true}, time.Minute, 2 * time.Minute},
		{"503, 429, 503", []bool{true, false, true}, 2 * time.Minute, 3 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g Gates
				u := at("https", "api.test")
				for i, retriesOnly := range test.retriesOnly {
					g.Hold(u, time.Duration(i+1)*time.Minute, retriesOnly)
				}
				if first, retries := g.Remaining(u, false), g.Remaining(u, true); first != test.first || retries != test.retries {
					t.Errorf("first attempts wait %v and retries %v, want %v and %v", first, retries, test.first, test.retries)
				}
			})
		})
	}
}

func TestGateIsOnlyEverExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		u := at("https", "api.test")
		for _, step := range []struct {
			after, hold    time.Duration
			retriesOnly    bool
			first, retries time.Duration
		}{
			{0, time.Minute, false, time.Minute, time.Minute},
			{20 * time.Second, 10 * time.Second, false, 40 * time.Second, 40 * time.Second},
			{0, 10 * time.Second, true, 40 * time.Second, 40 * time.Second},
			{0, 2 * time.Minute, true, 40 * time.Second, 2 * time.Minute},
			{10 * time.Second, time.Minute, false, time.Minute, 110 * time.Second},
			{0, -time.Minute, false, time.Minute, 110 * time.Second},
		} {
			time.Sleep(step.after)
			g.Hold(u, step.hold, step.retriesOnly)
			if first, retries := g.Remaining(u, false), g.Remaining(u, true); first != step.first || retries != step.retries {
				t.Errorf("after %+v: %v and %v", step, first, retries)
			}
		}
	})
}

func TestGateOpensAtItsTimeAndCanBeShutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		u := at("https", "api.test")
		for range 2 {
			if d := g.Remaining(u, true); d != 0 {
				t.Errorf("held for %v before anybody asked", d)
			}
			g.Hold(u, time.Minute, false)
			time.Sleep(time.Minute - 1)
			if d := g.Remaining(u, false); d != 1 {
				t.Errorf("held for %v a nanosecond before its time", d)
			}
			time.Sleep(time.Nanosecond)
			if d := g.Remaining(u, false); d != 0 {
				t.Errorf("held for %v at its time", d)
			}
		}
	})
}

func TestGateHoldsItsHostInAnySpellingAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		g.Hold(at("HTTPS", "API.test"), time.Minute, false)
		g.Hold(at("http", "[0:0::1]:80"), time.Minute, false)
		for u, held := range map[*url.URL]bool{
			at("https", "api.test"): true, at("https", "api.test:443"): true, at("https", "Api.Test:"): true,
			at("http", "[::1]"):    true,
			at("http", "api.test"): false, at("https", "api.test:8443"): false, at("https", "sub.api.test"): false,
			at("https", "other.test"): false, at("https", "[::1]"): false, at("http", "[::2]"): false,
		} {
			if d := g.Remaining(u, false); (d == time.Minute) != held || !held && d != 0 {
				t.Errorf("%s is held for %v, want it held: %t", u, d, held)
			}
		}
	})
}

// The gates of hosts that were shut once are not kept for ever.
func TestGatesForgetHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		a, c := at("https", "a"), at("https", "c")
		g.Hold(a, time.Minute, false)
		g.Hold(at("https", "b"), time.Minute, false)
		g.Hold(c, 2*time.Minute, true)
		if d := g.Remaining(a, false); d != time.Minute {
			t.Errorf("a is held for %v, want 1 min", d)
		}
		time.Sleep(time.Minute)
		if d := g.Remaining(c, true); d != time.Minute || len(g.byHost) != 1 {
			t.Errorf("after a minute retries to c are held for %v, and %d hosts are remembered", d, len(g.byHost))
		}
		time.Sleep(time.Minute)
		if d := g.Remaining(a, false); d != 0 || len(g.byHost) != 0 || g.shut.Load() {
			t.Errorf("after two minutes a is held for %v, and %d hosts are remembered", d, len(g.byHost))
		}
	})
}

// What a look costs does not depend on how many hosts hold requests back: it forgets a
// few of those that are open, and goes through no others.
func TestGatesForgetAFewHostsAtEachLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts = 1000
		var g Gates
		for i := range hosts {
			g.Hold(at("https", "host"+strconv.Itoa(i)), time.Second+time.Duration(i), i%2 == 0)
		}
		stays := at("https", "stays")
		g.Hold(stays, time.Hour, false)
		time.Sleep(time.Minute)
		for looks := 1; len(g.byHost) > 1; looks++ {
			before := len(g.byHost)
			if d := g.Remaining(stays, false); d != time.Hour-time.Minute {
				t.Fatalf("the host that is still held is held for %v", d)
			}
			if forgot := before - len(g.byHost); forgot < 1 || forgot > forgetAtOnce {
				t.Fatalf("a look forgot %d hosts, want 1 to %d", forgot, forgetAtOnce)
			}
		}
		time.Sleep(time.Hour)
		if d := g.Remaining(stays, false); d != 0 || g.byHost != nil || g.opening != nil || g.shut.Load() {
			t.Errorf("an hour later it is held for %v, and %d hosts are remembered", d, len(g.byHost))
		}
	})
}

// Hosts that nobody looks at any more are forgotten while others are held.
func TestGatesForgetHostsWhileOthersAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		for i := range 10_000 {
			g.Hold(at("https", "host"+strconv.Itoa(i)), 10*time.Second, false)
			time.Sleep(time.Second)
			if n := len(g.byHost); n > 10 || len(g.opening) != n {
				t.Fatalf("%d hosts are remembered, and %d openings, want the 10 that are held", n, len(g.opening))
			}
		}
	})
}

// A gate that is extended opens at its later time, though it was to open before others.
func TestGateThatIsExtendedIsForgottenAtItsLaterTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		first, second := at("https", "first"), at("https", "second")
		g.Hold(first, time.Second, false)
		g.Hold(second, 2*time.Second, false)
		g.Hold(first, 3*time.Second, true)
		time.Sleep(2 * time.Second)
		if d := g.Remaining(first, true); d != time.Second || len(g.byHost) != 1 {
			t.Errorf("it is held for %v, and %d hosts are remembered; want 1 s, and 1", d, len(g.byHost))
		}
		time.Sleep(time.Second)
		if d := g.Remaining(first, true); d != 0 || g.byHost != nil {
			t.Errorf("a second later it is held for %v", d)
		}
	})
}

// Beyond the bound the gate that would open first is given up.
func TestGatesRememberSoManyHostsAtTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		for i := range maxGates + 10 {
			g.Hold(at("https", "host"+strconv.Itoa(i)), time.Hour+time.Duration(i), false)
		}
		if len(g.byHost) != maxGates || len(g.opening) != maxGates {
			t.Errorf("%d hosts are remembered, want %d", len(g.byHost), maxGates)
		}
		for i, held := range map[int]bool{9: false, 10: true, maxGates + 9: true} {
			if d := g.Remaining(at("https", "host"+strconv.Itoa(i)), false); d > 0 != held {
				t.Errorf("host %d is held for %v, want it held: %t", i, d, held)
			}
		}
	})
}

func BenchmarkGatesWithManyHosts(b *testing.B) {
	for _, hosts := range []int{1, 1000, 20_000} {
		b.Run(strconv.Itoa(hosts), func(b *testing.B) {
			var g Gates
			for i := range hosts {
				g.Hold(at("https", "host"+strconv.Itoa(i)), time.Hour, false)
			}
			u := at("https", "api.test")
			b.ReportAllocs()
			for b.Loop() {
				g.Remaining(u, false)
			}
		})
	}
}

func TestGatesUnderContentionHoldForTheLongestAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		var asking sync.WaitGroup
		for i := range 100 {
			asking.Go(func() {
				u := at("https", "host"+strconv.Itoa(i%4))
				g.Hold(u, time.Duration(i+1)*time.Second, i%8 < 4)
				g.Remaining(u, true)
			})
		}
		asking.Wait()
		for i, want := range []time.Duration{97 * time.Second, 98 * time.Second, 99 * time.Second, 100 * time.Second} {
			if d := g.Remaining(at("https", "host"+strconv.Itoa(i)), true); d != want {
				t.Errorf("retries to host %d are held for %v, want %v", i, d, want)
			}
		}
	})
}
