//go:build race

package routing

// RaceEnabled: the race detector is on, and everything takes ten times as long.
const RaceEnabled = true
