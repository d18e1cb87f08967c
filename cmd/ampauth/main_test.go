package main

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// output is what a run of the command left behind.
type output struct {
	code           int
	stdout, stderr string
}

func runCommand(ctx context.Context, args ...string) output {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

func TestUsageErrorsExit2AndHelpExits0(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string // wanted in it; if empty, it must be empty
		stderr string // likewise
	}{
		{"no command", nil, 2, "", "usage: ampauth <command>"},
		{"unknown command", []string{"issue"}, 2, "", `no command "issue"`},
		{"help", []string{"help"}, 0, "usage: ampauth <command>", ""},
		{"-h", []string{"-h"}, 0, "usage: ampauth <command>", ""},
		{"--help", []string{"--help"}, 0, "usage: ampauth <command>", ""},
		{"get -h", []string{"get", "-h"}, 0, "usage: ampauth get PATH", ""},
		{"get without a path", []string{"get"}, 2, "", "needs one PATH"},
		{"get with two", []string{"get", "/assets", "/managers"}, 2, "", "needs one PATH"},
		{"get with a flag that is none", []string{"get", "-v", "/assets"}, 2, "", "-v"},
		{"demo -h", []string{"demo", "-h"}, 0, "-lifetime", ""},
		{"demo with an argument", []string{"demo", "now"}, 2, "", "takes no arguments"},
		{"demo with a flag that is none", []string{"demo", "-fast"}, 2, "", "-fast"},
		{"duration that is none", []string{"demo", "-duration", "long"}, 2, "", "-duration"},
		{"no duration", []string{"demo", "-duration", "0s"}, 2, "", "-duration must be above zero"},
		{"short lifetime", []string{"demo", "-lifetime", "1s"}, 2, "", "-lifetime must be from 2s to 1m0s"},
		{"long lifetime", []string{"demo", "-lifetime", "24h"}, 2, "", "-lifetime must be from 2s to 1m0s"},
		{"no workers", []string{"demo", "-workers", "0"}, 2, "", "-workers must be from 1 to 64"},
		{"many workers", []string{"demo", "-workers", "1000"}, 2, "", "-workers must be from 1 to 64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := runCommand(t.Context(), tt.args...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d", got.code, tt.code)
			}
			for _, stream := range []struct{ name, got, want string }{{"stdout", got.stdout, tt.stdout}, {"stderr", got.stderr, tt.stderr}} {
				if !strings.Contains(stream.got, stream.want) || stream.want == "" && stream.got != "" {
					t.Errorf("%s is %q, want %q", stream.name, stream.got, stream.want)
				}
			}
		})
	}
}

// noGoroutineLeft fails the test if, in the end, there are more goroutines than now.
func noGoroutineLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
				return
			}
			time.Sleep(10 * time.Millisecond) // of sockets, which no bubble can wait for
		}
	})
}

// awaitRequest waits until a route has seen a request. It looks again and again, since the
// command speaks over sockets, which no bubble can wait for.
func awaitRequest(fake *fakeamp.Server, route string) {
	for fake.Count(route) == 0 {
		time.Sleep(time.Millisecond)
	}
}
