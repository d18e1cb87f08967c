package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ampauth/ampauth"
)

const statusUsage = `usage: ampauth status [-json] [-profile NAME]

Tells what the configuration would use: the base URL, the user, where the token
is kept, its age and the time left, or why there is none to be used. It sends
nothing, and never shows the token.

Exit codes: 0 there is a token to be used, 1 error, 2 usage, 4 there is none.
`

const logoutUsage = `usage: ampauth logout [-profile NAME]

Removes the stored token of the account from this machine. AMP goes on
accepting it until it ends, or somebody refreshes it or changes the password.

Exit codes: 0 there is none any more, 1 error, 2 usage.
`

// A status is what there is to tell. Durations are in seconds.
type status struct {
	BaseURL     string     `json:"base_url"`
	User        string     `json:"user"`
	KeptIn      string     `json:"kept_in"` // a directory, or "memory"
	ObtainedAt  *time.Time `json:"obtained_at,omitempty"`
	AgeSeconds  int64      `json:"age_seconds"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	LeftSeconds int64      `json:"left_seconds"`
	Usable      bool       `json:"usable"`
	Refusal     string     `json:"refusal,omitempty"` // why what is stored is not used
}

func runStatus(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth status", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "")
	flags.Usage = func() { fmt.Fprint(flags.Output(), statusUsage) }
	a, code, ok := configured(flags, args, stdout, stderr)
	if !ok {
		return code
	}
	defer a.Credentials.Password.Destroy()
	s := statusOf(ctx, a.Config)
	if *asJSON {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			fmt.Fprintln(stderr, "ampauth:", err)
			return exitError
		}
		fmt.Fprintf(stdout, "%s\n", text)
	} else {
		s.print(stdout)
	}
	if s.Refusal != "" {
		fmt.Fprintf(stderr, "ampauth: no stored token is used: %s\n", s.Refusal)
	}
	if !s.Usable {
		return exitNotAuthenticated
	}
	return exitOK
}

func runLogout(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth logout", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), logoutUsage) }
	a, code, ok := configured(flags, args, stdout, stderr)
	if !ok {
		return code
	}
	defer a.Credentials.Password.Destroy()
	tokens, err := ampauth.NewTokenManager(a.Config)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	defer tokens.Close()
	if err := tokens.Clear(ctx); err != nil {
		fmt.Fprintf(stderr, "%v; then log out again, or remove the token from %s by hand\n", err, printable(keptIn(a.Config)))
		return exitError
	}
	if a.Store == nil {
		fmt.Fprintln(stdout, "tokens are not kept: set AMP_TOKEN_DIR or AMP_TOKEN_PERSISTENCE=true")
		return exitOK
	}
	fmt.Fprintf(stdout, "no token of %s is kept in %s\n", printable(a.Credentials.Username), printable(keptIn(a.Config)))
	return exitOK
}

func keptIn(cfg ampauth.Config) string {
	if store, ok := cfg.Store.(*ampauth.FileStore); ok {
		return store.Dir
	}
	return "memory"
}

func statusOf(ctx context.Context, cfg ampauth.Config) status {
	s := status{BaseURL: cfg.BaseURL, User: cfg.Credentials.Username, KeptIn: keptIn(cfg)}
	if cfg.Store == nil {
		return s
	}
	key, err := ampauth.NewStoreKey(cfg.BaseURL, cfg.Credentials.Username)
	if err != nil {
		s.Refusal = err.Error()
		return s
	}
	token, err := cfg.Store.Load(ctx, key)
	if err != nil {
		if err != ampauth.ErrNoToken { // which has no reason: there is none
			s.Refusal = strings.TrimPrefix(err.Error(), ampauth.ErrNoToken.Error()+": ")
		}
		return s
	}
	defer token.Value.Destroy()
	s.Usable = !token.IsExpired()
	if !token.ObtainedAt.IsZero() {
		s.ObtainedAt = new(token.ObtainedAt.UTC())
		s.AgeSeconds = int64(token.Age() / time.Second)
	}
	if !token.ExpiresAt.IsZero() {
		s.ExpiresAt = new(token.ExpiresAt.UTC())
		s.LeftSeconds = int64(time.Until(token.ExpiresAt) / time.Second)
	}
	return s
}

// printable quotes what could write over other lines of a terminal.
func printable(text string) string {
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}

func (s status) print(w io.Writer) {
	fmt.Fprintf(w, "base URL  %s\nuser      %s\nkept in   %s\n", printable(s.BaseURL), printable(s.User), printable(s.KeptIn))
	switch {
	case s.Refusal != "":
		fmt.Fprintf(w, "token     not used: %s\n", s.Refusal) // a line, since it may hold a command
		return
	case !s.Usable:
		fmt.Fprintln(w, "token     none")
		return
	}
	fmt.Fprintf(w, "token     obtained %v ago", time.Duration(s.AgeSeconds)*time.Second)
	if s.ExpiresAt != nil {
		fmt.Fprintf(w, ", ends in %v", time.Duration(s.LeftSeconds)*time.Second)
	}
	fmt.Fprintln(w)
}
