//go:build unix

package pgstore_test

import (
	"flag"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fleet"
)

var (
	duration = flag.Duration("for", 5*time.Second, "how long TestFleetAtRandom runs")
	seed     = flag.Uint64("seed", 0, "what TestFleetAtRandom does; 0 is anything")
)

var subject = fleet.Subject{
	NewEngine: func(t testing.TB) fleet.Engine { return newServer(t) },
	NewStore:  newStore(),
	Lease:     lease,
}

// TestFleet is the table of docs/fleets.md: 16 processes over a PostgreSQL. With
// -run 'TestFleet$' -parallel 1 its times are those of nothing else.
func TestFleet(t *testing.T) {
	t.Parallel()
	fleet.Run(t, subject)
}

// TestFleetAtRandom kills, stops and restarts the processes and the server at random:
//
//	go -C pgstore test -v -run Fleet -for 10m -timeout 20m .
func TestFleetAtRandom(t *testing.T) {
	t.Parallel()
	fleet.Random(t, subject, *duration, *seed)
}
