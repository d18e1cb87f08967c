package ampauth_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampauth/ampauth/internal/amproutes"
)

const exactlyOnce = "docs/exactly-once.md"

// A row of the table in docs/exactly-once.md.
type onceRow struct{ number, mutation, key, read, found, sure string }

func onceTable(t *testing.T) (rows []onceRow, text string) {
	t.Helper()
	b, err := os.ReadFile(exactlyOnce)
	if err != nil {
		t.Fatal(err)
	}
	text = string(b)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 6 && strings.Trim(cells[0], "0123456789") == "" && cells[0] != "" {
			rows = append(rows, onceRow{cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]})
		}
	}
	return rows, text
}

// operationIn matches a method and a path between backquotes.
var operationIn = regexp.MustCompile("`((?:GET|POST|PUT|DELETE) /[^`]*)`")

func TestExactlyOnceTableHasEveryMutationAndAReadForIt(t *testing.T) {
	rows, text := onceTable(t)
	known := make(map[string]amproutes.Class)
	var mutations, got []string
	for _, op := range amproutes.Operations() {
		name := op.Method + " " + op.Path
		known[name] = op.Class
		if op.Class == amproutes.Mutation {
			mutations = append(mutations, name)
		}
	}
	for i, row := range rows {
		found := operationIn.FindAllStringSubmatch(row.mutation, -1)
		if len(found) != 1 {
			t.Errorf("row %s has %d operations in the place of its mutation", row.number, len(found))
			continue
		}
		got = append(got, found[0][1])
		if row.number != strconv.Itoa(i+1) {
			t.Errorf("the row of %s has the number %s, want %d", row.mutation, row.number, i+1)
		}

		reads := operationIn.FindAllStringSubmatch(row.read, -1)
		switch {
		case row.read == "none":
			if row.found != "" || row.sure != "none" {
				t.Errorf("row %s has no read, but %q and %q", row.number, row.found, row.sure)
			}
		case len(reads) != 1 || row.found == "" || row.key == "":
			t.Errorf("row %s: the read %q finds it by %q, if %q", row.number, row.read, row.key, row.found)
		case !slices.Contains([]string{"high", "medium", "low"}, row.sure):
			t.Errorf("row %s is %q sure", row.number, row.sure)
		}
		for _, read := range reads {
			if class, ok := known[read[1]]; !ok || class != amproutes.Safe {
				t.Errorf("row %s: %s is no read of AMP", row.number, read[1])
			}
		}
		if note := regexp.MustCompile(`(?m)^\*\*(\d+, )*` + row.number + `(, \d+)*\. `); !note.MatchString(text) {
			t.Errorf("row %s has no note", row.number)
		}
	}
	slices.Sort(mutations)
	slices.Sort(got)
	if diff := cmp.Diff(mutations, got); diff != "" {
		t.Errorf("the mutations of the table (-AMP's +there):\n%s", diff)
	}
}

// What the command ampauth says of a mutation in doubt is what the table says.
func TestExactlyOnceTableIsWhatTheCommandSays(t *testing.T) {
	rows, _ := onceTable(t)
	said := make(map[string]amproutes.Reading)
	for _, op := range amproutes.Operations() {
		if reading, ok := amproutes.ReadingOf(op); ok {
			said[reading.Mutation] = reading
		}
	}
	written := make(map[string]amproutes.Reading)
	plain := func(cell string) string { return strings.ReplaceAll(cell, "`", "") }
	for _, row := range rows {
		written[plain(row.mutation)] = amproutes.Reading{Mutation: plain(row.mutation), Key: plain(row.key),
			Read: plain(row.read), Found: plain(row.found), Sure: row.sure}
	}
	if diff := cmp.Diff(written, said); diff != "" {
		t.Errorf("the readings (-in the document +said):\n%s", diff)
	}
}

// The notes name more operations, and letters for their sources.
func TestExactlyOnceNamesWhatThereIs(t *testing.T) {
	_, text := onceTable(t)
	text = regexp.MustCompile("(?s)```go.*?```").ReplaceAllString(text, "")
	for _, named := range operationIn.FindAllStringSubmatch(text, -1) {
		known := slices.ContainsFunc(amproutes.Operations(), func(op amproutes.Operation) bool {
			return op.Method+" "+op.Path == named[1]
		})
		if !known && named[1] != "POST /user/refresh_token" { // what a client sends, and AMP has not
			t.Errorf("%s is none of AMP's operations", named[1])
		}
	}
	letter := regexp.MustCompile(`\b[A-Z]\b`)
	cited := make(map[string]bool)
	for _, citation := range regexp.MustCompile(`\[[A-Z]\b[^\]]*\]`).FindAllString(text, -1) {
		for _, source := range letter.FindAllString(citation, -1) {
			cited[source] = true
			if !strings.Contains(text, "\n| "+source+" | ") {
				t.Errorf("%s cites a source that is not listed", citation)
			}
		}
	}
	for _, source := range regexp.MustCompile(`(?m)^\| ([A-Z]) \| `).FindAllStringSubmatch(text, -1) {
		if !cited[source[1]] {
			t.Errorf("nothing is said by the source %s", source[1])
		}
	}
}

// The code in the document is that of an example, so it compiles and does what it says.
func TestExactlyOnceShowsCodeThatRuns(t *testing.T) {
	_, text := onceTable(t)
	_, rest, found := strings.Cut(text, "\n```go\n")
	shown, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("there is no code in it")
	}
	example, err := os.ReadFile("example_once_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found = strings.Cut(string(example), "// begin "+exactlyOnce+"\n\n")
	runs, _, closed := strings.Cut(rest, "\n// end "+exactlyOnce+"\n")
	if !found || !closed {
		t.Fatal("the example has no part for it")
	}
	if diff := cmp.Diff(runs, shown); diff != "" {
		t.Errorf("the code (-that runs +in the document):\n%s", diff)
	}
}
