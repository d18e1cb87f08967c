package bench

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// tokens measures what it costs to get a fresh token out of the cache.
func tokens(o Options) (Section, error) {
	const many = 1000
	clock := func(context.Context) error {
		now = time.Now().UnixNano()
		return nil
	}
	readers := []TokenReader{clock}
	names := []string{"reading the clock"}
	for _, c := range tokenCaches {
		s := Setup{Base: staticLogin, URL: staticURL}
		read := c.Over(s.withDefaults())
		if err := read(context.Background()); err != nil {
			return Section{}, fmt.Errorf("%s: %w", c.Name, err)
		}
		readers, names = append(readers, read), append(names, c.Name)
	}
	var trials []trial
	for i, read := range readers {
		trials = append(trials,
			trial{names[i], serially(read)},
			trial{names[i], inParallel(read, 1)},
			trial{names[i], inParallel(read, many)})
	}
	costs := timed(o, trials)

	t := table("", "cache", "one goroutine", "one per core", fmt.Sprintf("%d per core", many), "allocations", "ampauth ÷ it, serial", "in parallel")
	ours := costs[3:6]
	for i := range readers {
		c := costs[3*i : 3*i+3]
		row := []string{names[i]}
		for j := range c {
			row = append(row, asNs(estimateOf(c[j].ns)))
		}
		row = append(row, asCount(estimateOf(c[0].allocs).median))
		if i > 1 {
			row = append(row, asRatio(ratio(ours[0].ns, c[0].ns)), asRatio(ratio(ours[1].ns, c[1].ns)))
		} else {
			row = append(row, "", "")
		}
		t.add(row...)
	}
	allocs := estimateOf(ours[0].allocs).median
	return Section{
		Text:   "A fresh token is read again and again. Where goroutines share the cores, the time is that of one read on one core's share: it is flat when nothing is waited for.",
		Tables: []Table{t},
		Goals: []Goal{
			counted("allocations of Token on a fresh token", "itself", "0", asCount(allocs), allocs == 0),
			atMost("Token on a fresh token, more than reading the clock", "the clock", 10, estimateOf(excess(ours[0].ns, costs[0].ns)), asNs),
			atMost(fmt.Sprintf("Token, %d goroutines per core ÷ one", many), "itself", 1.1, ratio(ours[2].ns, ours[1].ns), asRatio),
		},
	}, nil
}

var now int64 // keeps the clock from being optimised away

func serially(read TokenReader) func(*testing.B) {
	ctx := context.Background()
	return func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := read(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func inParallel(read TokenReader, perCore int) func(*testing.B) {
	ctx := context.Background()
	return func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(perCore)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := read(ctx); err != nil {
					b.Error(err)
				}
			}
		})
	}
}
