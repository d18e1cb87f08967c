package main

import (
	"flag"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite docs/command.md")

// document returns docs/command.md, as the help makes it.
func document(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# The command ampauth\n\n" +
		"What `ampauth help` and `ampauth <command> -h` print. This page is made of it by\n" +
		"`go test ./cmd/ampauth -run TestDocument -update`.\n\n" +
		"    go install github.com/ampauth/ampauth/cmd/ampauth@latest\n\n```text\n" + usage() + "```\n")
	for _, c := range commands() {
		got := runCommand(t.Context(), c.name, "-h")
		if got.code != exitOK || got.stderr != "" {
			t.Errorf("%s -h: %+v", c.name, got)
		}
		b.WriteString("\n## " + c.name + "\n\n```text\n" + strings.TrimSpace(got.stdout) + "\n```\n")
	}
	return b.String()
}

func TestDocumentIsTheHelpOfEveryCommand(t *testing.T) {
	const path = "../../docs/command.md"
	setEnvironment(t, map[string]string{"AMP_PROFILE": "canary", "AMP_USERNAME": "canary"}) // no default of a flag comes from there
	want := document(t)
	if *update {
		mustDo(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(want, "canary") || strings.ReplaceAll(string(got), "\r\n", "\n") != want {
		t.Errorf("%s is not what the commands say: run this with -update", path)
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	for line := range strings.Lines(document(t)) {
		shown := strings.ReplaceAll(strings.TrimRight(line, "\n"), "    \t", "        ") // as flag indents
		if n := utf8.RuneCountInString(shown); n > screen || strings.Contains(shown, "\t") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestReadmeHasEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		if !strings.Contains(string(text), "\n| `"+strings.TrimSpace(c.name+" "+c.arguments)+"` | ") {
			t.Errorf("no row of the table is about %s", c.name)
		}
		if !strings.Contains(usage(), "\n  "+c.name) {
			t.Errorf("the help does not tell of %s", c.name)
		}
	}
}

// Arguments can be read by everybody on the machine.
func TestNoFlagTakesASecret(t *testing.T) {
	fake, _ := configure(t)
	for _, c := range commands() {
		for _, name := range []string{"password", "p", "token", "user", "username", "u", "H", "header", "key", "secret", "credentials"} {
			got := runCommand(t.Context(), c.name, "-"+name, "canary", "-h")
			if strings.Contains(got.stdout+got.stderr, "canary") || got.code != exitUsage && !strings.Contains(got.stderr, "-"+name) {
				t.Errorf("%s -%s: %+v", c.name, name, got)
			}
		}
	}
	if len(fake.Counts()) > 0 {
		t.Errorf("requests %v", fake.Counts())
	}
}
