package engine

import (
	"distmsg/routing"
)

// Health names what this node has to do without at the moment, a line each; empty: nothing. A node
// with troubles goes on serving: what it knows still works, and what it does not know ends with an
// outcome that says so.
func (e *Engine) Health() []string {
	troubles := e.dir.Troubles()
	if trouble := e.memoryTrouble(); trouble != "" {
		troubles = append(troubles, trouble)
	}
	if e.cluster != nil {
		troubles = append(troubles, e.cluster.peers.Members.Troubles()...)
	}
	return append(troubles, e.stalls()...)
}

// Gone reports whether a presence entry counts as absent because its node is dead: there is no link
// to it, and the membership does not list it, or lists a later incarnation, or none (S16). It fits
// the Gone field of routing/redis.Config. Any goroutine may call it; without a cluster, every node
// but this one is gone.
func (e *Engine) Gone(p routing.Presence) bool {
	if p.Node == e.cfg.NodeID {
		return p.Incarnation != e.incarnation.Load()
	}
	if e.cluster == nil {
		return true
	}
	return e.cluster.peers.Members.Gone(p.Node, p.Incarnation)
}
