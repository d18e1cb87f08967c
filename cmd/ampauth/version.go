package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

const versionUsage = `usage: ampauth version

Prints the version of the module, the revision that it was built from (with
+dirty if there were changes), and the version of Go, a line each.
`

func runVersion(_ context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth version", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), versionUsage) }
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	if flags.NArg() > 0 {
		return misused(flags, stderr, "takes no arguments")
	}
	info, _ := debug.ReadBuildInfo()
	fmt.Fprint(stdout, versionText(info))
	return exitOK
}

// versionText tells what is known of a build; info may be nil.
func versionText(info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	var revision, at, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.time":
			at = " of " + s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ampauth   %s\n", cmp.Or(info.Main.Version, "(unknown)"))
	if revision != "" {
		fmt.Fprintf(&b, "revision  %s%s%s\n", revision, dirty, at)
	} else {
		fmt.Fprintf(&b, "revision  (unknown)\n")
	}
	fmt.Fprintf(&b, "go        %s %s/%s\n", cmp.Or(info.GoVersion, runtime.Version()), runtime.GOOS, runtime.GOARCH)
	return b.String()
}
