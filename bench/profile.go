package bench

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"

	"github.com/google/pprof/profile"
)

// A share is a part of a profile: the samples with a frame of one of these functions
// that no share before it has taken.
type share struct {
	name      string
	functions []string // by their beginnings
}

var shares = []share{
	{"garbage collection", []string{"runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcAssistAlloc", "runtime.gcStart", "runtime.deductSweepCredit"}},
	{"allocation", []string{"runtime.mallocgc"}},
	{"header map: look at, copy, insert", []string{"runtime.mapassign", "internal/runtime/maps.", "runtime.mapclone", "runtime.mapIter", "maps.", "github.com/ampauth/ampauth.withoutAuthorization"}},
	{"clock", []string{"time.Now"}},
	{"timer and context of the attempt", []string{"time.AfterFunc", "time.(*Timer)", "context."}},
	{"what kind of request it is", []string{"github.com/ampauth/ampauth/internal/amproutes."}},
	{"bare transport", []string{"github.com/ampauth/ampauth/bench.overStatic.static.func", "github.com/ampauth/ampauth/bench.static"}},
	{"the layers' own code", []string{"github.com/ampauth/ampauth."}},
	{"the loop that measures, and the rest of the runtime", []string{""}},
}

// profiled says where the time of a trial goes, on one core.
func profiled(o Options, t trial) (Table, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return Table{}, err
	}
	for range pick(o, 20, 1) { // rounds
		if _, err := benchmark(o, t); err != nil {
			pprof.StopCPUProfile()
			return Table{}, err
		}
	}
	pprof.StopCPUProfile()
	p, err := profile.ParseData(b.Bytes())
	if err != nil {
		return Table{}, err
	}
	counts, all := make([]int64, len(shares)), int64(0)
	for _, sample := range p.Sample {
		counts[shareOf(sample)] += sample.Value[0]
		all += sample.Value[0]
	}
	result := table("**"+t.name+": where the time goes**", "part", "share")
	for i, s := range shares {
		result.add(s.name, fmt.Sprintf("%.0f %%", 100*float64(counts[i])/float64(max(all, 1))))
	}
	return result, nil
}

// shareOf returns the index of the first share that has a frame of the sample.
func shareOf(sample *profile.Sample) int {
	for i, s := range shares {
		for _, location := range sample.Location {
			for _, line := range location.Line {
				for _, function := range s.functions {
					if strings.HasPrefix(line.Function.Name, function) {
						return i
					}
				}
			}
		}
	}
	return len(shares) - 1
}
