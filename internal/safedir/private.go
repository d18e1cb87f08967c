package safedir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ReadPrivate returns the content of the file at path, which is absolute, that only this
// user can read and nobody else can have put there. Other than a [Dir], its directory may
// be one that others look into. What it says against the file can be mended without a loss
// of its content. It follows no link below what others can change, and none to the file,
// and never waits for the other end of a FIFO. The error Is fs.ErrNotExist if there is no
// file, or no directory.
func ReadPrivate(path string, limit int) ([]byte, error) {
	path = filepath.Clean(path)
	root, err := openPath(filepath.Dir(path), false)
	if err != nil {
		return nil, err
	}
	d := &Dir{root, filepath.Dir(path)}
	defer d.Close()
	dir, err := root.Stat(".")
	if err != nil {
		return nil, directory(d.path).failed("cannot be read", err)
	}
	if err := changeable(directory(d.path), dir); err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	self := d.file(name)
	if named, err := root.Lstat(name); err == nil && !named.Mode().IsRegular() {
		return nil, fmt.Errorf("%v is a link or no regular file: put the file itself there", self)
	}
	f, info, err := d.openFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := exposed(self, info); err != nil {
		return nil, err
	}
	content := make([]byte, limit+1)
	n, err := io.ReadFull(f, content)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return content[:n], nil
	case err == nil:
		err = fmt.Errorf("%v is larger than %d KiB", self, limit>>10)
	default:
		err = self.failed("cannot be read", err)
	}
	clear(content)
	return nil, err
}
