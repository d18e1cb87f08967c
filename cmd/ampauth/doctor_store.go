package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ampauth/ampauth"
)

// examineStore writes a token of its own into the store, under a key of its own, and
// removes all that it made.
func examineStore(ctx context.Context, cfg ampauth.Config) finding {
	store, ok := cfg.Store.(*ampauth.FileStore)
	if !ok {
		return finding{
			State: findingNotTried, Seen: []string{"tokens are not kept: each run logs in"},
			Do: []string{"set AMP_TOKEN_DIR to keep them"},
		}
	}
	key, err := ampauth.NewStoreKey(cfg.BaseURL, "ampauth doctor "+rand.Text()) // nobody's
	if err != nil {
		return failing(detail(err), "look at AMP_API_BASE_URL")
	}
	// A Save may mend a directory, and remove what lay open: not behind anybody's back.
	if _, err := store.Load(ctx, key); err != ampauth.ErrNoToken {
		return storeFailed(err)
	}
	missing := missingFrom(store.Dir)
	defer func() {
		for _, suffix := range []string{".token", ".tmp", ".lock", ".write"} {
			_ = os.Remove(filepath.Join(store.Dir, key.String()+suffix))
		}
		for _, dir := range missing { // unless somebody has put something there
			_ = os.Remove(dir)
		}
	}()
	if err := tryStore(ctx, store, key); err != nil {
		return storeFailed(err)
	}
	f := finding{State: findingOK, Seen: []string{
		printable(store.Dir) + ": " + modeOf(store.Dir),
		"a token of this check was locked, written, read and removed",
	}}
	if len(missing) > 0 {
		f.Seen[0] = printable(store.Dir) + ": the first login makes it"
	}
	s := statusOf(ctx, cfg)
	switch account, err := ampauth.NewStoreKey(cfg.BaseURL, cfg.Credentials.Username); {
	case s.Refusal != "" && err == nil && isOpen(filepath.Join(store.Dir, account.String()+".token")):
		f.State = findingWarning
		f.Seen = append(f.Seen, "the stored token is not used")
		f.Do = []string{s.Refusal + ", and let AMP replace the token: others may have read it"}
	case s.Refusal != "":
		f.Seen = append(f.Seen, "the stored token is not used: "+s.Refusal)
	case s.Usable:
		f.Seen = append(f.Seen, fmt.Sprintf("the account's token is there, %v old", time.Duration(s.AgeSeconds)*time.Second))
	default:
		f.Seen = append(f.Seen, "the account has no token there yet")
	}
	return f
}

func storeFailed(err error) finding {
	if e, ok := errors.AsType[*ampauth.Error](err); ok && e.Err != nil {
		err = e.Err
	}
	text := strings.TrimPrefix(err.Error(), ampauth.ErrNoToken.Error()+": ") // paths in it are quoted as a shell takes them
	return failing(strings.TrimPrefix(text, "ampauth: "), "do what that says; until then each run logs in, and nothing else is lost")
}

var (
	errNotLocked = errors.New("a lock was given to two at once: locks do not work on this file system, so take a directory on a local one")
	errNotKept   = errors.New("what was written is not what was read")
	errNotGone   = errors.New("a token that was removed is still there")
)

// tryStore makes each call of a store once.
func tryStore(ctx context.Context, store *ampauth.FileStore, key ampauth.StoreKey) error {
	unlock, err := store.Lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	second, ok, err := store.TryLock(ctx, key)
	switch {
	case err != nil:
		return err
	case ok:
		second()
		return errNotLocked
	}
	token := ampauth.Token{Value: ampauth.SecretFromString("doctor-" + rand.Text()), ObtainedAt: time.Now()}
	defer token.Value.Destroy()
	if err := store.Save(ctx, key, token); err != nil {
		return err
	}
	loaded, err := store.Load(ctx, key)
	if err != nil {
		return err
	}
	defer loaded.Value.Destroy()
	if !loaded.Value.Equal(token.Value) {
		return errNotKept
	}
	if err := store.DeleteIf(ctx, key, token.Value); err != nil {
		return err
	}
	if left, err := store.Load(ctx, key); !errors.Is(err, ampauth.ErrNoToken) {
		left.Value.Destroy()
		return errors.Join(errNotGone, err)
	}
	return nil
}

// missingFrom returns the directories of a path that do not exist, the deepest first.
func missingFrom(path string) (missing []string) {
	for dir := filepath.Clean(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	return missing
}

// modeOf tells mode and owner of a directory.
func modeOf(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return "cannot be looked at"
	}
	return fmt.Sprintf("mode %04o%s", info.Mode().Perm(), ownerOf(info))
}

// isOpen reports whether other users can get at a file.
func isOpen(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}
