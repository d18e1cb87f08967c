package safedir

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Shown returns a path as a shell takes it, and as can be shown anywhere: without control
// characters, double quotes and question marks.
func Shown(path string) string { return shown(path, filepath.Separator) }

func shown(path string, separator rune) string {
	plain, quotable := true, true
	for _, c := range path {
		switch {
		case c == separator: // of Windows: its shells take it as it is
		case c == '\'', c == '"', c == '?', c == '\\', c == utf8.RuneError, !unicode.IsPrint(c):
			plain, quotable = false, false
		case !(c == '/' || c == '.' || c == '-' || c == '_' || c == '+' || c == ',' || c == ':' || c == '@' ||
			'0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'):
			plain = false
		}
	}
	switch {
	case plain && path != "":
		return path
	case quotable:
		return "'" + path + "'"
	}
	var b strings.Builder
	b.WriteString("$'") // of bash, ksh and zsh, and of POSIX since 2024
	for i := range len(path) {
		if c := path[i]; c < ' ' || c >= 0x7f || strings.IndexByte(`'"?\`, c) >= 0 {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String() + "'"
}

// An entry is a directory, or a file in one, as errors name it.
type entry struct{ what, path string }

func directory(path string) entry { return entry{"the directory", path} }

// String names the entry.
func (e entry) String() string { return e.what + " " + Shown(e.path) }

// failed returns an error that says what could not be done and why.
func (e entry) failed(what string, err error) error {
	return fmt.Errorf("%s %s: %w", e, what, cause(err))
}
