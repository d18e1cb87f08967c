package main

import (
	"os"
	"strings"
	"testing"
)

func TestWhatATerminalWouldObeyIsEscapedHoweverItIsCut(t *testing.T) {
	const text = "a\x1b[2J\u009b\u202e\u6587\t\n\xe6\x96\xff\u00a0\U0001f600\x7f\xe6"
	const want = "a\\x1b[2J\\u009b\\u202e\u6587\t\n\\xe6\\x96\\xff\u00a0\U0001f600\\x7f\\xe6"
	for size := 1; size <= len(text); size++ {
		var b strings.Builder
		w := &terminalWriter{out: &b}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if written, err := w.Write([]byte(rest[:n])); written != n || err != nil {
				t.Fatal(written, err)
			}
			rest = rest[n:]
		}
		if err := w.flush(); err != nil || b.String() != want {
			t.Errorf("in pieces of %d: %q, error %v, want %q", size, b.String(), err, want)
		}
	}
	if got := harmless("two\nlines\x1b"); got != `two\nlines\x1b` {
		t.Errorf("%q", got)
	}
}

func TestArgumentsCannotCommandATerminal(t *testing.T) {
	configure(t)
	for _, c := range commands() {
		for _, args := range [][]string{{c.name, "-\x1b[2J"}, {c.name, "--\x07=x"}, {c.name, "x\x1b", "y\x1b", "z\x1b"}, {c.name, "-profile", "\x1b[2J"}, {c.name, "---\u202e"}} {
			if got := runCommand(t.Context(), args...); got.code == exitOK || strings.ContainsAny(got.stdout+got.stderr, "\x1b\x07\u202e") {
				t.Errorf("%q: %+v", args, got)
			}
		}
	}
}

func TestNullIsNoTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) {
		t.Error("a person watches it")
	}
}
