package ampauth_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the lists of exported names in testdata")

// parsePackage reads the sources of the root package without its tests.
func parsePackage(t *testing.T) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	return parseDirectory(t, ".")
}

func parseDirectory(t *testing.T, directory string) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset, files := token.NewFileSet(), make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return fset, files
}

// TestExportedNames holds the exported surface, so that its growth is a change
// that somebody reviews. Run it with -update to accept one.
func TestExportedNames(t *testing.T) {
	for directory, list := range map[string]string{".": "api.txt", "ampauthtest": "api_ampauthtest.txt", "storetest": "api_storetest.txt"} {
		t.Run(directory, func(t *testing.T) { holdExportedNames(t, directory, filepath.Join("testdata", list)) })
	}
}

func holdExportedNames(t *testing.T, directory, apiList string) {
	fset, files := parseDirectory(t, directory)
	var lines, undocumented []string
	add := func(documented bool, format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		lines = append(lines, line)
		if !documented {
			undocumented = append(undocumented, line)
		}
	}
	text := func(node any) string {
		var b strings.Builder
		if err := printer.Fprint(&b, fset, node); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	for _, file := range files {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				receiver := ""
				if d.Recv != nil {
					receiver = text(d.Recv.List[0].Type)
					if !ast.IsExported(strings.TrimLeft(receiver, "*")) {
						continue
					}
					receiver = "(" + receiver + ") "
				}
				if d.Name.IsExported() {
					add(d.Doc != nil, "func %s%s%s", receiver, d.Name.Name, strings.TrimPrefix(text(d.Type), "func"))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						if !s.Name.IsExported() {
							continue
						}
						documented := d.Doc != nil || s.Doc != nil
						switch typ := s.Type.(type) {
						case *ast.StructType:
							add(documented, "type %s struct", s.Name.Name)
							for _, field := range typ.Fields.List {
								for _, name := range field.Names {
									if name.IsExported() {
										add(true, "field %s.%s %s", s.Name.Name, name.Name, text(field.Type))
									}
								}
								if len(field.Names) == 0 {
									add(true, "field %s embeds %s", s.Name.Name, text(field.Type))
								}
							}
						case *ast.InterfaceType:
							add(documented, "type %s interface", s.Name.Name)
							for _, method := range typ.Methods.List {
								add(method.Doc != nil, "method %s.%s%s", s.Name.Name, method.Names[0].Name, strings.TrimPrefix(text(method.Type), "func"))
							}
						default:
							add(documented, "type %s %s", s.Name.Name, text(s.Type))
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if name.IsExported() {
								add(d.Doc != nil || s.Doc != nil, "%s %s", d.Tok, name.Name)
							}
						}
					}
				}
			}
		}
	}
	for _, line := range undocumented {
		t.Errorf("without a doc comment: %s", line)
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(apiList, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(apiList)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the exported names differ from %s (-listed +there):\n%s", apiList, diff)
	}
}

func TestPackageDocIsShort(t *testing.T) {
	_, files := parsePackage(t)
	words := len(strings.Fields(files["doc.go"].Doc.Text()))
	if words < 150 || words > 400 {
		t.Errorf("the package doc has %d words, want 150 to 400", words)
	}
}

func TestRootModuleStaysLean(t *testing.T) {
	allowed := []string{"golang.org/x/sync/", "golang.org/x/time/", "github.com/hashicorp/go-cleanhttp", "github.com/gofrs/flock", "github.com/ampauth/ampauth/internal/"}
	_, files := parsePackage(t)
	for name, file := range files {
		for _, spec := range file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			first, _, _ := strings.Cut(path, "/")
			known := slices.ContainsFunc(allowed, func(prefix string) bool {
				return strings.HasPrefix(path+"/", prefix) || strings.HasPrefix(path, prefix)
			})
			if strings.Contains(first, ".") && !known {
				t.Errorf("%s imports %s", name, path)
			}
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", name)
			}
		}
	}
}

// TestDocumentsNameRealTests keeps what the documents promise bound to its proofs.
func TestDocumentsNameRealTests(t *testing.T) {
	declared := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				declared[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for document, atLeast := range map[string]int{"README.md": 5, "FAULTS.md": 47, "docs/clients.md": 20, "docs/promises.md": 20, "docs/fleets.md": 5} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for _, word := range strings.FieldsFunc(string(text), func(r rune) bool { return r == '`' || r == ' ' || r == '\n' }) {
			if strings.HasPrefix(word, "Test") {
				named++
				if !declared[word] {
					t.Errorf("%s names %s, which is not there", document, word)
				}
			}
		}
		if named < atLeast {
			t.Errorf("%s names %d tests, want at least %d", document, named, atLeast)
		}
	}
}

// sources parses every file of the module that is no test, by its directory.
// Nested modules are left out.
func sources(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	byDirectory := make(map[string]map[string]*ast.File)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != "." && (err == nil || entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		directory := filepath.ToSlash(filepath.Dir(path))
		if byDirectory[directory] == nil {
			byDirectory[directory] = make(map[string]*ast.File)
		}
		byDirectory[directory][path] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return byDirectory
}

const modulePath = "github.com/ampauth/ampauth"

// TestUsersLinkNothingElse follows the imports of the root package through the
// internal ones: what it reaches is what ends up in the users' programs.
func TestUsersLinkNothingElse(t *testing.T) {
	allowed := []string{"golang.org/x/sync/singleflight", "golang.org/x/time/rate", "github.com/hashicorp/go-cleanhttp", "github.com/gofrs/flock"}
	packages := sources(t)
	reached := make(map[string]bool)
	var follow func(directory string)
	follow = func(directory string) {
		if reached[directory] {
			return
		}
		reached[directory] = true
		for name, file := range packages[directory] {
			for _, spec := range file.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				first, _, _ := strings.Cut(path, "/")
				if own, ok := strings.CutPrefix(path, modulePath+"/"); ok {
					follow(own)
				} else if strings.Contains(first, ".") && !slices.Contains(allowed, path) {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
	}
	follow(".")
	for _, directory := range testOnly {
		if reached[directory] {
			t.Errorf("the root package reaches %s, which is for tests", directory)
		}
	}
}

// testOnly are the packages that stand for the other side in tests.
var testOnly = []string{"internal/fakeamp", "internal/memnet", "internal/hostile", "internal/fleet", "ampauthtest", "storetest"}

// harness runs this package's own programs for tests, so that it uses it, and nothing of
// what users link uses the harness: TestUsersLinkNothingElse.
const harness = "internal/fleet"

func TestInternalPackagesImportNoneThatUsesThem(t *testing.T) {
	for directory, files := range sources(t) {
		for name, file := range files {
			for _, spec := range file.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if !strings.HasPrefix(directory, "internal/") || !strings.HasPrefix(path+"/", modulePath+"/") || directory == harness {
					continue
				}
				if slices.Contains(testOnly, directory) {
					t.Errorf("%s imports %s: both sides could share a fault", name, path)
				} else if !strings.HasPrefix(path, modulePath+"/internal/") {
					t.Errorf("%s imports %s: the arrow runs upwards", name, path)
				}
			}
		}
	}
}

func TestModuleRequiresOnlyWhatIsAgreedOn(t *testing.T) {
	allowed := []string{
		"golang.org/x/sync", "golang.org/x/time", "github.com/hashicorp/go-cleanhttp", "github.com/gofrs/flock",
		"github.com/google/go-cmp", "golang.org/x/net", // in tests only
	}
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") || slices.Contains(fields, "indirect") {
			if len(fields) > 0 && (fields[0] == "replace" || fields[0] == "exclude") {
				t.Errorf("users do not get what the module is tested with: %s", strings.TrimSpace(line))
			}
			continue
		}
		found++
		if !slices.Contains(allowed, fields[0]) {
			t.Errorf("go.mod requires %s", fields[0])
		}
	}
	if found < 3 {
		t.Errorf("found %d requirements in go.mod", found)
	}
}

func TestNoFileRunsAnythingByItself(t *testing.T) {
	for _, files := range sources(t) {
		for name, file := range files {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function", name)
				}
			}
		}
	}
}

// TestArrowsRunDownwards holds the plan of ARCHITECTURE.md against the code: a file uses
// names of its own room and of those below, and of none above.
func TestArrowsRunDownwards(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, plan, _ := strings.Cut(string(text), "## The house")
	plan, _, found := strings.Cut(plan, "\n\n    internal/")
	_, files := parsePackage(t)
	room, rooms := make(map[string]int), 0 // counted from the top
	for line := range strings.Lines(plan) {
		names, isPlan := strings.CutPrefix(line, "    ")
		if !isPlan {
			continue
		}
		const nameOfRoom = 12
		if names[0] != ' ' {
			rooms++
		}
		for name := range strings.FieldsSeq(names[nameOfRoom:]) {
			if files[name+".go"] == nil {
				t.Errorf("ARCHITECTURE.md names %s.go, which is not there", name)
			}
			room[name+".go"] = rooms
		}
	}
	if !found || rooms < 5 {
		t.Fatalf("found %d rooms in ARCHITECTURE.md", rooms)
	}
	home := make(map[string]string) // of a name
	for name, file := range files {
		if room[name] == 0 {
			t.Errorf("ARCHITECTURE.md has no room for %s", name)
		}
		for declared := range file.Scope.Objects {
			home[declared] = name
		}
	}
	for name, file := range files {
		for _, used := range file.Unresolved {
			if other := home[used.Name]; other != "" && room[other] < room[name] {
				t.Errorf("%s uses %s of %s, which is above", name, used.Name, other)
			}
		}
	}
}
