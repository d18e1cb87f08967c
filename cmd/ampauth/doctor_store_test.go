package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// shortDir is a directory for tokens, not there yet, whose path fits a line.
func shortDir(t *testing.T) string {
	t.Helper()
	above, err := os.MkdirTemp("", "amp")
	mustDo(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(above) })
	dir := filepath.Join(above, "tokens")
	t.Setenv("AMP_TOKEN_DIR", dir)
	return dir
}

func TestDoctorTriesTheStoreAndLeavesNothing(t *testing.T) {
	fake, _ := configure(t)
	dir := shortDir(t)
	checks, _ := examined(t, fake)
	is(t, checks["store"], findingOK, "the first login makes it")
	if _, err := os.Lstat(dir); err == nil {
		t.Error("it left the directory")
	}
	if got := process(t, "get", "/managers/me"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	before := content(t, dir)
	logins := fake.Count("POST /user/obtain_token")
	checks, _ = examined(t, fake)
	is(t, checks["store"], findingOK, "the account's token is there")
	if runtime.GOOS != "windows" {
		is(t, checks["store"], findingOK, fmt.Sprintf("mode 0700, owner %d", os.Getuid()))
	}
	if after := content(t, dir); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
	if n := fake.Count("POST /user/obtain_token"); n != logins+2 {
		t.Errorf("it took the stored token, or logged in %d times", n-logins)
	}
}

// content is the names and contents of a directory, tokens in clear.
func content(t *testing.T, dir string) (text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	mustDo(t, err)
	for _, entry := range entries {
		file, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		mustDo(t, err)
		text += fmt.Sprintf("%s %q\n", entry.Name(), file)
	}
	return text
}

func TestDoctorTellsWhatIsWrongWithTheStore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	for name, tt := range map[string]struct {
		spoil func(dir string)
		state string
		says  string
	}{
		"open to others":  {func(dir string) { mustDo(t, os.Chmod(dir, 0o755)) }, findingFailed, "chmod 700"},
		"open to a group": {func(dir string) { mustDo(t, os.Chmod(dir, 0o770)) }, findingFailed, "chmod 700"},
		"a file":          {func(dir string) { mustDo(t, os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, findingFailed, "name the directory itself"},
		"a token that lies open": {func(dir string) {
			files, err := filepath.Glob(filepath.Join(dir, "*.token"))
			mustDo(t, err, os.Chmod(files[0], 0o644))
		}, findingWarning, "is open to other users: remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			dir := shortDir(t)
			process(t, "get", "/managers/me")
			tt.spoil(dir)
			info, err := os.Lstat(dir)
			mustDo(t, err)
			var checks map[string]finding
			if info.IsDir() {
				before := content(t, dir)
				checks, _ = examined(t, fake)
				if after := content(t, dir); after != before {
					t.Errorf("it changed the store from\n%s\nto\n%s", before, after)
				}
			} else {
				checks, _ = examined(t, fake)
			}
			is(t, checks["store"], tt.state, tt.says)
			after, err := os.Lstat(dir)
			mustDo(t, err)
			if after.Mode() != info.Mode() {
				t.Errorf("the mode was %v and is %v", info.Mode(), after.Mode())
			}
		})
	}
}
