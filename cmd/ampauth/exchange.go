package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/amproutes"
)

// A request is what get and call send.
type request struct {
	method, path string
	body         *ampauth.Secret // nil for none
	size         int             // of the body
	contentType  string
}

// perform makes the call with the account of a profile, and returns the exit code.
func perform(ctx context.Context, profile string, r request, stdout, stderr io.Writer) int {
	a, err := accountOf(profile)
	if err != nil {
		fmt.Fprintln(stderr, err) // every fault at once, a line each
		return exitError
	}
	defer a.Credentials.Password.Destroy()
	req, err := http.NewRequestWithContext(ctx, r.method, a.URL(r.path), nil)
	if err != nil {
		fmt.Fprintln(stderr, "ampauth: PATH does not make a URL") // err quotes it
		return exitError
	}
	if givesToken(req.URL) {
		fmt.Fprintln(stderr, "ampauth: this call logs in or refreshes, and its answer is a token: see ampauth token -h")
		return exitUsage
	}
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", r.contentType)
		req.ContentLength = int64(r.size)
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&secretReader{secret: *r.body}), nil }
		req.Body, _ = req.GetBody()
	}
	faults := newStoreFaults()
	a.OnEvent = faults.hear
	client, err := ampauth.NewClient(a.Config)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	defer func() {
		_ = client.Close()
		faults.print(client.Stats().StoreFaults, stderr)
	}()
	code := exchange(client, a, req, stdout, stderr)
	if code == exitInDoubt {
		tellReading(req, r.path, stderr)
	}
	return code
}

// exchange sends a request, and writes the body of the answer to stdout and everything else
// to stderr. It returns the exit code.
func exchange(client *ampauth.Client, a account, req *http.Request, stdout, stderr io.Writer) int {
	resp, err := client.Do(req)
	if err != nil {
		fmt.Fprintln(stderr, a.advice(withoutURL(err)))
		return codeOf(err)
	}
	defer resp.Body.Close()
	code := exitOK
	if err := writeBody(resp.Body, stdout); err != nil {
		fmt.Fprintln(stderr, withoutURL(err))
		code = exitError
		if _, ours := errors.AsType[*ampauth.Error](err); !ours && mutates(req) && resp.StatusCode/100 == 2 {
			fmt.Fprintf(stderr, "ampauth: the call was answered with HTTP %d: do not send it again\n", resp.StatusCode)
		}
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// The server's own reason phrase could be anything, escape codes included.
		fmt.Fprintf(stderr, "ampauth: HTTP %d %s\n", resp.StatusCode, http.StatusText(resp.StatusCode))
		code = exitError
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		code = exitNotAuthenticated
	case errors.Is(ampauth.ResponseError(resp), ampauth.ErrAmbiguous):
		code = exitInDoubt
	}
	return code
}

func mutates(req *http.Request) bool { return ampauth.ClassifyAMP(req) == ampauth.MutatingOperation }

// writeBody copies the body of an answer, for a terminal without what that would obey.
func writeBody(body io.Reader, stdout io.Writer) error {
	if !isTerminal(stdout) {
		_, err := io.Copy(stdout, body)
		return err
	}
	w := &terminalWriter{out: stdout, endsLine: true}
	_, err := io.Copy(w, body)
	err = errors.Join(err, w.flush())
	if !w.endsLine { // what follows is not to stand behind it
		_, _ = io.WriteString(stdout, "\n")
	}
	return err
}

// tellReading says how one finds out whether a mutation in doubt was performed.
func tellReading(req *http.Request, at string, stderr io.Writer) {
	const document = "docs/exactly-once.md of github.com/ampauth/ampauth"
	tell := func(text string) {
		for _, line := range wrapped(text, screen) {
			fmt.Fprintln(stderr, line)
		}
	}
	op := amproutes.Find(req.Method, req.URL)
	reading, known := amproutes.ReadingOf(op)
	switch {
	case !known:
		tell("ampauth: in doubt: this is no mutation that is known. Find a read that shows whether it was performed before you send it again; " + document + " says what to mind.")
	case reading.Read == "none":
		tell("ampauth: in doubt: no read is known that shows whether it was performed. Let a person look before it is sent again; see " + document + ".")
	default:
		fmt.Fprintf(stderr, "ampauth: in doubt: before you send it again, read\n\n    %s\n\n", filledIn(reading.Read, op.Path, at))
		tell(fmt.Sprintf("What identifies it: %s. It was performed if %s. How sure that is: %s.", reading.Key, reading.Found, reading.Sure))
		tell("It may be performed after you have looked: wait for some minutes. More in " + document + ".")
	}
}

// filledIn returns a read with the values that the path of the call has for its parameters,
// if they are as plain as an id is.
func filledIn(read, template, at string) string {
	at, _, _ = strings.Cut(at, "?")
	names := strings.Split(strings.Trim(template, "/"), "/")
	values := strings.Split(strings.Trim(at, "/"), "/")
	if len(names) != len(values) {
		return read
	}
	for i, name := range names {
		plain := !strings.ContainsFunc(values[i], func(c rune) bool {
			return !(c == '-' || c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z')
		})
		if strings.HasPrefix(name, "{") && plain && values[i] != "" {
			read = strings.ReplaceAll(read, name, values[i])
		}
	}
	return read
}

// codeOf tells a mutation in doubt and a login that AMP refused from all other errors.
func codeOf(err error) int {
	switch {
	case errors.Is(err, ampauth.ErrAmbiguous):
		return exitInDoubt
	case errors.Is(err, ampauth.ErrCredentialsRefused):
		return exitNotAuthenticated
	}
	return exitError
}

// withoutURL is the text of err without the URL that http.Client writes around
// it, since its query may hold something private. Errors of http.Client itself
// may quote what the server sent as well: they end where a quotation begins. What a
// terminal would obey is escaped, whoever let it in.
func withoutURL(err error) string {
	if e, ok := errors.AsType[*ampauth.Error](err); ok {
		return harmless(e.Error())
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	text := err.Error()
	if i := strings.IndexAny(text, "\"?\r\n"); i >= 0 {
		text = strings.TrimSpace(text[:i]) + " ..."
	}
	if !strings.HasPrefix(text, "ampauth: ") {
		text = "ampauth: " + text
	}
	return harmless(text)
}
