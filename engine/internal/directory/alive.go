package directory

import (
	"context"
	"slices"

	"distmsg/routing"
)

// Is this session alive? Five ask: a bind that meets an incumbent, a hello that wants to resume, a
// watch, a message on its way, and a node that cleans up after a dead one. They all ask here. What
// this node knows itself counts first (knownHere). For the rest the registry says where a session
// is attached, and standingOf puts that into one of a few words. What follows from it differs, and
// stands with who asks.

// standing is what the registry says of a session, together with what this node knows of the nodes.
type standing uint8

const (
	unsaid  standing = iota // the registry did not say
	ended                   // it has ended, for good
	nowhere                 // it has not ended, and is attached nowhere
	onDead                  // it is attached, but all those nodes are dead
	onAlive                 // it is attached at a node that may live, and that there is no link to
	onLink                  // it is attached at a node that there is a link to
)

// alive reports whether a session counts as alive: it is attached at a node that may live. Whether
// it is within its resume window at another node, only that node knows.
func (s standing) alive() bool { return s >= onAlive }

// knownHere reports whether this node knows a session to live: it is attached here or at a node
// that there was a link to, or within its resume window.
func (d *Directory) knownHere(id routing.SessionID) bool {
	return d.table.Session(id) != nil || !d.alone() && d.remote.Session(id) != nil
}

// attached reports whether a session is attached somewhere that this node can reach.
func (d *Directory) attached(id routing.SessionID) bool {
	if s := d.table.Session(id); s != nil && len(s.Handles()) > 0 {
		return true
	}
	return d.AttachedElsewhere(id)
}

// AttachedElsewhere reports whether a session is attached at a node that there is a link to.
func (d *Directory) AttachedElsewhere(id routing.SessionID) bool {
	if d.alone() {
		return false
	}
	s := d.remote.Session(id)
	return s != nil && len(s.Handles()) > 0
}

// standingOf says in one word where the registry has a session.
func (d *Directory) standingOf(p routing.SessionPresence) standing {
	linked := func(at routing.Presence) bool {
		if d.alone() {
			return false
		}
		_, ok := d.peers.LinkTo(at)
		return ok
	}
	switch {
	case p.Unknown:
		return unsaid
	case p.Dead:
		return ended
	case len(p.Nodes) == 0:
		return nowhere
	case slices.ContainsFunc(p.Nodes, linked):
		return onLink
	case slices.ContainsFunc(p.Nodes, func(at routing.Presence) bool { return !d.cfg.Gone(at) }):
		return onAlive
	}
	return onDead
}

// whereAre asks the registry where sessions are. A session of which it does not say is not in the
// map.
func (d *Directory) whereAre(ctx context.Context, sessions []routing.SessionID) map[routing.SessionID]standing {
	presences, err := d.registry.Presences(ctx, sessions)
	if err != nil {
		return nil
	}
	all := make(map[routing.SessionID]standing, len(sessions))
	for i, p := range presences {
		if s := d.standingOf(p); s != unsaid {
			all[sessions[i]] = s
		}
	}
	return all
}

// livesElsewhere reports whether a session that is not in this node's table goes on at another
// node, or may be resumed. If the registry does not answer, it may: the client has proved that the
// session was its own, and if that has ended, the registry says so when it has the attach written.
// An entry of a dead node is enough.
func (ss *sessions) livesElsewhere(id routing.SessionID) bool {
	d := ss.dir
	if d.alone() {
		return false
	}
	if d.knownHere(id) {
		return true
	}
	ctx, cancel := d.registryContext()
	defer cancel()
	p, err := d.registry.Presence(ctx, id)
	return err != nil || d.standingOf(p) >= onDead
}

// endOrphan ends a session that was last attached at a node which is dead: nobody else will. A node
// that can merely not be reached looks after its sessions itself. Call it in the session's lane.
func (ss *sessions) endOrphan(id routing.SessionID, last routing.Presence) {
	d := ss.dir
	if !d.cfg.Gone(last) || d.attached(id) {
		return
	}
	ctx, cancel := d.registryContext()
	defer cancel()
	p, err := d.registry.Presence(ctx, id)
	if err != nil || d.standingOf(p) == ended {
		return
	}
	op := routing.EndOp{Session: id}
	for _, at := range p.Nodes {
		if at.Node == last.Node && at.Incarnation == last.Incarnation {
			op.Gone = append(op.Gone, at)
		}
	}
	if _, err := ss.endInRegistry(op); err != nil {
		ss.failed.Warn(d.cfg.Log, d.cfg.Clock(), "cannot end a session whose node is gone", "session", id, "node", last.Node, "error", err)
	}
}
