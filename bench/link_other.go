//go:build !linux

package bench

import (
	"errors"
	"io"
)

func openTUN() (io.ReadWriteCloser, string, error) { return nil, "", errors.ErrUnsupported }
