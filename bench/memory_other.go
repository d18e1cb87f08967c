//go:build !linux

package bench

import "errors"

func memoryOf(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
