package ampauth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
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

// childCommand is this test binary once more, with childEnv set.
func childCommand(ctx context.Context, t *testing.T, child string, args ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, executable, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+child)
	return cmd
}

// runChild runs a child to its end, and returns how it ended and what it said.
func runChild(t *testing.T, child string, args ...string) (code int, output string) {
	t.Helper()
	cmd := childCommand(t.Context(), t, child, args...)
	cmd.Env = append(cmd.Env, "GOTRACEBACK=all")
	text, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func canaryCredentials() ampauth.Credentials {
	return ampauth.Credentials{Username: canaryUser, Password: ampauth.SecretFromString(canaryPassword)}
}

// canaryConfig is a Config over a network that logs in with the canaries.
func canaryConfig() ampauth.Config {
	network := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		body := "{}"
		switch {
		case strings.HasSuffix(req.URL.Path, "/obtain_token"):
			body = `{"token":"` + canaryToken + `"}`
		case strings.HasSuffix(req.URL.Path, "/refresh-token"):
			body = `{"token":"` + canaryRenewedToken + `"}`
		}
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	})
	return ampauth.Config{
		BaseURL:     "https://amp.test/api",
		Credentials: canaryCredentials(),
		HTTPClient:  &http.Client{Transport: network},
	}
}

// canaryClient returns a client that has sent requests with two tokens.
func canaryClient() (*ampauth.Client, error) {
	client, err := ampauth.NewClient(canaryConfig())
	if err != nil {
		return nil, err
	}
	for range 2 {
		resp, err := client.Get("https://amp.test/api/assets")
		if err != nil {
			return nil, err
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
		if _, err := client.Tokens.Refresh(context.Background()); err != nil {
			return nil, err
		}
	}
	return client, nil
}

type walked struct {
	pointer uintptr
	kind    reflect.Type
}

// walk prints whatever reflection reaches from v, unexported fields included.
func walk(w io.Writer, v reflect.Value, seen map[walked]bool) {
	switch v.Kind() {
	case reflect.Invalid:
	case reflect.Pointer:
		key := walked{v.Pointer(), v.Type()}
		if !seen[key] {
			seen[key] = true
			walk(w, v.Elem(), seen)
		}
	case reflect.Interface:
		walk(w, v.Elem(), seen)
	case reflect.Struct:
		for i := range v.NumField() {
			fmt.Fprintf(w, "%s:", v.Type().Field(i).Name)
			walk(w, v.Field(i), seen)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			walk(w, key, seen)
			walk(w, v.MapIndex(key), seen)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			walk(w, v.Index(i), seen)
		}
	case reflect.String:
		fmt.Fprintf(w, "%s ", v.String())
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		fmt.Fprintf(w, "%#x ", v.Pointer())
	default:
		fmt.Fprintf(w, "%v ", v) // fmt looks into a reflect.Value
	}
}

// links returns every error that unwrapping err reaches, err included.
func links(err error) []error {
	if err == nil {
		return nil
	}
	all := []error{err}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		all = append(all, links(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			all = append(all, links(inner)...)
		}
	}
	return all
}

// everythingErrorsSay prints each link of err in every way there is.
func everythingErrorsSay(err error) string {
	var b strings.Builder
	for _, link := range links(err) {
		fmt.Fprintf(&b, "%v\n%+v\n%#v\n%q\n", link, link, link, link)
		text, _ := json.Marshal(link)
		b.Write(text)
		slog.New(slog.NewJSONHandler(&b, nil)).Error("failed", "error", link)
		walk(&b, reflect.ValueOf(link), make(map[walked]bool))
	}
	return b.String()
}
