// Command ampauth shows what package ampauth does (demo), makes a single
// authenticated request with it (get), and tells of the stored token (status) or
// removes it (logout). It says what stands between this machine and AMP (doctor),
// serves programs in other languages (proxy), and is an AMP to try things on (fake).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit codes.
const (
	exitOK               = 0
	exitError            = 1
	exitUsage            = 2
	exitNotAuthenticated = 4
)

const usage = `usage: ampauth <command> [arguments]

  demo      run a client against a fake AMP with faults, and judge what it did
  get PATH  make one authenticated GET; configured by the environment
  status    tell what that configuration would use, and of the stored token
  logout    remove the stored token
  doctor    check configuration, network, login and token store, one by one
  proxy     pass requests of other programs on to AMP, logged in
  fake      run a fake AMP on a loopback port, to try things on
  help      show this

ampauth <command> -h says more.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first Ctrl-C asks for an orderly end. The second, again the system's
	// own, ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process around it: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	switch args[0] {
	case "demo":
		return runDemo(ctx, args[1:], stdout, stderr)
	case "get":
		return runGet(ctx, args[1:], stdout, stderr)
	case "status":
		return runStatus(ctx, args[1:], stdout, stderr)
	case "logout":
		return runLogout(ctx, args[1:], stdout, stderr)
	case "doctor":
		return runDoctor(ctx, args[1:], stdout, stderr)
	case "proxy":
		return runProxy(ctx, args[1:], stdout, stderr)
	case "fake":
		return runFake(ctx, args[1:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "ampauth: there is no command %q\n\n%s", args[0], usage)
	return exitUsage
}

// parse reads the flags of a command. If ok is false there is nothing more to
// do but to exit with code: help was asked for, or the flags are wrong.
func parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int, ok bool) {
	flags.SetOutput(io.Discard) // help belongs on stdout, errors on stderr
	err := flags.Parse(args)
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
	fmt.Fprintf(stderr, "%s: %s\n\n", flags.Name(), fault)
	flags.SetOutput(stderr)
	flags.Usage()
	return exitUsage
}
