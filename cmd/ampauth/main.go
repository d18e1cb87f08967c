// Command ampauth shows what package ampauth does (demo), makes single authenticated
// requests with it (get, call), hands out its token (token, header), and tells of the
// stored token (status) or removes it (logout). It says what stands between this machine
// and AMP (doctor), serves programs in other languages (proxy), and is an AMP to try
// things on (fake). docs/command.md has the help of each.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// The exit codes.
const (
	exitOK               = 0
	exitError            = 1
	exitUsage            = 2
	exitNotAuthenticated = 4
	exitInDoubt          = 5 // a mutation may have been performed
)

// A command is a line of the table.
type command struct {
	name, arguments string
	does            string
	run             func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

// commands is the table, in the order of the help and of docs/command.md.
func commands() []command {
	return []command{
		{"demo", "", "run a client against a fake AMP, and judge what it did", runDemo},
		{"get", "PATH", "make one authenticated GET", runGet},
		{"call", "METHOD PATH", "make one authenticated call, and tell if its end is in doubt", runCall},
		{"token", "", "print the token, logging in if there is none", runToken},
		{"header", "", "print the Authorization field, for curl -H @-", runHeader},
		{"status", "", "tell what would be used, and of the stored token", runStatus},
		{"logout", "", "remove the stored token", runLogout},
		{"doctor", "", "check configuration, network, login and token store", runDoctor},
		{"proxy", "", "pass requests of other programs on to AMP, logged in", runProxy},
		{"fake", "", "run a fake AMP on a loopback port, to try things on", runFake},
		{"version", "", "print the version of this command", runVersion},
	}
}

const configurationUsage = `
The account comes from the environment: AMP_API_BASE_URL, AMP_USERNAME, and
AMP_PASSWORD or AMP_PASSWORD_FILE. With -profile NAME, or AMP_PROFILE, what is
not set there comes from the section [NAME] of ~/.amp/profiles, the file of the
Python command (API_URL, BLOCKSTREAM_AMP_USERNAME, BLOCKSTREAM_AMP_PASSWORD).
Nobody else may be able to read that file.

If set: API_RETRY_MAX_ATTEMPTS, API_RETRY_BASE_DELAY_MS, API_RETRY_MAX_DELAY_MS
and API_REQUEST_TIMEOUT_SECONDS; AMP_TOKEN_DIR or AMP_TOKEN_PERSISTENCE=true to
keep the token between runs. What is wrong with the place where it is kept, and
what to do about it, is told on stderr, and costs no request.

No flag takes a secret: arguments can be read by everybody on the machine.

Exit codes, of which each command's help says more: 0 it is done, 1 an error, 2
it was called wrongly, 4 not authenticated, 5 a mutation that may have been
performed: read before you send it again. Only the answer goes to stdout, all
else to stderr.
`

// usage is the help of the command without a name.
func usage() string {
	var b strings.Builder
	b.WriteString("usage: ampauth <command> [arguments]\n\n")
	for _, c := range append(commands(), command{name: "help", arguments: "[command]", does: "show this, or the help of a command"}) {
		fmt.Fprintf(&b, "  %-16s  %s\n", strings.TrimSpace(c.name+" "+c.arguments), c.does)
	}
	b.WriteString(configurationUsage)
	return b.String()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first Ctrl-C asks for an orderly end. The second, again the system's
	// own, ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process around it: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	w := &written{Writer: stdout}
	return w.code(dispatch(ctx, args, w, stderr), stderr)
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage())
		return exitUsage
	}
	name, rest := args[0], args[1:]
	if asksForHelp(name) && len(rest) > 0 {
		name, rest = rest[0], []string{"-h"} // help get is get -h
	}
	if asksForHelp(name) {
		fmt.Fprint(stdout, usage())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, rest, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "ampauth: there is no command %q\n\n%s", name, usage())
	return exitUsage
}

func asksForHelp(name string) bool {
	return name == "help" || name == "-h" || name == "-help" || name == "--help"
}

// parse reads the flags of a command, which may stand before, between and behind its
// arguments. If ok is false there is nothing more to do but to exit with code: help was
// asked for, or the flags are wrong.
func parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int, ok bool) {
	flags.SetOutput(io.Discard) // help belongs on stdout, errors on stderr
	var arguments []string
	err := flags.Parse(args)
	for err == nil && flags.NArg() > 0 {
		rest := flags.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			arguments = append(arguments, rest...)
			break
		}
		arguments, args = append(arguments, rest[0]), rest[1:]
		err = flags.Parse(args)
	}
	if err == nil {
		err = flags.Parse(append([]string{"--"}, arguments...)) // they are its Args
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return exitOK, false
	case err != nil:
		return misused(flags, stderr, err.Error()), false
	}
	return exitOK, true
}

// misused reports a usage error and returns its exit code.
func misused(flags *flag.FlagSet, stderr io.Writer, fault string) int {
	fmt.Fprintf(stderr, "%s: %s\n\n", flags.Name(), harmless(fault))
	flags.SetOutput(stderr)
	flags.Usage()
	return exitUsage
}
