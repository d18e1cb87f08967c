//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"syscall"
)

// ownerOf names the owner of a file or directory.
func ownerOf(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf(", owner %d", stat.Uid)
}
