package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// childEnv makes this test binary the command itself.
const childEnv = "AMPAUTH_COMMAND_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process runs the command as a process of its own.
func process(t *testing.T, args ...string) output {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, args...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code tells
	got := output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(got.stdout+got.stderr, rightPassword) {
		t.Errorf("%v shows the password", args)
	}
	return got
}

func TestGetTellsWhatIsWrongWithTheStoreAndWhatToDo(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string) (usedDir string)
		want  string // with DIR for the directory
	}{
		"open to others": {func(t *testing.T, dir string) string {
			mustDo(t, os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755))
			return dir
		}, "the directory DIR is open to other users: chmod 700 DIR\n"},
		"open to others, with a space": {func(t *testing.T, dir string) string {
			dir += " of mine"
			mustDo(t, os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755))
			return dir
		}, "the directory 'DIR' is open to other users: chmod 700 'DIR'\n"},
		"a file": {func(t *testing.T, dir string) string {
			mustDo(t, os.WriteFile(dir, nil, 0o600))
			return dir
		}, "the directory DIR is a link or no directory: name the directory itself\n"},
		"a link": {func(t *testing.T, dir string) string {
			mustDo(t, os.Mkdir(dir+".real", 0o700), os.Symlink(dir+".real", dir))
			return dir
		}, "the directory DIR is a link or no directory: name the directory itself\n"},
		"of another user": {func(t *testing.T, dir string) string {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			mustDo(t, os.Mkdir(dir, 0o700), os.Chown(dir, 65534, -1))
			return dir
		}, "the directory DIR belongs to another user: chown it to the user of this process, or take another\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, dir := configureStore(t)
			dir = test.spoil(t, dir)
			t.Setenv("AMP_TOKEN_DIR", dir)
			want := "ampauth: token store: " + strings.ReplaceAll(test.want, "DIR", dir)
			for n := range 2 {
				got := process(t, "get", "/managers/me")
				if got.code != exitOK || !strings.HasPrefix(got.stdout, `{"username":"manager"`) || got.stderr != want {
					t.Errorf("%+v, want on stderr %q and no more", got, want)
				}
				if logins := fake.Count("POST /user/obtain_token"); logins != n+1 {
					t.Errorf("%d logins", logins)
				}
			}
			said := strings.TrimPrefix(want, "ampauth: token store: ")
			if got := process(t, "status"); got.code != exitNotAuthenticated || !strings.HasSuffix(got.stderr, said) || !strings.HasSuffix(got.stdout, said) {
				t.Errorf("status: %+v, want %q", got, said)
			}
			if got := process(t, "status", "-json"); got.code != exitNotAuthenticated || !strings.HasSuffix(got.stderr, said) {
				t.Errorf("status -json: %+v, want %q", got, said)
			}
			if got := process(t, "logout"); got.code != exitError || !strings.Contains(got.stderr, strings.TrimSpace(said)) {
				t.Errorf("logout: %+v, want %q", got, said)
			}
		})
	}
}

// Doing as one is told ends it.
func TestAdviceOfTheStoreHelps(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	fake, dir := configureStore(t)
	mustDo(t, os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755))
	_, command, _ := strings.Cut(process(t, "get", "/managers/me").stderr, " users: ")
	if text, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", command, err, text)
	}
	for range 2 {
		if got := process(t, "get", "/managers/me"); got.code != exitOK || got.stderr != "" {
			t.Errorf("%+v", got)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n != 2 {
		t.Errorf("%d logins, want one before and one after", n)
	}
}

// A file that is not to be trusted is told, and replaced.
func TestGetReplacesAFileThatLayOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	_, dir := configureStore(t)
	process(t, "get", "/managers/me")
	files, _ := filepath.Glob(filepath.Join(dir, "*.token"))
	mustDo(t, os.Chmod(files[0], 0o644))
	if got := process(t, "get", "/managers/me"); got.code != exitOK || got.stderr != "ampauth: token store: the file "+files[0]+" is open to other users: remove it\n" {
		t.Errorf("%+v", got)
	}
	if got := process(t, "get", "/managers/me"); got.code != exitOK || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
