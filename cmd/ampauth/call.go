package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

const callUsage = `usage: ampauth call METHOD PATH [-d @FILE | -d -] [-type TYPE] [-profile NAME]

Makes one authenticated call of PATH, which is below the base URL. The body of
the answer goes to stdout, all else to stderr. To a terminal, characters that it
would obey are written as escapes.

  -d @FILE   send the content of a file
  -d -       send what comes on stdin
  -type TYPE of what is sent; application/json if not given

What is sent is read first, 8 MiB at most, so that it can be sent again. It is
never an argument, since everybody on the machine can read those.

A read, and a call that can be repeated, is tried again when it fails. A
mutation is sent again only if it is certain that it was not performed. If that
is in doubt, as after a broken connection, a timeout, Ctrl-C, or an answer of
408 or 5xx, the exit code is 5, and stderr says what to read before you send it
again. A script must not take 5 for a failure:

  ampauth call POST /assets/issue -d @asset.json >issued.json
  case $? in 0) ;; 5) read first, see stderr ;; *) see stderr ;; esac

The calls that log in and refresh are refused: see "ampauth token -h".
"ampauth help" says where the account comes from.

Exit codes: 0 answered 2xx, 1 error or any other answer, 2 usage, 4 not
authenticated (AMP refused user name and password, or the answer is 401 or 403),
5 a mutation that may have been performed.
`

// methods are those that an API has.
var methods = [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

func runCall(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth call", flag.ContinueOnError)
	data := flags.String("d", "", "")
	contentType := flags.String("type", "application/json", "")
	profile := profileFlag(flags)
	flags.Usage = func() { fmt.Fprint(flags.Output(), callUsage) }
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	if flags.NArg() != 2 {
		return misused(flags, stderr, "needs a METHOD and a PATH")
	}
	r := request{method: flags.Arg(0), contentType: *contentType}
	if !slices.Contains(methods[:], r.method) {
		return misused(flags, stderr, "METHOD must be one of "+strings.Join(methods[:], ", "))
	}
	path, fault := belowBase(flags.Arg(1))
	if fault != "" {
		return misused(flags, stderr, fault)
	}
	r.path = path
	if _, _, err := mime.ParseMediaType(*contentType); err != nil {
		return misused(flags, stderr, "-type is no media type")
	}
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "d" })
	if given {
		if *data != "-" && !strings.HasPrefix(*data, "@") {
			return misused(flags, stderr, "-d takes @FILE, or - for stdin: what is sent is never an argument")
		}
		body, size, err := readBody(ctx, strings.TrimPrefix(*data, "@"))
		if err != nil {
			fmt.Fprintln(stderr, "ampauth call:", harmless(err.Error())+"; nothing was sent")
			return exitError
		}
		defer body.Destroy()
		r.body, r.size = &body, size
	}
	// Whoever reads stdout may leave, and a mutation that was answered must be told all the same.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	return perform(ctx, *profile, r, stdout, stderr)
}
