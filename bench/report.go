package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/klauspost/cpuid/v2"
)

// A Work is one thing that is measured of all who can do it.
type Work struct {
	Name    string
	Title   string
	Measure func(Options) (Section, error)
}

// Works is everything, in the order of the report.
var Works = []Work{
	{"tokens", "A token from the cache", tokens},
	{"get", "A GET that succeeds", requests},
	{"post", "A POST that succeeds", posts},
	{"loopback", "Requests over a socket", loopback},
	{"mutation", "A mutation over a socket", mutations},
	{"series", "A hundred mutations in a row", series},
	{"early", "An answer before the upload has ended", earlyAnswers},
	{"copies", "Copies of the token in memory", copies},
	{"idle", "Mutations to a server that closes idle connections", idleServers},
	{"cut", "Mutations that are performed and then cut off", cuts},
	{"refresh", "Requests while the token is replaced", refreshes},
	{"herd", "Ten thousand callers at once", herds},
	{"outage", "An outage", outages},
	{"upload", "A large upload that is sent twice", uploads},
	{"effects", "How often a mutation happens", effects},
}

// A Section is what came out of a Work.
type Section struct {
	Text     string // what was done
	Tables   []Table
	Pictures []Picture
	Goals    []Goal
}

// A Report is what came out of several.
type Report struct {
	quick    bool
	began    time.Time
	sections []string // as Markdown
	pictures []Picture
	goals    []Goal
}

// NewReport returns a Report with nothing in it.
func NewReport(quick bool) *Report { return &Report{quick: quick, began: time.Now()} }

// Add measures w and returns its section of the report.
func (r *Report) Add(w Work, o Options) (markdown string, err error) {
	s, err := w.Measure(o)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n", w.Title, s.Text)
	for _, p := range s.Pictures {
		fmt.Fprintf(&b, "\n%s\n", p.markdown(plotsDir))
	}
	for _, t := range s.Tables {
		fmt.Fprintf(&b, "\n%s", t.markdown())
	}
	r.sections = append(r.sections, b.String())
	r.pictures = append(r.pictures, s.Pictures...)
	for _, g := range s.Goals {
		if g.Counted || !r.quick { // the times of a quick run mean nothing
			r.goals = append(r.goals, g)
		}
	}
	return b.String(), nil
}

// Missed names the goals that were counted and not reached.
func (r *Report) Missed() (names []string) {
	for _, g := range r.goals {
		if g.Counted && g.Missed {
			names = append(names, fmt.Sprintf("%s (to reach: %s; measured: %s)", g.What, g.Reach, g.Measured))
		}
	}
	return names
}

// Head says what was measured by what, and which goals were reached.
func (r *Report) Head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Side by side\n\nBy `go run ./cmd/compare` on %s, in %s: %s, %d cores, %s %s/%s.\n",
		r.began.Format(time.DateOnly), time.Since(r.began).Round(time.Second), cpuid.CPU.BrandName, runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if r.quick {
		b.WriteString("\nThis was a quick run: its times mean nothing.\n")
	}
	fmt.Fprintf(&b, "\nPeers: %s. How each is put together is in [peers.go](peers.go).\n", strings.Join(peerVersions(), ", "))
	b.WriteString("\nWhat is timed is timed in rounds, each contestant once in each. Shown are medians and, in brackets, where there are enough rounds, the interval that holds the median at 95 % confidence; ratios are formed within a round. Below 1 ampauth takes less.\n")
	fmt.Fprintf(&b, "\n## Goals\n\n%s", goalsTable(r.goals).markdown())
	return b.String()
}

const plotsDir = "plots"

// Prepare makes the directories that Save writes to, so that a fault shows before
// anything is measured.
func Prepare(dir string) error { return os.MkdirAll(filepath.Join(dir, plotsDir), 0o755) }

// Save writes the report as RESULTS.md, and its pictures, into dir.
func (r *Report) Save(dir string) error {
	for _, p := range r.pictures {
		if err := p.draw(filepath.Join(dir, plotsDir)); err != nil {
			return err
		}
	}
	text := r.Head() + "\n" + strings.Join(r.sections, "\n")
	return os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(text), 0o644)
}

// peerVersions are those that this program was built with.
func peerVersions() (versions []string) {
	peers := []string{
		"github.com/hashicorp/go-retryablehttp", "github.com/failsafe-go/failsafe-go", "github.com/PuerkitoBio/rehttp",
		"golang.org/x/oauth2", "cloud.google.com/go/auth", "github.com/Azure/azure-sdk-for-go/sdk/azcore", "github.com/aws/smithy-go",
	}
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return peers
	}
	for _, peer := range peers {
		for _, module := range info.Deps {
			if module.Path == peer {
				versions = append(versions, peer+" "+module.Version)
			}
		}
	}
	return versions
}

// A Table has its heads in the first row.
type Table struct {
	Caption string
	Rows    [][]string
}

func table(caption string, heads ...string) Table { return Table{caption, [][]string{heads}} }

func (t *Table) add(cells ...string) { t.Rows = append(t.Rows, cells) }

// A Goal is a number that this package wants to reach.
type Goal struct {
	What     string
	Against  string // whom it is measured by, and with what timeouts
	Reach    string
	Measured string
	Missed   bool
	Doubtful bool // missed by the median, but within what the measurement leaves open
	Counted  bool // not timed: it is the same on every machine
}

// atMost is a goal for a time or a ratio of times.
func atMost(what, against string, limit float64, measured estimate, format func(estimate) string) Goal {
	return Goal{
		What: what, Against: against, Reach: "at most " + format(estimate{median: limit}),
		Measured: format(measured), Missed: measured.low > limit, Doubtful: measured.median > limit && measured.low <= limit,
	}
}

// counted is a goal for a number of things.
func counted(what, against, reach, measured string, holds bool) Goal {
	return Goal{What: what, Against: against, Reach: reach, Measured: measured, Missed: !holds, Counted: true}
}

// rarely is a goal for how many of so many mutations end badly. A count of fewer than
// that decides only what is already too much.
func rarely(what, against string, limit, of, bad, sent int) Goal {
	g := counted(what, against, fmt.Sprintf("at most %d of %d", limit, of), fmt.Sprintf("%d of %d", bad, sent), bad <= limit)
	g.Doubtful = bad <= limit && bad*of > limit*sent
	return g
}

// markdown returns t with its columns aligned.
func (t Table) markdown() string {
	var b strings.Builder
	if t.Caption != "" {
		fmt.Fprintf(&b, "%s\n\n", t.Caption)
	}
	tabs := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for i, row := range t.Rows {
		fmt.Fprintf(tabs, "| %s\t|\n", strings.Join(row, "\t| "))
		if i == 0 {
			fmt.Fprintf(tabs, "%s|\n", strings.Repeat("|---\t", len(row)))
		}
	}
	_ = tabs.Flush() // a Builder takes everything
	return b.String()
}

// goalsTable sets goals beside what was measured.
func goalsTable(goals []Goal) Table {
	t := table("", "what", "measured by", "to reach", "measured", "")
	for _, g := range goals {
		verdict := "reached"
		switch {
		case g.Missed:
			verdict = "**missed**"
		case g.Doubtful:
			verdict = "undecided"
		}
		t.add(g.What, g.Against, g.Reach, g.Measured, verdict)
	}
	return t
}

func asRatio(e estimate) string { return spread(e, "%.2f", "") }
func asNs(e estimate) string    { return spread(e, "%.0f", " ns") }
func asUs(e estimate) string    { return spread(e, "%.1f", " µs") }

// spread shows the median and the interval around it, if there is one.
func spread(e estimate, format, unit string) string {
	middle := fmt.Sprintf(format, e.median)
	if e.low == e.high {
		return middle + unit
	}
	return fmt.Sprintf("%s (%s to %s)%s", middle, fmt.Sprintf(format, e.low), fmt.Sprintf(format, e.high), unit)
}

func asBytes(n float64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%.0f MiB", n/(1<<20))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", n/(1<<20))
	case n >= 10<<10:
		return fmt.Sprintf("%.0f KiB", n/(1<<10))
	}
	return fmt.Sprintf("%.0f B", n)
}

func asCount(n float64) string { return fmt.Sprintf("%.0f", n) }

// inSeconds shows a round duration.
func inSeconds(d time.Duration) string { return fmt.Sprintf("%g s", d.Seconds()) }

// asTime shows a latency in seconds with three digits.
func asTime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}
