package directory

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// When the registry has lost its data, the node writes all its bindings again, as fast as the
// registry takes them. It has few of them on the way at a time, so that what clients ask meanwhile
// waits for a few milliseconds. If the registry does not answer, the node tries again until it
// does.

const (
	// recoverBatch is how many bindings are on the way at a time.
	recoverBatch = 4000
	// recoverRetry is the longest pause until bindings that could not be said are said again.
	recoverRetry = time.Second
)

// recover says all bindings again after each loss, until ctx ends.
func (u *upkeep) recover(ctx context.Context, lost <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-lost:
			u.reassertAll(ctx, lost)
		}
	}
}

// reassertAll says all bindings again. It returns early if there is another loss: then all of them
// are to be said once more.
func (u *upkeep) reassertAll(ctx context.Context, lost <-chan struct{}) {
	next, stop := iter.Pull2(u.dir.table.All())
	defer stop()
	for more := true; more; {
		var some []binding
		some, more = takeSome(next, recoverBatch)
		for pause := recoverRetry / 16; ; pause = min(2*pause, recoverRetry) {
			if some = u.reassertNow(some); len(some) == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if len(lost) > 0 {
				return
			}
		}
		if ctx.Err() != nil || len(lost) > 0 {
			return
		}
	}
}

// reassertNow says bindings again, each in its lane, and waits for that. It returns those that
// could not be said.
func (u *upkeep) reassertNow(some []binding) (unsaid []binding) {
	var underway sync.WaitGroup
	lanes := u.byLane(some)
	for i, mine := range lanes {
		underway.Add(1)
		if !u.dir.lanes.must(i, func() {
			lanes[i] = u.reassert(mine)
			underway.Done()
		}) {
			lanes[i] = nil // the engine stops
			underway.Done()
		}
	}
	underway.Wait()
	return slices.Concat(lanes[:]...)
}
