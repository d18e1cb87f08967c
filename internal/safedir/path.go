package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// openPath opens the directory at path, and with build makes what is missing of it.
//
// The path is followed by name only as far as nobody else can change what the names
// lead to. From there on each step is through the handle of the step before, and no
// link is followed.
func openPath(path string, build bool) (*os.Root, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path of the directory is not absolute")
	}
	start, left, err := followTrusted(filepath.Clean(path))
	if err != nil && !(build && errors.Is(err, fs.ErrNotExist)) {
		return nil, failed("the directory cannot be opened", err)
	}
	dir, err := os.OpenRoot(start)
	if err != nil {
		return nil, failed("the directory cannot be opened", err)
	}
	for i, name := range left {
		below, err := enter(dir, name)
		if build && errors.Is(err, fs.ErrNotExist) {
			below, err = create(dir, name)
		}
		_ = dir.Close()
		if err == errNoDirectory && i < len(left)-1 {
			err = errors.New("above the directory is a link that other users can change, or no directory")
		}
		if err != nil {
			return nil, err
		}
		dir = below
	}
	return dir, nil
}

var errNoDirectory = errors.New("the directory is a link or no directory")

// enter opens a directory in another one. It follows no link and never waits for the
// other end of a FIFO.
func enter(parent *os.Root, name string) (*os.Root, error) {
	named, err := parent.Lstat(name)
	if err != nil {
		return nil, failed("the directory cannot be opened", err)
	}
	if !named.IsDir() {
		return nil, errNoDirectory
	}
	dir, err := parent.OpenRoot(name + "/.") // which a FIFO cannot be
	if err != nil {
		return nil, failed("the directory cannot be opened", err)
	}
	info, err := dir.Stat(".")
	switch {
	case err != nil:
		err = failed("the directory cannot be read", err)
	case !os.SameFile(named, info): // a link that leads to it
		err = errors.New("the directory was replaced")
	default:
		return dir, nil
	}
	_ = dir.Close()
	return nil, err
}

// create makes a directory in another one, with mode 0700 whatever the umask.
func create(parent *os.Root, name string) (*os.Root, error) {
	switch err := parent.Mkdir(name, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return enter(parent, name) // somebody else has just made it
	case err != nil:
		return nil, failed("the directory cannot be made", err)
	}
	dir, err := enter(parent, name)
	if errors.Is(err, fs.ErrPermission) { // the umask keeps its owner out
		if err := unmask(parent, name); err != nil {
			return nil, failed("the directory cannot be made", err)
		}
		dir, err = enter(parent, name)
	}
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat(".")
	if err == nil {
		err = distrust("the directory", info) // or it is not the one just made
	}
	if err == nil && info.Mode() != fs.ModeDir|0o700 {
		err = setMode(dir)
	}
	if err != nil {
		_ = dir.Close()
		return nil, failed("the directory cannot be made", err)
	}
	return dir, nil
}
