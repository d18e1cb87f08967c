package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

const fakeUsage = `usage: ampauth fake [flags]

Runs a fake AMP on a loopback port, to try this command, a client in any
language or a demonstration without a network and without an account. It knows
all operations of AMP 0.1.12, asks for the token, remembers what was created,
and forgets all of it when it ends. What a request holds is not checked.

The environment to use goes to stdout, in lines for a shell:

  ampauth fake -listen 127.0.0.1:8002 > fake.env &
  . ./fake.env
  ampauth get /assets

Ctrl-C or SIGTERM ends it. Then it tells on stderr what it has served, which
mutations it has performed, and what clients did that a client of AMP must not
do.

A fault is ROUTE:WHAT[,WHAT...][xTIMES]. ROUTE is a method and a path with AMP's
own names in braces, as "GET /assets/{assetUuid}"; a path alone for any method;
or nothing for any request, logins included. TIMES is how many requests meet it:
1 if it is not there, or "all". A request meets at most one fault: the first
that is for it and not used up. WHAT is one or more of

  503            a status, 200 to 299 or 400 to 599, in place of AMP's answer
  reset          the connection is reset in place of an answer
  delay=2s       a wait before the answer
  retry-after=2  with a status: that header field, in seconds
  after          the request is performed first, and the fault hides that

  ampauth fake -fault '/assets:503x2' -fault 'POST /assets/issue:reset,after'
  ampauth fake -fault 'GET /assets:429,retry-after=3' -fault ':delay=200msxall'

`

// The account of the fake. Its password guards nothing.
const (
	fakeUser     = "issuer"
	fakePassword = "correct horse"
)

func runFake(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var faults faultFlags
	flags := flag.NewFlagSet("ampauth fake", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "loopback `address` and port;\nport 0 takes a free one")
	lifetime := flags.Duration("lifetime", 24*time.Hour, "`time` that a token lives")
	flags.Var(&faults, "fault", "a `fault`, as above; may be given more than once")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), fakeUsage)
		flags.PrintDefaults()
	}
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	address, fault := loopback(*listen)
	switch {
	case flags.NArg() > 0:
		return misused(flags, stderr, "takes no arguments")
	case fault != "":
		return misused(flags, stderr, fault)
	case *lifetime <= 0:
		return misused(flags, stderr, "-lifetime must be above zero")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(stderr, "ampauth fake:", err)
		return exitError
	}
	fake := fakeamp.New(fakeamp.Config{Users: map[string]string{fakeUser: fakePassword}, Lifetime: *lifetime})
	fake.Inject(faults...)
	server := &http.Server{Handler: fake, ErrorLog: log.New(io.Discard, "", 0)}
	if err := printEnvironment(stdout, l.Addr()); err != nil {
		_ = l.Close()
		fmt.Fprintln(stderr, "ampauth fake:", err)
		return exitError
	}
	fmt.Fprintf(stderr, "ampauth fake: listening on %v, Ctrl-C ends it\n", l.Addr())
	err = serveUntil(ctx, server, l, fake.Close)
	printServed(stderr, fake)
	if err != nil {
		fmt.Fprintln(stderr, "ampauth fake:", err)
		return exitError
	}
	return exitOK
}

// printEnvironment writes what a shell takes.
func printEnvironment(w io.Writer, address net.Addr) error {
	unset := ""
	if os.Getenv("AMP_PASSWORD_FILE") != "" { // the two exclude each other
		unset = "unset AMP_PASSWORD_FILE\n"
	}
	_, err := fmt.Fprintf(w, "%sexport AMP_API_BASE_URL=http://%v/api\nexport AMP_USERNAME=%s\nexport AMP_PASSWORD='%s'\n",
		unset, address, fakeUser, fakePassword)
	return err
}

// printServed tells what the fake has done. What no route of AMP's has is counted
// together: such a path could hold anything.
func printServed(w io.Writer, fake *fakeamp.Server) {
	known, total, unknown := fakeamp.Routes(), 0, 0
	counts := fake.Counts()
	for route, n := range counts {
		total += n
		if _, ok := known[route]; !ok {
			unknown += n
		}
	}
	fmt.Fprintf(w, "ampauth fake: served %d requests\n", total)
	for _, route := range slices.Sorted(maps.Keys(counts)) {
		if _, ok := known[route]; ok {
			fmt.Fprintf(w, "  %5d  %s\n", counts[route], route)
		}
	}
	if unknown > 0 {
		fmt.Fprintf(w, "  %5d  of no route of AMP's\n", unknown)
	}
	if effects := fake.Effects(); len(effects) > 0 {
		again := 0
		for _, e := range effects {
			if e.Repeats > 0 {
				again++
			}
		}
		fmt.Fprintf(w, "mutations performed: %d (the same once more: %d)\n", len(effects), again)
	}
	for _, name := range slices.Sorted(maps.Keys(fake.Injected())) {
		fmt.Fprintf(w, "fault met %d times: %s\n", fake.Injected()[name], name)
	}
	for _, violation := range slices.Compact(slices.Sorted(slices.Values(fake.Violations()))) {
		fmt.Fprintf(w, "a client must not do this: %s\n", violation)
	}
}
