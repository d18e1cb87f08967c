// Package safedir keeps files that only their owner can have written.
//
// They are in a directory that belongs to the user of this process and is closed to
// all others. It is opened once and judged by its handle; everything after that goes
// through the handle, so that nobody who may rename the directory, or put a link in
// its place, leads this process to another one.
//
// Errors say what is wrong with the directory or a file, where that is, and what to do
// about it.
package safedir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Dir is such a directory, open. It is safe for concurrent use.
type Dir struct {
	root *os.Root
	path string // as it was opened, for errors
}

// Open opens the directory at path, which is absolute. It changes nothing. The error
// Is fs.ErrNotExist if there is none.
func Open(path string) (*Dir, error) {
	path = filepath.Clean(path)
	root, err := openPath(path, false)
	if err != nil {
		return nil, err
	}
	d := &Dir{root, path}
	if _, err := d.judge(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Make opens the directory at path, and makes it with mode 0700 if it is missing,
// and what is missing above it.
//
// If the directory has mode 0770, belongs to this user, and isOurs is true for the
// names of all that is in it, it is closed, and whatever in it is open to others or
// theirs is removed. Mode 0700 becomes 0770 when a kubelet mounts a volume for a
// group.
func Make(path string, isOurs func(name string) bool) (*Dir, error) {
	path = filepath.Clean(path)
	root, err := openPath(path, true)
	if err != nil {
		return nil, err
	}
	d := &Dir{root, path}
	info, err := d.judge()
	if err != nil && info != nil && notOurs(directory(path), info) == nil && info.Mode().Perm() == 0o770 {
		err = d.closeToOthers(isOurs)
	}
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Close closes the handle. Files and locks that are open stay so.
func (d *Dir) Close() error { return d.root.Close() }

func (d *Dir) file(name string) entry { return entry{"the file", filepath.Join(d.path, name)} }

// judge says what is wrong with the directory. The info is nil if it is not known.
func (d *Dir) judge() (fs.FileInfo, error) {
	info, err := d.root.Stat(".")
	if err != nil {
		return nil, directory(d.path).failed("cannot be read", err)
	}
	return info, distrust(directory(d.path), info)
}

// closeToOthers closes the directory to others, and removes what they could have put
// there or written. That may be the file of a lock which somebody has: for this once,
// two can have it.
func (d *Dir) closeToOthers(isOurs func(name string) bool) error {
	names, err := d.names()
	if err != nil {
		return directory(d.path).failed("cannot be read", err)
	}
	for _, name := range names {
		if !isOurs(name) { // it has another use, which this would end
			return fmt.Errorf("%v is open to other users, and holds files of another use: take a new one below it", directory(d.path))
		}
	}
	if err := setMode(d.root); err != nil {
		return directory(d.path).failed("is open to other users, and cannot be closed", err)
	}
	if names, err = d.names(); err != nil {
		return directory(d.path).failed("cannot be read", err)
	}
	for _, name := range names { // nobody else can add to them now
		info, err := d.root.Lstat(name)
		if err == nil && isOurs(name) && (!info.Mode().IsRegular() || distrust(d.file(name), info) != nil) {
			_ = d.root.RemoveAll(name)
		}
	}
	_, err = d.judge() // not every file system has modes that can be changed
	return err
}

func (d *Dir) names() ([]string, error) {
	self, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	return self.Readdirnames(-1)
}

// setMode gives a directory the mode 0700, through its handle.
func setMode(dir *os.Root) error {
	self, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer self.Close()
	return self.Chmod(0o700)
}
