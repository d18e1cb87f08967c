package ampauth_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/ampauthtest"
)

// readText reads a file of the repository.
func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestReadmeIsShortBeforeItsTables(t *testing.T) {
	text, _, found := strings.Cut(readText(t, "README.md"), "\n|")
	if n := len(strings.Fields(text)); !found || n > 500 {
		t.Errorf("the README has %d words before its first table, want at most 500", n)
	}
	for _, command := range []string{
		"go run ./cmd/ampauth demo", "go test ./...", "go get " + modulePath, "go install " + modulePath + "/cmd/ampauth@latest",
	} {
		if !strings.Contains(text, "\n    "+command+"\n") {
			t.Errorf("the README does not say %q", command)
		}
	}
}

var (
	// What is between ](...) or quotes after src, up to its #.
	linked = regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"#]+)`)
	code   = regexp.MustCompile("(?ms)^```go$.*?^```$")
)

// documents are the paths of those that users read.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

func TestDocumentsLinkToFilesThatAreThere(t *testing.T) {
	links := 0
	for _, document := range documents(t) {
		for _, link := range linked.FindAllStringSubmatch(code.ReplaceAllString(readText(t, document), ""), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), link[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", document, link[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links were found", links)
	}
}

// The first program of the README, as it stands there, against a fake AMP.
func TestFirstProgramOfTheReadmeRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a program; run without -short")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command")
	}
	_, rest, found := strings.Cut(readText(t, "README.md"), "\n```go\n")
	program, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("there is no program in it")
	}
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	credentials := amp.Config().Credentials
	cmd := exec.CommandContext(t.Context(), "go", "run", path)
	cmd.Env = append(os.Environ(), "AMP_API_BASE_URL="+amp.URL, "AMP_USERNAME="+credentials.Username, "AMP_PASSWORD_FILE=", "AMP_TOKEN_DIR=", "AMP_TOKEN_PERSISTENCE=")
	err := credentials.Password.Expose(func(password []byte) error {
		cmd.Env = append(cmd.Env, "AMP_PASSWORD="+string(password))
		out, err := cmd.CombinedOutput()
		if string(out) != "200 OK\n" {
			t.Errorf("it prints %q", out)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// doc.go begins a program as the README does.
func TestPackageDocBeginsAsTheReadme(t *testing.T) {
	doc := readText(t, "doc.go")
	for _, line := range []string{"ampauth.ConfigFromEnv()", "ampauth.NewClient(cfg)", "defer client.Close()", `client.Get(cfg.URL("/assets"))`, "every fault at once"} {
		if !strings.Contains(doc, line) || !strings.Contains(readText(t, "README.md"), line) {
			t.Errorf("%q is not in both", line)
		}
	}
}

// The two pictures differ in their colours, and name what there is.
func TestPictureOfTheLayersIsTrue(t *testing.T) {
	light, dark := readText(t, "docs/layers-light.svg"), readText(t, "docs/layers-dark.svg")
	colour := regexp.MustCompile(`#[0-9a-f]{6}`)
	if colour.ReplaceAllString(light, "") != colour.ReplaceAllString(dark, "") {
		t.Error("they differ in more than colours")
	}
	names := regexp.MustCompile(`\b(?:[A-Z][a-z]+){2,}\b`).FindAllString(regexp.MustCompile(`(?s)<style>.*</style>`).ReplaceAllString(light, ""), -1)
	for _, name := range names {
		if !regexp.MustCompile(`(?m)^(type|var|func) ` + name + `\b`).MatchString(readText(t, "testdata/api.txt")) {
			t.Errorf("it names %s, which is not exported", name)
		}
	}
	if len(names) < 5 {
		t.Errorf("it names %q only", names)
	}
}

// Each module gets its updates.
func TestDependabotLooksAfterEveryModule(t *testing.T) {
	modules, err := filepath.Glob("*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text := readText(t, ".github/dependabot.yml")
	for _, module := range append(modules, "go.mod") {
		if directory := "/" + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(module)), "."); !strings.Contains(text, "\n      - "+directory+"\n") {
			t.Errorf("%s is missing in .github/dependabot.yml", directory)
		}
	}
}
