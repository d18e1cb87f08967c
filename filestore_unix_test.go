//go:build unix

package ampauth_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ampauth/ampauth"
)

func TestFilesAreForTheUserAlone(t *testing.T) {
	s, k := newFileStore(t), recordKey(t)
	s.Dir = filepath.Join(s.Dir, "below")
	unlock, err := s.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	saveCanary(t, s)
	wantModes(t, s)
	wantModes(t, &ampauth.FileStore{Dir: filepath.Dir(s.Dir)})
}

func TestFileThatOthersCanReachIsAMissUntilTheNextSave(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(path string) error
		reason string
	}{
		{"readable by all", func(p string) error { return os.Chmod(p, 0o644) }, "the file DIR/KEY.token is open to other users: remove it"},
		{"writable by all", func(p string) error { return os.Chmod(p, 0o666) }, "the file DIR/KEY.token is open to other users: remove it"},
		{"readable by the group", func(p string) error { return os.Chmod(p, 0o640) }, "the file DIR/KEY.token is open to other users: remove it"},
		{"executable by all", func(p string) error { return os.Chmod(p, 0o601) }, "the file DIR/KEY.token is open to other users: remove it"},
		{"set-group-ID, for the user alone", func(p string) error { return os.Chmod(p, fs.ModeSetgid|0o600) }, ""},
		{"read-only", func(p string) error { return os.Chmod(p, 0o400) }, ""},
		{"a second name", func(p string) error { return os.Link(p, p+".second") }, "the file DIR/KEY.token has a second name: remove it"},
		{"a second name elsewhere", func(p string) error { return os.Link(p, filepath.Dir(p)+".second") }, "the file DIR/KEY.token has a second name: remove it"},
		{"of another user", func(p string) error { return os.Chown(p, 65534, -1) }, "the file DIR/KEY.token belongs to another user: remove it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "of another user" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			s := newFileStore(t)
			saveCanary(t, s)
			if err := test.change(tokenPath(t, s)); err != nil {
				t.Fatal(err)
			}
			if test.reason == "" {
				wantCanary(t, s)
				return
			}
			wantNoToken(t, s, test.reason)
			saveCanary(t, s)
			wantCanary(t, s)
			if info, err := os.Lstat(tokenPath(t, s)); err != nil || info.Mode() != 0o600 {
				t.Errorf("after the next Save: %v, %v", info, err)
			}
		})
	}
}

func TestWhatIsNoRegularFileIsAMissAndNeitherWaitedForNorFollowed(t *testing.T) {
	const elsewhere = "somebody's file"
	for _, test := range []struct {
		name  string
		plant func(path, outside string) error
	}{
		{"a link to a file outside", func(p, outside string) error { return os.Symlink(outside, p) }},
		{"a link to a file beside it", func(p, _ string) error {
			if err := os.Rename(p, p+".moved"); err != nil {
				return err
			}
			return os.Symlink(filepath.Base(p)+".moved", p)
		}},
		{"a link to nothing", func(p, outside string) error { return os.Symlink(outside+".none", p) }},
		{"a link to itself", func(p, _ string) error { return os.Symlink(filepath.Base(p), p) }},
		{"a FIFO", func(p, _ string) error { return syscall.Mkfifo(p, 0o600) }},
		{"a link to a device", func(p, _ string) error { return os.Symlink("/dev/zero", p) }},
	} {
		for _, what := range []string{"token", "tmp", "lock", "write"} {
			t.Run(test.name+" in place of the "+what, func(t *testing.T) {
				s, k := newFileStore(t), recordKey(t)
				saveCanary(t, s)
				outside := filepath.Join(t.TempDir(), "outside")
				if err := os.WriteFile(outside, []byte(elsewhere), 0o600); err != nil {
					t.Fatal(err)
				}
				path := strings.TrimSuffix(tokenPath(t, s), "token") + what
				if what != "token" { // the link beside it needs something to move
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if !strings.HasSuffix(test.name, "beside it") {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
				if err := test.plant(path, outside); err != nil {
					t.Fatal(err)
				}
				// Whether a FIFO can be locked is up to the system.
				refused := func(call string, inPlace bool, err error) {
					if link := strings.Contains(test.name, "link"); (err != nil) != inPlace && (link || !inPlace) {
						t.Errorf("%s: error %v, want one: %t", call, err, inPlace)
					}
				}
				within(t, "Load", func() {
					if what == "token" {
						wantNoToken(t, s, "the file DIR/KEY.token is a link or no regular file: remove it")
					} else {
						wantCanary(t, s)
					}
				})
				within(t, "Lock", func() {
					unlock, _, err := s.TryLock(t.Context(), k)
					if err == nil {
						unlock()
					}
					refused("TryLock", what == "lock", err)
				})
				within(t, "Save", func() {
					refused("Save", what == "write", s.Save(t.Context(), k, canaryTokenValue()))
				})
				wantCanary(t, s)
				if content, err := os.ReadFile(outside); err != nil || string(content) != elsewhere {
					t.Error("the file outside was written")
				}
				if _, err := os.Lstat(outside + ".none"); err == nil {
					t.Error("a file outside was made")
				}
			})
		}
	}
}

func TestDirectoryInPlaceOfTheFileIsAMiss(t *testing.T) {
	s := newFileStore(t)
	if err := errors.Join(os.Mkdir(s.Dir, 0o700), os.Mkdir(tokenPath(t, s), 0o700)); err != nil {
		t.Fatal(err)
	}
	within(t, "Load", func() { wantNoToken(t, s, "the file DIR/KEY.token is a link or no regular file: remove it") })
}

func TestDirectoryThatCannotBeTrustedIsNeitherReadNorWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(dir string) error
		reason string
	}{
		{"open to all", func(d string) error { return os.Chmod(d, 0o777) }, "the directory DIR is open to other users: chmod 700 DIR"},
		{"sticky and open to all", func(d string) error { return os.Chmod(d, fs.ModeSticky|0o777) }, "the directory DIR is open to other users: take a new one below it"},
		{"readable by the group", func(d string) error { return os.Chmod(d, 0o750) }, "the directory DIR is open to other users: chmod 700 DIR"},
		{"of another user", func(d string) error { return os.Chown(d, 65534, -1) }, "the directory DIR belongs to another user: chown it to the user of this process, or take another"},
		{"a link", func(d string) error {
			return errors.Join(os.Rename(d, d+".moved"), os.Symlink(d+".moved", d))
		}, "the directory DIR is a link or no directory: name the directory itself"},
		{"a link to nothing", func(d string) error { return errors.Join(os.RemoveAll(d), os.Symlink(d+".none", d)) }, "the directory DIR is a link or no directory: name the directory itself"},
		{"a file", func(d string) error { return errors.Join(os.RemoveAll(d), os.WriteFile(d, nil, 0o600)) }, "the directory DIR is a link or no directory: name the directory itself"},
		{"a FIFO", func(d string) error { return errors.Join(os.RemoveAll(d), syscall.Mkfifo(d, 0o600)) }, "the directory DIR is a link or no directory: name the directory itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "of another user" && os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			plain, k := newFileStore(t), recordKey(t)
			saveCanary(t, plain)
			if err := test.change(plain.Dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(plain.Dir)
			for _, s := range []*ampauth.FileStore{plain, {Dir: plain.Dir + "/"}, {Dir: plain.Dir + "/."}} {
				within(t, "Load", func() {
					_, err := s.Load(t.Context(), k)
					wantMiss(t, err, placed(t, plain, test.reason))
				})
				within(t, "Save", func() { wantStoreError(t, plain, s.Save(t.Context(), k, canaryTokenValue()), test.reason) })
				wantStoreError(t, plain, s.DeleteIf(t.Context(), k, ampauth.SecretFromString(canaryToken)), test.reason)
				_, err := s.Lock(t.Context(), k)
				wantStoreError(t, plain, err, test.reason)
			}
			if after, _ := os.ReadDir(plain.Dir); len(after) != len(before) {
				t.Error("something was written")
			}
			if _, err := os.Lstat(plain.Dir + ".none"); err == nil {
				t.Error("the target of the link was made")
			}
		})
	}
}

func TestDirectoryBelowAFileCannotBeMade(t *testing.T) {
	s := newFileStore(t)
	if err := os.WriteFile(s.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Dir = filepath.Join(s.Dir, "below")
	wantNoToken(t, s, "the directory DIR cannot be opened: not a directory")
	wantStoreError(t, s, s.Save(t.Context(), recordKey(t), canaryTokenValue()), "the directory DIR cannot be opened: not a directory")
}
