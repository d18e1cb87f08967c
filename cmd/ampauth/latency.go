package main

import (
	"math"
	"time"
)

// latencies counts durations in buckets that grow by 2 %, so that a run of any
// length takes the same memory and a percentile is at most 2 % too high. The
// zero value is empty.
type latencies struct {
	counts [1200]int // the last ends beyond a day
	total  int
	max    time.Duration
}

const (
	finestLatency = 10 * time.Microsecond
	bucketGrowth  = 1.02
)

func (l *latencies) add(d time.Duration) {
	l.counts[bucketOf(d)]++
	l.total++
	l.max = max(l.max, d)
}

func bucketOf(d time.Duration) int {
	if d <= finestLatency {
		return 0
	}
	n := math.Ceil(math.Log(float64(d)/float64(finestLatency)) / math.Log(bucketGrowth))
	return min(int(n), len(latencies{}.counts)-1)
}

// percentile returns a duration that the share p of all, from 0 to 1, does not
// exceed; 0 if there are none.
func (l *latencies) percentile(p float64) time.Duration {
	if l.total == 0 {
		return 0
	}
	rank := max(int(math.Ceil(p*float64(l.total))), 1)
	seen := 0
	for n, count := range l.counts {
		if seen += count; seen >= rank {
			d := time.Duration(float64(finestLatency) * math.Pow(bucketGrowth, float64(n)))
			return min(d, l.max)
		}
	}
	return l.max
}
