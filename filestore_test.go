package ampauth_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

func TestFileStoreKeepsATokenForTheNextProcess(t *testing.T) {
	s := newFileStore(t)
	s.Dir = filepath.Join(s.Dir, "below", "what", "is", "missing")
	wantNoToken(t, s, "")
	if _, err := os.Lstat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Load made the directory")
	}
	saveCanary(t, s)
	wantCanary(t, &ampauth.FileStore{Dir: s.Dir})
	wantNoLeftovers(t, s)
	if err := s.DeleteIf(t.Context(), recordKey(t), ampauth.SecretFromString(canaryToken)); err != nil {
		t.Fatal(err)
	}
	wantNoToken(t, s, "")
}

func TestFileStoreNeedsAnAbsoluteDirectory(t *testing.T) {
	for _, dir := range []string{"", "tokens", "./tokens", "../tokens"} {
		s := &ampauth.FileStore{Dir: dir}
		wantNoToken(t, s, "the path of the directory is not absolute")
		const want = "ampauth: token store: the path of the directory is not absolute"
		_, lockErr := s.Lock(t.Context(), recordKey(t))
		_, _, tryErr := s.TryLock(t.Context(), recordKey(t))
		for what, err := range map[string]error{
			"Save": s.Save(t.Context(), recordKey(t), canaryTokenValue()), "Lock": lockErr, "TryLock": tryErr,
			"DeleteIf": s.DeleteIf(t.Context(), recordKey(t), ampauth.Secret{}),
		} {
			if err == nil || err.Error() != want {
				t.Errorf("%s in %q: got %v, want %s", what, dir, err, want)
			}
		}
	}
}

func TestFileThatIsNoRecordIsAMissUntilTheNextSave(t *testing.T) {
	k := recordKey(t)
	good := encoded(t, k, canaryTokenValue())
	for _, test := range []struct{ name, content, reason string }{
		{"empty", "", "the record is malformed"},
		{"cut", string(good[:len(good)-1]), "the record is malformed"},
		{"cut within the version", string(good[:15]), "the record is of another version"},
		{"random", "\xf3\x8a\x00\x1c\xff", "the record is malformed"},
		{"JSON", `{"token":"` + canaryToken + `"}`, "the record is malformed"},
		{"16 KiB", strings.Repeat("a", 16<<10), "the record is malformed"},
		{"16 KiB and a byte", strings.Repeat("a", 16<<10+1), "the file DIR/KEY.token is too large: remove it"},
		{"10 MiB", strings.Repeat(string(good), 10<<20/len(good)), "the file DIR/KEY.token is too large: remove it"},
		{"byte order mark", "\ufeff" + string(good), "the record is malformed"},
		{"of another account", string(encoded(t, recordKeyOf(t, "https://amp.test/api", "another"), canaryTokenValue())), "the record is of another account or server"},
		{"of another server", string(encoded(t, recordKeyOf(t, "https://live.test/api", canaryUser), canaryTokenValue())), "the record is of another account or server"},
		{"ended", string(encoded(t, k, ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ExpiresAt: time.Now().Add(-time.Hour)})), "the token has ended"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newFileStore(t)
			saveCanary(t, s)
			if err := os.WriteFile(tokenPath(t, s), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			wantNoToken(t, s, test.reason)
			if err := s.DeleteIf(t.Context(), k, ampauth.SecretFromString(canaryToken)); err != nil {
				t.Errorf("DeleteIf: %v", err)
			}
			wantHealed(t, s)
		})
	}
}

func TestReaderBesideAThousandSavesSeesEachTimeOneToken(t *testing.T) {
	takesLong(t, 2)
	s, k := newFileStore(t), recordKey(t)
	saveCanary(t, s)
	tokens := []ampauth.Token{canaryTokenValue(), {Value: ampauth.SecretFromString(strings.Repeat("long", 1000))}}
	saved := make(chan error, 1)
	var saver sync.WaitGroup
	defer saver.Wait()
	saver.Go(func() {
		for i := range 1000 {
			if err := s.Save(context.Background(), k, tokens[i%2]); err != nil {
				saved <- err
				return
			}
		}
		saved <- nil
	})
	for {
		select {
		case err := <-saved:
			if err != nil {
				t.Errorf("Save: %v", err)
			}
			return
		default:
		}
		token, err := s.Load(t.Context(), k)
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		if !token.Value.Equal(tokens[0].Value) && !token.Value.Equal(tokens[1].Value) {
			t.Fatal("Load returned another token")
		}
	}
}

func TestDirectoryInPlaceOfTheFileIsReplaced(t *testing.T) {
	for _, suffix := range []string{".token", ".tmp"} {
		s := newFileStore(t)
		saveCanary(t, s)
		inTheWay := strings.TrimSuffix(tokenPath(t, s), ".token") + suffix
		_ = os.Remove(inTheWay)
		if err := os.MkdirAll(filepath.Join(inTheWay, "not", "empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		if suffix == ".token" {
			wantNoToken(t, s, "the file DIR/KEY.token is a link or no regular file: remove it")
		}
		wantHealed(t, s)
	}
}

func TestTemporaryFileOfADeadWriterIsRemoved(t *testing.T) {
	s := newFileStore(t)
	saveCanary(t, s)
	temporary := strings.TrimSuffix(tokenPath(t, s), ".token") + ".tmp"
	for name, plant := range map[string]func() error{
		"a part":         func() error { return os.WriteFile(temporary, []byte("ampauth-tok"), 0o600) },
		"read-only":      func() error { return os.WriteFile(temporary, nil, 0o400) },
		"a directory":    func() error { return os.Mkdir(temporary, 0o700) },
		"a link":         func() error { return os.Symlink(tokenPath(t, s), temporary) },
		"a link outside": func() error { return os.Symlink(filepath.Join(t.TempDir(), "x"), temporary) },
	} {
		if err := plant(); err != nil {
			t.Skipf("%s: %v", name, err) // links on Windows
		}
		wantHealed(t, s)
	}
}

func TestDirectoryThatIsDeletedIsMadeAgain(t *testing.T) {
	s, k := newFileStore(t), recordKey(t)
	saveCanary(t, s)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	wantNoToken(t, s, "")
	if err := s.DeleteIf(t.Context(), k, ampauth.SecretFromString(canaryToken)); err != nil {
		t.Errorf("DeleteIf: %v", err)
	}
	wantHealed(t, s)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestEndedContextIsTheErrorsCause(t *testing.T) {
	s, k := newFileStore(t), recordKey(t)
	saveCanary(t, s)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Load(ended, k)
	wantStoreError(t, s, err, "context canceled")
	_, _, err = s.TryLock(ended, k)
	wantStoreError(t, s, err, "context canceled")
	_, err = s.Lock(ended, k)
	wantStoreError(t, s, err, "the lock cannot be taken: context canceled")
	err = s.Save(ended, k, canaryTokenValue())
	wantStoreError(t, s, err, "the write lock cannot be taken: context canceled")
	if !errors.Is(err, context.Canceled) {
		t.Error("the error is not the context's")
	}
	wantCanary(t, s)
}

func TestLockFileStays(t *testing.T) {
	s, k := newFileStore(t), recordKey(t)
	path := strings.TrimSuffix(tokenPath(t, s), ".token") + ".lock"
	var first fs.FileInfo
	for range 3 {
		unlock, err := s.Lock(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		saveCanary(t, s)
		unlock()
		if err := s.DeleteIf(t.Context(), k, ampauth.SecretFromString(canaryToken)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = info
		}
		if !os.SameFile(first, info) {
			t.Fatal("it is another file: two could hold the lock")
		}
	}
}
