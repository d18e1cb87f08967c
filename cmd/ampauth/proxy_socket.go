package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// listenUnix listens on a Unix socket that nobody but this user could ever connect to. It
// is made in a directory that only this user can enter, closed to others, and put in its
// place then. remove takes it away again.
func listenUnix(path string) (l net.Listener, remove func(), err error) {
	if err := noSocketAt(path); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".amp")
	if err != nil {
		return nil, nil, fmt.Errorf("the socket cannot be made: %w", err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err = net.Listen("unix", made)
	if err != nil {
		if len(made) > 100 {
			err = errors.New("its path is too long: systems take about 100 bytes")
		}
		return nil, nil, fmt.Errorf("the socket cannot be made: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	var placed fs.FileInfo
	if err == nil {
		placed, err = os.Lstat(path)
	}
	if err != nil {
		_ = l.Close()
		return nil, nil, fmt.Errorf("the socket cannot be made: %w", err)
	}
	return l, func() {
		if info, err := os.Lstat(path); err == nil && os.SameFile(info, placed) {
			_ = os.Remove(path)
		}
	}, nil
}

// noSocketAt returns an error unless there is nothing at path, or a socket that nobody
// listens on any more.
func noSocketAt(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the socket cannot be made: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something at the path of -unix that is no socket: remove it, or take another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("somebody may listen on the socket of -unix already: take another path, or remove it")
	}
	return nil
}
