package ampauthtest_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What the person sees whose test fails.
func TestFailingTestsReadWell(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s to build; run without -short")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command")
	}
	out, err := exec.CommandContext(t.Context(), goTool, "test", "-count=1", "./testdata/failing").CombinedOutput()
	if err == nil {
		t.Fatalf("the tests passed:\n%s", out)
	}
	text := string(out)
	t.Log(text)
	for _, want := range []string{
		"(?m)^--- FAIL: TestTwice",
		`POST /assets/issue was performed twice: the same request again \S+ after the first, which had met the fault "Reset after it, on POST /assets/issue"\.`,
		`docs/exactly-once\.md`,
		"(?m)^--- FAIL: TestBodyOnAGet",
		`GET /assets: body on a GET \(requests: 1\)\.\s+A client of AMP must not send that`,
		"(?m)^--- FAIL: TestWrongFault",
		`failing_test\.go:46: ampauthtest: Inject: Fault 1: Route "POST /asset/issue" is none of AMP's; is it "POST /assets/issue"\?`,
		"the test goes on",
		"(?m)^    --- FAIL: TestInParallel/b",
		`Times is -2`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the output does not have %s", want)
		}
	}
	for _, bad := range []string{"SECRET", "correct horse", "panic", "TestInParallel/a", "goroutine"} {
		if strings.Contains(text, bad) {
			t.Errorf("the output has %q", bad)
		}
	}
}

// The lesson is short, and its code is code that runs.
func TestLessonIsCodeThatRuns(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(file.Doc.Text(), "\n"); n > 60 {
		t.Errorf("the package comment has %d lines, want at most 60", n)
	}
	var code strings.Builder
	for line := range strings.Lines(file.Doc.Text()) {
		if strings.HasPrefix(line, "\t") {
			code.WriteString(line[1:])
		}
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if code.Len() == 0 || !bytes.Contains(examples, []byte(code.String())) {
		t.Errorf("example_test.go does not have this code:\n%s", &code)
	}
}

func TestUsersTestIsShort(t *testing.T) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "example_test.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "TestIssue" {
			if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; n >= 40 {
				t.Errorf("the test has %d lines, want less than 40", n)
			}
			return
		}
	}
	t.Error("there is no TestIssue")
}
