//go:build !linux

package safedir

import (
	"errors"
	"os"
)

// unmask cannot do here what it does on Linux: a change of mode by name could go to
// something else that has just got the name.
func unmask(*os.Root, string) error {
	return errors.New("the umask takes it from its owner")
}
