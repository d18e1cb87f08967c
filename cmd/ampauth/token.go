package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/ampauth/ampauth"
)

const tokenUsage = `usage: ampauth token [-json] [-force] [-profile NAME]

Prints the token of the account on stdout, a line, and logs in if none is
stored. A token that has ended, or will within five minutes, is replaced first;
that ends it for all who share the account.

  -json   print an object with token, expires_at and scheme
  -force  print it even if stdout is a terminal, which keeps what it has shown

Without AMP_TOKEN_DIR or AMP_TOKEN_PERSISTENCE=true each run logs in. AMP then
gives the same token again, as long as nobody refreshes it. It does not say when
a token ends: the 24 hours are an assumption.

Take it over stdin or a variable that is not exported, not in an argument:
everybody on the machine can read those. For curl see "ampauth header -h".
"ampauth help" says where the account comes from.

Exit codes: 0 printed, 1 error, 2 usage, or stdout is a terminal, 4 not
authenticated.
`

const headerUsage = `usage: ampauth header [-force] [-profile NAME]

Prints "Authorization: token ..." on stdout, a line, as curl takes it from
stdin:

  ampauth header | curl -H @- "$AMP_API_BASE_URL/managers/me"

Not with -H "$(ampauth header)": that makes an argument of the token, and
everybody on the machine can read the arguments of a process, with ps or in
/proc. curl sends the field on to wherever a redirect leads on the same host;
leave out -L. A mutation is better sent with "ampauth call": curl does not know
when it must not be repeated.

  -force  print it even if stdout is a terminal, which keeps what it has shown

Which token that is, "ampauth token -h" says.
"ampauth help" says where the account comes from.

Exit codes: 0 printed, 1 error, 2 usage, or stdout is a terminal, 4 not
authenticated.
`

func runToken(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth token", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "")
	flags.Usage = func() { fmt.Fprint(flags.Output(), tokenUsage) }
	return printToken(ctx, flags, args, stdout, stderr, func(line []byte, token []byte, expiresAt time.Time, scheme string) []byte {
		if !*asJSON {
			return append(append(line, token...), '\n')
		}
		line = append(line, `{"token":`...)
		line = strconv.AppendQuote(line, string(token)) // which is visible ASCII, and so this is JSON
		if !expiresAt.IsZero() {
			line = append(line, `,"expires_at":"`...)
			line = expiresAt.UTC().AppendFormat(line, time.RFC3339)
			line = append(line, '"')
		}
		line = append(line, `,"scheme":`...)
		line = strconv.AppendQuote(line, scheme)
		return append(line, "}\n"...)
	})
}

func runHeader(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth header", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), headerUsage) }
	return printToken(ctx, flags, args, stdout, stderr, func(line []byte, token []byte, _ time.Time, scheme string) []byte {
		return append(append(append(line, "Authorization: "+scheme+" "...), token...), '\n')
	})
}

// maxTokenLine is more than a line with a token can be long, each of whose characters may
// be escaped: a buffer of this size need not grow, and leave a copy behind.
const maxTokenLine = 16 << 10

// printToken is a command that prints the token as form has it.
func printToken(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer, form func(line []byte, token []byte, expiresAt time.Time, scheme string) []byte) int {
	force := flags.Bool("force", false, "")
	a, code, ok := configured(flags, args, stdout, stderr)
	if !ok {
		return code
	}
	defer a.Credentials.Password.Destroy()
	if isTerminal(stdout) && !*force {
		fmt.Fprintf(stderr, "%s: stdout is a terminal, which keeps what it has shown: send it elsewhere, or use -force\n", flags.Name())
		return exitUsage
	}
	faults := newStoreFaults()
	a.OnEvent = faults.hear
	a.RefreshWindow = -1 // in the background it would end the token that is printed
	tokens, err := ampauth.NewTokenManager(a.Config)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	defer func() {
		_ = tokens.Close()
		faults.print(tokens.Stats().StoreFaults, stderr)
	}()
	token, err := lastingToken(ctx, tokens)
	if err != nil {
		fmt.Fprintln(stderr, a.advice(withoutURL(err)))
		if code := codeOf(err); code != exitInDoubt {
			return code
		}
		return exitError
	}
	line := make([]byte, 0, maxTokenLine)
	defer func() { clear(line[:cap(line)]) }()
	err = token.Value.Expose(func(value []byte) error {
		line = form(line, value, token.ExpiresAt, cmp.Or(a.Scheme, "token"))
		_, err := stdout.Write(line)
		return err
	})
	if err != nil {
		fmt.Fprintln(stderr, withoutURL(err))
		return exitError
	}
	return exitOK
}

// lastingToken returns a token that lives for some minutes, as whoever is given it cannot
// replace it.
func lastingToken(ctx context.Context, tokens *ampauth.TokenManager) (ampauth.Token, error) {
	token, err := tokens.Token(ctx)
	if err == nil && token.ExpiresSoon(5*time.Minute) {
		token, err = tokens.Refresh(ctx)
	}
	return token, err
}
