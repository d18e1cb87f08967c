package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const doctorUsage = `usage: ampauth doctor [flags]

Checks, one after the other, what stands between this machine and AMP, and says
of each what to do: the configuration and where each value came from, the name
(DNS), the connection (TCP), the certificate (TLS), the clock, the login, an
authenticated read (GET /managers/me), and the place where tokens are kept.

It sends no mutation, and makes one attempt at each thing, so that it shows what
a retry would hide. The stored token of the account is neither used nor changed:
what is written into the store has a key of its own, and is removed. With
-refresh the token is refreshed as well, which ends it for all others who use
the account.

Each check is ok, a warning, failed, or not tried, with the check that it waits
for.

Exit codes: 0 nothing failed, 1 something failed, 2 usage,
4 not authenticated (AMP refused user name and password, or the token).

`

// The states of a finding.
const (
	findingOK       = "ok"
	findingWarning  = "warning"
	findingFailed   = "failed"
	findingNotTried = "not tried"
)

// A finding is what one check has found.
type finding struct {
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Seen     []string `json:"seen"`
	Do       []string `json:"do"`                  // what to do about it
	WaitsFor string   `json:"waits_for,omitempty"` // the check without which this one cannot be made
}

// A diagnosis is all that a doctor has found.
type diagnosis struct {
	OK       bool      `json:"ok"`
	Findings []finding `json:"checks"`

	refused bool // AMP does not take the credentials, or the token
}

func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth doctor", flag.ContinueOnError)
	refresh := flags.Bool("refresh", false, "refresh the token as well: this ends it for all who use the account")
	asJSON := flags.Bool("json", false, "print one JSON object")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), doctorUsage)
		flags.PrintDefaults()
	}
	profile := profileFlag(flags)
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	if flags.NArg() > 0 {
		return misused(flags, stderr, "takes no arguments")
	}
	d := newDoctor(*refresh)
	if !*asJSON {
		d.tell = func(f finding) { f.print(stdout) } // at once: some take their time
	}
	a, err := accountOf(*profile)
	defer a.Credentials.Password.Destroy()
	d.examine(ctx, a, err)
	if *asJSON {
		text, err := json.MarshalIndent(d.diagnosis, "", "  ")
		if err != nil {
			fmt.Fprintln(stderr, "ampauth doctor:", err)
			return exitError
		}
		fmt.Fprintf(stdout, "%s\n", text)
	}
	switch {
	case d.refused:
		return exitNotAuthenticated
	case !d.OK:
		return exitError
	}
	return exitOK
}

// A doctor makes the checks. What one finds is told before the next begins.
type doctor struct {
	diagnosis
	refresh bool
	tell    func(finding)

	account account
	blocked string // the check that has failed, without which those after it cannot be made
}

func newDoctor(refresh bool) *doctor {
	return &doctor{diagnosis: diagnosis{OK: true}, refresh: refresh, tell: func(finding) {}}
}

// examine makes all checks. err is what is wrong with the configuration.
func (d *doctor) examine(ctx context.Context, a account, err error) {
	d.account = a
	d.note(configuration(a, err))
	if err != nil {
		for _, name := range []string{"dns", "tcp", "tls", "clock", "login", "read", "refresh", "store"} {
			d.note(finding{Name: name, State: findingNotTried, WaitsFor: "configuration"})
		}
		return
	}
	d.examineNetwork(ctx)
	d.examineAccount(ctx)
	d.check(ctx, "", "store", 10*time.Second, func(ctx context.Context) finding { return examineStore(ctx, a.Config) })
}

// check makes one check within its time, unless another one has to be well before. A check
// that does not end when its context does, as on a hung file system, is left behind.
func (d *doctor) check(ctx context.Context, waitsFor, name string, limit time.Duration, look func(context.Context) finding) finding {
	f := finding{State: findingNotTried, WaitsFor: waitsFor}
	switch {
	case waitsFor != "":
	case ctx.Err() != nil:
		f = finding{State: findingFailed, Seen: []string{"interrupted"}}
	default:
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		found := make(chan finding, 1)
		go func() { found <- look(limited) }()
		select {
		case f = <-found:
		case <-limited.Done():
			select {
			case f = <-found: // it says itself why it ended
			case <-time.After(2 * time.Second):
				f = finding{State: findingFailed, Seen: []string{fmt.Sprintf("no end after %v", limit)}}
			}
		}
	}
	f.Name = name
	d.note(f)
	return f
}

func (d *doctor) note(f finding) {
	if f.Seen == nil {
		f.Seen = []string{}
	}
	if f.Do == nil {
		f.Do = []string{}
	}
	if f.Name != "configuration" { // which tells of all variables and keys by itself
		for _, texts := range [][]string{f.Seen, f.Do} {
			for i, text := range texts {
				texts[i] = d.account.advice(text)
			}
		}
	}
	if f.State == findingFailed {
		d.OK = false
	}
	d.Findings = append(d.Findings, f)
	d.tell(f)
}

const (
	screen     = 80 // columns
	seenColumn = 25 // where what was seen begins
)

// print writes a finding on as few lines as there can be.
func (f finding) print(w io.Writer) {
	seen := f.Seen
	if f.WaitsFor != "" {
		seen = append([]string{"waits for " + f.WaitsFor}, seen...)
	}
	head := fmt.Sprintf("%-9s  %-13s ", f.State, f.Name)
	for _, text := range seen {
		for _, line := range wrapped(text, screen-seenColumn) {
			printLine(w, head, line)
			head = ""
		}
	}
	if head != "" {
		fmt.Fprintln(w, strings.TrimSpace(head))
	}
	for _, text := range f.Do {
		mark := "-> "
		for _, line := range wrapped(text, screen-seenColumn-len(mark)) {
			printLine(w, "", mark+line)
			mark = "   "
		}
	}
}

// printLine writes a line that begins at its column, or before it where it would not fit
// the screen otherwise, as a long path.
func printLine(w io.Writer, head, text string) {
	column := max(utf8.RuneCountInString(head), min(seenColumn, screen-utf8.RuneCountInString(text)))
	fmt.Fprintf(w, "%-*s%s\n", column, head, text)
}

// wrapped breaks a text between words. A word that is too long stays whole, to be copied.
func wrapped(text string, width int) []string {
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, word)
		default:
			*last += " " + word
		}
	}
	return lines
}
