package bench

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchmath"
)

// A trial is what is timed of one contestant.
type trial struct {
	name string
	run  func(*testing.B) error
}

// A cost is what one operation takes, a value for each round.
type cost struct{ ns, bytes, allocs []float64 }

// timedAlone is timed on one core, so that the garbage collector's work for what
// was allocated is in the time, and not on another core.
func timedAlone(o Options, trials []trial) ([]cost, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return timed(o, trials)
}

// timed runs every trial once in each round, in an order that is drawn anew.
func timed(o Options, trials []trial) ([]cost, error) {
	costs := make([]cost, len(trials))
	for round := range o.rounds() {
		for _, i := range rand.Perm(len(trials)) {
			r, err := benchmark(o, trials[i])
			if err != nil {
				return nil, err
			}
			c, n := &costs[i], float64(r.N)
			c.ns = append(c.ns, float64(r.T.Nanoseconds())/n)
			c.bytes = append(c.bytes, float64(r.MemBytes)/n)
			c.allocs = append(c.allocs, float64(r.MemAllocs)/n)
		}
		o.progress(round+1, o.rounds())
	}
	return costs, nil
}

// benchmark runs t for the time of one round.
func benchmark(o Options, t trial) (testing.BenchmarkResult, error) {
	testing.Init()
	if err := flag.Set("test.benchtime", o.roundTime().String()); err != nil {
		return testing.BenchmarkResult{}, err
	}
	var fault error
	r := testing.Benchmark(func(b *testing.B) { fault = t.run(b) })
	if fault != nil {
		return r, fmt.Errorf("%s: %w", t.name, fault)
	}
	return r, nil
}

// An estimate is a median with the interval that holds it at 95 % confidence,
// whatever the distribution is.
type estimate struct{ median, low, high float64 }

func estimateOf(values []float64) estimate {
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	s := benchmath.AssumeNothing.Summary(sample, .95)
	return estimate{s.Center, max(s.Lo, slices.Min(values)), min(s.Hi, slices.Max(values))}
}

func median(values []float64) float64 { return estimateOf(values).median }

// ratio divides a by b round by round: both halves of a quotient met the same
// machine.
func ratio(a, b []float64) estimate {
	quotients := make([]float64, len(a))
	for i := range a {
		quotients[i] = a[i] / b[i]
	}
	return estimateOf(quotients)
}

// excess subtracts b from a round by round.
func excess(a, b []float64) []float64 {
	differences := make([]float64, len(a))
	for i := range a {
		differences[i] = a[i] - b[i]
	}
	return differences
}

// quantile returns the value below which a share q of values lies.
func quantile(values []float64, q float64) float64 {
	return stats.Sample{Xs: values}.Quantile(q)
}
