package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ampauth/ampauth"
)

// storeFaults hears what is wrong with the token store. A run goes on without it, but each
// one then logs in anew, and nobody would know why.
type storeFaults chan error

// maxStoreFaults is more than the calls of a store that one run makes.
const maxStoreFaults = 64

func newStoreFaults() storeFaults { return make(storeFaults, maxStoreFaults) }

// hear is an OnEvent.
func (f storeFaults) hear(_ context.Context, e ampauth.Event) {
	if e.Name != ampauth.EventStore {
		return
	}
	select {
	case f <- e.Err:
	default:
	}
}

// print tells each fault once. Some may be on their way yet: they come after the login whose
// they are.
func (f storeFaults) print(counted uint64, stderr io.Writer) {
	told := make(map[string]bool)
	giveUp := time.After(time.Second)
	for range min(counted, maxStoreFaults) {
		select {
		case err := <-f:
			if text := err.Error(); !told[text] {
				told[text] = true
				fmt.Fprintln(stderr, text)
			}
		case <-giveUp:
			return
		}
	}
}
