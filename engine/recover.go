package engine

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"distmsg/routing"
)

// When the registry has lost its data, the node writes all its bindings again, as fast as the
// registry takes them. It has few of them on the way at a time, so that what clients ask meanwhile
// waits for a few milliseconds. If the registry does not answer, the node tries again until it does.

const (
	// recoverBatch is how many bindings are on the way at a time.
	recoverBatch = 4000
	// recoverRetry is the longest pause until bindings that could not be said are said again.
	recoverRetry = time.Second
)

// recover says all bindings again after each loss, until ctx ends.
func (e *Engine) recover(ctx context.Context, lost <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-lost:
			e.reassertAll(ctx, lost)
		}
	}
}

// reassertAll says all bindings again. It returns early if there is another loss: then all of them
// are to be said once more.
func (e *Engine) reassertAll(ctx context.Context, lost <-chan struct{}) {
	next, stop := iter.Pull2(e.table.All())
	defer stop()
	for more := true; more; {
		var some []binding
		some, more = takeSome(next, recoverBatch)
		for pause := recoverRetry / 16; ; pause = min(2*pause, recoverRetry) {
			if some = e.reassertNow(some); len(some) == 0 {
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

// reassertNow says bindings again, each in its lane, and waits for that. It returns those that could
// not be said.
func (e *Engine) reassertNow(some []binding) (unsaid []binding) {
	var underway sync.WaitGroup
	lanes := e.byLane(some)
	for i, mine := range lanes {
		underway.Add(1)
		if !e.lanes.must(i, func() {
			lanes[i] = e.reassert(mine)
			underway.Done()
		}) {
			lanes[i] = nil // the engine stops
			underway.Done()
		}
	}
	underway.Wait()
	return slices.Concat(lanes[:]...)
}

// verifyPresences asks the registry where some of the sessions are that are attached here, and has
// what is missing written again. It comes to each of them within the resume window, which is sooner
// than the registry's sweep takes a session for one that is nowhere.
func (e *Engine) verifyPresences(ctx context.Context) {
	if e.ownRegistry { // it has lost nothing
		return
	}
	ps := &e.presences
	if len(ps.unverified) == 0 {
		ps.unverified = e.attachedHere()
		ps.perRun = int(int64(len(ps.unverified))*int64(verifyEvery)/int64(max(verifyEvery, e.cfg.ResumeWindow))) + 1
	}
	n := min(ps.perRun, len(ps.unverified))
	now := ps.unverified[:n]
	ps.unverified = ps.unverified[n:]
	for some := range slices.Chunk(now, verifyBatch) {
		if ctx.Err() != nil || !e.verifySome(some) {
			return // it is away: the next pass comes
		}
	}
}

// attachedHere are the entries that the registry should have.
func (e *Engine) attachedHere() (all []*presence) {
	e.presences.mu.Lock()
	defer e.presences.mu.Unlock()
	for _, p := range e.presences.all {
		if p.written && !p.left {
			all = append(all, p)
		}
	}
	return all
}

// verifySome returns false if the registry does not answer.
func (e *Engine) verifySome(some []*presence) bool {
	ids := make([]routing.SessionID, len(some))
	for i, p := range some {
		ids[i] = p.session.ID()
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	found, err := e.registry.Presences(ctx, ids)
	if err != nil {
		return false
	}
	e.presences.mu.Lock()
	defer e.presences.mu.Unlock()
	for i, p := range some {
		if !found[i].Unknown && !slices.Contains(found[i].Nodes, p.entry) {
			p.written = false // a dead session ends here when it is written
		}
	}
	return true
}
