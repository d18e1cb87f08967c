//go:build unix

package ampauth_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// Peers are other users who may write to what is above the directory of a store, or
// to the directory itself, where a volume is mounted for a group.

// TestPeerWhoPlantsThingsGetsNothingOfOurs makes the directory again and again, while
// a peer, who is not root where this test is, puts other things in the place of it,
// or of what is above it.
func TestPeerWhoPlantsThingsGetsNothingOfOurs(t *testing.T) {
	takesLong(t, 6)
	for _, test := range []struct{ plants, below string }{{"links", ""}, {"links", "below"}, {"FIFOs", ""}, {"directories", ""}} {
		t.Run(test.plants+" "+test.below, func(t *testing.T) {
			planted, k := filepath.Join(openDirectory(t), "tokens"), recordKey(t)
			s := &ampauth.FileStore{Dir: filepath.Join(planted, test.below)}
			// A link of the peer leads to a directory of ours, with a file of ours in it.
			lock := k.String() + ".lock"
			if err := errors.Join(os.Mkdir(planted+".victim", 0o755), os.WriteFile(filepath.Join(planted+".victim", lock), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			victim, err := os.OpenRoot(planted + ".victim")
			if err != nil {
				t.Fatal(err)
			}
			defer victim.Close()
			wantModes := map[string]fs.FileMode{".": fs.ModeDir | 0o755, lock: 0o644}
			for name, mode := range wantModes {
				if err := victim.Chmod(name, mode.Perm()); err != nil { // whatever the umask
					t.Fatal(err)
				}
			}
			defer startFileStoreChild(t, fileStoreChild(t, "plants "+test.plants, planted))()
			saved, refused := 0, 0
			for start := time.Now(); time.Since(start) < 1500*time.Millisecond || (saved == 0 || refused == 0) && time.Since(start) < time.Minute; {
				within(t, "Save", func() {
					if s.Save(t.Context(), k, canaryTokenValue()) == nil {
						saved++
					} else {
						refused++
					}
				})
				within(t, "Lock", func() {
					for range 50 { // which makes the directory, and does not wait for the disk
						if unlock, _, err := s.TryLock(t.Context(), k); err == nil && unlock != nil {
							unlock()
						}
					}
				})
				within(t, "Load", func() { _, _ = s.Load(t.Context(), k) })
				aside, _ := filepath.Glob(planted + ".aside*")
				for _, path := range aside {
					_ = os.RemoveAll(path)
				}
				for name, want := range wantModes {
					if info, err := victim.Lstat(name); err != nil || info.Mode() != want {
						t.Fatalf("after %d saves: %v, %v, want mode %v", saved, info, err, want)
					}
				}
				if entries, _ := fs.ReadDir(victim.FS(), "."); len(entries) != 1 {
					t.Fatalf("after %d saves there is something new where the link leads to: %v", saved, entries)
				}
			}
			t.Logf("%d saves, and %d refused", saved, refused)
			if saved == 0 || refused == 0 {
				t.Error("the peer met none, or all")
			}
		})
	}
}

// plant is what the peer does, until it is killed.
func plant(what, dir string, begun func()) {
	for i := 0; ; i++ {
		if os.Rename(dir, fmt.Sprint(dir, ".aside", i)) != nil && i > 0 {
			continue // until there is something to put aside
		}
		switch what {
		case "links":
			_ = os.Symlink([]string{dir, filepath.Base(dir)}[i%2]+".victim", dir)
			_ = os.Remove(dir)
		case "FIFOs":
			_ = syscall.Mkfifo(dir, 0o666)
			_ = os.Remove(dir)
		case "directories":
			_ = os.Rename(dir+".victim", dir)
			_ = os.Rename(dir, dir+".victim")
		}
		begun()
		time.Sleep(time.Duration(i%7) * 10 * time.Microsecond) // where it meets the other is what varies
	}
}

// mountForGroup does to a volume what a kubelet does for an fsGroup.
func mountForGroup(t *testing.T, volume string, gid int) {
	t.Helper()
	err := filepath.WalkDir(volume, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | 0o660
		if entry.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		return errors.Join(os.Lchown(path, -1, gid), os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTokenIsKeptAgainAfterAMountForAGroup(t *testing.T) {
	for _, test := range []struct {
		name  string
		plant func(path string) error // what a peer does meanwhile
	}{
		{"nobody meanwhile", func(string) error { return nil }},
		{"another token", func(p string) error { return os.WriteFile(p+"token", []byte("ampauth-token 1\n"), 0o660) }},
		{"a link for the lock", func(p string) error { return errors.Join(os.Remove(p+"lock"), os.Symlink("/dev/zero", p+"lock")) }},
		{"a FIFO for the lock", func(p string) error { return errors.Join(os.Remove(p+"lock"), syscall.Mkfifo(p+"lock", 0o660)) }},
		{"a second name of the lock", func(p string) error { return os.Link(p+"lock", p+"tmp") }},
		{"a directory for the write lock", func(p string) error {
			return errors.Join(os.Remove(p+"write"), os.MkdirAll(filepath.Join(p+"write", "x"), 0o700))
		}},
		{"a file of another user", func(p string) error { return os.Chown(p+"token", 65534, -1) }},
		{"a write lock of another user", func(p string) error { return os.Chown(p+"write", 65534, -1) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasSuffix(test.name, "of another user") && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			s, k := newFileStore(t), recordKey(t)
			unlock, err := s.Lock(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			unlock()
			saveCanary(t, s)
			mountForGroup(t, s.Dir, os.Getegid())
			if err := test.plant(strings.TrimSuffix(tokenPath(t, s), "token")); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(s.Dir)
			wantNoToken(t, s, "the directory DIR is open to other users: chmod 700 DIR")
			if info, err := os.Stat(s.Dir); err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o770 {
				t.Errorf("Load changed the directory: %v, %v", info, err)
			}
			if after, _ := os.ReadDir(s.Dir); len(after) != len(before) {
				t.Error("Load changed what is in the directory")
			}
			within(t, "Lock", func() {
				unlock, err := s.Lock(t.Context(), k)
				if err != nil {
					t.Fatal(err)
				}
				unlock()
			})
			wantNoToken(t, s, "") // what lay open is gone
			wantHealed(t, s)
			wantModes(t, s)
		})
	}
}

// The directory is open to a group between two starts.
func TestTokenThatLayOpenIsNotSentAndTheNextStartKeeps(t *testing.T) {
	fake, server, dir := startShared(t, asItIs)
	cfg := sharedConfig(server, &ampauth.FileStore{Dir: dir})
	start := func(logins int) {
		t.Helper()
		client := newTestClient(t, cfg)
		if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
			t.Errorf("status %d", status)
		}
		if replays := client.Stats().Replays; replays != 0 {
			t.Errorf("%d replays: what lay open was sent", replays)
		}
		wantLogins(t, fake, logins, 0)
	}
	start(1)
	mountForGroup(t, dir, os.Getegid())
	if err := os.WriteFile(filepath.Join(dir, tokenFile(t, dir)), encoded(t, recordKeyOf(t, server.URL+"/api", "issuer"), canaryTokenValue()), 0o660); err != nil {
		t.Fatal(err)
	}
	start(2)
	start(2)
}

func TestOpenDirectoryOfAnotherUseStaysOpen(t *testing.T) {
	for _, test := range []struct {
		name, reason string
		change       func(dir string) error
	}{
		{"another's file", "the directory DIR is open to other users, and holds files of another use: take a new one below it", func(d string) error {
			return errors.Join(os.Chmod(d, fs.ModeSetgid|0o770), os.WriteFile(filepath.Join(d, "report.txt"), nil, 0o600))
		}},
		{"a directory below it", "the directory DIR is open to other users, and holds files of another use: take a new one below it", func(d string) error {
			return errors.Join(os.Chmod(d, fs.ModeSetgid|0o770), os.Mkdir(filepath.Join(d, "lost+found"), 0o700))
		}},
		{"a name like a token's", "the directory DIR is open to other users, and holds files of another use: take a new one below it", func(d string) error {
			return errors.Join(os.Chmod(d, fs.ModeSetgid|0o770), os.WriteFile(filepath.Join(d, strings.Repeat("a", 32)+".token.bak"), nil, 0o600))
		}},
		{"for all", "the directory DIR is open to other users: chmod 700 DIR", func(d string) error { return os.Chmod(d, fs.ModeSetgid|0o777) }},
		{"for a group that reads", "the directory DIR is open to other users: chmod 700 DIR", func(d string) error { return os.Chmod(d, fs.ModeSetgid|0o750) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, k := newFileStore(t), recordKey(t)
			saveCanary(t, s)
			if err := test.change(s.Dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Stat(s.Dir)
			entries, _ := os.ReadDir(s.Dir)
			wantStoreError(t, s, s.Save(t.Context(), k, canaryTokenValue()), test.reason)
			after, err := os.Stat(s.Dir)
			if err != nil || after.Mode() != before.Mode() {
				t.Errorf("Save changed the mode: %v, %v", after, err)
			}
			if now, _ := os.ReadDir(s.Dir); len(now) != len(entries) {
				t.Error("Save changed what is in the directory")
			}
		})
	}
}

// The mount point belongs to root and to the group of the process.
func TestVolumeOfAGroupTakesADirectoryBelowIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory to a group")
	}
	volume := filepath.Join(openDirectory(t), "volume")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	mountForGroup(t, volume, 65534)
	runFileStoreChild(t, fileStoreChild(t, "volume", volume))
	mountForGroup(t, volume, 65534)
	runFileStoreChild(t, fileStoreChild(t, "volume", volume))
}

// saveInVolume is what the process in the group does, at each start.
func saveInVolume(t *testing.T, volume string) {
	dropRoot(t)
	k := recordKey(t)
	mountPoint, s := &ampauth.FileStore{Dir: volume}, &ampauth.FileStore{Dir: filepath.Join(volume, "tokens")}
	const reason = "the directory DIR belongs to root: take a new one below it"
	wantStoreError(t, mountPoint, mountPoint.Save(t.Context(), k, canaryTokenValue()), reason)
	wantNoToken(t, mountPoint, reason)
	if _, err := s.Load(t.Context(), k); !errors.Is(err, ampauth.ErrNoToken) {
		t.Errorf("Load: %v", err)
	}
	wantHealed(t, s)
	wantModes(t, s)
}

func TestParentNeedNotBeReadable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	dir := filepath.Join(openDirectory(t), "home", "tokens")
	home := filepath.Dir(dir)
	if err := errors.Join(os.Chmod(filepath.Dir(home), 0o755), os.MkdirAll(dir, 0o700), os.Chown(dir, 65534, 65534), os.Chmod(home, 0o711)); err != nil {
		t.Fatal(err)
	}
	runFileStoreChild(t, fileStoreChild(t, "unreadable parent", dir))
}
