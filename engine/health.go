package engine

import (
	"distmsg/routing"
)

// Health returns the current problems of the node, one line for each, or an empty list. A node with
// problems keeps serving with what it knows. A message or request for which it lacks something ends
// with a code that says so.
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

// Gone reports whether a presence entry counts as absent because its node is dead (S16). That is so
// if this node has no link to it, and the membership does not list it, or lists it with a later
// incarnation or with none. Without a cluster, every node but this one is gone. Gone fits the Gone
// field of routing/redis.Config. Any goroutine may call it.
func (e *Engine) Gone(p routing.Presence) bool {
	if p.Node == e.cfg.NodeID {
		return p.Incarnation != e.incarnation.Load()
	}
	if e.cluster == nil {
		return true
	}
	return e.cluster.peers.Members.Gone(p.Node, p.Incarnation)
}
