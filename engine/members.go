package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"distmsg/codec"
	"distmsg/discovery"
)

// A list of nodes is written by many, and everyone reads all of it. A record that is wrong is left
// out and named. So are nodes beyond the number that clients can be told of.

const (
	// maxMembers bounds the other nodes that this one knows.
	maxMembers = codec.MaxMembers
	// maxAlike bounds the records with this node's ID that are looked at.
	maxAlike = 16
	// maxNamed bounds the lines of health about nodes of one kind.
	maxNamed = 16
)

// setMembers begins to dial nodes that are new and stops dialling those that are gone. A link to a
// node that is no longer listed lives on: its heartbeats say whether the node can be reached.
func (c *cluster) setMembers(ctx context.Context, running *sync.WaitGroup, all []discovery.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all = c.choose(all)
	clear(c.members)
	c.listed = true
	c.alike = nil
	for _, m := range all {
		if m.ID == c.eng.cfg.NodeID {
			c.mayBeTwin(m)
			continue
		}
		c.members[m.ID] = m
		if c.dialers[m.ID] == nil && c.eng.cfg.NodeID < m.ID { // one link for a pair: the lower ID dials
			dialCtx, stop := context.WithCancel(ctx)
			c.dialers[m.ID] = stop
			running.Go(func() { c.dial(dialCtx, m.ID) })
		}
	}
	for node, stop := range c.dialers {
		if _, ok := c.members[node]; !ok {
			stop()
			delete(c.dialers, node)
			delete(c.refused, node)
		}
	}
	c.tellMembers()
}

// choose leaves out the records that are wrong and, of too many nodes, some that are not known yet.
// mu is held.
func (c *cluster) choose(all []discovery.Record) (chosen []discovery.Record) {
	var wrong []string
	beyond := 0
	nodes := make(map[string]bool)
	take := func(m discovery.Record) {
		if m.ID != c.eng.cfg.NodeID && !nodes[m.ID] && len(nodes) >= maxMembers {
			beyond++
			return
		}
		if m.ID != c.eng.cfg.NodeID {
			nodes[m.ID] = true
		}
		chosen = append(chosen, m)
	}
	var unknown []discovery.Record
	for _, m := range all {
		_, member := c.members[m.ID]
		switch err := m.Check(); {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("a record in the list of nodes is left out: %v", err))
		case member || c.links[m.ID] != nil || m.ID == c.eng.cfg.NodeID:
			take(m)
		default:
			unknown = append(unknown, m)
		}
	}
	for _, m := range unknown {
		take(m)
	}
	c.skip(wrong, beyond)
	return chosen
}

// skip notes for health what is left out of the list of nodes, and logs what is news. mu is held.
func (c *cluster) skip(wrong []string, beyond int) {
	lines := some(wrong)
	if beyond > 0 {
		lines = append(lines, fmt.Sprintf("more than %d nodes are listed: %d are left out", maxMembers, beyond))
	}
	for _, line := range lines {
		if !slices.Contains(c.skipped, line) {
			c.eng.cfg.Logger.Warn(line)
		}
	}
	c.skipped, c.beyond = lines, beyond
}

// some returns the first lines of many.
func some(lines []string) []string {
	slices.Sort(lines)
	if n := len(lines) - maxNamed; n > 0 {
		lines = append(lines[:maxNamed:maxNamed], fmt.Sprintf("and %d more like these", n))
	}
	return lines
}
