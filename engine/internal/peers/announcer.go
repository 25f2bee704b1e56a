package peers

import (
	"context"
	"math/bits"
	"sync"
	"time"

	"distmsg/engine/internal/wake"
)

// Announcer keeps this node announced in the membership. Any goroutine may use it.
type Announcer struct {
	// static
	peers   *Peers
	changed chan struct{} // of capacity 1: this node's record is not what was announced
	// turn, of capacity 1, holds a token while a goroutine announces or withdraws. So an older
	// record never follows a newer one or the withdrawal.
	turn chan struct{}

	mu       sync.Mutex
	outdated func() // guarded by mu; ends the announcement under way
}

func newAnnouncer(p *Peers) *Announcer {
	return &Announcer{peers: p, changed: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
}

// loadEvery is how often a node checks whether it must announce another load.
const loadEvery = 10 * time.Second

// run announces this node, and again after each change, until ctx ends.
func (a *Announcer) run(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		load := a.peers.Record().Load
		a.Announce(ctx)
		if !a.waitChange(ctx, tick.C, load) {
			return
		}
	}
}

// waitChange waits until the record must be announced again, because it has changed or the load is
// not the one that was announced. It returns false if ctx ends first.
func (a *Announcer) waitChange(ctx context.Context, tick <-chan time.Time, load int) bool {
	for {
		select {
		case <-a.changed:
			return true
		case <-tick:
			if a.peers.Record().Load != load {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// RoughLoad rounds a load to its three highest bits, so that it seldom changes.
func RoughLoad(n int) int {
	low := max(0, bits.Len(uint(n))-3)
	return n >> low << low
}

// Soon makes run announce this node's record again. It does not wait.
func (a *Announcer) Soon() { wake.Nudge(a.changed) }

// Announce announces this node's record as it is now. It ends an announcement under way, because
// that carries an older record. It may wait for as long as nobody can reach the membership.
func (a *Announcer) Announce(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !a.takeTurn(ctx, cancel) {
		return
	}
	defer func() { <-a.turn }()
	if a.peers.engine.Stopping() {
		return // the node has withdrawn, or is about to
	}
	r := a.peers.Record()
	a.peers.engine.NotifyNodes(r, false)
	if err := a.peers.membership.Announce(ctx, r); err != nil && ctx.Err() == nil {
		a.peers.log.Warn("cannot announce this node", "error", err)
	}
}

// takeTurn ends the announcement under way and waits until it has ended. It returns false if ctx
// ends first.
func (a *Announcer) takeTurn(ctx context.Context, cancel func()) bool {
	a.mu.Lock()
	outdated := a.outdated
	a.outdated = cancel
	a.mu.Unlock()
	if outdated != nil {
		outdated()
	}
	select {
	case a.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Withdraw takes the node out of the membership, for good. Call it when Engine.Stopping has begun
// to return true.
func (a *Announcer) Withdraw(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !a.takeTurn(ctx, cancel) {
		return
	}
	defer func() { <-a.turn }()
	a.peers.engine.NotifyNodes(a.peers.Record(), true)
	if err := a.peers.membership.Withdraw(ctx); err != nil {
		a.peers.log.Warn("cannot withdraw this node's record", "error", err)
	}
}
