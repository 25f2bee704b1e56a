package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
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
	// membersPause is the least time between two lists of nodes that clients are sent.
	membersPause = time.Second
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
	wake.Nudge(c.news)
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

// notifyClients sends all clients the list of nodes after it has changed, until ctx ends. A list may
// have 1,024 nodes and go to each of many clients. So it is sent once in membersPause at most, and a
// client may miss lists in between.
func (c *cluster) notifyClients(ctx context.Context) {
	var sent uint64
	for {
		select {
		case <-c.news:
		case <-ctx.Done():
			return
		}
		all, version := c.list()
		if version == sent {
			continue
		}
		sent = version
		frame := codec.AppendMembers(nil, all)
		for _, l := range c.eng.loops {
			l.post(func() { l.sendMembers(0, frame) })
		}
		select {
		case <-time.After(membersPause):
		case <-ctx.Done():
			return
		}
	}
}

// list is what clients are told of the nodes, and how often that has changed. A list that is as it was
// some time ago is another one: there may be clients that have the one in between.
func (c *cluster) list() (all []codec.Member, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all = c.forClients(); !slices.Equal(all, c.listing) {
		c.listing = all
		c.listings++
	}
	return all, c.listings
}

// sendMembers queues a list of nodes for the clients from a slot on, as far as the iteration's share
// allows, and for the rest in the next iteration.
func (l *loop) sendMembers(slot int, frame []byte) {
	for ; slot < len(l.conns); slot++ {
		if l.full {
			l.post(func() { l.sendMembers(slot, frame) })
			return
		}
		if c := l.conns[slot]; c != nil && c.state == stateOpen && c.link == nil && c.local == nil {
			c.out.wroteControl(append(c.out.buf(), frame...))
			l.worked(writeWork + len(frame)/bytesPerUnit)
		}
	}
}
