package engine

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"distmsg/routing"
)

// health is what a node has noticed of the services it depends on.
type health struct {
	mu            sync.Mutex
	registryErr   error     // guarded by mu; of the latest call, nil if that went well
	registrySince time.Time // guarded by mu; when the first of the failed calls in a row ended
}

// noteRegistry takes the result of a registry call, and hands its error on.
func (e *Engine) noteRegistry(err error) error {
	h := &e.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.registryErr == nil {
		h.registrySince = time.Now()
	}
	h.registryErr = err
	return err
}

// Health names what this node has to do without at the moment, a line each; empty: nothing. A node with
// troubles goes on serving: what it knows still works, and what it does not know ends with an outcome that says so.
func (e *Engine) Health() []string {
	var troubles []string
	e.health.mu.Lock()
	err, since := e.health.registryErr, e.health.registrySince
	e.health.mu.Unlock()
	switch {
	case err != nil:
		troubles = append(troubles, fmt.Sprintf("the registry cannot be asked since %v: %v", time.Since(since).Round(time.Second), err))
	case e.cfg.Registry.Rebuilding():
		troubles = append(troubles, "the registry has lost data, or may have; it is being rebuilt")
	}
	if e.cluster != nil {
		for _, node := range e.cluster.unlinked() {
			troubles = append(troubles, fmt.Sprintf("no link to node %q", node))
		}
	}
	return troubles
}

// unlinked are the listed nodes that there is no link to.
func (c *cluster) unlinked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []string
	for node := range c.members {
		if c.links[node] == nil {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// Gone reports whether a presence entry counts as absent because its node is dead: there is no link to it, and the
// membership does not list it, or lists a later incarnation (S16). It fits the Gone field of routing/redis.Config. Any goroutine
// may call it; without a cluster, every node but this one is gone.
func (e *Engine) Gone(p routing.Presence) bool {
	if p.Node == e.cfg.NodeID {
		return p.Incarnation != e.incarnation.Load()
	}
	if e.cluster == nil {
		return true
	}
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	m, listed := c.members[p.Node]
	if k := c.links[p.Node]; k != nil {
		return k.incarnation != p.Incarnation
	}
	return !listed || m.Incarnation != p.Incarnation
}
