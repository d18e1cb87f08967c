//go:build !race

package ampauth_test

const raceEnabled = false
