package ampauth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The secrets that tests use where one could get out. Whatever the tests of this
// package write to stdout, stderr or a default logger is searched for them.
const (
	// canaryPassword has what encodings escape.
	canaryPassword = `pQ7w"Zk\93<vT&x+R/üm2%Hs 6jN'd4Y`
	// canaryToken and canaryRenewedToken have the shape of AMP's tokens.
	canaryToken        = "c4a7e1f09b3d586270aef1c2d8b4963517fe0ad2"
	canaryRenewedToken = "5e80b2d7f61c94a3e7d0285bc9f3a1461d7ec832"
)

// A leakForm is a way in which a secret may show: the text of a piece of it.
type leakForm struct {
	name  string
	piece int // bytes of the secret that are searched at a time
	text  func([]byte) string
}

// leakForms are searched for every piece of a secret, so that line breaks, cuts
// and the three alignments of base64 hide nothing.
var leakForms = []leakForm{
	{"raw", 9, func(b []byte) string { return string(b) }},
	{"hex", 9, hex.EncodeToString},
	{"HEX", 9, func(b []byte) string { return fmt.Sprintf("%X", b) }},
	{"hexdump", 8, func(b []byte) string { return fmt.Sprintf("% x", b) }},
	{"Go bytes", 9, func(b []byte) string { return joinBytes(b, "0x%02x", ", ") }},
	{"Go bytes, unpadded", 9, func(b []byte) string { return joinBytes(b, "0x%x", ", ") }},
	{"prefixed bytes", 9, func(b []byte) string { return joinBytes(b, "0x%02x", " ") }},
	{"PREFIXED BYTES", 9, func(b []byte) string { return joinBytes(b, "0X%02X", " ") }},
	{"escaped bytes", 9, func(b []byte) string { return joinBytes(b, `\x%02x`, "") }},
	{"decimal bytes", 9, func(b []byte) string { return joinBytes(b, "%d", " ") }},
	{"decimal bytes, commas", 9, func(b []byte) string { return joinBytes(b, "%d", ",") }},
	{"decimal bytes, commas and spaces", 9, func(b []byte) string { return joinBytes(b, "%d", ", ") }},
	{"base64", 9, base64.StdEncoding.EncodeToString},
	{"base64 for URLs", 9, base64.URLEncoding.EncodeToString},
	{"query", 9, func(b []byte) string { return url.QueryEscape(string(b)) }},
	{"path", 9, func(b []byte) string { return url.PathEscape(string(b)) }},
	{"percent", 9, func(b []byte) string { return joinBytes(b, "%%%02X", "") }},
	{"JSON", 9, func(b []byte) string { text, _ := json.Marshal(string(b)); return string(text[1 : len(text)-1]) }},
	{"JSON, HTML kept", 9, func(b []byte) string {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(string(b))
		return strings.Trim(text.String(), "\"\n")
	}},
	{"HTML", 9, func(b []byte) string { return html.EscapeString(string(b)) }},
	{"quoted", 9, func(b []byte) string { text := fmt.Sprintf("%q", b); return text[1 : len(text)-1] }},
	{"quoted, ASCII", 9, func(b []byte) string { text := fmt.Sprintf("%+q", b); return text[1 : len(text)-1] }},
	{"code points", 9, func(b []byte) string { return fmt.Sprintf("%U", []rune(string(b)))[1:] }},
}

func joinBytes(b []byte, format, separator string) string {
	parts := make([]string, len(b))
	for i, c := range b {
		parts[i] = fmt.Sprintf(format, c)
	}
	return strings.Join(parts, separator)
}

// A leakPattern is a text to search for, with a name that can be printed.
type leakPattern struct{ text, name string }

// leakKey is how a leakPattern begins: one look at each place of a text then
// finds all that begin there.
type leakKey [8]byte

var leakPatterns = sync.OnceValue(func() map[leakKey][]leakPattern {
	patterns := make(map[leakKey][]leakPattern)
	for _, canary := range []struct{ name, secret string }{
		{"canaryPassword", canaryPassword}, {"canaryToken", canaryToken}, {"canaryRenewedToken", canaryRenewedToken},
	} {
		for _, form := range leakForms {
			for i := 0; i+form.piece <= len(canary.secret); i++ {
				text := form.text([]byte(canary.secret[i : i+form.piece]))
				key := leakKey([]byte(text))
				patterns[key] = append(patterns[key], leakPattern{text, canary.name + " as " + form.name})
			}
		}
	}
	return patterns
})

// leaks returns which secrets text shows, and in which form. It is safe to print.
func leaks(text string) []string {
	var found []string
	patterns := leakPatterns()
	var key leakKey
	for i := 0; i+len(key) <= len(text); i++ {
		copy(key[:], text[i:])
		for _, pattern := range patterns[key] {
			if strings.HasPrefix(text[i:], pattern.text) {
				found = append(found, pattern.name)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// childEnv makes a run of this test binary do something else; see runChild.
const childEnv = "AMPAUTH_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); strings.HasPrefix(name, "panic ") {
		panicWith(strings.TrimPrefix(name, "panic "))
	}
	flag.Parse()
	if flagged("test.fuzzworker") {
		os.Exit(m.Run()) // it speaks with its coordinator over files of its own
	}
	os.Exit(guardedRun(m))
}

// flagged reports whether a flag of the testing package is set to something.
func flagged(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != "" && f.Value.String() != "false"
}

// guardedRun runs the tests and then fails if they printed a secret or left a
// goroutine behind.
func guardedRun(m *testing.M) int {
	stderr := os.Stderr
	var printed capture
	release := printed.start()
	before := runtime.NumGoroutine()
	code := m.Run()
	// A fuzzing coordinator leaves the runtime's signal handler behind.
	if code == 0 && !flagged("test.fuzz") {
		if stacks := leftGoroutines(before); stacks != "" {
			fmt.Fprintf(stderr, "FAIL: the tests left goroutines behind:\n%s\n", stacks)
			code = 1
		}
	}
	release()
	if found := leaks(printed.String()); len(found) > 0 {
		fmt.Fprintf(stderr, "FAIL: the tests printed secrets: %s\n", strings.Join(found, "; "))
		code = 1
	}
	return code
}

// leftGoroutines waits until no more goroutines run than before, and returns the
// stacks of all if that does not happen.
func leftGoroutines(before int) string {
	http.DefaultClient.CloseIdleConnections()
	for range 300 {
		if runtime.NumGoroutine() <= before {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	return string(stacks[:runtime.Stack(stacks, true)])
}

// A capture keeps what is written to stdout, stderr and the default loggers, and
// shows it all the same.
type capture struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// start captures until release is called.
func (c *capture) start() (release func()) {
	var tees sync.WaitGroup
	through := func(file *os.File) (writer *os.File) {
		reader, writer, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		tees.Go(func() { _, _ = io.Copy(io.MultiWriter(file, c), reader) })
		return writer
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = through(stdout), through(stderr)
	log.SetOutput(os.Stderr) // slog.Default writes to log
	return func() {
		_, _ = os.Stdout.Close(), os.Stderr.Close()
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(stderr)
		tees.Wait()
	}
}

// runChild runs this test binary once more with childEnv set, and returns how it
// ended and what it said.
func runChild(t *testing.T, child string, args ...string) (code int, output string) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+child, "GOTRACEBACK=all")
	text, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func TestScannerFindsASecretInEveryForm(t *testing.T) {
	dump := func(secret, before string) string { return hex.Dump([]byte(before + secret)) }
	for _, test := range []struct {
		name  string
		plant func(secret string) string
	}{
		{"raw", func(s string) string { return "token " + s + "." }},
		{"a part of it", func(s string) string { return s[5:20] }},
		{"hex", func(s string) string { return fmt.Sprintf("%x", s) }},
		{"upper case hex", func(s string) string { return fmt.Sprintf("%X", s) }},
		{"hex with spaces", func(s string) string { return fmt.Sprintf("% x", s) }},
		{"hex with prefixes", func(s string) string { return fmt.Sprintf("%# x", s) }},
		{"upper case hex with prefixes", func(s string) string { return fmt.Sprintf("%# X", s) }},
		{"hexdump", func(s string) string { return dump(s, "") }},
		{"hexdump, shifted", func(s string) string { return dump(s, "12345") }},
		{"Go syntax of bytes", func(s string) string { return fmt.Sprintf("%#v", []byte(s)) }},
		{"decimal bytes", func(s string) string { return fmt.Sprint([]byte(s)) }},
		{"decimal bytes in JSON", func(s string) string { return strings.ReplaceAll(fmt.Sprint([]byte(s)), " ", ",") }},
		{"base64, aligned", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
		{"base64, one byte off", func(s string) string { return base64.StdEncoding.EncodeToString([]byte("1" + s)) }},
		{"base64, two bytes off", func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("12" + s)) }},
		{"base64 for URLs, aligned", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }},
		{"base64 for URLs, one byte off", func(s string) string { return base64.URLEncoding.EncodeToString([]byte("1" + s)) }},
		{"base64 for URLs, two bytes off", func(s string) string { return base64.URLEncoding.EncodeToString([]byte("12" + s)) }},
		{"query", func(s string) string { return url.Values{"q": {s}}.Encode() }},
		{"path", func(s string) string { return url.PathEscape(s) }},
		{"percent", func(s string) string { return "%" + strings.ReplaceAll(fmt.Sprintf("% X", s), " ", "%") }},
		{"user information", func(s string) string { return url.UserPassword("issuer", s).String() }},
		{"JSON", func(s string) string { b, _ := json.Marshal(map[string]string{"k": s}); return string(b) }},
		{"JSON twice", func(s string) string {
			once, _ := json.Marshal(s[20:])
			twice, _ := json.Marshal(string(once))
			return string(twice)
		}},
		{"HTML", html.EscapeString},
		{"quoted", func(s string) string { return fmt.Sprintf("%q", s) }},
		{"quoted, ASCII", func(s string) string { return fmt.Sprintf("%+q", s) }},
		{"code points", func(s string) string { return fmt.Sprintf("%U", []rune(s)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, secret := range map[string]string{"canaryPassword": canaryPassword, "canaryToken": canaryToken, "canaryRenewedToken": canaryRenewedToken} {
				found := leaks("before " + test.plant(secret) + " after")
				if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, name+" ") }) {
					t.Errorf("%s is not found", name)
				}
			}
		})
	}
}

func TestScannerFindsNothingInWhatIsHarmless(t *testing.T) {
	for _, text := range []string{"", "[REDACTED]", "0123456789abcdef0123456789abcdef01234567", strings.Repeat("token ", 100)} {
		if found := leaks(text); found != nil {
			t.Errorf("found %v in %q", found, text)
		}
	}
}

// TestPlanted does what a run must not get away with, in a child process.
func TestPlanted(t *testing.T) {
	switch os.Getenv(childEnv) {
	case "stdout":
		fmt.Println(canaryPassword)
	case "stderr":
		fmt.Fprintln(os.Stderr, canaryToken)
	case "log":
		log.Print(canaryToken)
	case "slog":
		slog.Error("planted", "token", canaryToken)
	case "test log":
		t.Logf("%x", canaryToken)
	case "goroutine":
		go func() { select {} }()
	case "nothing":
	default:
		t.Skip("runs in a child process of TestRunFails...")
	}
}

func TestRunFailsThatPrintsASecret(t *testing.T) {
	for _, sink := range []string{"stdout", "stderr", "log", "slog", "test log"} {
		t.Run(sink, func(t *testing.T) {
			t.Parallel()
			code, output := runChild(t, sink, "-test.run=^TestPlanted$", "-test.v")
			if code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			_, verdict, ok := strings.Cut(output, "FAIL: the tests printed secrets: canary")
			if !ok || len(leaks(verdict)) > 0 {
				t.Error("the verdict is missing or shows the secret itself")
			}
		})
	}
}

func TestRunFailsThatLeavesAGoroutine(t *testing.T) {
	t.Parallel()
	code, output := runChild(t, "goroutine", "-test.run=^TestPlanted$")
	if code != 1 || !strings.Contains(output, "left goroutines behind") || !strings.Contains(output, "TestPlanted") {
		t.Errorf("exit status %d, want 1 and the stack of the goroutine:\n%s", code, output)
	}
}

func TestRunPassesThatDoesNeither(t *testing.T) {
	t.Parallel()
	code, output := runChild(t, "nothing", "-test.run=^TestPlanted$", "-test.v")
	if code != 0 || !strings.Contains(output, "--- PASS: TestPlanted") {
		t.Errorf("exit status %d, want 0 and the tests' own output:\n%s", code, output)
	}
}
