//go:build unix

package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A directory is renamed while it is open, and a link to another one takes its place.
func TestNothingGoesThroughALinkThatTakesThePlaceOfTheDirectory(t *testing.T) {
	if runtime.GOOS == "aix" || runtime.GOOS == "solaris" {
		t.Skip("locks are opened by their path here")
	}
	d, path := newDir(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.Mkdir(victim, 0o700), os.Rename(path, path+".aside"), os.Symlink(victim, path)); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace("name", "temporary", []byte("content")); err != nil {
		t.Error(err)
	}
	wantContent(t, d, "name", "content")
	lock, err := d.NewLock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := lock.Try(); !ok || err != nil {
		t.Errorf("the lock cannot be taken: %t, error %v", ok, err)
	}
	defer lock.Free()
	moved := makeDir(t, path+".aside")
	second, err := moved.NewLock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := second.Try(); ok || err != nil {
		t.Errorf("the lock is not in the directory: %t, error %v", ok, err)
	}
	if err := d.Remove("name"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(victim); len(entries) > 0 {
		t.Errorf("where the link leads to, there is %v", entries)
	}
	for _, open := range []func() (*Dir, error){func() (*Dir, error) { return Open(path) }, func() (*Dir, error) { return Make(path, everything) }} {
		_, err := open()
		wantError(t, err, "the directory "+path+" is a link or no directory: name the directory itself")
	}
}

// The link is above the directory; the directory itself may never be one.
func TestLinkIsFollowedOnlyWhereOthersCannotChangeIt(t *testing.T) {
	const (
		refused = "above the directory, LINK is a link that other users can change, or no directory: name a path without it"
		other   = 65534
	)
	for _, test := range []struct {
		name       string
		mode       fs.FileMode // of the directory with the link
		owner      int         // of that directory
		linkOwner  int
		needsRoot  bool
		wantReason string
	}{
		{name: "a directory of this user", mode: 0o755},
		{name: "with the sticky bit", mode: fs.ModeSticky | 0o777},
		{name: "that all may write to", mode: 0o777, wantReason: refused},
		{name: "that the group may write to", mode: 0o770, wantReason: refused},
		{name: "of another user", mode: 0o755, owner: other, needsRoot: true, wantReason: refused},
		{name: "of another user, with the sticky bit", mode: fs.ModeSticky | 0o777, owner: other, needsRoot: true, wantReason: refused},
		{name: "another's link in a directory of this user", mode: 0o755, linkOwner: other, needsRoot: true},
		{name: "another's link with the sticky bit", mode: fs.ModeSticky | 0o777, linkOwner: other, needsRoot: true, wantReason: refused},
	} {
		for _, absolute := range []bool{true, false} {
			t.Run(test.name+map[bool]string{true: ", absolute", false: ", relative"}[absolute], func(t *testing.T) {
				if test.needsRoot && os.Geteuid() != 0 {
					t.Skip("only root can give a file away")
				}
				base := t.TempDir()
				holder, target := filepath.Join(base, "holder"), filepath.Join(base, "target")
				to := target
				if !absolute {
					to = ".//../holder/../target/"
				}
				link := filepath.Join(holder, "link")
				if err := errors.Join(os.Mkdir(holder, 0o700), os.Mkdir(target, 0o700), os.Symlink(to, link)); err != nil {
					t.Fatal(err)
				}
				if test.needsRoot {
					if err := errors.Join(os.Lchown(link, test.linkOwner, 0), os.Chown(holder, test.owner, 0)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Chmod(holder, test.mode); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(link, "dir")
				d, err := Make(path, everything)
				if test.wantReason != "" {
					wantError(t, err, strings.ReplaceAll(test.wantReason, "LINK", link))
					_, err = Open(path)
					wantError(t, err, strings.ReplaceAll(test.wantReason, "LINK", link))
					if entries, _ := os.ReadDir(target); len(entries) > 0 {
						t.Errorf("where the link leads to, there is %v", entries)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				_ = d.Close()
				if info, err := os.Lstat(filepath.Join(target, "dir")); err != nil || info.Mode() != fs.ModeDir|0o700 {
					t.Errorf("%v, %v", info, err)
				}
			})
		}
	}
}

func TestLinksInARingEndInAnError(t *testing.T) {
	base := t.TempDir()
	if err := errors.Join(os.Symlink("b", filepath.Join(base, "a")), os.Symlink("a", filepath.Join(base, "b"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(base, "a", "dir")
	_, err := Make(path, everything)
	wantError(t, err, "the directory "+path+" cannot be opened: too many levels of symbolic links")
	if !errors.Is(err, syscall.ELOOP) {
		t.Error("the cause is lost")
	}
}

// As below the mount point of a volume.
func TestDirectoryIsMadeWhereOthersMayWriteToo(t *testing.T) {
	for _, mode := range []fs.FileMode{0o777, fs.ModeSetgid | 0o770, fs.ModeSticky | 0o777} {
		parent := filepath.Join(t.TempDir(), "volume")
		if err := errors.Join(os.Mkdir(parent, 0o700), os.Chmod(parent, mode)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(parent, "above", "dir")
		makeDir(t, path)
		for _, made := range []string{path, filepath.Dir(path)} {
			if info, err := os.Lstat(made); err != nil || info.Mode() != fs.ModeDir|0o700 {
				t.Errorf("below mode %v: %v, %v, want mode 0700 and no more", mode, info, err)
			}
		}
	}
}

// The directory is there when it is to be made.
func TestFoundDirectoryKeepsItsMode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o755, 0o777, 0o500, fs.ModeSetgid | 0o700} {
		path := filepath.Join(t.TempDir(), "dir")
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		parent, err := os.OpenRoot(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		defer parent.Close()
		if dir, err := create(parent, path); err == nil { // Mkdir says that it is there
			_ = dir.Close()
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeDir|mode {
			t.Errorf("%v, %v, want mode %v", info, err, mode)
		}
	}
}

// Somebody puts the directory aside and a link in its place, all the time.
func TestLinkIsNotFollowedEvenBetweenTwoLooks(t *testing.T) {
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, name) }
	if err := errors.Join(os.Mkdir(in("dir"), 0o700), os.Mkdir(in("victim"), 0o700), os.Symlink("victim", in("link"))); err != nil {
		t.Fatal(err)
	}
	want, err := os.Lstat(in("dir"))
	if err != nil {
		t.Fatal(err)
	}
	parent, err := os.OpenRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	var peer sync.WaitGroup
	done := make(chan struct{})
	peer.Go(func() {
		for {
			for _, move := range [][2]string{{"dir", "aside"}, {"link", "dir"}, {"dir", "link"}, {"aside", "dir"}} {
				_ = os.Rename(in(move[0]), in(move[1]))
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	defer peer.Wait()
	defer close(done)
	entered := 0
	for start := time.Now(); time.Since(start) < time.Second || entered == 0 && time.Since(start) < time.Minute; {
		dir, err := enter(parent, in("dir"))
		if err != nil {
			continue
		}
		entered++
		info, err := dir.Stat(".")
		_ = dir.Close()
		if err != nil || !os.SameFile(info, want) {
			t.Fatalf("what was entered is behind the link (error %v)", err)
		}
	}
	t.Logf("entered %d times", entered)
}

func TestLockFileOfSomebodyElseIsNotTaken(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a link":         func(p string) error { return os.Symlink(filepath.Base(p)+".target", p) },
		"a FIFO":         func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a directory":    func(p string) error { return os.Mkdir(p, 0o700) },
		"a second name":  func(p string) error { return os.Link(p+".target", p) },
		"another user's": func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o666), os.Chown(p, 65534, -1)) },
	} {
		if name == "another user's" && os.Geteuid() != 0 {
			continue // only root can give a file away
		}
		d, path := newDir(t)
		lockPath := filepath.Join(path, "lock")
		if err := errors.Join(os.WriteFile(lockPath+".target", nil, 0o600), plant(lockPath)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.NewLock("lock"); err == nil || !strings.HasPrefix(err.Error(), "the file "+lockPath+" ") || !strings.HasSuffix(err.Error(), ": remove it") {
			t.Errorf("%s: got the error %v", name, err)
		}
	}
}

func TestClosingADirectoryRemovesWhatOthersCouldHaveWritten(t *testing.T) {
	d, path := newDir(t)
	for _, name := range []string{"closed", "readable", "writable"} {
		if err := d.Replace(name, "temporary", []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Chmod(filepath.Join(path, "readable"), 0o640), os.Chmod(filepath.Join(path, "writable"), 0o660),
		os.Symlink("closed", filepath.Join(path, "link")), os.Mkdir(filepath.Join(path, "directory"), 0o700), os.Chmod(path, 0o770))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || err.Error() != "the directory "+path+" is open to other users: chmod 700 "+path {
		t.Errorf("Open: got the error %v", err)
	}
	_, err = Make(path, func(name string) bool { return name != "readable" })
	wantError(t, err, "the directory "+path+" is open to other users, and holds files of another use: take a new one below it")
	closed := makeDir(t, path)
	names, err := closed.names()
	if err != nil || len(names) != 1 {
		t.Errorf("there is %v, error %v, want only what was closed", names, err)
	}
	wantContent(t, closed, "closed", "closed")
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
}
