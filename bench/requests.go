package bench

import (
	"fmt"
	"time"
)

const (
	noTimeout   = "no timeout on either side"
	bothTimeout = "a timeout per attempt on both sides"

	// timeoutOfAttempt is what a request gets where there is one.
	timeoutOfAttempt = 10 * time.Second
)

// overStatic is a trial of a layer over a static transport.
func overStatic(l layer, timeout time.Duration, r *request) trial {
	s := setup{Base: static(), Logins: staticLogin, URL: staticURL, Timeout: timeout}
	return sending(l.Name, l.Over(s.withDefaults()), r)
}

// A contest is one job, the contestants for it, ampauth first, and what it took each.
type contest struct {
	job     string
	layers  []layer
	timeout time.Duration
	fields  int // of the request's header
	costs   []cost
}

// of returns what it took the contestant of a name.
func (c contest) of(name string) cost {
	for i, l := range c.layers {
		if l.Name == name {
			return c.costs[i]
		}
	}
	panic(name + " takes no part in " + c.job)
}

// requests measures what the layers add to a GET.
func requests(o Options) (Section, error) {
	url := staticURL + "/assets"
	const few, many = 1, 7
	pair := []layer{stacks[0], cheapestPair}
	contests := []contest{
		{job: "authentication alone", layers: authLayers, fields: many},
		{job: "retries alone, no timeout", layers: retryLayers, fields: many},
		{job: "retries alone, a timeout per attempt", layers: retryLayers, timeout: timeoutOfAttempt, fields: many},
		{job: "both, no timeout", layers: stacks, fields: many},
		{job: "both, a timeout per attempt", layers: stacks, timeout: timeoutOfAttempt, fields: many},
		{job: "authentication alone, one header field", layers: authLayers[:2], fields: few},
		{job: "both, no timeout, one header field", layers: pair, fields: few},
		{job: "both, a timeout per attempt, one header field", layers: pair, timeout: timeoutOfAttempt, fields: few},
	}
	trials := []trial{sending("bare", static().RoundTrip, get(url, many))}
	for _, c := range contests {
		for _, l := range c.layers {
			trials = append(trials, overStatic(l, c.timeout, get(url, c.fields)))
		}
	}
	costs, err := timedAlone(o, trials)
	if err != nil {
		return Section{}, err
	}
	bare, rest := costs[0], costs[1:]
	for i := range contests {
		n := len(contests[i].layers)
		contests[i].costs, rest = rest[:n], rest[n:]
	}

	section := Section{
		Text: fmt.Sprintf("A GET with %d header fields, in %d rounds, over a transport that answers at once and by itself in %s with %s allocation. On one core, so that the time of the garbage collector is in it. Without a timeout rehttp hands the very request on, and needs nothing of its own: as a retry layer alone it is the cheapest by far. With one header field there is less to copy, and what is left is much the same for both sides: a copy of the request, and a map, which has room for eight however few it holds; the profiles below say what that takes.", many, o.rounds(), asNs(estimateOf(bare.ns)), asCount(median(bare.allocs))),
	}
	for _, c := range contests {
		t := table("**"+c.job+"**", "contestant", "time in all", "bytes added", "allocations added", "ampauth ÷ it, time in all")
		for i, l := range c.layers {
			quotient := ""
			if i > 0 {
				quotient = asRatio(ratio(c.costs[0].ns, c.costs[i].ns))
			}
			t.add(l.Name, asNs(estimateOf(c.costs[i].ns)),
				asCount(median(excess(c.costs[i].bytes, bare.bytes))), asCount(median(excess(c.costs[i].allocs, bare.allocs))), quotient)
		}
		section.Tables = append(section.Tables, t)
	}
	for _, fields := range []int{many, few} {
		profile, err := profiled(o, overStatic(layer{fmt.Sprintf("ampauth, both, no timeout, header fields: %d", fields), ampauthStack}, 0, get(url, fields)))
		if err != nil {
			return Section{}, err
		}
		section.Tables = append(section.Tables, profile)
	}

	auth, stack, bounded := contests[0], contests[3], contests[4]
	section.Goals = append(section.Goals,
		allocations("AuthTransport alone", auth.costs[0], bare, 3, 0),
		allocations("whole stack, timeout off", stack.costs[0], bare, 4, 1126),
		allocations("whole stack, timeout on", bounded.costs[0], bare, 8, 1434))
	goals := func(auth, stack, bounded contest) {
		of := fmt.Sprintf(", GET, header fields: %d", stack.fields)
		pair, boundedPair := stack.of(cheapestPair.Name), bounded.of(cheapestPair.Name)
		section.Goals = append(section.Goals,
			atMost("AuthTransport alone"+of, cheapestPair.Name+", "+noTimeout, .6, ratio(auth.costs[0].ns, pair.ns), asRatio),
			atMost("whole stack, timeout off"+of, cheapestPair.Name+", "+noTimeout, .75, ratio(stack.costs[0].ns, pair.ns), asRatio),
			atMost("whole stack, timeout on"+of, cheapestPair.Name+", "+bothTimeout, .85, ratio(bounded.costs[0].ns, boundedPair.ns), asRatio))
	}
	goals(auth, stack, bounded)
	goals(contests[5], contests[6], contests[7])
	return section, nil
}

// allocations is a goal for what a layer adds, in allocations and bytes; no bound
// of the bytes if that is 0.
func allocations(what string, c, bare cost, limit, bytes float64) Goal {
	allocs, size := median(excess(c.allocs, bare.allocs)), median(excess(c.bytes, bare.bytes))
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
	url := staticURL + "/assets/issue"
	contestants := append([]layer{}, stacks...)
	contestants = append(contestants,
		layer{"go-retryablehttp over x/oauth2, its own request type", over(retryablehttpOwn, oauth2Auth)},
		layer{"azcore, its own request type", azureOwn})
	contests := []contest{
		{job: "1 KiB", layers: contestants},
		{job: "64 KiB", layers: contestants},
	}
	var trials []trial
	for i, size := range []int{1 << 10, 64 << 10} {
		trials = append(trials, sending("bare", static().RoundTrip, post(url, size)))
		for _, l := range contests[i].layers {
			trials = append(trials, overStatic(l, timeoutOfAttempt, post(url, size)))
		}
	}
	costs, err := timedAlone(o, trials)
	if err != nil {
		return Section{}, err
	}
	n := len(contestants) + 1
	contests[0].costs, contests[1].costs = costs[1:n], costs[n+1:]
	bareSmall, bareLarge := costs[0], costs[n]

	t := table("", "contestant", "bytes added, 1 KiB", "64 KiB", "time in all, 1 KiB", "64 KiB", "ampauth ÷ it, 1 KiB", "64 KiB")
	small, large := contests[0], contests[1]
	for i, l := range contestants {
		row := []string{
			l.Name,
			asCount(median(excess(small.costs[i].bytes, bareSmall.bytes))), asCount(median(excess(large.costs[i].bytes, bareLarge.bytes))),
			asNs(estimateOf(small.costs[i].ns)), asNs(estimateOf(large.costs[i].ns)), "", "",
		}
		if i > 0 {
			row[5], row[6] = asRatio(ratio(small.costs[0].ns, small.costs[i].ns)), asRatio(ratio(large.costs[0].ns, large.costs[i].ns))
		}
		t.add(row...)
	}
	growth := median(excess(excess(large.costs[0].bytes, bareLarge.bytes), excess(small.costs[0].bytes, bareSmall.bytes)))
	return Section{
		Text:   fmt.Sprintf("A POST whose body is made of bytes, so that it can be sent again, over the same transport, on one core, in %d rounds, with a timeout per attempt for all. It is not sent again, and the transport does not read the body: this is what being able to repeat it takes. As an http.Request, which is what a RoundTripper gets, go-retryablehttp, failsafe-go and azcore read the body into memory, and so does rehttp; the last two rows are request types of their own, which need no copy.", o.rounds()),
		Tables: []Table{t},
		Goals: []Goal{
			counted("POST, bytes added for 64 KiB more than for 1 KiB", "itself", "0", asCount(growth), growth < 16 && growth > -16),
			atMost("POST of 64 KiB", cheapestPair.Name+", "+bothTimeout, .25, ratio(large.costs[0].ns, large.of(cheapestPair.Name).ns), asRatio),
		},
	}, nil
}
