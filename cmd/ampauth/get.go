package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ampauth/ampauth"
)

const getUsage = `usage: ampauth get PATH

Makes one authenticated GET of PATH, which is below the base URL, such as /assets
or assets?count=10. The body goes to stdout, all else to stderr. A GET that AMP
acts upon (as .../distributions/create/) is not repeated when its end is in doubt.

The environment: AMP_API_BASE_URL, AMP_USERNAME, and AMP_PASSWORD or
AMP_PASSWORD_FILE; API_RETRY_MAX_ATTEMPTS, API_RETRY_BASE_DELAY_MS,
API_RETRY_MAX_DELAY_MS and API_REQUEST_TIMEOUT_SECONDS if you like; AMP_TOKEN_DIR or
AMP_TOKEN_PERSISTENCE=true to keep the token between runs. What is wrong with the place
where it is kept, and what to do about it, is told on stderr, and costs no request.

Exit codes: 0 answered 2xx, 1 error or any other answer, 2 usage,
4 not authenticated (AMP refused user name and password, or the answer is 401 or 403).
`

func runGet(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth get", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), getUsage) }
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return misused(flags, stderr, "needs one PATH")
	}
	path, fault := belowBase(flags.Arg(0))
	if fault != "" {
		return misused(flags, stderr, fault)
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		fmt.Fprintln(stderr, err) // every fault at once, a line each
		return exitError
	}
	defer cfg.Credentials.Password.Destroy()
	faults := newStoreFaults()
	cfg.OnEvent = faults.hear
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	defer func() {
		_ = client.Close()
		faults.print(client.Stats().StoreFaults, stderr)
	}()
	return fetch(ctx, client, cfg.URL(path), stdout, stderr)
}

// belowBase returns the PATH of a command line for Config.URL, or what is wrong with it. The
// texts do not quote it: a query may hold something private.
func belowBase(arg string) (path, fault string) {
	u, err := url.Parse(arg)
	switch {
	case err != nil:
		return "", "PATH is not the path of a URL"
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(arg, "//"):
		return "", "PATH must be below the base URL, not a URL of its own: the token goes nowhere else"
	case strings.Contains(arg, "#"):
		return "", "PATH must not hold a fragment"
	case u.Path == "":
		return "", "PATH is empty"
	}
	// Servers differ in what else than a slash separates segments, and in when
	// they resolve the dots: none are let through, encoded ones neither.
	segments := strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' || c == '\\' })
	if slices.Contains(segments, "..") || slices.Contains(segments, ".") {
		return "", "PATH must not hold the segments . or .., which lead out of the base URL"
	}
	return arg, ""
}

func fetch(ctx context.Context, client *ampauth.Client, target string, stdout, stderr io.Writer) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		fmt.Fprintln(stderr, "ampauth: PATH does not make a URL") // err quotes it
		return exitError
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		fmt.Fprintln(stderr, withoutURL(err))
		return codeOf(err)
	}
	defer resp.Body.Close()
	code := exitOK
	if _, err := io.Copy(stdout, resp.Body); err != nil {
		fmt.Fprintln(stderr, withoutURL(err))
		code = exitError
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// The server's own reason phrase could be anything, escape codes included.
		fmt.Fprintf(stderr, "ampauth: HTTP %d %s\n", resp.StatusCode, http.StatusText(resp.StatusCode))
		code = exitError
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		code = exitNotAuthenticated
	}
	return code
}

// codeOf tells a login that AMP refused from all other errors.
func codeOf(err error) int {
	if errors.Is(err, ampauth.ErrCredentialsRefused) {
		return exitNotAuthenticated
	}
	return exitError
}

// withoutURL is the text of err without the URL that http.Client writes around
// it, since its query may hold something private. Errors of http.Client itself
// may quote what the server sent as well: they end where a quotation begins.
func withoutURL(err error) string {
	if e, ok := errors.AsType[*ampauth.Error](err); ok {
		return e.Error()
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
	return text
}
