package engine

import (
	"hash/maphash"

	"distmsg/codec"
)

// The queue of a connection or link is shared by all that send to it. While it is at most half
// full, whoever comes first is served first. Beyond that each sender may have as much in it as is
// left free (S32): a few that send more than the receiver reads leave room for all others.

// maxCrowd bounds the senders that one crowded queue tells apart. Those beyond share one share.
const maxCrowd = 4 << 10

var reasonCrowd = []byte("the receiver's queue is more than half full, and this sender has its share of it")

// crowd is about how many bytes each sender has in a queue that is more than half full. It forgets
// what has left the queue in steps, each when all has left that was there at the step before.
type crowd struct {
	before, since map[uint64]int // by sender; nil: nobody has any
	mark          int64          // of all bytes ever queued: the latest step
	last          int64          // the same, behind what was charged last
}

// has is how many bytes of a sender are charged.
func (w *crowd) has(sender uint64) int { return w.before[sender] + w.since[sender] }

// step forgets what has left. queued is how many bytes were ever queued, left how many of those
// have left.
func (w *crowd) step(queued, left int64) {
	switch {
	case left >= w.last:
		*w = crowd{mark: queued}
	case left >= w.mark:
		w.before, w.since, w.mark = w.since, nil, queued
	}
}

// charge notes that a sender has so many bytes more, up to the place last of all bytes.
func (w *crowd) charge(sender uint64, size int, last int64) {
	if w.since == nil {
		w.since = make(map[uint64]int)
	}
	w.since[sender] += size
	w.last = last
}

// known is under what a sender counts, if the queue can tell it apart.
func (w *crowd) known(sender uint64) uint64 {
	if len(w.since) >= maxCrowd && w.has(sender) == 0 {
		return 0
	}
	return sender
}

// crowdedBy reports whether the queue is more than half full with size bytes more.
func (o *output) crowdedBy(size int) bool { return o.queued()+size > o.room()/2 }

// admits reports whether a message of size bytes may be queued, or why not (S22). What it admits it
// charges to the sender.
func (o *output) admits(size int, from []byte) verdict {
	if !o.crowdedBy(size) {
		return verdict{}
	}
	return o.admitsCrowded(0, size, o.conn.loop.eng.senderOf(from))
}

// admitsCrowded is admits for a queue that is more than half full, and a message behind ahead bytes
// that are about to be queued.
func (o *output) admitsCrowded(ahead, size int, sender uint64) verdict {
	if !o.fits(ahead + size) {
		return o.full(ahead + size)
	}
	if o.crowd == nil {
		o.crowd = new(crowd)
	}
	w := o.crowd
	waits := o.queued() + ahead
	queued := o.written + int64(o.queuedHere()+ahead)
	w.step(queued, queued-int64(waits))
	sender = w.known(sender)
	if has := w.has(sender) + size; has > o.room()-waits {
		return o.overCrowd(has + waits)
	}
	w.charge(sender, size, queued+int64(size))
	return verdict{}
}

// overCrowd says why a sender may not queue more: it has its share, or it would have it, if the
// node's memory were not nearly used up.
func (o *output) overCrowd(needed int) verdict {
	c := o.conn
	o.noteFull() // a single sender never fills the queue
	if needed <= o.maxPending {
		c.loop.stats.memoryRefused++
		return verdict{codec.CodeOverflow, reasonMemory}
	}
	c.loop.stats.overCrowd++
	return verdict{codec.CodeOverflow, reasonCrowd}
}

// senderOf is under what a sender counts: its session, or its ID if this node does not know the
// session.
func (e *Engine) senderOf(from []byte) uint64 {
	if r, ok := e.table.Lookup(from); ok {
		return r.Session.Short()
	}
	if e.cluster != nil {
		if r, ok := e.cluster.remote.Lookup(from); ok {
			return r.Session.Short()
		}
	}
	return maphash.Bytes(e.seed, from)
}
