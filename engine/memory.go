package engine

import (
	"sync/atomic"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
)

// What one connection may hold is bounded: what waits to be written to it, what it has sent of a
// frame, what waits for the registry. Here the same is bounded for the node (S32), or many
// connections that do not read would take all memory.
//
// Each loop counts what its connections hold, and tells the others when that has changed by much.
// As memory is used up, a connection may queue a smaller part of what is free: first messages to
// connections that hold much are refused. If that is not enough (answers are not refused), the node
// closes the connections that hold most. See relieve.

const (
	// heldStep is by how many bytes what a loop's connections hold changes before it tells the
	// others.
	heldStep = 64 << 10
	// queueCost is what a queued byte takes: gnet rounds each write up to a power of two.
	queueCost = 2
	// memoryPart is the part of the free memory that one connection may queue.
	memoryPart = 8
	// leastQueue is what a connection may queue when nothing is free, or leastPart of a small
	// budget.
	leastQueue = 128 << 10
	leastPart  = 256
	// minBudget is the least budget in messages of MaxPayload, so that one of them fits.
	minBudget = 16
)

// memory is the node's budget for what its connections hold, in bytes.
type memory struct {
	// static
	budget int64
	// beyond soft, messages get no more than least; beyond hard, connections are closed
	soft, hard int64
	least      int64
	most       int64 // what a connection may queue in any case
	// crowded holds one: more than hard is held.
	crowded chan struct{}

	held   atomic.Int64 // by loops as they said last
	peak   atomic.Int64 // about the most that was held since memory was given back
	closed atomic.Uint64
}

func newMemory(c *Config) memory {
	return memory{
		budget: c.MemoryBudget, soft: c.MemoryBudget / 4 * 3, hard: c.MemoryBudget / 8 * 7,
		least: min(leastQueue, c.MemoryBudget/leastPart), most: int64(c.MaxPending),
		crowded: make(chan struct{}, 1),
	}
}

// share is what one client's connection may queue while that much is held; 0: as much as its own
// limit allows.
func (m *memory) share(held int64) int {
	share := max((m.soft-held)/memoryPart, m.least)
	if share >= m.most {
		return 0
	}
	return int(share)
}

// loopMemory is what the connections of one loop hold. The loop owns it.
type loopMemory struct {
	loop *loop // static

	held  int64 // bytes
	said  int64 // of those, what memory.held includes
	share int   // see memory.share
}

// holds counts bytes that a connection of this loop holds now, or no longer.
func (m *loopMemory) holds(n int) {
	m.held += int64(n)
	if d := m.held - m.said; d >= heldStep || d <= -heldStep {
		m.say()
	}
}

// say tells the other loops what this one's connections hold, and hears the same of them.
func (m *loopMemory) say() {
	node := &m.loop.eng.memory
	held := node.held.Add(m.held - m.said)
	m.said = m.held
	m.share = node.share(held)
	if held > node.peak.Load() {
		node.peak.Store(held)
	}
	if held > node.hard {
		wake.Nudge(node.crowded)
	}
}

// atMost is a limit of bytes for one connection, or its share of the free memory if that is less.
func (m *loopMemory) atMost(limit int) int {
	if m.share == 0 {
		return limit
	}
	return min(limit, m.share)
}

// room is how many bytes may wait to be written to a connection. A link carries what many
// connections send.
func (o *output) room() int {
	c := o.conn
	share := c.loop.memory.share
	if share == 0 {
		return o.maxPending
	}
	if c.kind == linkConn {
		share *= linkRoom
	}
	return min(o.maxPending, share)
}

// full says why a message of size bytes does not fit: its receiver is slow, or the node's memory is
// nearly used up.
func (o *output) full(size int) verdict {
	if o.queued()+size > o.maxPending {
		return verdict{codec.CodeOverflow, reasonQueue}
	}
	o.conn.loop.stats.memoryRefused++
	return verdict{codec.CodeOverflow, reasonMemory}
}

// mayPark reports whether size more bytes of a connection's messages may wait for the registry, or
// why not.
func (s *sender) mayPark(size int) verdict {
	c := s.conn
	most := c.loop.eng.cfg.MaxParked
	switch {
	case s.parked+size > most:
		return verdict{codec.CodeOverflow, reasonParked}
	case s.parked+size > c.loop.memory.atMost(most):
		c.loop.stats.memoryRefused++
		return verdict{codec.CodeOverflow, reasonMemory}
	}
	return verdict{}
}

// setBacklog notes how many bytes gnet holds for the connection.
func (o *output) setBacklog(n int) {
	if n != o.backlog {
		o.conn.loop.memory.holds(queueCost * (n - o.backlog))
		o.backlog = n
	}
}

// count notes how large the buffers are that wait for the end of a frame, and for a turn.
func (in *input) count() {
	if n := cap(in.carry) + cap(in.unread); n != in.carried {
		in.conn.loop.memory.holds(n - in.carried)
		in.carried = n
	}
}

// holding is how many bytes a connection holds by what its client does. That its input waits for a
// turn is the node's doing.
func (c *conn) holding() int { return queueCost*c.out.backlog + cap(c.in.carry) + c.sender.parked }
