// Compare measures ampauth and its peers side by side, prints tables, and writes
// RESULTS.md and the plots. Run it in the directory bench:
//
//	go run ./cmd/compare
//
// It takes about twenty minutes and wants the machine for itself. With -quick
// it takes less than a minute and writes nothing: then only what is counted (logins,
// effects, allocations, bytes) means something. It exits with 1 when a number that is
// counted misses its goal; times decide nothing.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/ampauth/ampauth/bench"
)

func main() {
	bench.RunTask()
	var names []string
	for _, w := range bench.Works {
		names = append(names, w.Name)
	}
	quick := flag.Bool("quick", false, "measure hardly anything, and write nothing")
	only := flag.String("only", "", "measure only these and write nothing: `names` of "+strings.Join(names, ", ")+", with commas")
	out := flag.String("out", ".", "write RESULTS.md and plots/ into this `directory`")
	flag.Parse()
	chosen := names
	if *only != "" {
		chosen = strings.Split(*only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			fmt.Fprintf(os.Stderr, "compare: there is no %q to measure, only %s\n", name, strings.Join(names, ", "))
			os.Exit(2)
		}
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "compare: takes no arguments, but %q was given\n", flag.Arg(0))
		os.Exit(2)
	}

	saves := *only == "" && !*quick
	if saves {
		if err := bench.Prepare(*out); err != nil {
			fail(err)
		}
	}
	report, err := measure(chosen, *quick)
	if err != nil {
		fail(err)
	}
	fmt.Printf("%s", report.Head())
	if saves {
		if err := report.Save(*out); err != nil {
			fail(err)
		}
	}
	if missed := report.Missed(); len(missed) > 0 {
		fail(fmt.Errorf("missed: %s", strings.Join(missed, "; ")))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "compare:", err)
	os.Exit(1)
}

// measure goes through the chosen works. It prints what came out of each, and tells
// on stderr how far it has got.
func measure(chosen []string, quick bool) (*bench.Report, error) {
	live := term.IsTerminal(int(os.Stderr.Fd()))
	report := bench.NewReport(quick)
	for i, w := range bench.Works {
		if !slices.Contains(chosen, w.Name) {
			continue
		}
		title := fmt.Sprintf("%d/%d %s", i+1, len(bench.Works), w.Title)
		if !live {
			fmt.Fprintln(os.Stderr, title)
		}
		began := time.Now()
		o := bench.Options{Quick: quick, Progress: func(done, of int) {
			if live {
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s: %d of %d, %s", title, done, of, time.Since(began).Round(time.Second))
			}
		}}
		section, err := report.Add(w, o)
		if live {
			fmt.Fprint(os.Stderr, "\r\x1b[K")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Title, err)
		}
		fmt.Println(section)
	}
	return report, nil
}
