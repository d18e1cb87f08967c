package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ampauth/ampauth"
)

// A snapshot is a look at a demo that is under way.
type snapshot struct {
	elapsed  time.Duration
	requests int
	second   int // requests since the last look
	p50, p99 time.Duration
	stats    ampauth.Stats
	token    ampauth.TokenInfo
	hasToken bool
	fault    string // the latest
}

func (d *demo) snapshot(began time.Time) snapshot {
	s := snapshot{elapsed: time.Since(began), stats: d.client.Stats()}
	s.token, s.hasToken = d.client.Tokens.Info()

	d.load.mu.Lock()
	s.requests, s.second = d.load.overall.total, d.load.recent.total
	s.p50, s.p99 = d.load.recent.percentile(0.50), d.load.recent.percentile(0.99)
	d.load.recent = latencies{}
	d.load.mu.Unlock()

	d.director.mu.Lock()
	s.fault = d.director.latest
	d.director.mu.Unlock()
	return s
}

// A view shows a snapshot each second: a line for each, or, in place, always
// over the one before.
type view struct {
	out     io.Writer
	inPlace bool
	verbose bool // with all figures on a line
	height  int  // of what stands on the screen
}

func newView(out io.Writer, inPlace bool) *view { return &view{out: out, inPlace: inPlace} }

// show shows what look returns, each second until ctx ends.
func (v *view) show(ctx context.Context, look func() snapshot) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			v.draw(look())
		case <-ctx.Done():
			return
		}
	}
}

func (v *view) draw(s snapshot) {
	if v.inPlace {
		v.drawInPlace(s)
		return
	}
	var words []string
	for _, f := range s.figures() {
		if f.brief || v.verbose {
			words = append(words, f.name+" "+f.value)
		}
	}
	fmt.Fprintln(v.out, strings.Join(words, "  "))
}

// drawInPlace writes over what stands there, in one piece so that nothing flickers.
func (v *view) drawInPlace(s snapshot) {
	var b strings.Builder
	if v.height > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", v.height) // cursor up, and to the left of a "^C"
	}
	figures := s.figures()
	for _, f := range figures {
		fmt.Fprintf(&b, "  %-10s %s\x1b[K\n", f.name, f.value) // and clear the rest of the line
	}
	v.height = len(figures)
	_, _ = io.WriteString(v.out, b.String())
}

// clear removes what drawInPlace has drawn, so that the report follows the introduction.
func (v *view) clear() {
	if v.height > 0 {
		fmt.Fprintf(v.out, "\r\x1b[%dA\x1b[J", v.height) // cursor up, and clear what is below
		v.height = 0
	}
}

type figure struct {
	name, value string
	brief       bool // whether it is on a line of 80 columns
}

func (s snapshot) figures() []figure {
	token := "none"
	if s.hasToken {
		token = fmt.Sprintf("%.1fs old, %.1fs left", s.token.Age.Seconds(), s.token.ExpiresIn.Seconds())
	}
	fault := s.fault
	if fault == "" {
		fault = "none yet"
	}
	return []figure{
		{"at", fmt.Sprintf("%2.0fs", s.elapsed.Seconds()), true},
		{"requests", fmt.Sprintf("%d (+%d)", s.requests, s.second), true},
		{"p50", milliseconds(s.p50), false},
		{"p99", milliseconds(s.p99), false},
		{"logins", fmt.Sprint(s.stats.Obtains), false},
		{"refreshes", fmt.Sprint(s.stats.Refreshes), false},
		{"renewals", fmt.Sprint(s.stats.Renewals), false},
		{"retries", fmt.Sprint(s.stats.Retries.Total()), false},
		{"waits", fmt.Sprint(s.stats.Waits), false},
		{"token", token, false},
		{"fault", fault, true},
	}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}
