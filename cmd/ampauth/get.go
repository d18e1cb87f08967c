package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
)

const getUsage = `usage: ampauth get PATH [-profile NAME]

Makes one authenticated GET of PATH, which is below the base URL, such as
/assets or assets?count=10. The body goes to stdout, all else to stderr. A GET
that AMP acts upon (as .../distributions/create/) is not repeated when its end
is in doubt. To a terminal, characters that it would obey are written as
escapes.

"ampauth help" says where the account comes from.

Exit codes: 0 answered 2xx, 1 error or any other answer, 2 usage, 4 not
authenticated (AMP refused user name and password, or the answer is 401 or 403).
`

func runGet(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth get", flag.ContinueOnError)
	profile := profileFlag(flags)
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
	code := perform(ctx, *profile, request{method: http.MethodGet, path: path}, stdout, stderr)
	if code == exitInDoubt { // which is told
		return exitError
	}
	return code
}
