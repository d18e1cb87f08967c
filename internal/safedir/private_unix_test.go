//go:build unix

package safedir

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPrivateFileIsReadWhereOthersMayLook(t *testing.T) {
	for _, mode := range []fs.FileMode{0o700, 0o750, 0o755, 0o711} {
		dir := filepath.Join(t.TempDir(), "dir")
		path := filepath.Join(dir, "name")
		for _, fileMode := range []fs.FileMode{0o600, 0o400, 0o700} {
			_ = os.Remove(path)
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(path, []byte("content"), 0o600), os.Chmod(path, fileMode), os.Chmod(dir, mode)); err != nil {
				t.Fatal(err)
			}
			if content, err := ReadPrivate(path, 10); string(content) != "content" || err != nil {
				t.Errorf("modes %v, %v: %q, error %v", mode, fileMode, content, err)
			}
		}
	}
}

// Doing what the error says ends it, and the content is still there.
func TestFileThatIsNotPrivateIsRefusedWithWhatMendsIt(t *testing.T) {
	chmod := func(path func(dir string) string, mode fs.FileMode) func(dir string) error {
		return func(dir string) error { return os.Chmod(path(dir), mode) }
	}
	file := func(dir string) string { return filepath.Join(dir, "name") }
	self := func(dir string) string { return dir }
	for name, test := range map[string]struct {
		spoil func(dir string) error
		want  string // with DIR for the directory
	}{
		"read by the group":    {chmod(file, 0o640), "the file DIR/name is open to other users: chmod 600 DIR/name"},
		"read by all":          {chmod(file, 0o604), "the file DIR/name is open to other users: chmod 600 DIR/name"},
		"written by all":       {chmod(file, 0o602), "the file DIR/name is open to other users: chmod 600 DIR/name"},
		"run by all":           {chmod(file, 0o601), "the file DIR/name is open to other users: chmod 600 DIR/name"},
		"directory of a group": {chmod(self, 0o770), "the directory DIR can be changed by other users: chmod go-w DIR"},
		"directory of all":     {chmod(self, fs.ModeSticky|0o777), "the directory DIR can be changed by other users: chmod go-w DIR"},
		"of another user": {func(dir string) error { return os.Chown(file(dir), 65534, -1) },
			"the file DIR/name belongs to another user: chown it to the user of this process"},
		"in a directory of another user": {func(dir string) error { return os.Chown(dir, 65534, -1) },
			"the directory DIR belongs to another user: chown it to the user of this process"},
		"a link": {func(dir string) error {
			return errors.Join(os.Rename(file(dir), file(dir)+".real"), os.Symlink("name.real", file(dir)))
		}, "the file DIR/name is a link or no regular file: put the file itself there"},
		"a FIFO": {func(dir string) error { return errors.Join(os.Remove(file(dir)), syscall.Mkfifo(file(dir), 0o600)) },
			"the file DIR/name is a link or no regular file: put the file itself there"},
		"a directory": {func(dir string) error { return errors.Join(os.Remove(file(dir)), os.Mkdir(file(dir), 0o700)) },
			"the file DIR/name is a link or no regular file: put the file itself there"},
		"too large": {func(dir string) error { return os.WriteFile(file(dir), make([]byte, 1025), 0o600) },
			"the file DIR/name is larger than 1 KiB"},
		"the directory is a link": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		}, "the directory DIR is a link or no directory: name the directory itself"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "another user") && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir := filepath.Join(t.TempDir(), "dir")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(file(dir), []byte("content"), 0o600), test.spoil(dir)); err != nil {
				t.Fatal(err)
			}
			content, err := ReadPrivate(file(dir), 1024)
			wantError(t, err, strings.ReplaceAll(test.want, "DIR", dir))
			if content != nil {
				t.Errorf("it returned %q as well", content)
			}
			_, command, found := strings.Cut(test.want, ": chmod ")
			if !found {
				return
			}
			if text, err := exec.Command("sh", "-c", "chmod "+strings.ReplaceAll(command, "DIR", dir)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if content, err := ReadPrivate(file(dir), 1024); string(content) != "content" || err != nil {
				t.Errorf("after that: %q, error %v", content, err)
			}
		})
	}
}

func TestPrivateFileThatIsMissingIsNotThere(t *testing.T) {
	for _, path := range []string{"name", "missing/name"} {
		if _, err := ReadPrivate(filepath.Join(t.TempDir(), path), 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got the error %v, want one that Is fs.ErrNotExist", err)
		}
	}
	if _, err := ReadPrivate("dir/name", 10); err == nil {
		t.Error("a relative path is taken")
	}
}
