// Package result is what a load test found, and nothing about how it found it. A [Report] is made
// by package loadtest, written as JSON, and read again by every command that compares, judges or
// draws.
//
// All times are [Seconds], in Go and in JSON. docs/loadtest.md lists the fields.
//
// The package does no I/O. A Report is plain data: it belongs to whoever holds it.
package result

import (
	"strconv"
	"time"
)

// Schema names the form of the JSON. It changes when a field changes its meaning or its unit.
const Schema = "distmsg-loadtest/1"

// Seconds is a length of time. In JSON it is a number of seconds.
type Seconds float64

// Of converts a duration.
func Of(d time.Duration) Seconds { return Seconds(d.Seconds()) }

// PerMessage divides the CPU time d by the messages that completed meanwhile. It returns nil if
// there was none.
func PerMessage(d time.Duration, messages uint64) *Seconds {
	if messages == 0 {
		return nil
	}
	return new(Seconds(d.Seconds() / float64(messages)))
}

// Duration converts back, to whole nanoseconds.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s)*1e9 + 0.5) }

// String formats the time in the unit that suits it, with three digits, such as "1.23ms".
func (s Seconds) String() string {
	v, unit := float64(s), "s"
	switch {
	case v == 0:
		return "0s"
	case v < 1e-6:
		v, unit = v*1e9, "ns"
	case v < 1e-3:
		v, unit = v*1e6, "µs"
	case v < 1:
		v, unit = v*1e3, "ms"
	case v >= 100:
		return s.Duration().Round(time.Second).String()
	}
	digits := 2
	switch {
	case v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + unit
}
