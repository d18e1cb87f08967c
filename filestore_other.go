//go:build !unix

package ampauth

import "io/fs"

// safeOpen has no bits: os.Root does not follow links here, and there are no FIFOs.
const safeOpen = 0

// distrust finds no fault: owner and mode mean nothing here.
func distrust(string, fs.FileInfo) error { return nil }
