//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package safedir

import (
	"os"
	"sync"
	"syscall"
)

// A lockFile is the open file of a lock. The library that is used elsewhere opens a
// file by its path, where others may have put another directory meanwhile.
type lockFile struct {
	*os.File
	free func()
}

func lockOn(f *os.File) lockFile {
	return lockFile{f, sync.OnceFunc(func() {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // also where a child that is just started has it
		_ = f.Close()
	})}
}

func (f lockFile) try() (bool, error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
		case syscall.EINTR:
		case syscall.EWOULDBLOCK:
			return false, nil
		default:
			return err == nil, err
		}
	}
}
