// Package faultscript reads scripts of faults, such as
//
//	10s kill-node 2; 20s stop redis 5s; 30s drain 3; 40s partition 1|2,3
//
// A step is a moment, counted from the first message, a verb, what it is about, and how long the
// fault lasts. docs/loadtest.md lists the verbs. [Parse] is a pure function.
package faultscript

import (
	"fmt"
	"strings"
	"time"
)

// A Verb is what a step does.
type Verb string

// The verbs. Undrain and heal are not among them: they say how long a drain or a partition lasts.
const (
	Kill      Verb = "kill"      // SIGKILL, and a new start at the end of the fault
	Stop      Verb = "stop"      // SIGSTOP until the end of the fault
	Restart   Verb = "restart"   // SIGTERM, which drains, and a new start at once
	Drain     Verb = "drain"     // a node asks its clients to leave, until the end of the fault
	Partition Verb = "partition" // sides do not hear each other until the end of the fault
	Upgrade   Verb = "upgrade"   // restart of each node, one after the other
)

// A Step is one fault.
type Step struct {
	At     time.Duration // since the first message
	Verb   Verb
	Target string        // of kill, stop, restart and drain: redis, zookeeper, or n1, n2, …
	Sides  [][]string    // of partition: at least two, with such names
	For    time.Duration // how long it lasts; 0 for restart and upgrade
	Text   string        // as the user wrote it, without the moment

	pos   int
	given bool // the user has said how long
}

// Ends reports whether the fault has an end of its own that the script brings about.
func (s *Step) Ends() bool { return s.For > 0 }

// End returns when the fault ends, or its moment if it has no end of its own.
func (s *Step) End() time.Duration { return s.At + s.For }

// Target names of the servers.
const (
	redis     = "redis"
	zooKeeper = "zookeeper"
)

// usually is how long a fault lasts if nothing says otherwise.
const usually = 5 * time.Second

// A SyntaxError says what is wrong with a script, and where.
type SyntaxError struct {
	Pos  int // of the first character of what is wrong, from 1 on
	What string
}

// Error names the position.
func (e *SyntaxError) Error() string { return fmt.Sprintf("character %d: %s", e.Pos, e.What) }

// Parse reads the script of a cluster with this number of nodes. Its errors are *SyntaxError.
func Parse(text string, nodes int) ([]Step, error) {
	p := &parser{nodes: nodes}
	pos := 1
	for part := range strings.SplitSeq(strings.ReplaceAll(text, "\n", ";"), ";") {
		if words := fields(part, pos); len(words) > 0 {
			if err := p.step(words); err != nil {
				return nil, err
			}
		}
		pos += len([]rune(part)) + 1
	}
	if len(p.steps) == 0 {
		return nil, &SyntaxError{1, "there is no step, want such as 10s kill-node 2"}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.steps, nil
}
