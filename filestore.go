package ampauth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/safedir"
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
// Each call opens the directory once, and does the rest through the open handle. What
// is above the directory may be anybody's, as a volume often is. The path is followed
// by name, and through links, only as far as sshd would trust it: where nobody but
// root and this user can change the next name. From there on no link is followed, and
// every directory must be readable. Others who may write above the directory can put
// it aside, or put an older one of this user's in its place; that costs a login.
//
// A kubelet that mounts a volume for an fsGroup opens the directory and the files to
// the group. If there is nothing in it but files of a FileStore, the next Save or
// Lock closes it and removes what was open, so that one start logs in and the later
// ones do not. With the fsGroupChangePolicy OnRootMismatch, not every mount does this.
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
	dir, err := safedir.Open(s.Dir)
	if err != nil {
		return Token{}, missOf(err)
	}
	defer dir.Close()
	return s.loadFile(dir, k)
}

// Save implements [TokenStore]. It fails, with the old token in place, if the
// directory cannot be trusted or the token cannot be written.
func (s *FileStore) Save(ctx context.Context, k StoreKey, t Token) error {
	content, err := SealToken(k, t, s.Sealer)
	if err != nil {
		return err
	}
	defer clear(content)
	dir, err := safedir.Make(s.Dir, isStoreFile)
	if err != nil {
		return storeFault(err)
	}
	defer dir.Close()
	return storeFault(write(ctx, dir, k, func() error {
		return dir.Replace(k.String()+tokenFile, k.String()+temporaryFile, content)
	}))
}

// DeleteIf implements [TokenStore]. A file that is a miss for Load stays.
func (s *FileStore) DeleteIf(ctx context.Context, k StoreKey, rejected Secret) error {
	dir, err := safedir.Open(s.Dir)
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
		return dir.Remove(k.String() + tokenFile)
	}))
}

// Lock implements [Locker] with a file of its own, which stays when it is
// unlocked. Other methods do not wait for it.
func (s *FileStore) Lock(ctx context.Context, k StoreKey) (unlock func(), err error) {
	lock, err := s.loginLock(k)
	if err != nil {
		return nil, storeFault(err)
	}
	if err := lock.Take(ctx, loginPoll); err != nil {
		return nil, storeFault(fmt.Errorf("the lock cannot be taken: %w", err))
	}
	return lock.Free, nil
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
	ok, err = lock.Try()
	switch {
	case err != nil:
		return nil, false, storeFault(fmt.Errorf("the lock cannot be taken: %w", err))
	case !ok:
		return nil, false, nil
	}
	return lock.Free, true, nil
}

// The files of a key are named by it, with one of these at the end.
const (
	tokenFile     = ".token"
	temporaryFile = ".tmp"   // of a token that is being written
	loginLockFile = ".lock"  // of Locker
	writeLockFile = ".write" // of write
)

// isStoreFile reports whether a name in the directory is one that a FileStore gives.
func isStoreFile(name string) bool {
	key, _, _ := strings.Cut(name, ".")
	_, err := hex.DecodeString(key)
	if err != nil || len(key) != len(StoreKey{}.String()) {
		return false
	}
	switch name[len(key):] {
	case tokenFile, temporaryFile, loginLockFile, writeLockFile:
		return true
	}
	return false
}

// loginLock returns the lock of [Locker], not locked.
func (s *FileStore) loginLock(k StoreKey) (*safedir.Lock, error) {
	dir, err := safedir.Make(s.Dir, isStoreFile)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.NewLock(k.String() + loginLockFile)
}

// write calls change with the write lock of the key, so that no two writers of any
// process share the temporary file, or one removes what another has just saved. It
// is not the lock of [Locker], whose holder saves.
func write(ctx context.Context, dir *safedir.Dir, k StoreKey, change func() error) error {
	lock, err := dir.NewLock(k.String() + writeLockFile)
	if err != nil {
		return err
	}
	if err := lock.Take(ctx, writePoll); err != nil {
		return fmt.Errorf("the write lock cannot be taken: %w", err)
	}
	defer lock.Free()
	return change()
}

// loadFile returns the token in a file, or a miss.
func (s *FileStore) loadFile(dir *safedir.Dir, k StoreKey) (Token, error) {
	content, err := dir.Read(k.String()+tokenFile, maxRecord)
	if err != nil {
		return Token{}, missOf(err)
	}
	defer clear(content)
	return OpenToken(k, content, s.Sealer)
}

// missOf returns the miss for a fault of the directory or the file.
func missOf(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoToken
	}
	return miss(err.Error())
}
