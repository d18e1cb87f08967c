//go:build !windows && !plan9

// Package refused tells that nothing listens where a connection was tried.
package refused

import (
	"errors"
	"syscall"
)

// Is reports whether err is that a connection was refused.
func Is(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
