//go:build !race

package renewal

const raceEnabled = false
