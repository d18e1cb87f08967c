package ampauth

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// A FileStore keeps each token in a file of its own, for processes of one user on
// one machine. It is a [TokenStore] and a [Locker], used as a literal:
//
//	cfg.Store = &ampauth.FileStore{Dir: "/var/lib/issuer/amp-tokens"}
//
// Save replaces a token in one step, and it is on the disk when Save returns. A
// process that dies meanwhile, or a full disk, leaves the old one.
//
// Load trusts what it finds only if the directory and the file belong to the user
// of this process and are closed to all others, if neither is a link and the file
// has no second name: with a token that somebody else planted, this process would
// act for them. Anything else is a miss, and the next Save puts a good file in its
// place; into a directory that cannot be trusted it writes nothing.
//
// On Windows, and wherever else files have no Unix owner and mode, those are not
// checked: choose a directory below the user's profile, whose access list protects
// it. On a network file system the locks may not hold between machines.
//
// It is safe for concurrent use, in one process and between processes, also by
// several FileStores of one directory.
type FileStore struct {
	// Dir is the directory of the files, an absolute path. Required. Save and Lock
	// make it, with mode 0700, and what is missing above it. It must be the store's
	// own: take a new one below the mount point of a volume, not the mount point.
	Dir string

	// Sealer encrypts the tokens. If nil, they are in clear, in files of mode 0600.
	Sealer Sealer
}

const (
	// loginPoll is how often somebody who waits for a login looks again; a login
	// takes a second or so.
	loginPoll = 20 * time.Millisecond
	// writePoll is the same for a write, which takes a few milliseconds.
	writePoll = 2 * time.Millisecond
)

// Load implements [TokenStore]. All its errors but that of an ended context are
// misses, and say what is wrong with the file or the directory.
func (s *FileStore) Load(ctx context.Context, k StoreKey) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, storeFault(err)
	}
	dir, err := s.open()
	if err != nil {
		return Token{}, missOf(err)
	}
	defer dir.Close()
	return s.loadFile(dir, k)
}

// Save implements [TokenStore]. It fails, with the old token in place, if the
// directory cannot be trusted or the token cannot be written.
func (s *FileStore) Save(ctx context.Context, k StoreKey, t Token) error {
	content, err := s.encode(k, t)
	if err != nil {
		return err
	}
	defer clear(content)
	if len(content) > maxRecord {
		return storeFault(errors.New("the sealed token is larger than 16 KiB"))
	}
	dir, err := s.openOrMake()
	if err != nil {
		return storeFault(err)
	}
	defer dir.Close()
	return storeFault(write(ctx, dir, k, func() error {
		return replaceFile(dir, tokenName(k), k.String()+".tmp", content)
	}))
}

// DeleteIf implements [TokenStore]. A file that is a miss for Load stays.
func (s *FileStore) DeleteIf(ctx context.Context, k StoreKey, rejected Secret) error {
	dir, err := s.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return storeFault(err)
	}
	defer dir.Close()
	return storeFault(write(ctx, dir, k, func() error {
		t, err := s.loadFile(dir, k)
		if err != nil || !t.Value.Equal(rejected) {
			return nil
		}
		return failed("the file cannot be removed", dir.Remove(tokenName(k)))
	}))
}

// Lock implements [Locker] with a file of its own, which stays when it is
// unlocked. Other methods do not wait for it.
func (s *FileStore) Lock(ctx context.Context, k StoreKey) (unlock func(), err error) {
	lock, err := s.loginLock(k)
	if err != nil {
		return nil, storeFault(err)
	}
	if _, err := lock.TryLockContext(ctx, loginPoll); err != nil {
		return nil, storeFault(failed("the lock cannot be taken", err))
	}
	return func() { _ = lock.Unlock() }, nil
}

// TryLock implements [Locker].
func (s *FileStore) TryLock(ctx context.Context, k StoreKey) (unlock func(), ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, storeFault(err)
	}
	lock, err := s.loginLock(k)
	if err != nil {
		return nil, false, storeFault(err)
	}
	ok, err = lock.TryLock()
	switch {
	case err != nil:
		return nil, false, storeFault(failed("the lock cannot be taken", err))
	case !ok:
		return nil, false, nil
	}
	return func() { _ = lock.Unlock() }, true, nil
}

func tokenName(k StoreKey) string { return k.String() + ".token" }

// loginLock returns the lock of [Locker], not locked.
func (s *FileStore) loginLock(k StoreKey) (*flock.Flock, error) {
	dir, err := s.openOrMake()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return lockIn(dir, k.String()+".lock")
}

// write calls change with the write lock of the key, so that no two writers of any
// process share the temporary file, or one removes what another has just saved. It
// is not the lock of [Locker], whose holder saves.
func write(ctx context.Context, dir *os.Root, k StoreKey, change func() error) error {
	lock, err := lockIn(dir, k.String()+".write")
	if err != nil {
		return err
	}
	if _, err := lock.TryLockContext(ctx, writePoll); err != nil {
		return failed("the write lock cannot be taken", err)
	}
	defer lock.Unlock()
	return change()
}

// lockIn returns a lock on a file in dir. The file is never removed: two could then
// hold the lock, one on the old file and one on the new.
func lockIn(dir *os.Root, name string) (*flock.Flock, error) {
	switch f, err := createFile(dir, name); {
	case err == nil:
		_ = f.Close()
	case !errors.Is(err, fs.ErrExist):
		return nil, failed("the lock file cannot be made", err)
	}
	return flock.New(filepath.Join(dir.Name(), name), flock.SetFlag(os.O_RDWR|safeOpen)), nil
}

// open opens the directory, if it can be trusted. It is judged by the open handle,
// so that nobody can put another in its place after that.
func (s *FileStore) open() (*os.Root, error) {
	if !filepath.IsAbs(s.Dir) {
		return nil, errors.New("the path of the directory is not absolute")
	}
	path := filepath.Clean(s.Dir) // with a final slash, the link itself would not be seen
	named, err := os.Lstat(path)
	if err != nil {
		return nil, failed("the directory cannot be opened", err)
	}
	if !named.IsDir() {
		return nil, errors.New("the directory is a link or no directory")
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, failed("the directory cannot be opened", err)
	}
	info, err := dir.Stat(".")
	switch {
	case err != nil:
		err = failed("the directory cannot be read", err)
	case !os.SameFile(named, info):
		err = errors.New("the directory was replaced")
	default:
		err = distrust("the directory", info)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// openOrMake opens the directory, and makes it first if it is missing.
func (s *FileStore) openOrMake() (*os.Root, error) {
	dir, err := s.open()
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := makeDirs(filepath.Clean(s.Dir)); err != nil {
		return nil, failed("the directory cannot be made", err)
	}
	return s.open()
}

// makeDirs makes a directory and what is missing above it, with mode 0700 whatever
// the umask, which os.MkdirAll does not do.
func makeDirs(path string) error {
	err := os.Mkdir(path, 0o700)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeDirs(parent); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil // what it is, open finds out
	case err != nil:
		return err
	}
	return os.Chmod(path, 0o700)
}
