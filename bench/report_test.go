package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRatioIsFormedWithinARound(t *testing.T) {
	// A machine that gets ten times slower meanwhile.
	ours := []float64{1, 2, 3, 5, 10, 10, 10}
	theirs := []float64{2, 4, 6, 10, 20, 20, 20}
	if e := ratio(ours, theirs); e.median != .5 || e.low != .5 || e.high != .5 {
		t.Errorf("%+v, want .5 throughout", e)
	}
	if e := estimateOf(excess(theirs, ours)); e.median != 5 {
		t.Errorf("the median of %v is %v", excess(theirs, ours), e.median)
	}
}

func TestEstimateHoldsTheMedian(t *testing.T) {
	values := []float64{9, 1, 5, 3, 7, 2, 8, 4, 6}
	e := estimateOf(values)
	if e.median != 5 || e.low >= 5 || e.high <= 5 || e.low < 1 || e.high > 9 {
		t.Errorf("%+v", e)
	}
	if values[0] != 9 {
		t.Error("the values were sorted in place")
	}
	if e := estimateOf([]float64{3}); e != (estimate{3, 3, 3}) {
		t.Errorf("of one value: %+v", e)
	}
}

func TestOnlyWhatIsCountedCanBeMissed(t *testing.T) {
	section := Section{Goals: []Goal{
		counted("effects", "itself", "1", "2", false),
		atMost("time", "a peer", .5, estimate{.9, .8, 1}, asRatio),
		atMost("noise", "a peer", .5, estimate{.6, .4, .8}, asRatio),
	}}
	work := Work{"w", "A title", func(Options) (Section, error) { return section, nil }}
	for _, quick := range []bool{false, true} {
		r := NewReport(quick)
		if _, err := r.Add(work, Options{}); err != nil {
			t.Fatal(err)
		}
		if got := r.Missed(); len(got) != 1 || !strings.HasPrefix(got[0], "effects") {
			t.Errorf("missed %q", got)
		}
		// A time that was not measured for long enough is not even shown.
		if got := strings.Count(r.Head(), "**missed**"); got != map[bool]int{false: 2, true: 1}[quick] {
			t.Errorf("quick %t: %d goals are marked as missed", quick, got)
		}
		if got := strings.Contains(r.Head(), "undecided"); got == quick {
			t.Errorf("quick %t: what is in doubt is shown: %t", quick, got)
		}
	}
}

func TestFailedWorkIsNoSection(t *testing.T) {
	r := NewReport(true)
	broken := errors.New("broken")
	if _, err := r.Add(Work{"w", "A title", func(Options) (Section, error) { return Section{}, broken }}, Options{}); !errors.Is(err, broken) || len(r.sections) > 0 {
		t.Error(err, r.sections)
	}
}

func TestSavedReportShowsItsTablesAndPictures(t *testing.T) {
	results := table("**caption**", "contestant", "time")
	results.add("ampauth", "1 ns")
	picture := Picture{Name: "curve", Title: "A curve", X: "seconds", Y: "requests", Lines: []line{
		{"ampauth", []float64{0, 1}, []float64{1, 2}}, {"peer", []float64{0, 1}, []float64{100, 200}},
	}}
	r := NewReport(false)
	work := Work{"w", "A title", func(Options) (Section, error) {
		return Section{Text: "What was done.", Tables: []Table{results}, Pictures: []Picture{picture}}, nil
	}}
	if _, err := r.Add(work, Options{}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n## A title\n\nWhat was done.\n", "\n**caption**\n\n| contestant | time |\n|---         |---   |\n| ampauth    | 1 ns |\n",
		`srcset="plots/curve-dark.svg"`, `src="plots/curve-light.svg"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("RESULTS.md lacks %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"curve-light.svg", "curve-dark.svg"} {
		svg, err := os.ReadFile(filepath.Join(dir, "plots", name))
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(strings.NewReader(string(svg)))
		for err == nil {
			_, err = decoder.Token()
		}
		if err != io.EOF {
			t.Errorf("%s is no XML: %v", name, err)
		}
		for _, want := range []string{"A curve", "ampauth", "peer", "sans-serif"} {
			if !strings.Contains(string(svg), want) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
	}
}

func TestQuantities(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{asTime(2.004), "2.00 s"}, {asTime(.0123), "12 ms"}, {asTime(.0012), "1.2 ms"}, {asTime(.00008), "80 µs"},
		{asBytes(4096), "4096 B"}, {asBytes(12 << 10), "12 KiB"}, {asBytes(3 << 19), "1.5 MiB"}, {asBytes(896 << 20), "896 MiB"},
		{asRatio(estimate{.5, .25, .75}), "0.50 (0.25 to 0.75)"}, {asNs(estimate{median: 10}), "10 ns"}, {asUs(estimate{-1, -2, 3}), "-1.0 (-2.0 to 3.0) µs"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}
