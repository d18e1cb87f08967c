package safedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read returns the content of a file that only this user can have written, and only
// this user can read. It follows no link and never waits for the other end of a
// FIFO. A file larger than limit is an error. The error Is fs.ErrNotExist if there
// is no file.
func (d *Dir) Read(name string, limit int) ([]byte, error) {
	f, info, err := d.openFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := distrust(d.file(name), info); err != nil {
		return nil, err
	}
	content := make([]byte, limit+1)
	n, err := io.ReadFull(f, content)
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		return content[:n], nil
	case nil:
		err = fmt.Errorf("%v is too large: remove it", d.file(name))
	default:
		err = d.file(name).failed("cannot be read", err)
	}
	clear(content)
	return nil, err
}

// Replace gives a file a new content in one step, through a temporary file, and it
// is on the disk when Replace returns. What else has the name is replaced, too. No
// two may do so at once with one temporary file.
func (d *Dir) Replace(name, temporary string, content []byte) error {
	f, err := d.createFile(temporary)
	if errors.Is(err, fs.ErrExist) { // of a writer that died, as there is no other now
		_ = d.root.RemoveAll(temporary)
		f, err = d.createFile(temporary)
	}
	if err != nil {
		return entry{"the temporary file", d.file(temporary).path}.failed("cannot be made", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		if info, statErr := d.root.Lstat(name); statErr == nil && info.IsDir() {
			_ = d.root.RemoveAll(name) // which no rename replaces
		}
		err = d.root.Rename(temporary, name)
	}
	if err != nil {
		_ = d.root.Remove(temporary)
		return d.file(name).failed("cannot be written", err)
	}
	if self, err := d.root.Open("."); err == nil {
		_ = self.Sync() // the new name, too, should survive a power cut; not every system can do this
		_ = self.Close()
	}
	return nil
}

// Remove removes a file.
func (d *Dir) Remove(name string) error {
	if err := d.root.Remove(name); err != nil {
		return d.file(name).failed("cannot be removed", err)
	}
	return nil
}

// createFile makes a new file with mode 0600, whatever the umask. It follows no link.
func (d *Dir) createFile(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// openFile opens a regular file, and says whose it is. It follows no link and never
// waits for the other end of a FIFO.
func (d *Dir) openFile(name string, flag int) (*os.File, fs.FileInfo, error) {
	for range 100 {
		named, err := d.root.Lstat(name)
		if err != nil {
			return nil, nil, d.file(name).failed("cannot be read", err)
		}
		if !named.Mode().IsRegular() {
			return nil, nil, fmt.Errorf("%v is a link or no regular file: remove it", d.file(name))
		}
		f, err := d.root.OpenFile(name, flag|safeOpen, 0)
		if err != nil {
			return nil, nil, d.file(name).failed("cannot be read", err)
		}
		info, err := f.Stat()
		if err == nil && os.SameFile(named, info) {
			return f, info, nil
		}
		_ = f.Close() // it has just been replaced: look again
	}
	return nil, nil, fmt.Errorf("%v changes all the time", d.file(name))
}

// cause returns an error without the paths that package os puts before it.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}
