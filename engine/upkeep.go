package engine

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// What a node has told the registry can get lost: a call failed while the registry was away, the registry
// lost its data (S18), or a kick did not arrive (S15). So the node says it again: at once when it
// hears of a loss, every second what it knows to be missing, and everything slowly all the time.

const (
	verifyEvery = time.Second
	verifyBatch = 1000 // bindings in one question
	// hurry is how much faster everything is said again after a link came up: kicks may have been lost without it.
	hurry = 10
)

// presences is what the registry should know, or no longer know, of the sessions at this node.
type presences struct {
	mu  sync.Mutex
	all map[routing.SessionID]*presence // guarded by mu

	unverified []*presence // of the pass that goes on; upkeep's
	perRun     int         // of them in each second; upkeep's
}

// presence is one of them. session, entry and foreign are static; the rest is guarded by presences.mu.
type presence struct {
	session *routing.Session
	entry   routing.Presence
	foreign bool // it came from another node, or is attached there too, so it may hold IDs that this one does not know
	left    bool // it is not attached here any more: the entry is to go
	written bool // the registry has it, or has removed it
	queued  bool // a job in the session's lane is about to write it
	removed int  // how often the registry has removed it
}

// attachPresence notes an attach and has it written.
func (e *Engine) attachPresence(s *routing.Session, entry routing.Presence, foreign bool) {
	p := &presence{session: s, entry: entry, foreign: foreign}
	e.presences.mu.Lock()
	if before := e.presences.all[s.ID()]; before != nil && before.session == s {
		p.foreign = foreign || before.foreign
	}
	e.presences.all[s.ID()] = p
	e.presences.mu.Unlock()
	e.writePresence(p)
}

// detachPresence notes that a session has left and has its entry removed, unless it has attached again since.
func (e *Engine) detachPresence(s *routing.Session, entry routing.Presence) {
	e.presences.mu.Lock()
	p := e.presences.all[s.ID()]
	current := p != nil && p.entry.Serial <= entry.Serial
	if current {
		p.left, p.written = true, false
	}
	e.presences.mu.Unlock()
	if current {
		e.writePresence(p)
	}
}

// writePresence brings the registry in line with an entry, if that is still the one that counts for its session.
func (e *Engine) writePresence(p *presence) {
	id := p.session.ID()
	e.presences.mu.Lock()
	queued := p.queued // if the registry is slow, each second finds the same entries
	p.queued = true
	e.presences.mu.Unlock()
	if queued {
		return
	}
	e.inLane(p.session, func() {
		e.presences.mu.Lock()
		p.queued = false
		current, left := e.presences.all[id] == p, p.left
		e.presences.mu.Unlock()
		if !current {
			return
		}
		ctx, cancel := e.registryContext()
		defer cancel()
		var err error
		if left {
			_, err = e.registry.Detach(ctx, id, p.entry)
		} else {
			err = e.registry.Attach(ctx, id, p.entry)
		}
		switch {
		case errors.Is(err, routing.ErrSessionDead):
			if bound, ended := e.endHere(p.session); ended {
				e.sessionEnded(p.session, bound, false)
			}
			left = true
		case err != nil:
			e.cfg.Logger.Debug("cannot tell the registry where a session is; it will be tried again", "session", id, "error", err)
			return
		}
		e.wrotePresence(id, p, left)
	})
}

// wrotePresence notes that the registry knows of an entry, or of its end. An end is told once more with the next round: an attach
// that this node gave up waiting for may have been carried out after it.
func (e *Engine) wrotePresence(id routing.SessionID, p *presence, left bool) {
	e.presences.mu.Lock()
	defer e.presences.mu.Unlock()
	p.written = p.left == left
	if !left {
		return
	}
	p.removed++
	if (p.removed > 1 || e.ownRegistry) && e.presences.all[id] == p {
		delete(e.presences.all, id)
	}
}

// rewritePresences has the entries written that the registry lacks, or all of them, and those removed that it has too many.
func (e *Engine) rewritePresences(all bool) {
	var todo []*presence
	e.presences.mu.Lock()
	for _, p := range e.presences.all {
		if all {
			p.written = false
		}
		if !p.written {
			todo = append(todo, p)
		}
	}
	e.presences.mu.Unlock()
	for _, p := range todo {
		e.writePresence(p)
	}
}

// upkeep runs until ctx ends.
func (e *Engine) upkeep(ctx context.Context) {
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	round := e.newRound(e.cfg.VerifyPeriod)
	defer func() { round.stop() }()
	data := e.checkRegistry("")
	lost := make(chan struct{}, 1)
	var recovery sync.WaitGroup
	recovery.Go(func() { e.recover(ctx, lost) })
	defer recovery.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.registry.Lost():
			e.cfg.Logger.Warn("the registry has lost data and is told again what this node knows", "ids", e.table.Len())
			e.rewritePresences(true)
			e.askToReassert(ctx, 0, func(*presence) bool { return true })
			select {
			case lost <- struct{}{}:
			default: // it begins anew anyway
			}
		case <-e.verifySoon:
			if round.period == e.cfg.VerifyPeriod { // else it hurries already, and has to end some time
				round.stop()
				round = e.newRound(e.cfg.VerifyPeriod / hurry)
				e.rewritePresences(true) // the end of a session may have been lost, too
			}
		case <-tick.C:
			e.registry.probe(ctx)
			data = e.checkRegistry(data)
			e.tellUntold()
			e.verifyPresences(ctx)
			e.rewritePresences(false)
			if !round.step() {
				continue
			}
			round.stop()
			round = e.newRound(e.cfg.VerifyPeriod)
			e.rewritePresences(true)
			e.askToReassert(ctx, e.cfg.VerifyPeriod/2, func(p *presence) bool { return p.foreign })
		}
	}
}

// round says all bindings again once, spread over a period.
type round struct {
	eng    *Engine
	begun  time.Time
	period time.Duration
	perRun int // bindings in one step
	next   func() (string, routing.Route, bool)
	stop   func()
	done   bool

	underway atomic.Int64 // jobs that say bindings again
}

func (e *Engine) newRound(period time.Duration) *round {
	r := &round{eng: e, begun: time.Now(), period: period, perRun: int(int64(e.table.Len())*int64(verifyEvery)/int64(period)) + 1}
	r.next, r.stop = iter.Pull2(e.table.All())
	return r
}

// step says some bindings again, if those of the step before have been said. It returns true if the
// round is over.
func (r *round) step() bool {
	if !r.done && r.underway.Load() == 0 {
		some, more := takeSome(r.next, r.perRun)
		r.done = !more
		for lane, mine := range r.eng.byLane(some) {
			if len(mine) > 0 {
				r.underway.Add(1)
				r.eng.lanes.must(lane, func() {
					defer r.underway.Add(-1)
					r.eng.reassert(mine) // what fails is said again in the next round
				})
			}
		}
	}
	return r.done && time.Since(r.begun) >= r.period
}

// askToReassert asks sessions, which hold the truth, to say their bindings again: this node may not know all of theirs.
func (e *Engine) askToReassert(ctx context.Context, within time.Duration, which func(*presence) bool) {
	frame := codec.AppendReassert(nil, uint64(within.Milliseconds()))
	e.presences.mu.Lock()
	var todo []*routing.Session
	for _, p := range e.presences.all {
		if which(p) {
			todo = append(todo, p.session)
		}
	}
	e.presences.mu.Unlock()
	for _, s := range todo {
		if handles := s.Handles(); len(handles) > 0 && ctx.Err() == nil {
			h := handles[0] // one of its connections is enough
			l := e.loops[h.Loop]
			l.post(func() {
				if c := l.conn(h); c != nil && c.local == nil { // those in process are all in the table
					c.out.wroteControl(append(c.out.buf(), frame...))
				}
			})
		}
	}
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

// byLane deals bindings out to the lanes of their IDs.
func (e *Engine) byLane(all []binding) (lanes [laneCount][]binding) {
	for _, b := range all {
		lane := e.lanes.of([]byte(b.id))
		lanes[lane] = append(lanes[lane], b)
	}
	return lanes
}

// reassert says bindings again, in their lane, and lets go of those that are not this node's any
// more. It returns those that could not be said.
func (e *Engine) reassert(all []binding) (unsaid []binding) {
	for len(all) > 0 {
		n := min(len(all), verifyBatch)
		batch := all[:n]
		ops := make([]routing.BindOp, 0, n)
		said := make([]binding, 0, n)
		for _, b := range batch {
			if r, ok := e.table.Lookup([]byte(b.id)); ok && r.Session == b.session && r.Epoch == b.epoch && !e.movedOn(b.session) {
				ops = append(ops, routing.BindOp{ID: b.id, Session: b.session.ID(), Epoch: b.epoch, Known: true})
				said = append(said, b)
			}
		}
		ctx, cancel := e.registryContext()
		results, err := e.registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			return all
		}
		all = all[n:]
		for i, res := range results {
			if b := said[i]; res.Status == routing.Superseded && res.Incumbent.Epoch > b.epoch {
				e.table.Unbind(b.id, b.session, b.epoch)
				e.kick(b.session, b.id, res.Incumbent.Epoch)
				e.watcher.heard(b.id, true, res.Incumbent.Epoch)
			}
		}
	}
	return nil
}

// movedOn reports whether a session is attached at other nodes only. Those hear from it what it
// holds, and may have unbound since what this one has in its table.
func (e *Engine) movedOn(s *routing.Session) bool {
	return len(s.Handles()) == 0 && e.cluster != nil && e.cluster.attached(s.ID())
}
