package ampauth_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const clients = "docs/clients.md"

// codeElsewhere is, of each document whose code needs modules beside this one, which files
// have that code. So it compiles, and does what the document says.
var codeElsewhere = map[string]string{clients: "interop/*_test.go", "docs/fleets.md": "*store/*_test.go"}

func TestDocumentsShowCodeThatRuns(t *testing.T) {
	for document, pattern := range codeElsewhere {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		var shown, runs []string
		for _, block := range regexp.MustCompile("(?s)\n```go\n(.*?)```\n").FindAllStringSubmatch(string(text), -1) {
			shown = append(shown, block[1])
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		part := regexp.MustCompile("(?s)\n(\t*)// begin " + document + "\n\n(.*?)\n\t*// end " + document + "\n")
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range part.FindAllStringSubmatch(string(source), -1) {
				code := strings.TrimPrefix(found[2], found[1])
				runs = append(runs, strings.ReplaceAll(code, "\n"+found[1], "\n"))
			}
		}
		slices.Sort(shown)
		slices.Sort(runs)
		if diff := cmp.Diff(runs, shown); diff != "" || len(runs) == 0 {
			t.Errorf("the code (-that runs +in %s):\n%s", document, diff)
		}
	}
}

// Each row of a table ends in the tests that show it, or says that it was seen by hand.
func TestClientsShowsWhatItClaims(t *testing.T) {
	text, err := os.ReadFile(clients)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("^(`Test\\w+`(, )?)+$")
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		if len(cells) < 2 || last == "test" || strings.Trim(last, "-") == "" {
			continue
		}
		rows++
		if !shown.MatchString(last) && last != "seen by hand" {
			t.Errorf("nothing shows %s", line)
		}
	}
	if rows < 15 {
		t.Errorf("%d rows, want 15 or more", rows)
	}
}
