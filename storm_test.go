package ampauth_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

var (
	stormTime = flag.Duration("storm", 0, "how long TestStorm blows at least; it ends when it has proved its point")
	stormSeed = flag.Uint64("seed", 0, "what TestStorm follows from, TestTenDays, and the faults that Once meets; if 0, TestStorm takes a new one")
)

// What a storm must have seen to prove anything.
const (
	stormOfEach = 100 // occurrences of each fault
	stormDoubts = 20  // calls that ended in doubt and were performed, and as many that were not
)

// TestStorm is the promise of the package as a property: a hundred callers at a
// time, any fault of the network and the server, HTTP/1.1 and HTTP/2. No mutation
// is performed twice, none is even sent again unless the server has shown that it
// did nothing, and every call ends in a response or an error that is right by the
// server's log. A run that fails says how to replay it:
//
//	go test -run TestStorm -seed 17 .
//
// A long one: go test -race -v -run TestStorm -storm 1h -timeout 2h .
func TestStorm(t *testing.T) {
	takesLong(t, 11)
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	tally := stormTally{faults: make(map[string]int), ends: make(map[string]int)}
	round := 25 * len(wireFaults)
	began, shown, calls := time.Now(), time.Now(), 0
	for !t.Failed() {
		// Many more rounds than it takes mean that a fault does not come to pass.
		if time.Since(began) > *stormTime && (tally.lacks() == "" || calls > 50*round) {
			break
		}
		stormRound(t, seed, calls, round, &tally)
		calls += round
		if time.Since(shown) > 5*time.Second {
			shown = time.Now()
			t.Logf("%v: %d calls; %s", time.Since(began).Round(time.Second), calls, tally.lacks())
		}
	}
	t.Logf("%d calls in %v\n%s", calls, time.Since(began).Round(time.Millisecond), &tally)
	if t.Failed() {
		t.Logf("to replay: go test -run TestStorm -seed %d .", seed)
	} else if lack := tally.lacks(); lack != "" {
		t.Errorf("the run proves nothing: %s", lack)
	}
}

// A stormTally counts what came to pass.
type stormTally struct {
	faults            map[string]int
	ends              map[string]int
	timed             int // calls whose http.Client's Timeout ran out
	left              int // calls whose caller left
	performed, spared int // of the calls that ended in ErrAmbiguous
}

// lacks says what a storm did not see often enough.
func (y *stormTally) lacks() string {
	for i := range wireFaults {
		if n := y.faults[wireFaults[i].Name]; n < stormOfEach {
			return fmt.Sprintf("%q occurred %d times, of at least %d", wireFaults[i].Name, n, stormOfEach)
		}
	}
	if y.timed < stormDoubts || y.left < stormDoubts {
		return fmt.Sprintf("%d calls ended by the Timeout of an http.Client and %d by their caller, of at least %d each", y.timed, y.left, stormDoubts)
	}
	if y.performed < stormDoubts || y.spared < stormDoubts {
		return fmt.Sprintf("of the calls that ended in doubt %d were performed and %d not, of at least %d each", y.performed, y.spared, stormDoubts)
	}
	return ""
}

func (y *stormTally) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i := range wireFaults {
		fmt.Fprintf(w, "%s\t%d\n", wireFaults[i].Name, y.faults[wireFaults[i].Name])
	}
	for _, end := range slices.Sorted(maps.Keys(y.ends)) {
		fmt.Fprintf(w, "ended in %s\t%d\n", end, y.ends[end])
	}
	fmt.Fprintf(w, "ended by an http.Client's Timeout\t%d\nended by the caller\t%d\n", y.timed, y.left)
	fmt.Fprintf(w, "in doubt and performed\t%d\nin doubt and not performed\t%d\n", y.performed, y.spared)
	_ = w.Flush()
	return b.String()
}

func (y *stormTally) note(end *wireEnd, effects int) {
	if end.status != 0 {
		y.ends[fmt.Sprint("status ", end.status)]++
	} else if ours, ok := errors.AsType[*ampauth.Error](end.err); ok {
		y.ends["an error, "+ours.Outcome.String()]++
	}
	if errors.Is(end.err, errWireLeft) {
		y.left++
	}
	if end.err != nil && strings.Contains(end.err.Error(), "http.Client's Timeout") {
		y.timed++
	}
	switch doubtful := errors.Is(end.err, ampauth.ErrAmbiguous); {
	case doubtful && effects > 0:
		y.performed++
	case doubtful:
		y.spared++
	}
}

// stormRound makes n calls, from number first on, in worlds of their own, and holds
// how they ended against the servers' logs.
func stormRound(t *testing.T, seed uint64, first, n int, tally *stormTally) {
	plan := func(n int) wireCall { return stormCall(seed, n) }
	worlds := make(map[string]*wireWorld)
	for name := range wireWorlds {
		worlds[name] = newWireWorld(t, name, plan)
	}
	ends := make([]wireEnd, n)
	var next atomic.Int64
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				call := plan(first + i)
				ends[i] = worlds[call.world].do(call)
			}
		})
	}
	callers.Wait()

	log := make(map[int][]hostile.Entry)
	for _, w := range worlds {
		w.end()
		arrived(w.server.Log(), log)
		tally.faults["dial refused"] += int(w.refusals.Load())
		for f, trap := range w.traps {
			tally.faults[f.Name] += trap.Conns()
		}
	}
	for i := range ends {
		end := &ends[i]
		entries := log[end.call.number]
		for _, e := range entries {
			tally.faults[e.Step]++
		}
		tally.note(end, effectsOf(entries))
		if wrong := end.verdict(entries); wrong != "" {
			t.Errorf("call %d, %s %s in the world %q: %s\nit ended in status %d, %v\nthe server's log has %v",
				end.call.number, end.call.method, end.call.path, end.call.world, wrong, end.status, end.err, entries)
		}
	}
}

// stormCall plans call number n: it follows from the seed alone. Every fault gets
// its turn, in a world and with a request that let it happen.
func stormCall(seed uint64, n int) wireCall {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	call := wireCall{number: n, faults: make([]*wireFault, 3), dials: make([]*wireFault, 3)}
	worlds := slices.Sorted(maps.Keys(wireWorlds))
	fits := func(wireKind) bool { return true }
	switch turn := &wireFaults[n%len(wireFaults)]; {
	case turn.ofConnection():
		worlds = []string{"HTTP/1.1 over TLS, a connection each"} // where every mutation dials
		fits = func(k wireKind) bool { return k.mutates }
		call.dials[0] = turn
	case turn.http2:
		worlds = slices.DeleteFunc(worlds, func(name string) bool { return !strings.HasPrefix(name, "HTTP/2") })
		call.faults[0] = turn
	default:
		if turn.Upload != hostile.ReadBefore {
			fits = func(k wireKind) bool { return k.body }
		}
		call.faults[0] = turn
	}
	call.world = worlds[r.IntN(len(worlds))]
	for call.wireKind = wireKinds[0]; ; {
		if call.wireKind = wireKinds[r.IntN(len(wireKinds))]; fits(call.wireKind) {
			break
		}
	}
	// And what may come on top of it.
	for i := range call.faults {
		f := &wireFaults[r.IntN(len(wireFaults))]
		if call.faults[i] == nil && !f.ofConnection() && (!f.http2 || strings.HasPrefix(call.world, "HTTP/2")) && r.IntN(4) == 0 {
			call.faults[i] = f
		}
		if call.dials[i] == nil && f.ofConnection() && r.IntN(2) == 0 {
			call.dials[i] = f
		}
	}
	if call.body {
		call.size = r.IntN(200 << 10)
		call.once = r.IntN(4) == 0
	}
	call.key = r.IntN(4) == 0
	call.timed = r.IntN(4) == 0
	if r.IntN(20) == 0 {
		call.leaves = time.Duration(1+r.IntN(50)) * time.Millisecond
	}
	return call
}
