// Package ini reads sections of keys and values as Python's configparser does, and refuses
// what could be read in two ways.
//
// A value ends with its line, and quotes and what follows a # in it are part of it, as they
// are there. A percent sign is written twice. Keys are of no case; sections are. What a
// section lacks is looked for in the section DEFAULT. Errors tell the line, and nothing of
// what stands in it.
package ini

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Fault is a line that cannot be read, or not in one way only.
type Fault struct {
	Line int // the first is 1
	Rule string
}

func (f *Fault) Error() string { return fmt.Sprintf("line %d %s", f.Line, f.Rule) }

// A File is what was read. Its values are parts of the content that was given to Parse.
type File struct{ sections map[string]map[string][]byte }

// defaults is the section that all others have a share in.
const defaults = "DEFAULT"

// Parse reads a file. The error is a *Fault.
func Parse(content []byte) (*File, error) {
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return nil, &Fault{1, "begins a file in UTF-16: save it as UTF-8"}
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	r := reader{file: &File{make(map[string]map[string][]byte)}}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		line, found := bytes.CutSuffix(line, []byte("\n"))
		if found {
			line, _ = bytes.CutSuffix(line, []byte("\r"))
		}
		if rule := r.read(line); rule != "" {
			return nil, &Fault{n, rule}
		}
	}
	return r.file, nil
}

// A reader is where the reading of a file has got to.
type reader struct {
	file    *File
	section map[string][]byte // nil before the first
	inKey   bool              // the last line that counts was a key and its value
	indent  int               // of that line
}

// read reads a line, and returns the rule that it breaks.
func (r *reader) read(line []byte) (rule string) {
	text := bytes.TrimSpace(line)
	indent := utf8.RuneCount(line[:bytes.Index(line, text)])
	switch {
	case !utf8.Valid(line):
		return "is not UTF-8"
	case bytes.ContainsFunc(line, func(c rune) bool { return c != '\t' && unicode.IsControl(c) }):
		return "holds a control character"
	case len(text) == 0 || text[0] == '#' || text[0] == ';':
		return ""
	case r.inKey && indent > r.indent:
		return "is indented, and would be part of the value above it: a value ends with its line"
	case text[0] == '[':
		return r.begin(text)
	case r.section == nil:
		return "stands before the first section: [default] begins one, as does any other name in brackets"
	}
	at := bytes.IndexAny(text, "=:")
	if at < 0 {
		return "is no section, and has no = between a key and a value"
	}
	key := string(bytes.ToLower(bytes.TrimSpace(text[:at])))
	if key == "" {
		return "has no key before its " + string(text[at])
	}
	if _, again := r.section[key]; again {
		return "gives a key of this section once more"
	}
	r.section[key], r.inKey, r.indent = bytes.TrimSpace(text[at+1:]), true, indent
	return ""
}

// begin reads the line of a section.
func (r *reader) begin(text []byte) (rule string) {
	name, rest, found := bytes.Cut(text[1:], []byte("]"))
	switch {
	case !found || len(name) == 0:
		return "is no section: its name stands in brackets, as [default]"
	case len(rest) > 0:
		return "has something behind a section: give it a line of its own"
	case r.file.sections[string(name)] != nil:
		return "begins a section once more"
	}
	r.section, r.inKey = make(map[string][]byte), false
	r.file.sections[string(name)] = r.section
	return ""
}

// Has reports whether there is a section of that name.
func (f *File) Has(section string) bool { return f.sections[section] != nil }

// ErrPercent is the error of a value with a percent sign that stands for something else.
var ErrPercent = errors.New("holds a single %, which refers to another value: write %% for the sign itself")

// Value returns a copy of a value. It is nil, without an error, if there is none.
func (f *File) Value(section, key string) ([]byte, error) {
	if !f.Has(section) {
		return nil, nil
	}
	key = strings.ToLower(key)
	written, ok := f.sections[section][key]
	if !ok {
		written, ok = f.sections[defaults][key]
	}
	if !ok {
		return nil, nil
	}
	value := make([]byte, 0, len(written))
	for i := 0; i < len(written); i++ {
		if written[i] == '%' {
			if i++; i == len(written) || written[i] != '%' {
				clear(value)
				return nil, ErrPercent
			}
		}
		value = append(value, written[i])
	}
	return value, nil
}
