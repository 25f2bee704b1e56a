package engine

import (
	"maps"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// A session that ends, ends at every node, and each of its live connections hears session_ended
// (S29). The node that ends it tells the registry, and then the other nodes. The order matters: a
// connection that joins the session meanwhile is attached before the other nodes hear of the end,
// or the registry refuses its attach.

const sessionOver = "the session has ended"

// endHere ends a session at this node: it closes its connections and forgets where it was attached.
// It returns the bindings that the node knew. Ended is false if the session had ended before. Call
// it in the session's lane.
func (e *Engine) endHere(s *routing.Session) (bound []routing.BoundID, ended bool) {
	if bound, ended = e.table.ForceEndSession(s); ended {
		e.closeAll(s.LastHandles(), codec.FaultSessionEnded, sessionOver)
		e.forgetEnded(s)
	}
	return bound, ended
}

// forgetEnded removes what is left of a session that has ended in the table. Call it in the
// session's lane.
func (e *Engine) forgetEnded(s *routing.Session) {
	id := s.ID()
	e.closeAside(id)
	e.dropPresence(id, func(p *presence) bool { return p.session == s })
	if e.cluster != nil {
		e.cluster.forgetSession(id)
	}
}

// dropPresence forgets the presence of a session that the registry has no use for any more.
func (e *Engine) dropPresence(id routing.SessionID, which func(*presence) bool) {
	e.presences.mu.Lock()
	defer e.presences.mu.Unlock()
	if p := e.presences.all[id]; p != nil && which(p) {
		delete(e.presences.all, id)
	}
}

// tellEnded tells all other nodes that a session has ended.
func (e *Engine) tellEnded(id routing.SessionID) {
	if e.cluster != nil {
		e.cluster.forgetSession(id)
		e.tellLinks(codec.AppendEnded(nil, id[:]))
	}
}

// tellLinks sends a control frame to every node that there is a link to. Any goroutine may call it.
func (e *Engine) tellLinks(frame []byte) {
	l := e.loops[0]
	l.post(func() { l.toAllLinks(frame) })
}

// handleEnded ends a session that another node says is over.
func (k *link) handleEnded(body []byte) error {
	b, err := codec.DecodeEnded(body)
	if err != nil {
		return err
	}
	id, e := routing.SessionID(b), k.cluster.eng
	e.lanes.inSession(id, func() {
		s := e.table.Session(id)
		if s == nil {
			e.cluster.forgetSession(id)
			return
		}
		attached := len(s.Handles()) > 0
		bound, ended := e.endHere(s)
		if !ended {
			return
		}
		e.watcher.sessionEnded(bound)
		if attached {
			e.sessionDown(s, len(bound))
		}
	})
	return nil
}

// forgetSession drops the routes to a session that has ended. The watchers ask the registry what
// became of the IDs.
func (c *cluster) forgetSession(id routing.SessionID) {
	s := c.remote.Session(id)
	if s == nil {
		return
	}
	bound, _ := c.remote.ForceEndSession(s)
	for _, b := range bound {
		c.eng.watcher.heard(b.ID, false, b.Epoch)
	}
}

// Connections that have left their session, or have stepped back from it, are attached no longer.
// They hear of its end all the same.

// stepAside notes that a connection is about to be detached from its session and lives on.
func (c *conn) stepAside() {
	id := c.session.ID()
	c.loop.aside[id] = append(c.loop.aside[id], c)
	c.loop.eng.aside.Add(1)
}

// endAside is the reverse of stepAside.
func (c *conn) endAside() {
	id := c.session.ID()
	all := c.loop.aside[id]
	i := slices.Index(all, c)
	if i < 0 {
		return
	}
	c.loop.eng.aside.Add(-1)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(c.loop.aside, id)
		return
	}
	c.loop.aside[id] = all
}

// closeAside closes the connections of a session that has ended and that were aside.
func (e *Engine) closeAside(id routing.SessionID) {
	if e.aside.Load() == 0 {
		return
	}
	for _, l := range e.loops {
		l.post(func() {
			for _, c := range slices.Clone(l.aside[id]) {
				c.close(codec.FaultSessionEnded, sessionOver)
			}
		})
	}
}

// untold are the ends that the registry could not be told. The node tells it again every second:
// nobody else knows of them, and until then the IDs of these sessions are unreachable.
type untold struct {
	mu  sync.Mutex
	all map[routing.SessionID]routing.EndOp // guarded by mu
}

func (u *untold) add(op routing.EndOp) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = make(map[routing.SessionID]routing.EndOp)
	}
	op.Force = op.Force || u.all[op.Session].Force
	u.all[op.Session] = op
}

func (u *untold) take() []routing.EndOp {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := slices.Collect(maps.Values(u.all))
	u.all = nil
	return all
}

// tellUntold tells the registry of the ends that it could not be told before.
func (e *Engine) tellUntold() {
	for _, op := range e.untold.take() {
		e.lanes.inSession(op.Session, func() {
			if op.Force || !e.attached(op.Session) { // else somebody has resumed it meanwhile
				_, _ = e.endInRegistry(op)
			}
		})
	}
}

// endInRegistry ends a session in the registry, and tells the other nodes and the watchers. If the
// registry cannot be asked, it is asked again later. Call it in the session's lane.
func (e *Engine) endInRegistry(op routing.EndOp) (ended bool, err error) {
	ctx, cancel := e.registryContext()
	defer cancel()
	ended, err = e.registry.EndSession(ctx, op)
	if err != nil {
		e.untold.add(op)
	}
	if ended {
		e.dropPresence(op.Session, func(p *presence) bool { return p.left }) // else it is a resume that the registry will refuse
		e.watcher.sessionEnded(op.Bound)
	}
	if ended || err != nil && op.Force {
		e.tellEnded(op.Session)
	}
	return ended, err
}

// endAfterOthers is called when the resume window of a session is over here, and another node has
// had a connection of it later. That node ends it; this one makes sure that somebody does. Call it
// in the session's lane.
func (e *Engine) endAfterOthers(op routing.EndOp) {
	known := e.cluster.remote.Session(op.Session)
	switch {
	case e.attached(op.Session): // if that node dies, see endOrphan
	case known == nil:
		_, _ = e.endInRegistry(op)
	default:
		time.AfterFunc(e.cfg.ResumeWindow, func() {
			e.lanes.inSession(op.Session, func() { e.endAfterOthers(op) })
		})
	}
}

// entriesLeft is the presence entry of a session that has left this node. The registry may not have
// heard of that yet, which must not keep the session alive.
func (e *Engine) entriesLeft(s *routing.Session) []routing.Presence {
	e.presences.mu.Lock()
	defer e.presences.mu.Unlock()
	if p := e.presences.all[s.ID()]; p != nil && p.session == s && p.left {
		return []routing.Presence{p.entry}
	}
	return nil
}

// sessionDown tells the application that a session has ended here.
func (e *Engine) sessionDown(s *routing.Session, ids int) {
	e.cfg.Logger.Debug("session ended", "session", s.ID(), "ids", ids)
	if e.cfg.Hooks.SessionDown != nil {
		e.apart("SessionDown", func() { e.cfg.Hooks.SessionDown(s.ID(), s.Identity()) })
	}
}
