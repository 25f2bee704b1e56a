package directory

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

// SessionOver is the text that a connection gets when its session has ended.
const SessionOver = "the session has ended"

// endHere ends a session at this node: it closes its connections and forgets where it was attached.
// It returns the bindings that the node knew. Ended is false if the session had ended before. Call
// it in the session's lane.
func (ss *sessions) endHere(s *routing.Session) (bound []routing.BoundID, ended bool) {
	if bound, ended = ss.dir.table.ForceEndSession(s); ended {
		ss.dir.loops.Close(s.LastHandles(), codec.FaultSessionEnded, SessionOver)
		ss.forgetEnded(s)
	}
	return bound, ended
}

// forgetEnded removes what is left of a session that has ended in the table. Call it in the
// session's lane.
func (ss *sessions) forgetEnded(s *routing.Session) {
	id := s.ID()
	ss.dir.loops.CloseAside(id, codec.FaultSessionEnded, SessionOver)
	ss.dir.presences.drop(id, func(p *presence) bool { return p.session == s })
	if !ss.dir.alone() {
		ss.dir.news.forgetSession(id)
	}
}

// tellEnded notifies all other nodes that a session has ended.
func (ss *sessions) tellEnded(id routing.SessionID) {
	if !ss.dir.alone() {
		ss.dir.news.forgetSession(id)
		ss.dir.peers.Tell(codec.AppendEnded(nil, id[:]))
	}
}

// HeardEnded ends a session that another node reports as ended.
func (d *Directory) HeardEnded(id routing.SessionID) {
	d.lanes.inSession(id, func() { d.sessions.heardEnded(id) })
}

func (ss *sessions) heardEnded(id routing.SessionID) {
	s := ss.dir.table.Session(id)
	if s == nil {
		ss.dir.news.forgetSession(id)
		return
	}
	attached := len(s.Handles()) > 0
	bound, ended := ss.endHere(s)
	if !ended {
		return
	}
	ss.dir.watcher.sessionEnded(bound)
	if attached {
		ss.sessionDown(s, len(bound), endedByNode)
	}
}

// untold holds the session ends that the node could not write to the registry. The node retries
// every second. Nobody else knows of these ends, and until they are written the IDs of these
// sessions are unreachable.
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

// tellUntold writes to the registry the ends that it could not write before.
func (ss *sessions) tellUntold() {
	for _, op := range ss.untold.take() {
		ss.dir.lanes.inSession(op.Session, func() {
			if op.Force || !ss.dir.attached(op.Session) { // else somebody has resumed it meanwhile
				_, _ = ss.endInRegistry(op)
			}
		})
	}
}

// endInRegistry ends a session in the registry, and notifies the other nodes and the watchers. If
// the registry cannot be reached, the node retries later. Call it in the session's lane.
func (ss *sessions) endInRegistry(op routing.EndOp) (ended bool, err error) {
	ctx, cancel := ss.dir.registryContext()
	defer cancel()
	ended, err = ss.dir.registry.EndSession(ctx, op)
	if err != nil {
		ss.untold.add(op)
	}
	if ended {
		// If the entry stays, it is one of a resume, which the registry will refuse.
		ss.dir.presences.drop(op.Session, func(p *presence) bool { return p.left })
		ss.dir.watcher.sessionEnded(op.Bound)
	}
	if ended || err != nil && op.Force {
		ss.tellEnded(op.Session)
	}
	return ended, err
}

// endAfterOthers is called when the resume window of a session ends here and another node had a
// connection of it later. That node ends it. This node makes sure that somebody does. Call it in
// the session's lane.
func (ss *sessions) endAfterOthers(op routing.EndOp) {
	known := ss.dir.remote.Session(op.Session)
	switch {
	case ss.dir.attached(op.Session): // if that node dies, see endOrphan
	case known == nil:
		_, _ = ss.endInRegistry(op)
	default:
		time.AfterFunc(ss.dir.cfg.ResumeWindow, func() {
			ss.dir.lanes.inSession(op.Session, func() { ss.endAfterOthers(op) })
		})
	}
}

// sessionDown notifies the application that a session has ended here.
func (ss *sessions) sessionDown(s *routing.Session, ids int, why endedBy) {
	ss.downs.Info(ss.dir.cfg.Log, ss.dir.cfg.Clock(), "session ended", "session", s.ID(), "identity", s.Identity(), "ids", ids, "why", string(why))
	if ss.dir.cfg.SessionDown != nil {
		ss.dir.apart("SessionDown", func() { ss.dir.cfg.SessionDown(s.ID(), s.Identity()) })
	}
}
