// Package textvalue knows what a value picks up on its way through an editor, a file and
// an environment: final line breaks, white space, byte order marks, another encoding.
package textvalue

import (
	"bytes"
	"strings"
	"unicode"
)

// Trim takes off what surrounds a value that holds no white space, as a URL or a number.
func Trim(s string) string { return strings.TrimFunc(s, isSpace) }

// TrimBreaks takes off the final line breaks, as the output of a command has one.
func TrimBreaks(s string) string { return strings.TrimRight(s, "\r\n") }

// Rule returns the rule that a value of one line breaks, if any, in words that show nothing
// of it: it holds no line break or control character, and no white space around it.
func Rule(s string) string {
	switch {
	case strings.ContainsFunc(s, isControl):
		return "must not hold line breaks or control characters"
	case Trim(s) != s:
		return "must not begin or end with white space"
	}
	return ""
}

func isSpace(r rune) bool {
	const byteOrderMark = '\ufeff'
	return unicode.IsSpace(r) || r == byteOrderMark
}

func isControl(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// Password returns the part of content that is the password: without a byte order mark of
// UTF-8, and without one line break at the end, LF or CRLF. What does not hold a password
// alone breaks a rule, which is returned in words that show nothing of it. Nothing is
// copied.
func Password(content []byte) (password []byte, rule string) {
	for bytes.HasPrefix(content, []byte("\ufeff")) {
		content = content[len("\ufeff"):]
	}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) || bytes.IndexByte(content, 0) >= 0 {
		return nil, "is in UTF-16, or not text: save it as UTF-8"
	}
	if line, found := bytes.CutSuffix(content, []byte("\n")); found {
		content, _ = bytes.CutSuffix(line, []byte("\r"))
	}
	if bytes.ContainsAny(content, "\r\n") {
		return nil, "holds more than the password: it may have one line break, at its end"
	}
	return content, ""
}
