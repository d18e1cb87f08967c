package main

import (
	"regexp"
	"runtime/debug"
	"testing"
)

func TestVersionTellsWhatTheBuildWasMadeOf(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "v0.1.0"}}
	for _, test := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, `^ampauth   v0\.1\.0\nrevision  \(unknown\)\ngo        go1\.26\.0 \w+/\w+\n$`},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "false"}}, `\nrevision  abc\n`},
		{[]debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.revision", Value: "abc"}},
			`\nrevision  abc\+dirty of 2026-01-02T03:04:05Z\n`},
	} {
		info.Settings = test.settings
		if got := versionText(info); !regexp.MustCompile(test.want).MatchString(got) {
			t.Errorf("%q, want %s", got, test.want)
		}
	}
	if got := versionText(nil); !regexp.MustCompile(`^ampauth   \(unknown\)\n`).MatchString(got) {
		t.Errorf("%q", got)
	}
	if got := process(t, "version"); got.code != exitOK || !regexp.MustCompile(`^ampauth .*\nrevision .*\ngo        go1\..*\n$`).MatchString(got.stdout) || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}
