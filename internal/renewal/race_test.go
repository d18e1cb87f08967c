//go:build race

package renewal

const raceEnabled = true
