package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "compare")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"unknown work", []string{"-only", "nonsense"}, 2, "", `there is no "nonsense" to measure`},
		{"argument", []string{"quick"}, 2, "", "takes no arguments"},
		{"unknown flag", []string{"-fast"}, 2, "", "flag provided but not defined"},
		{"nowhere to write", []string{"-out", file}, 1, "", "not a directory"},
		{"quick", []string{"-quick", "-only", "effects"}, 0, "| effects of one mutation | itself", "How often a mutation happens"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			command := exec.Command(binary, test.args...)
			var stdout, stderr strings.Builder
			command.Dir, command.Stdout, command.Stderr = dir, &stdout, &stderr
			err := command.Run()
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("exit %d\nstdout: %s\nstderr: %s", code, &stdout, &stderr)
			}
			if written, _ := os.ReadDir(dir); len(written) > 0 {
				t.Errorf("it wrote %v", written)
			}
		})
	}
}
