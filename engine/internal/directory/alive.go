package directory

import (
	"context"
	"slices"

	"distmsg/routing"
)

// Five parts of the directory ask whether a session is alive: a bind that meets an incumbent, a
// hello that wants to resume, a watch, a message on its way, and a node that cleans up after a dead
// one. All of them ask here. What this node knows itself counts first (knownHere). For the rest,
// the registry says where a session is attached, and standingOf reduces that to one of a few
// states. What follows from the state is up to the caller.

// standing is the state of a session by the registry and by what this node knows of the other
// nodes.
type standing uint8

const (
	unsaid  standing = iota // the registry did not say
	ended                   // it has ended, for good
	nowhere                 // it has not ended, and is attached nowhere
	onDead                  // it is attached, but all those nodes are dead
	onAlive                 // it is attached at a node that may live, and that there is no link to
	onLink                  // it is attached at a node that there is a link to
)

// alive reports whether a session counts as alive: it is attached at a node that may live. Only
// another node itself knows whether a session is within its resume window there.
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

// standingOf returns the state of a session by what the registry says of it.
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

// whereAre asks the registry where sessions are. The map lacks sessions of which the registry does
// not say.
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

// livesElsewhere reports whether a session that is not in this node's table lives at another node,
// or may be resumed. If the registry does not answer, it returns true: the client has proved that
// the session was its own, and if the session has ended, the registry refuses its attach later. An
// entry of a dead node is enough.
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

// endOrphan ends a session that was last attached at a dead node, because nobody else will. A node
// that merely cannot be reached looks after its sessions itself. Call it in the session's lane.
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
