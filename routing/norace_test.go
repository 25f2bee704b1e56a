//go:build !race

package routing

const RaceEnabled = false
