package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// harmless escapes what a terminal would obey, or what nobody would see, in one line.
func harmless(text string) string {
	var b strings.Builder
	w := terminalWriter{out: &b}
	_, _ = w.Write([]byte(strings.ReplaceAll(text, "\n", `\n`)))
	_ = w.flush()
	return b.String()
}

// A terminalWriter writes the answer of a server to a terminal: line breaks and tabs as they
// are, and every other character that is not graphic as an escape that can be read.
type terminalWriter struct {
	out  io.Writer
	left []byte // the beginning of a character that has not come yet

	endsLine bool // nothing, or a line break, was written last
}

// Write takes all of p, or returns an error of the terminal.
func (w *terminalWriter) Write(p []byte) (int, error) {
	return len(p), w.write(append(w.left, p...), false)
}

// flush writes what was left of the last character.
func (w *terminalWriter) flush() error { return w.write(w.left, true) }

func (w *terminalWriter) write(text []byte, all bool) error {
	w.left = nil
	shown := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !all && !utf8.FullRune(text) {
			w.left = append(w.left, text...)
			break
		}
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			shown = append(shown, `\x`+strconv.FormatUint(uint64(text[0]), 16)...)
		case r == '\n' || r == '\t' || unicode.IsGraphic(r):
			shown = append(shown, text[:size]...)
		default:
			quoted := strconv.QuoteRune(r)
			shown = append(shown, quoted[1:len(quoted)-1]...)
		}
		text = text[size:]
	}
	if len(shown) > 0 {
		w.endsLine = shown[len(shown)-1] == '\n'
	}
	_, err := w.out.Write(shown)
	return err
}

// isTerminal reports whether a person is likely to watch w.
func isTerminal(w io.Writer) bool {
	if outer, ok := w.(*written); ok {
		w = outer.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device that nobody watches
	return err != nil || !os.SameFile(info, null)
}
