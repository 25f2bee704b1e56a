package engine

import (
	"sync/atomic"

	"distmsg/codec"
	"distmsg/engine/internal/limit"
	"distmsg/engine/internal/wake"
)

// Limits bound what one connection holds: its output queue, its unfinished frame, and its messages
// that wait for the registry. This file bounds the same for the whole node (S32). Otherwise many
// connections that do not read would take all memory.
//
// Each loop counts what its connections hold, and publishes the count when it has changed by much.
// As memory is used up, a connection may queue a smaller part of what is free. So messages to
// connections that hold much are refused first. Answers are not refused, so this may not be enough.
// Then the node closes the connections that hold most. See relieve.

const (
	// heldStep is by how many bytes a loop's count must change before the loop publishes it.
	heldStep = 64 << 10
	// queueCost is how many bytes a queued byte takes, because gnet rounds each write up to a power
	// of two.
	queueCost = 2
	// memoryPart is the part of the free memory that one connection may queue.
	memoryPart = 8
	// leastQueue is how many bytes a connection may queue when nothing is free. With a small budget
	// it is leastPart of the budget.
	leastQueue = 128 << 10
	leastPart  = 256
	// minBudget is the smallest budget, in messages of MaxPayload, so that a message fits.
	minBudget = 16
)

// memory is the node's budget for what its connections hold, in bytes.
type memory struct {
	// static
	budget int64
	// Beyond soft, a connection may queue no more than least. Beyond hard, the node closes
	// connections.
	soft, hard int64
	least      int64
	most       int64 // what a connection may queue in any case
	// crowded, of capacity 1, holds a token when connections hold more than hard.
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

// share returns how many bytes one client's connection may queue while that much is held. It
// returns 0 if only the connection's own limit applies.
func (m *memory) share(held int64) int {
	share := max((m.soft-held)/memoryPart, m.least)
	if share >= m.most {
		return 0
	}
	return int(share)
}

// loopMemory counts what the connections of one loop hold. The loop owns it.
type loopMemory struct {
	loop *loop // static

	held  int64 // bytes
	said  int64 // how many of them memory.held includes
	share int   // see memory.share
}

// holds adds n, which may be negative, to the bytes that connections of this loop hold.
func (m *loopMemory) holds(n int) {
	m.held += int64(n)
	if d := m.held - m.said; d >= heldStep || d <= -heldStep {
		m.say()
	}
}

// say publishes what this loop's connections hold and reads the count of all loops.
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

// atMost returns the limit of bytes for one connection, or its share of the free memory if that is
// less.
func (m *loopMemory) atMost(limit int) int {
	if m.share == 0 {
		return limit
	}
	return min(limit, m.share)
}

// room returns how many bytes may wait to be written to a connection. A link may hold more, because
// it carries the messages of many connections.
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

// full returns why a message of size bytes does not fit: its receiver is slow, or all connections
// of its receiver's identity are, or the node's memory is nearly used up.
func (o *output) full(size int) verdict {
	switch n := o.queued() + size; {
	case n > o.maxPending:
		return verdict{codec.CodeOverflow, reasonQueue}
	case n <= o.room():
		o.conn.quota.account.Refused(limit.IdentityPendingBytes, 1)
		return verdict{codec.CodeOverflow, reasonPending}
	}
	o.conn.loop.stats.memoryRefused++
	return verdict{codec.CodeOverflow, reasonMemory}
}

// mayPark returns why size more bytes of a connection's messages may not wait for the registry. It
// returns the zero verdict if they may.
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

// setBacklog notes how many bytes the wire holds for the connection.
func (o *output) setBacklog(n int) {
	if n != o.backlog {
		c := o.conn
		c.loop.memory.holds(queueCost * (n - o.backlog))
		c.loop.stats.traffic[c.kind].Queued += n - o.backlog
		o.backlog = n
	}
}

// count notes the size of the buffers of input that wait for the end of a frame or for a turn, and
// of those of TLS.
func (in *input) count() {
	n := int(in.sealed)
	if w := in.later; w != nil {
		n += cap(w.carry) + cap(w.unread)
	}
	if n != in.carried {
		in.conn.loop.memory.holds(n - in.carried)
		in.carried = n
	}
}

// holding returns how many bytes a connection holds because of its client. Input that waits for a
// turn does not count, because the node makes it wait.
func (c *conn) holding() int {
	return queueCost*c.out.backlog + cap(c.in.carry()) + int(c.in.sealed) + c.sender.parked
}
