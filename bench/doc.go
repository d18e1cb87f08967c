// Package bench compares ampauth with the packages that do part of its job: what a
// request costs, what a refresh, a herd and an outage do, and how often a mutation
// happens.
//
//	go run ./cmd/compare          # all of it; writes RESULTS.md and plots/
//	go run ./cmd/compare -quick   # a look, in about half a minute
//
// Everything runs in one process, in rounds, every contestant once in each (but for
// the outage, which all go through at once), so that what else the machine does falls
// on all alike; a ratio is formed within a round,
// and the median of the rounds is shown with the interval that holds it at 95 %
// confidence.
//
// How each contestant is put together is in peers.go and ampauth.go.
package bench
