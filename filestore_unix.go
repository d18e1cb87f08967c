//go:build unix

package ampauth

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// safeOpen keeps an open from following a link and from waiting for the other end
// of a FIFO.
const safeOpen = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// distrust returns why a file or directory may hold what somebody else put there,
// or may be read by somebody else; nil if it is of this user alone.
func distrust(what string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int64(stat.Uid) != int64(os.Geteuid()):
		return errors.New(what + " belongs to another user")
	case info.Mode().Perm()&0o077 != 0:
		return errors.New(what + " is open to other users")
	case !info.IsDir() && stat.Nlink > 1: // it is 0 when a Save has just replaced it
		return errors.New(what + " has a second name")
	}
	return nil
}
