// Package refused tells that nothing listens where a connection was tried.
package refused

import (
	"errors"
	"syscall"
)

// Is reports whether err is that a connection was refused. What Windows says is not
// syscall.ECONNREFUSED, which stands there for what other systems say.
func Is(err error) bool {
	const connRefused = syscall.Errno(10061) // WSAECONNREFUSED
	return errors.Is(err, connRefused) || errors.Is(err, syscall.ECONNREFUSED)
}
