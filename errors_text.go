package ampauth

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"runtime"
	"strings"
	"unicode"
)

// clean returns err, or, when its text may show what a server or a layer below
// put into it, an error that is still all that err is but says less.
func clean(err error) error {
	if err == nil || causeText(err) == textOf(err) {
		return err
	}
	if _, ours := err.(*Error); ours {
		return err
	}
	return hidden(causeText(err), err)
}

// cleaned hides the text of an error and keeps its identity. It has no Unwrap,
// and a closure in place of the error: whoever prints a chain link by link, or
// field by field, must not reach that text.
type cleaned struct {
	text string
	err  func() error
}

func hidden(text string, err error) error {
	return &cleaned{text: text, err: func() error { return err }}
}

func (c *cleaned) Error() string        { return c.text }
func (c *cleaned) Is(target error) bool { return errors.Is(c.err(), target) }
func (c *cleaned) As(target any) bool   { return errors.As(c.err(), target) }

// A sequence is two errors in one: it is both, and its text names both.
type sequence struct {
	first  error
	joint  string
	second error
}

const beforeThatJoint = "; before that: "

// beforeThat is the error err, which came after an earlier one. There may be no earlier
// one, and err may be nil, as where an answer came.
func beforeThat(err, earlier error) error {
	if earlier == nil {
		return err
	}
	return &sequence{err, beforeThatJoint, earlier}
}

func (s *sequence) Error() string {
	if s.first == nil {
		return strings.TrimPrefix(s.joint, "; ") + causeText(s.second)
	}
	first, second := causeText(s.first), causeText(s.second)
	if s.joint == beforeThatJoint && first == second {
		return first // once is enough
	}
	return first + s.joint + second
}

func (s *sequence) Unwrap() []error {
	if s.first == nil {
		return []error{s.second}
	}
	return []error{s.first, s.second}
}

// causeText is the part of a foreign error's text that cannot hold a secret.
// net/http quotes what a server sent and what a URL holds, so the text ends where a
// quotation or query begins, or a control character is. The exceptions are
// textproto.ProtocolError, and what a proxy says when it refuses a CONNECT.
func causeText(err error) string {
	if e, ok := err.(*Error); ok {
		return e.text(true)
	}
	if e, ok := err.(*url.Error); ok {
		return causeText(e.Err)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return "malformed answer"
	}
	// What net/http advises there, this package has undone on purpose.
	text, _, _ := strings.Cut(textOf(err), "; define Request.GetBody")
	if i := strings.IndexFunc(text, endsText); i >= 0 {
		return strings.TrimSpace(text[:i]) + " ..."
	}
	return text
}

// endsText reports whether a character begins a quotation or a query, or is one that a
// terminal acts upon or nobody sees: the names in a server's certificate are its own.
func endsText(r rune) bool { return r == '"' || r == '?' || !unicode.IsPrint(r) }

// textOf is err.Error(), which is somebody else's code.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("a %T, whose Error method panics", err)
		}
	}()
	return err.Error()
}

// recovered turns a panic of somebody else's code into an error. Of the panic's
// value only a runtime error's text is safe to show.
func recovered(who string, err *error) {
	v := recover()
	if v == nil {
		return
	}
	if e, ok := v.(runtime.Error); ok {
		*err = fmt.Errorf("the %s panicked: %w", who, e)
	} else {
		*err = fmt.Errorf("the %s panicked with a %T", who, v)
	}
}
