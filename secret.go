package ampauth

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
)

const redacted = "[REDACTED]"

// A Secret holds a password or a token and shows it to nobody but the function
// given to [Secret.Expose]. Every way of printing, logging or encoding it, or a
// struct that holds it at any depth, gives "[REDACTED]" or the address of a
// function.
//
// The zero value is an empty Secret. Copies share one buffer, so destroying one
// destroys all. A Secret is not comparable with ==; use [Secret.Equal]. It is
// safe for concurrent use.
type Secret struct {
	_   [0]func()            // forbids == and use as a map key
	ref func() *secretBuffer // a closure is opaque to fmt, reflect and every encoder
}

type secretBuffer struct {
	mu        sync.Mutex // guards all below but header, user and number
	content   []byte
	borrowers int  // calls of Expose that are under way
	destroyed bool // content is wiped, or will be by the last borrower

	header atomic.Pointer[headerValue]
	user   string // whose token it is; set by a manager before anybody else has it, "" elsewhere
	number uint32 // of that user; 0 if there is none
}

// A headerValue is what an Authorization header carries. It is made once for a
// secret and a scheme word, so that copies in memory do not grow with requests.
type headerValue struct{ scheme, value string }

// NewSecret returns a Secret with a copy of b, and then wipes b.
func NewSecret(b []byte) Secret {
	s := &secretBuffer{content: bytes.Clone(b)}
	clear(b)
	// The net below Destroy: a buffer that nobody can reach any more is wiped.
	runtime.AddCleanup(s, func(content []byte) { clear(content) }, s.content)
	return Secret{ref: func() *secretBuffer { return s }}
}

// SecretFromString returns a Secret with the bytes of s. The string itself
// cannot be wiped; prefer [NewSecret] where there is a choice.
func SecretFromString(s string) Secret { return NewSecret([]byte(s)) }

// Expose lends the content to f and returns f's error. f must neither keep nor
// change the slice. After [Secret.Destroy] f is not called and the error is
// [ErrDestroyed].
func (s Secret) Expose(f func([]byte) error) error {
	if s.ref == nil {
		return f(nil)
	}
	b := s.ref()
	b.mu.Lock()
	if b.destroyed {
		b.mu.Unlock()
		return ErrDestroyed
	}
	b.borrowers++
	b.mu.Unlock()
	defer b.giveBack()
	return f(b.content)
}

func (b *secretBuffer) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.borrowers--
	if b.destroyed && b.borrowers == 0 {
		b.wipe()
	}
}

// wipe forgets everything; b.mu must be held.
func (b *secretBuffer) wipe() {
	clear(b.content)
	b.header.Store(nil)
}

// Equal reports whether both hold the same bytes, in time that depends on their
// lengths only. A destroyed Secret equals none, not even itself.
func (s Secret) Equal(other Secret) bool {
	equal := false
	err := s.Expose(func(a []byte) error {
		return other.Expose(func(b []byte) error {
			equal = subtle.ConstantTimeCompare(a, b) == 1
			return nil
		})
	})
	return err == nil && equal
}

// IsZero reports whether there is nothing in it: it is the zero value, was made
// from nothing, or was destroyed.
func (s Secret) IsZero() bool {
	empty := true
	_ = s.Expose(func(b []byte) error { empty = len(b) == 0; return nil })
	return empty
}

// Destroy wipes the content, for all copies of s. Calls of [Secret.Expose] that
// are under way keep it until the last of them ends. Destroying again does nothing.
func (s Secret) Destroy() {
	if s.ref == nil {
		return
	}
	b := s.ref()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.destroyed = true
	if b.borrowers == 0 {
		b.wipe()
	}
}

var errTokenShape = errors.New("the token is empty, longer than 4096 bytes, or holds characters that a header cannot carry")

const maxTokenLength = 4096

// headerSafe reports whether b can follow a scheme word in a header: visible
// ASCII only, which is a superset of the token68 of RFC 9110 11.2.
func headerSafe(b []byte) bool {
	if len(b) == 0 || len(b) > maxTokenLength {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// authorization returns the header value "scheme content".
func (s Secret) authorization(scheme string) (string, error) {
	if s.ref == nil {
		return "", errTokenShape
	}
	b := s.ref()
	if h := b.header.Load(); h != nil && h.scheme == scheme {
		return h.value, nil
	}
	var value string
	err := s.Expose(func(content []byte) error {
		if !headerSafe(content) {
			return errTokenShape
		}
		value = scheme + " " + string(content)
		b.header.Store(&headerValue{scheme, value})
		return nil
	})
	return value, err
}

var (
	errEncodeSecret = errors.New("ampauth: a Secret has no binary encoding")
	errDecodeSecret = errors.New("ampauth: the text is the placeholder of a redacted Secret, not a secret")
)

// String returns "[REDACTED]".
func (Secret) String() string { return redacted }

// GoString returns "[REDACTED]".
func (Secret) GoString() string { return redacted }

// Format writes "[REDACTED]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[REDACTED]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[REDACTED]", so that what holds a Secret stays loggable.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[REDACTED]" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML returns "[REDACTED]".
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// MarshalBinary returns an error.
func (Secret) MarshalBinary() ([]byte, error) { return nil, errEncodeSecret }

// GobEncode returns an error.
func (Secret) GobEncode() ([]byte, error) { return nil, errEncodeSecret }

// UnmarshalText takes text as the secret. It refuses "[REDACTED]", which is
// what an earlier encoding left in place of one.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == redacted {
		return errDecodeSecret
	}
	*s = NewSecret(bytes.Clone(text))
	return nil
}
