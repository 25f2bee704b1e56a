package directory

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// When the registry has lost its data, the node writes all its bindings again as fast as the
// registry takes them. It keeps few of them under way at a time, so that requests of clients wait
// for only a few milliseconds. If the registry does not answer, the node retries until it does.

const (
	// recoverBatch is how many bindings are on the way at a time.
	recoverBatch = 4000
	// recoverRetry is the longest pause before bindings that could not be written are retried.
	recoverRetry = time.Second
)

// recover writes all bindings again after each loss, until ctx ends.
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

// reassertAll writes all bindings again. It returns early if there is another loss, because then
// all of them must be written once more.
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

// reassertNow writes bindings again, each in its lane, and waits for that. It returns those that
// could not be written.
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
