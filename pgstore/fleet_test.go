//go:build unix

package pgstore_test

import (
	"testing"

	"github.com/ampauth/ampauth/internal/fleet"
)

// TestFleet is the table of docs/fleets.md: 16 processes over a PostgreSQL.
func TestFleet(t *testing.T) {
	fleet.Run(t, fleet.Subject{
		NewEngine: func(t testing.TB) fleet.Engine { return newServer(t) },
		NewStore:  newStore(),
		Lease:     lease,
	})
}
