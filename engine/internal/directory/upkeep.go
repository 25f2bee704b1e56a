package directory

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// What a node has written to the registry can get lost: a call failed while the registry was away,
// the registry lost its data (S18), or a kick did not arrive (S15). So the node writes it again:
// everything at once after a loss, what it knows to be missing every second, and everything slowly
// all the time.

const (
	// VerifyEvery is how often the node writes a part of its bindings to the registry again.
	VerifyEvery = time.Second
	verifyBatch = 1000 // bindings in one question
	// hurry is how much faster the node writes everything again after a link came up. While there
	// was no link, kicks may have been lost.
	hurry = 10
)

// upkeep writes to the registry again what the registry may have missed.
type upkeep struct {
	dir  *Directory    // static
	soon chan struct{} // of capacity 1: say all bindings again, not in VerifyPeriod but sooner
}

// upkeep runs until ctx ends.
func (u *upkeep) run(ctx context.Context) {
	tick := time.NewTicker(VerifyEvery)
	defer tick.Stop()
	round := u.newRound(u.dir.cfg.VerifyPeriod)
	defer func() { round.stop() }()
	data := u.checkRegistry("")
	lost := make(chan struct{}, 1)
	var recovery sync.WaitGroup
	recovery.Go(func() { u.recover(ctx, lost) })
	defer recovery.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.dir.registry.Lost():
			u.dir.cfg.Log.Warn("the registry has lost data; this node writes its bindings again", "ids", u.dir.table.Len())
			u.dir.presences.rewrite(true)
			u.dir.presences.askToReassert(ctx, 0, func(*presence) bool { return true })
			select {
			case lost <- struct{}{}:
			default: // it begins anew anyway
			}
		case <-u.soon:
			// else it hurries already, and has to end some time
			if round.period == u.dir.cfg.VerifyPeriod {
				round.stop()
				round = u.newRound(u.dir.cfg.VerifyPeriod / hurry)
				u.dir.presences.rewrite(true) // the end of a session may have been lost, too
			}
		case <-tick.C:
			u.dir.registry.probe(ctx)
			data = u.checkRegistry(data)
			u.dir.sessions.tellUntold()
			u.dir.presences.verify(ctx)
			u.dir.presences.rewrite(false)
			if !round.step() {
				continue
			}
			round.stop()
			round = u.newRound(u.dir.cfg.VerifyPeriod)
			u.dir.presences.rewrite(true)
			u.dir.presences.askToReassert(ctx, u.dir.cfg.VerifyPeriod/2, func(p *presence) bool { return p.foreign })
		}
	}
}

// round writes all bindings again once, spread over a period.
type round struct {
	of     *upkeep
	begun  time.Time
	period time.Duration
	perRun int // bindings in one step
	next   func() (string, routing.Route, bool)
	stop   func()
	done   bool

	underway atomic.Int64 // jobs that say bindings again
}

func (u *upkeep) newRound(period time.Duration) *round {
	r := &round{of: u, begun: time.Now(), period: period, perRun: int(int64(u.dir.table.Len())*int64(VerifyEvery)/int64(period)) + 1}
	r.next, r.stop = iter.Pull2(u.dir.table.All())
	return r
}

// step writes some bindings again if those of the previous step are written. It returns true if the
// round is over.
func (r *round) step() bool {
	if !r.done && r.underway.Load() == 0 {
		some, more := takeSome(r.next, r.perRun)
		r.done = !more
		for lane, mine := range r.of.byLane(some) {
			if len(mine) > 0 {
				r.underway.Add(1)
				r.of.dir.lanes.must(lane, func() {
					defer r.underway.Add(-1)
					r.of.reassert(mine) // what fails is said again in the next round
				})
			}
		}
	}
	return r.done && time.Since(r.begun) >= r.period
}

// binding is one row of the table.
type binding struct {
	id      string
	session *routing.Session
	epoch   uint64
}

// takeSome returns the next n bindings, and whether there are more.
func takeSome(next func() (string, routing.Route, bool), n int) (some []binding, more bool) {
	for ; n > 0; n-- {
		id, route, ok := next()
		if !ok {
			return some, false
		}
		some = append(some, binding{id, route.Session, route.Epoch})
	}
	return some, true
}

// byLane sorts bindings by the lanes of their IDs.
func (u *upkeep) byLane(all []binding) (lanes [laneCount][]binding) {
	for _, b := range all {
		lane := u.dir.lanes.of([]byte(b.id))
		lanes[lane] = append(lanes[lane], b)
	}
	return lanes
}

// reassert writes bindings again, in their lane, and drops those that are not this node's any more.
// It returns those that could not be written.
func (u *upkeep) reassert(all []binding) (unsaid []binding) {
	for len(all) > 0 {
		n := min(len(all), verifyBatch)
		batch := all[:n]
		ops := make([]routing.BindOp, 0, n)
		said := make([]binding, 0, n)
		for _, b := range batch {
			if r, ok := u.dir.table.Lookup([]byte(b.id)); ok && r.Session == b.session && r.Epoch == b.epoch && !u.movedOn(b.session) {
				ops = append(ops, routing.BindOp{ID: b.id, Session: b.session.ID(), Epoch: b.epoch, Known: true})
				said = append(said, b)
			}
		}
		ctx, cancel := u.dir.registryContext()
		results, err := u.dir.registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			return all
		}
		all = all[n:]
		for i, res := range results {
			if b := said[i]; res.Status == routing.Superseded && res.Incumbent.Epoch > b.epoch {
				u.dir.table.Unbind(b.id, b.session, b.epoch)
				u.dir.news.kick(b.session, b.id, res.Incumbent.Epoch)
				u.dir.watcher.heard(b.id, true, res.Incumbent.Epoch)
			}
		}
	}
	return nil
}

// movedOn reports whether a session is attached at other nodes only. Those hear from it what it
// holds, and may have unbound since what this one has in its table.
func (u *upkeep) movedOn(s *routing.Session) bool {
	return len(s.Handles()) == 0 && u.dir.AttachedElsewhere(s.ID())
}

// VerifySoon makes the node write all bindings to the registry again within a part of VerifyPeriod.
// While there was no link to a node, kicks may have been lost.
func (d *Directory) VerifySoon() { wake.Nudge(d.upkeep.soon) }

// checkRegistry closes all links when the registry's data are no longer those that the links were
// made with.
func (u *upkeep) checkRegistry(before string) (now string) {
	now = u.dir.registry.identity().ID
	if now != before && before != "" && !u.dir.alone() {
		u.dir.cfg.Log.Warn("the registry has other data than before; this node opens its links again", "before", before, "now", now)
		u.dir.loops.Close(u.dir.peers.Links(), codec.FaultReplaced, "the registry has other data than before")
	}
	return now
}
