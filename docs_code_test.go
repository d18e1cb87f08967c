package ampauth_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What a block of code in a document may use without saying where it comes from.
const (
	documentImports = `"bytes" "context" "encoding/json" "errors" "fmt" "io" "log" "log/slog" "net/http" "net/http/httptest"
		"net/url" "os" "sync" "testing" "time" "github.com/ampauth/ampauth" "github.com/ampauth/ampauth/ampauthtest"`
	documentNames = `
var (
	ctx      context.Context
	cfg      ampauth.Config
	client   *ampauth.Client
	tokens   *ampauth.TokenManager
	yours    *http.Transport
	otelhttp layers
)

// layers stands for a package of another module.
type layers struct{}

func (layers) NewTransport(http.RoundTripper) http.RoundTripper { return nil }
`
)

// compiled returns what the compiler knows of the packages that a document may use.
func compiled(t *testing.T, fset *token.FileSet) types.Importer {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to ask for compiled packages")
	}
	args := append([]string{"list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}} {{.Export}}{{end}}"},
		strings.Fields(strings.ReplaceAll(documentImports, `"`, ""))...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = os.Stderr
	listed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := make(map[string]string)
	for line := range strings.Lines(string(listed)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// A block is checked as a program, as declarations, as an expression, or as the body of a
// function, whichever of these it is. Unused variables are a fault of programs alone.
func TestGoBlocksOfTheDocumentsCompile(t *testing.T) {
	fset := token.NewFileSet()
	imports := compiled(t, fset)
	blocks := 0
	for _, document := range documents(t) {
		if _, elsewhere := codeElsewhere[document]; elsewhere {
			continue // TestDocumentsShowCodeThatRuns
		}
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatchIndex(string(text), -1) {
			blocks++
			at := fmt.Sprintf("%s:%d", document, 1+strings.Count(string(text[:block[2]]), "\n"))
			for _, fault := range compile(t, fset, imports, at, string(text[block[2]:block[3]])) {
				t.Errorf("the block at %s: %v", at, fault)
			}
		}
	}
	if blocks < 3 {
		t.Errorf("%d blocks were found", blocks)
	}
}

// compile returns what a compiler has against a block.
func compile(t *testing.T, fset *token.FileSet, imports types.Importer, at, block string) (faults []error) {
	t.Helper()
	head := "package documents\nimport (\n" + strings.Join(strings.Fields(documentImports), "\n") + "\n)\n"
	names, err := parser.ParseFile(fset, "names", head+documentNames, 0)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(strings.TrimSpace(block), "package ") { // a whole program has all that it uses
		file, err := parser.ParseFile(fset, at, block, 0)
		if err != nil {
			return []error{err}
		}
		config := types.Config{Importer: imports, Error: func(err error) { faults = append(faults, err) }}
		_, _ = config.Check("main", fset, []*ast.File{file}, nil)
		return faults
	}
	var file *ast.File
	for _, form := range []string{"%s", "var _ = %s", "func _() error {\n%s\nreturn nil\n}\n"} {
		source := head + fmt.Sprintf(form, strings.TrimSpace(block)) + "\n"
		if file, err = parser.ParseFile(fset, at, source, 0); err == nil {
			break
		}
	}
	if err != nil {
		return []error{err}
	}
	config := types.Config{Importer: imports, Error: func(err error) {
		if e, ok := err.(types.Error); !ok || !e.Soft {
			faults = append(faults, err)
		}
	}}
	_, _ = config.Check("documents", fset, []*ast.File{file, names}, nil)
	return faults
}

// A block that would not compile is found.
func TestCodeThatDoesNotCompileIsFound(t *testing.T) {
	fset := token.NewFileSet()
	imports := compiled(t, fset)
	for _, block := range []string{"x := ", "return undefined.Name", "client.Missing()", "ampauth.Config{NoField: 1}", "var x int = http.MethodGet",
		"package main\n\nfunc main() { x := 1 }", "package main\n\nfunc main() { fmt.Println() }", "package main\n\nimport \"os\"\n\nfunc main() {}"} {
		if faults := compile(t, fset, imports, "block", block); len(faults) == 0 {
			t.Errorf("%q is taken", block)
		}
	}
	for _, block := range []string{"x := 1", "return client.Close()", "ampauth.Config{}", "var x string = http.MethodGet",
		"package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println() }"} {
		if faults := compile(t, fset, imports, "block", block); len(faults) > 0 {
			t.Errorf("%q is not taken: %v", block, faults)
		}
	}
}
