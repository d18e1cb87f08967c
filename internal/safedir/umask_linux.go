package safedir

import (
	"os"
	"strconv"
	"syscall"
)

// unmask gives this user the rights to a directory that the umask has taken. Without
// them it cannot be opened to read, but as a place it can, and what has the name
// later is not touched.
func unmask(parent *os.Root, name string) error {
	const asPlace = 0x200000 // O_PATH, which package syscall does not have
	f, err := parent.OpenFile(name, asPlace|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = distrust(directory(name), info)
	}
	if err != nil {
		return err
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), 0o700)
}
