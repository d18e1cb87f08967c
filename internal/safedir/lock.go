package safedir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// At most one holder has a Lock, in this process or another. It is free when its
// holder dies. A Lock is taken once, and is over when that fails.
type Lock struct{ file lockFile }

// NewLock returns the lock of a name, not taken. Its file stays when the lock is
// free: two could otherwise have it, one the old file and one the new.
func (d *Dir) NewLock(name string) (*Lock, error) {
	f, err := d.createFile(name)
	if errors.Is(err, fs.ErrExist) {
		var info fs.FileInfo
		f, info, err = d.openFile(name, os.O_RDWR)
		if err == nil {
			err = notOurs(d.file(name), info) // its mode may be any: nothing is read from it
		}
	} else if err != nil {
		err = entry{"the lock file", d.file(name).path}.failed("cannot be made", err)
	}
	if err != nil {
		_ = f.Close() // may be nil
		return nil, err
	}
	return &Lock{lockOn(f)}, nil
}

// Take waits for the lock until ctx ends, and looks again after each pause.
func (l *Lock) Take(ctx context.Context, pause time.Duration) error {
	for {
		if err := ctx.Err(); err != nil {
			l.Free()
			return err
		}
		if ok, err := l.file.try(); ok || err != nil {
			return l.over(ok, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// Try does not wait: ok is false if somebody else has the lock.
func (l *Lock) Try() (ok bool, err error) {
	ok, err = l.file.try()
	return ok, l.over(ok, err)
}

func (l *Lock) over(ok bool, err error) error {
	if !ok {
		l.Free()
	}
	return cause(err)
}

// Free unlocks the lock. It may be called more than once, from any goroutine.
func (l *Lock) Free() { l.file.free() }
