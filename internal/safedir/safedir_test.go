package safedir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// everything is the isOurs of a directory that may be closed whatever is in it.
func everything(string) bool { return true }

func makeDir(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Make(path, everything)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// newDir returns a directory that is made anew, and its path.
func newDir(t *testing.T) (*Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dir")
	return makeDir(t, path), path
}

func wantContent(t *testing.T, d *Dir, name, want string) {
	t.Helper()
	content, err := d.Read(name, 100)
	if err != nil || string(content) != want {
		t.Errorf("read %q, error %v, want %q", content, err, want)
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got the error %v, want %q", err, want)
	}
}

func TestOpenMakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "above", "dir")
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got the error %v, want one that Is fs.ErrNotExist", err)
	}
	if _, err := os.Lstat(filepath.Dir(path)); err == nil {
		t.Error("something was made")
	}
	d := makeDir(t, path)
	if err := d.Replace("name", "temporary", []byte("content")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	wantContent(t, again, "name", "content")
}

func TestReadStopsAtItsLimit(t *testing.T) {
	d, path := newDir(t)
	tooLarge := "the file " + filepath.Join(path, "name") + " is too large: remove it"
	for length, want := range map[int]string{0: "", 10: "", 11: tooLarge, 1000: tooLarge} {
		if err := d.Replace("name", "temporary", make([]byte, length)); err != nil {
			t.Fatal(err)
		}
		content, err := d.Read("name", 10)
		if want != "" {
			wantError(t, err, want)
		} else if err != nil || len(content) != length {
			t.Errorf("read %d of %d bytes, error %v", len(content), length, err)
		}
	}
	if err := d.Remove("name"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read("name", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got the error %v, want one that Is fs.ErrNotExist", err)
	}
}

func TestErrorsNameThePathOnce(t *testing.T) {
	d, path := newDir(t)
	_, readErr := d.Read("the-name", 10)
	_, openErr := Open(path + "-missing/")
	_, fileErr := Make(path+"\x00", everything)
	_, lockErr := d.NewLock("no/the-name")
	for what, test := range map[string]struct {
		err  error
		path string
	}{
		"Read": {readErr, Shown(path + "/the-name")}, "Open": {openErr, Shown(path+"-missing") + " "}, "Make": {fileErr, Shown(path + "\x00")},
		"NewLock": {lockErr, Shown(path + "/no/the-name")}, "Remove": {d.Remove("the-name"), Shown(path + "/the-name")},
		"Replace": {d.Replace("no/the-name", "no/the-name", nil), Shown(path + "/no/the-name")},
	} {
		if test.err == nil || strings.Count(test.err.Error(), test.path) != 1 {
			t.Errorf("%s: %v, want it to name %s once", what, test.err, test.path)
		}
	}
}

func TestLockHasOneHolder(t *testing.T) {
	d, path := newDir(t)
	other := makeDir(t, path)
	open := func(d *Dir) *Lock {
		lock, err := d.NewLock("lock")
		if err != nil {
			t.Fatal(err)
		}
		return lock
	}
	first := open(d)
	if ok, err := first.Try(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, d := range []*Dir{d, other} {
		if ok, err := open(d).Try(); ok || err != nil {
			t.Errorf("two have the lock: %t, error %v", ok, err)
		}
	}
	ended, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := open(other).Take(ended, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got the error %v, want that of the context", err)
	}
	waiting := open(other)
	taken := make(chan error, 1)
	go func() { taken <- waiting.Take(t.Context(), time.Millisecond) }()
	_ = d.Close() // a lock does not end with it
	select {
	case err := <-taken:
		t.Fatalf("two have the lock, error %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	first.Free()
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	first.Free() // which frees nobody else's
	if ok, err := open(other).Try(); ok || err != nil {
		t.Errorf("two have the lock: %t, error %v", ok, err)
	}
	waiting.Free()
	last := open(other)
	if ok, err := last.Try(); !ok || err != nil {
		t.Errorf("nobody has the lock, and it cannot be taken: %t, error %v", ok, err)
	}
	last.Free()
}
