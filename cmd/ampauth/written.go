package main

import (
	"fmt"
	"io"
	"sync"
)

// A written passes on what a command writes to stdout, and remembers the first error: a
// command that went well has not if nobody could have its answer.
type written struct {
	io.Writer
	mu  sync.Mutex // guards err
	err error
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err == nil {
			w.err = err
		}
	}
	return n, err
}

// code returns the exit code of a command that ended with that one.
func (w *written) code(code int, stderr io.Writer) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if code != exitOK || w.err == nil {
		return code
	}
	fmt.Fprintln(stderr, "ampauth: not all was written:", w.err)
	return exitError
}
