package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// tokens measures what it costs to get a fresh token out of the cache.
func tokens(o Options) (Section, error) {
	const many = 1000
	names := []string{"reading the clock"}
	readers := []tokenReader{readClock}
	for _, c := range tokenCaches {
		s := setup{Base: staticLogin, URL: staticURL}
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
	costs, err := timed(o, trials)
	if err != nil {
		return Section{}, err
	}

	t := table("", "cache", "one goroutine", "one per core", fmt.Sprintf("%d per core", many), "allocations", "ampauth ÷ it, one goroutine", "one per core")
	ours := costs[3:6]
	for i := range readers {
		c := costs[3*i : 3*i+3]
		row := []string{names[i]}
		for j := range c {
			row = append(row, asNs(estimateOf(c[j].ns)))
		}
		row = append(row, asCount(median(c[0].allocs)), "", "")
		if i > 1 {
			row[5], row[6] = asRatio(ratio(ours[0].ns, c[0].ns)), asRatio(ratio(ours[1].ns, c[1].ns))
		}
		t.add(row...)
	}
	allocs := median(ours[0].allocs)
	return Section{
		Text:   fmt.Sprintf("A fresh token is read again and again, in %d rounds. The time is that on the wall, divided by all reads: where nothing is waited for, two cores halve it, and more goroutines change nothing.", o.rounds()),
		Tables: []Table{t},
		Goals: []Goal{
			counted("allocations of Token on a fresh token", "itself", "0", asCount(allocs), allocs < .5),
			atMost("Token on a fresh token, more than reading the clock", "the clock", 10, estimateOf(excess(ours[0].ns, costs[0].ns)), asNs),
			atMost(fmt.Sprintf("Token, %d goroutines per core ÷ one", many), "itself", 1.1, ratio(ours[2].ns, ours[1].ns), asRatio),
		},
	}, nil
}

// readClock is what a read of a token is measured by.
func readClock(context.Context) error {
	if time.Now().UnixNano() == 0 {
		return errors.New("there is no clock")
	}
	return nil
}

func serially(read tokenReader) func(*testing.B) error {
	ctx := context.Background()
	return func(b *testing.B) error {
		for b.Loop() {
			if err := read(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func inParallel(read tokenReader, perCore int) func(*testing.B) error {
	ctx := context.Background()
	return func(b *testing.B) (fault error) {
		var once sync.Once
		b.SetParallelism(perCore)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := read(ctx); err != nil {
					once.Do(func() { fault = err })
				}
			}
		})
		return fault
	}
}
