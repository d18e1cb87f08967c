//go:build unix

package safedir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many links a path may lead through, as on Linux.
const maxLinks = 40

// followTrusted follows a clean, absolute path as far as only root and this user can
// change what it leads to, also through links. It returns the directory there, whose
// path has no link in it, and the names below it that are left.
//
// The last name is not followed if it is a link. The error Is fs.ErrNotExist if
// the first name that is left does not exist.
func followTrusted(path string) (dir string, left []string, err error) {
	dir, left = "/", namesIn(path)
	links := 0
	for len(left) > 0 {
		name, below := left[0], left[1:]
		if name == "." {
			left = below
			continue
		}
		if name == ".." { // in a link; dir has none in it
			dir, left = filepath.Dir(dir), below
			continue
		}
		parent, err := os.Lstat(dir)
		if err != nil {
			return "", nil, err
		}
		next := filepath.Join(dir, name)
		entry, err := os.Lstat(next)
		switch {
		case err != nil:
			return dir, left, err
		case !onlyOursToChange(parent, entry):
			return dir, left, nil
		case entry.IsDir():
			dir, left = next, below
		case len(below) == 0: // it is for enter to refuse
			return dir, left, nil
		case entry.Mode().Type() != fs.ModeSymlink:
			return "", nil, syscall.ENOTDIR
		default:
			target, err := os.Readlink(next)
			if links++; err == nil && links > maxLinks {
				err = syscall.ELOOP
			}
			if err != nil {
				return "", nil, err
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			left = append(namesIn(target), below...)
		}
	}
	return dir, nil, nil
}

func namesIn(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// onlyOursToChange reports whether only root and this user can put another thing in
// the place of an entry of a directory. sshd asks the same of what is above a file of
// keys; that the sticky bit of /tmp is enough is from gpg.
func onlyOursToChange(dir, entry fs.FileInfo) bool {
	if !ownedBy(dir, 0, os.Geteuid()) {
		return false
	}
	return dir.Mode().Perm()&0o022 == 0 || dir.Mode()&fs.ModeSticky != 0 && ownedBy(entry, 0, os.Geteuid())
}

func ownedBy(info fs.FileInfo, users ...int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	for _, user := range users {
		if int64(stat.Uid) == int64(user) {
			return true
		}
	}
	return false
}

// safeOpen keeps an open from following a link and from waiting for the other end
// of a FIFO.
const safeOpen = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// distrust returns why a file or directory may hold what somebody else put there,
// or may be read by somebody else; nil if it is of this user alone.
func distrust(what entry, info fs.FileInfo) error {
	if err := notOurs(what, info); err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		switch {
		case info.IsDir() && info.Mode()&fs.ModeSticky != 0: // it is meant to be, as /tmp
			return fmt.Errorf("%v is open to other users: take a new one below it", what)
		case info.IsDir():
			return fmt.Errorf("%v is open to other users: chmod 700 %s", what, Shown(what.path))
		}
		return fmt.Errorf("%v is open to other users: remove it", what)
	}
	return nil
}

// notOurs returns why a file or directory may be somebody else's, whatever its mode.
func notOurs(what entry, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	ours := ok && int64(stat.Uid) == int64(os.Geteuid())
	switch {
	case ok && info.IsDir() && stat.Uid == 0 && os.Geteuid() != 0 && info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%v belongs to root: take a new one below it", what)
	case !ours && info.IsDir():
		return fmt.Errorf("%v belongs to another user: chown it to the user of this process, or take another", what)
	case !ours:
		return fmt.Errorf("%v belongs to another user: remove it", what)
	case !info.IsDir() && stat.Nlink > 1: // it is 0 when it has just been replaced
		return fmt.Errorf("%v has a second name: remove it", what)
	}
	return nil
}

// exposed returns why others may read or write a file, and what mends it.
func exposed(what entry, info fs.FileInfo) error {
	switch {
	case !ownedBy(info, os.Geteuid()):
		return fmt.Errorf("%v belongs to another user: chown it to the user of this process", what)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%v is open to other users: chmod 600 %s", what, Shown(what.path))
	}
	return nil
}

// changeable returns why others may put a file of theirs into a directory, and what mends it.
func changeable(what entry, info fs.FileInfo) error {
	switch {
	case !ownedBy(info, 0, os.Geteuid()):
		return fmt.Errorf("%v belongs to another user: chown it to the user of this process", what)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%v can be changed by other users: chmod go-w %s", what, Shown(what.path))
	}
	return nil
}
