//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package safedir

import (
	"os"

	"github.com/gofrs/flock"
)

// A lockFile is the file of a lock, by its path: the library takes no open file.
type lockFile struct{ *flock.Flock }

func lockOn(f *os.File) lockFile {
	defer f.Close()
	return lockFile{flock.New(f.Name(), flock.SetFlag(os.O_RDWR|safeOpen))}
}

func (f lockFile) try() (bool, error) { return f.TryLock() }
func (f lockFile) free()              { _ = f.Unlock() }
