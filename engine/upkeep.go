package engine

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// What a node has told the registry can get lost: a call failed while the registry was away, the registry
// lost its data (S18), or a kick did not arrive (S15). So the node says it again: at once when it
// hears of a loss, every second what it knows to be missing, and everything slowly all the time.

const (
	// verifyPeriod is how long it takes to say everything again, and with that how long a stale binding can live.
	verifyPeriod = 5 * time.Minute
	verifyEvery  = time.Second
	verifyBatch  = 1000 // bindings in one step when there is no hurry, and in one question in any case
)

// presences is what the registry should know of the sessions that are attached here.
type presences struct {
	mu  sync.Mutex
	all map[routing.SessionID]*presence // guarded by mu
}

// presence is one of them. session and entry are static; written is guarded by presences.mu.
type presence struct {
	session *routing.Session
	entry   routing.Presence
	written bool // the registry has it
}

// attachPresence notes an attach and has it written.
func (e *Engine) attachPresence(s *routing.Session, entry routing.Presence) {
	p := &presence{session: s, entry: entry}
	e.presences.mu.Lock()
	e.presences.all[s.ID()] = p
	e.presences.mu.Unlock()
	e.writePresence(p)
}

// writePresence tells the registry where a session is, unless that is no longer so.
func (e *Engine) writePresence(p *presence) {
	e.inLane(p.session, func() {
		id := p.session.ID()
		e.presences.mu.Lock()
		current := e.presences.all[id] == p
		e.presences.mu.Unlock()
		if !current {
			return
		}
		ctx, cancel := e.registryContext()
		defer cancel()
		err := e.cfg.Registry.Attach(ctx, id, p.entry)
		if errors.Is(err, routing.ErrSessionDead) {
			e.closeAll(p.session.Handles(), codec.FaultSessionEnded, "the session has ended")
			e.table.ForceEndSession(p.session)
			return
		}
		if err != nil {
			e.cfg.Logger.Debug("cannot tell the registry where a session is; it will be tried again", "session", id, "error", err)
			return
		}
		e.presences.mu.Lock()
		p.written = true
		e.presences.mu.Unlock()
	})
}

// detachPresence notes that a session has left and tells the registry. If that fails, the entry stays
// behind as one that no link confirms.
func (e *Engine) detachPresence(s *routing.Session, entry routing.Presence) {
	id := s.ID()
	e.presences.mu.Lock()
	if p := e.presences.all[id]; p != nil && p.entry.Serial <= entry.Serial {
		delete(e.presences.all, id)
	}
	e.presences.mu.Unlock()
	e.inLane(s, func() {
		ctx, cancel := e.registryContext()
		defer cancel()
		if _, err := e.cfg.Registry.Detach(ctx, id, entry); err != nil {
			e.cfg.Logger.Debug("cannot tell the registry that a session left", "session", id, "error", err)
		}
	})
}

// rewritePresences has the entries written that the registry lacks, or all of them.
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
	next, stop := iter.Pull2(e.table.All())
	defer func() { stop() }()
	begun := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.cfg.Registry.Lost():
			e.cfg.Logger.Warn("the registry has lost data and is told again what this node knows", "ids", e.table.Len())
			e.rewritePresences(true)
			e.reassertAll()
		case <-tick.C:
			e.rewritePresences(false)
			steps := e.table.Len()*int(verifyEvery)/int(verifyPeriod) + 1
			if e.reassertSome(next, steps) {
				continue
			}
			if time.Since(begun) < verifyPeriod {
				continue // everything was said early; wait for the next round
			}
			stop()
			next, stop = iter.Pull2(e.table.All())
			begun = time.Now()
			e.rewritePresences(true)
		}
	}
}

func (e *Engine) reassertAll() {
	next, stop := iter.Pull2(e.table.All())
	defer stop()
	for e.reassertSome(next, verifyBatch) {
	}
}

// binding is one row of the table.
type binding struct {
	id      string
	session *routing.Session
	epoch   uint64
}

// reassertSome says the next n bindings again; false: there are no more.
func (e *Engine) reassertSome(next func() (string, routing.Route, bool), n int) bool {
	var byLane [laneCount][]binding
	more := true
	for ; n > 0; n-- {
		id, route, ok := next()
		if !ok {
			more = false
			break
		}
		lane := e.lanes.of([]byte(id))
		byLane[lane] = append(byLane[lane], binding{id, route.Session, route.Epoch})
	}
	for lane, all := range byLane {
		if len(all) > 0 {
			e.lanes.must(lane, func() { e.reassert(all) })
		}
	}
	return more
}

// reassert says bindings again, in their lane, and lets go of those that are not this node's any more.
func (e *Engine) reassert(all []binding) {
	for len(all) > 0 {
		n := min(len(all), verifyBatch)
		batch := all[:n]
		all = all[n:]
		ops := make([]routing.BindOp, 0, n)
		said := make([]binding, 0, n)
		for _, b := range batch {
			if r, ok := e.table.Lookup([]byte(b.id)); ok && r.Session == b.session && r.Epoch == b.epoch {
				ops = append(ops, routing.BindOp{ID: b.id, Session: b.session.ID(), Epoch: b.epoch})
				said = append(said, b)
			}
		}
		ctx, cancel := e.registryContext()
		results, err := e.cfg.Registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			return // it is away: this is not the time, and the next round comes
		}
		for i, res := range results {
			if b := said[i]; res.Status == routing.Superseded && res.Incumbent.Epoch > b.epoch {
				e.table.Unbind(b.id, b.session, b.epoch)
				e.kick(b.session, b.id, res.Incumbent.Epoch)
			}
		}
	}
}
