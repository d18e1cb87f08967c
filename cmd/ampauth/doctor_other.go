//go:build !unix

package main

import "io/fs"

// ownerOf is empty: files have no Unix owner here.
func ownerOf(fs.FileInfo) string { return "" }
