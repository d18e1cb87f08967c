package ampauth_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// flagged reports whether a flag of the testing package is set to something.
func flagged(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != "" && f.Value.String() != "false"
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
type capture struct{ ampLog }

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
	teeOut, teeErr := through(stdout), through(stderr)
	os.Stdout, os.Stderr = teeOut, teeErr
	log.SetOutput(os.Stderr) // slog.Default writes to log
	return func() {
		// Not what is there now: with -json, testing has put Stdout in the place of Stderr.
		_, _ = teeOut.Close(), teeErr.Close()
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(stderr)
		tees.Wait()
	}
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

// panicWith ends a child process by a panic with what name says.
func panicWith(name string) {
	client, err := canaryClient()
	if err != nil {
		os.Exit(3)
	}
	defer client.Close()
	switch name {
	case "plain text":
		panic(canaryToken)
	case "Secret":
		panic(canaryCredentials().Password)
	case "pointer to Secret":
		panic(new(canaryCredentials().Password))
	case "Credentials":
		panic(canaryCredentials())
	case "Token":
		panic(canaryTokenValue())
	case "Config":
		panic(canaryConfig())
	case "Client":
		panic(client)
	case "TokenManager":
		panic(client.Tokens)
	case "formatted Client":
		panic(fmt.Sprintf("%+v %#v", client, client.Tokens))
	case "error":
		panic(fmt.Errorf("wrapped: %v", canaryConfig()))
	case "inside Expose":
		_ = canaryCredentials().Password.Expose(func(b []byte) error { return []error{}[len(b)] })
	}
	os.Exit(4)
}

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
	takesLong(t, 3)
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
