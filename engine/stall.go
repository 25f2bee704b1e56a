package engine

import (
	"fmt"
	"time"

	"distmsg/engine/internal/directory"
)

const (
	// stallAfter is for how long an event loop may not have run before health says so: each is
	// woken every 10 ms.
	stallAfter = time.Second
	// laneStallAfter is the same for one job of a lane, which may wait for the registry more than
	// once.
	laneStallAfter = 4 * directory.RegistryTimeout
)

// loopSilence returns which event loop has not run for the longest time, and for how long. It does
// not ask the loops, and takes no lock.
func (e *Engine) loopSilence() (silence time.Duration, which int) {
	now := e.clock()
	for i, l := range e.loops {
		if s := now - time.Duration(l.seen.Load()); s > silence {
			silence, which = s, i
		}
	}
	return silence, which
}

// LoopSilence returns for how long the slowest event loop has not run, usually 10 ms or less. It is
// 0 before the node is ready, and after it has ended. It does not ask the loops and takes no lock,
// so unlike Stats it suits a watchdog.
func (e *Engine) LoopSilence() time.Duration {
	select {
	case <-e.ready:
	default:
		return 0 // e.loops may not be there yet
	}
	if e.ctx.Err() != nil {
		return 0
	}
	silence, _ := e.loopSilence()
	return silence
}

// stalls returns a line if an event loop is stalled, and one if a lane is.
func (e *Engine) stalls() (troubles []string) {
	select {
	case <-e.ready:
	default:
		return nil // e.loops may not be there yet
	}
	if silence, which := e.loopSilence(); silence > stallAfter && e.ctx.Err() == nil {
		troubles = append(troubles, fmt.Sprintf("event loop %d of %d has not run for %v, and its connections are stalled: "+
			"look for a hook that blocks, or a machine without a free CPU", which, len(e.loops), silence.Round(time.Second)))
	}
	if busy := e.dir.Busy(); busy > laneStallAfter {
		troubles = append(troubles, fmt.Sprintf("a lane has been busy with one job for %v, and binds and unbinds of some IDs wait: "+
			"look for a hook that blocks", busy.Round(time.Second)))
	}
	return troubles
}
