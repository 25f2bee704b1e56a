package engine

import (
	"hash/maphash"

	"distmsg/codec"
)

// All senders to a connection or link share its queue. While the queue is at most half full, they
// are served in the order of arrival. When it is fuller, each sender may have at most as many bytes
// in it as are still free (S32). So a few senders that outpace the receiver leave room for the
// others.

// maxCrowd bounds how many senders one crowded queue tells apart. All further senders share one
// share.
const maxCrowd = 4 << 10

var reasonCrowd = []byte("the receiver's queue is more than half full, and this sender has its share of it")

// crowd counts roughly how many bytes each sender has in a queue that is more than half full. It
// forgets in steps: a step happens when everything that was queued at the previous step has left.
type crowd struct {
	// by sender; nil if no sender has any
	before, since map[uint64]int
	// the latest step, as a count of all bytes ever queued
	mark int64
	// the end of the message charged last, in the same count
	last int64
}

// has returns how many bytes are charged to a sender.
func (w *crowd) has(sender uint64) int { return w.before[sender] + w.since[sender] }

// step forgets bytes that have left the queue. queued is how many bytes were ever queued, and left
// is how many of those have left.
func (w *crowd) step(queued, left int64) {
	switch {
	case left >= w.last:
		*w = crowd{mark: queued}
	case left >= w.mark:
		w.before, w.since, w.mark = w.since, nil, queued
	}
}

// charge adds size bytes to a sender's account. last is where the message ends in the count of all
// bytes ever queued.
func (w *crowd) charge(sender uint64, size int, last int64) {
	if w.since == nil {
		w.since = make(map[uint64]int)
	}
	w.since[sender] += size
	w.last = last
}

// known returns the key under which a sender is counted. It returns 0, the key of the shared share,
// if the queue cannot tell the sender apart.
func (w *crowd) known(sender uint64) uint64 {
	if len(w.since) >= maxCrowd && w.has(sender) == 0 {
		return 0
	}
	return sender
}

// crowdedBy reports whether size more bytes would make the queue more than half full, or need more
// of what its identity may have. If not, a message of that size may be queued.
func (o *output) crowdedBy(size int) bool {
	n := o.queued() + size
	return n > o.room()/2 || !o.allowance.Allows(n)
}

// admits reports whether a message of size bytes may be queued, or why not (S22). If it may, admits
// charges it to the sender.
func (o *output) admits(size int, from []byte) verdict {
	switch {
	case !o.crowdedBy(size):
		return verdict{}
	case !o.fits(size):
		return o.full(size)
	}
	return o.admitsCrowded(0, size, o.conn.loop.eng.senderOf(from))
}

// admitsCrowded does the same for a message that fits into a queue that is more than half full.
// ahead is how many other bytes are about to be queued before the message.
func (o *output) admitsCrowded(ahead, size int, sender uint64) verdict {
	if !o.crowdedBy(ahead + size) { // it only had to reserve more
		return verdict{}
	}
	w := &o.jammed().crowd
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

// overCrowd says why a sender may not queue more. Either the sender has used up its share, or the
// share is smaller because the node's memory is nearly used up.
func (o *output) overCrowd(needed int) verdict {
	c := o.conn
	o.noteFull() // one sender alone never fills the queue
	if needed <= o.maxPending {
		c.loop.stats.memoryRefused++
		return verdict{codec.CodeOverflow, reasonMemory}
	}
	c.loop.stats.overCrowd++
	return verdict{codec.CodeOverflow, reasonCrowd}
}

// senderOf returns the key under which a sender is counted. It is derived from the sender's
// session, or from its ID if this node does not know the session.
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
