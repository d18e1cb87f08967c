package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// openPath opens the directory at path, which is clean, and with build makes what is missing of it.
//
// The path is followed by name only as far as nobody else can change what the names
// lead to. From there on each step is through the handle of the step before, and no
// link is followed.
func openPath(path string, build bool) (*os.Root, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path of the directory is not absolute")
	}
	start, left, err := followTrusted(path)
	if err != nil && !(build && errors.Is(err, fs.ErrNotExist)) {
		return nil, directory(path).failed("cannot be opened", err)
	}
	dir, err := os.OpenRoot(start)
	if err != nil {
		return nil, directory(path).failed("cannot be opened", err)
	}
	at := start
	for i, name := range left {
		at = filepath.Join(at, name)
		below, err := enter(dir, at)
		if build && errors.Is(err, fs.ErrNotExist) {
			below, err = create(dir, at)
		}
		_ = dir.Close()
		if err == errNoDirectory && i < len(left)-1 {
			err = fmt.Errorf("above the directory, %s is a link that other users can change, or no directory: name a path without it", Shown(at))
		} else if err == errNoDirectory {
			err = fmt.Errorf("%v is a link or no directory: name the directory itself", directory(at))
		}
		if err != nil {
			return nil, err
		}
		dir = below
	}
	return dir, nil
}

var errNoDirectory = errors.New("the directory is a link or no directory")

// enter opens the directory at path in its parent. It follows no link and never waits for
// the other end of a FIFO.
func enter(parent *os.Root, path string) (*os.Root, error) {
	name, self := filepath.Base(path), directory(path)
	named, err := parent.Lstat(name)
	if err != nil {
		return nil, self.failed("cannot be opened", err)
	}
	if !named.IsDir() {
		return nil, errNoDirectory
	}
	dir, err := parent.OpenRoot(name + "/.") // which a FIFO cannot be
	if err != nil {
		return nil, self.failed("cannot be opened", err)
	}
	info, err := dir.Stat(".")
	switch {
	case err != nil:
		err = self.failed("cannot be read", err)
	case !os.SameFile(named, info): // a link that leads to it
		err = fmt.Errorf("%v was replaced", self)
	default:
		return dir, nil
	}
	_ = dir.Close()
	return nil, err
}

// create makes the directory at path in its parent, with mode 0700 whatever the umask.
func create(parent *os.Root, path string) (*os.Root, error) {
	name, self := filepath.Base(path), directory(path)
	switch err := parent.Mkdir(name, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return enter(parent, path) // somebody else has just made it
	case err != nil:
		return nil, self.failed("cannot be made", err)
	}
	dir, err := enter(parent, path)
	if errors.Is(err, fs.ErrPermission) { // the umask keeps its owner out
		if err := unmask(parent, name); err != nil {
			return nil, self.failed("cannot be made", err)
		}
		dir, err = enter(parent, path)
	}
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat(".")
	if err == nil {
		err = distrust(self, info) // or it is not the one just made
	}
	if err == nil && info.Mode() != fs.ModeDir|0o700 {
		err = setMode(dir)
	}
	if err != nil {
		_ = dir.Close()
		return nil, self.failed("cannot be made", err)
	}
	return dir, nil
}
