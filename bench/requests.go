package bench

import (
	"fmt"
	"time"
)

const (
	noTimeout   = "no timeout on either side"
	bothTimeout = "a timeout per attempt on both sides"
)

// timeout is what a request gets where there is one.
const timeoutOfAttempt = 10 * time.Second

// overStatic is a trial of a layer over a static transport.
func overStatic(l Layer, timeout time.Duration, r *request) trial {
	s := Setup{Base: static(), Logins: staticLogin, URL: staticURL, Timeout: timeout}
	return sending(l.Name, l.Over(s.withDefaults()), r)
}

// A group is contestants for the same job, the first of them ampauth, with the
// place of each in the list of trials.
type group struct {
	job     string
	layers  []Layer
	timeout time.Duration
	first   int
}

// requests measures what the layers add to a GET.
func requests(o Options) (Section, error) {
	trials := []trial{sending("bare", static().RoundTrip, get(staticURL+"/assets"))}
	groups := []group{
		{job: "authentication alone", layers: authLayers},
		{job: "retries alone, no timeout", layers: retryLayers},
		{job: "retries alone, a timeout per attempt", layers: retryLayers, timeout: timeoutOfAttempt},
		{job: "both, no timeout", layers: stacks},
		{job: "both, a timeout per attempt", layers: stacks, timeout: timeoutOfAttempt},
	}
	for i := range groups {
		groups[i].first = len(trials)
		for _, l := range groups[i].layers {
			trials = append(trials, overStatic(l, groups[i].timeout, get(staticURL+"/assets")))
		}
	}
	costs := timedAlone(o, trials)
	bare := costs[0]

	section := Section{
		Text: fmt.Sprintf("A GET with seven header fields over a transport that answers at once and by itself takes %s and %s allocation, on one core, so that the time of the garbage collector is in it. What is added to that:",
			asNs(estimateOf(bare.ns)), asCount(estimateOf(bare.allocs).median)),
	}
	for _, g := range groups {
		t := table("**"+g.job+"**", "contestant", "time in all", "bytes added", "allocations added", "ampauth ÷ it, time in all")
		for i, l := range g.layers {
			c := costs[g.first+i]
			quotient := ""
			if i > 0 {
				quotient = asRatio(ratio(costs[g.first].ns, c.ns))
			}
			t.add(l.Name, asNs(estimateOf(c.ns)),
				asCount(estimateOf(excess(c.bytes, bare.bytes)).median), asCount(estimateOf(excess(c.allocs, bare.allocs)).median), quotient)
		}
		section.Tables = append(section.Tables, t)
	}

	auth, stack, timed := costs[groups[0].first], costs[groups[3].first], costs[groups[4].first]
	pair, timedPair := costs[groups[3].first+1], costs[groups[4].first+1]
	section.Goals = []Goal{
		allocations("AuthTransport alone", auth, bare, 3, 0),
		atMost("AuthTransport alone", cheapestPair.Name+", "+noTimeout, .6, ratio(auth.ns, pair.ns), asRatio),
		allocations("whole stack, timeout off", stack, bare, 4, 1126),
		atMost("whole stack, timeout off", cheapestPair.Name+", "+noTimeout, .75, ratio(stack.ns, pair.ns), asRatio),
		allocations("whole stack, timeout on", timed, bare, 8, 1434),
		atMost("whole stack, timeout on", cheapestPair.Name+", "+bothTimeout, .85, ratio(timed.ns, timedPair.ns), asRatio),
	}
	return section, nil
}

// allocations is a goal for what a layer adds, in allocations and bytes; no bound
// of the bytes if that is 0.
func allocations(what string, c, bare cost, limit, bytes float64) Goal {
	allocs, size := estimateOf(excess(c.allocs, bare.allocs)).median, estimateOf(excess(c.bytes, bare.bytes)).median
	reach := fmt.Sprintf("at most %.0f allocations", limit)
	if bytes > 0 {
		reach += fmt.Sprintf(", %.0f B", bytes)
	}
	// Rounded, since what the runtime allocates by itself is counted as well.
	holds := allocs < limit+.5 && (bytes == 0 || size < bytes+.5)
	return counted(what+", added", "the bare transport", reach, fmt.Sprintf("%.0f, %.0f B", allocs, size), holds)
}

// posts measures what the layers add to a POST whose body can be sent again.
func posts(o Options) (Section, error) {
	sizes := []int{1 << 10, 64 << 10}
	var trials []trial
	url := staticURL + "/assets/issue"
	for _, size := range sizes {
		trials = append(trials, sending("bare", static().RoundTrip, post(url, size)))
		for _, l := range stacks {
			trials = append(trials, overStatic(l, timeoutOfAttempt, post(url, size)))
		}
	}
	costs := timedAlone(o, trials)
	n := len(stacks) + 1
	small, large := costs[:n], costs[n:]

	t := table("", "contestant", "bytes added, 1 KiB", "64 KiB", "time in all, 1 KiB", "64 KiB", "ampauth ÷ it, 1 KiB", "64 KiB")
	for i, l := range stacks {
		s, b := small[i+1], large[i+1]
		quotients := []string{"", ""}
		if i > 0 {
			quotients = []string{asRatio(ratio(small[1].ns, s.ns)), asRatio(ratio(large[1].ns, b.ns))}
		}
		t.add(append([]string{
			l.Name,
			asCount(estimateOf(excess(s.bytes, small[0].bytes)).median), asCount(estimateOf(excess(b.bytes, large[0].bytes)).median),
			asNs(estimateOf(s.ns)), asNs(estimateOf(b.ns)),
		}, quotients...)...)
	}
	growth := estimateOf(excess(excess(large[1].bytes, large[0].bytes), excess(small[1].bytes, small[0].bytes))).median
	return Section{
		Text:   "A POST whose body is made of bytes, so that it can be sent again, over the same transport and on one core, with a timeout per attempt for all. It is not sent again: this is what being able to takes. (go-retryablehttp, failsafe-go and azcore copy the body by io.ReadAll, rehttp into a buffer; go-retryablehttp and azcore have request types of their own that need no copy.)",
		Tables: []Table{t},
		Goals: []Goal{
			counted("POST, bytes added for 64 KiB more than for 1 KiB", "itself", "0", asCount(growth), growth < 16 && growth > -16),
			atMost("POST of 64 KiB", cheapestPair.Name+", "+bothTimeout, .25, ratio(large[1].ns, large[2].ns), asRatio),
		},
	}, nil
}
