// Package bench compares ampauth with the packages that do part of its job: what a
// request costs, what a refresh, a herd and an outage do, what a mutation costs, how
// often it happens, and when its caller cannot know.
//
//	go run ./cmd/compare          # all of it; writes RESULTS.md and plots/
//	go run ./cmd/compare -quick   # a look, in less than a minute
//
// Everything runs in one process (but for copies of the token, which are looked for in
// others), in rounds, every contestant once in each (but for what mostly waits, which
// all go through at once), so that what else the machine does falls on all alike; a
// ratio is formed within a round, and the median of the rounds is shown with the
// interval that holds it at 95 % confidence.
//
// Mutations that meet a server which closes idle connections need Linux and root, for a
// network device that makes the round trip; those through HAProxy need that program.
// Both are left out where there are none, and the report says so.
//
// How each contestant is put together is in peers.go and ampauth.go.
package bench
