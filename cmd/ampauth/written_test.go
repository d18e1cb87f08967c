package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAnswerThatCannotBeWrittenIsAnError(t *testing.T) {
	configure(t)
	t.Setenv("AMP_TOKEN_DIR", filepath.Join(t.TempDir(), "tokens"))
	if got := runCommand(t.Context(), "get", "/managers/me"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	for _, args := range [][]string{
		{"help"}, {"help", "get"}, {"version"}, {"get", "/managers/me"}, {"call", "GET", "/managers/me"}, {"token"}, {"header"}, {"status"},
		{"status", "-json"}, {"doctor"}, {"doctor", "-json"}, {"fake"}, {"proxy", "-listen", "127.0.0.1:0"}, {"logout"},
	} {
		var stderr strings.Builder
		if code := run(t.Context(), args, fullDisk{}, &stderr); code != exitError || strings.Count(stderr.String(), "no space left") != 1 {
			t.Errorf("%q: exit code %d, stderr %q", args, code, stderr.String())
		}
	}
}
