package engine

import (
	"time"

	"distmsg/engine/internal/limit"
)

// output is what waits to be written to a connection, and how fast its peer reads it. The
// connection's loop owns it.
type output struct {
	jam     *jam  // nil: the peer has read everything in time so far
	written int64 // bytes handed to the wire

	// what each message touches, see conn
	conn       *conn  // static
	pending    []byte // to be written at the end of the iteration
	segBytes   int    // in jam.segments
	backlog    int    // bytes that wait for the kernel
	dirty      bool
	observed   bool            // it is in the loop's observed
	messages   uint32          // in pending and jam.segments
	readAt     time.Duration   // when the first of them was read
	maxPending int             // bytes beyond which messages are refused
	allowance  limit.Allowance // of the bytes that may wait for the connections of an identity
}

// jam is what a connection needs when more waits for it than one buffer.
type jam struct {
	segments  [][]byte // full or foreign buffers that go out before pending
	fullSince int64    // since when the buffer has refused frames; 0: it has not
	crowd     crowd    // of a queue that was more than half full
	taken     int64    // bytes that had reached the peer's kernel at the last look
	moved     int64    // when that last grew
}

// jammed returns the connection's jam.
func (o *output) jammed() *jam {
	if o.jam == nil {
		o.jam = new(jam)
	}
	return o.jam
}

// queued returns how many bytes wait for this connection. queuedHere returns how many of them its
// wire does not have yet.
func (o *output) queued() int {
	return o.backlog + o.queuedHere()
}

func (o *output) queuedHere() int { return o.segBytes + len(o.pending) }

// fits reports whether a message of size bytes may be queued, and remembers since when not (S22).
func (o *output) fits(size int) bool {
	if n := o.queued() + size; n <= o.room() && (o.allowance.Allows(n) || o.conn.quota.mayPend(n)) {
		return true
	}
	o.noteFull()
	return false
}

// noteFull remembers since when the queue has refused frames.
func (o *output) noteFull() {
	if j := o.jammed(); j.fullSince == 0 {
		j.fullSince = o.conn.loop.now
	}
	o.observe()
}

// buf returns the buffer to append a frame to. The caller gives it back with wrote.
func (o *output) buf() []byte {
	if o.pending == nil {
		o.pending = o.conn.loop.bufs.get()
	}
	return o.pending
}

// bufFor is buf for a frame of up to size bytes, which may be large.
func (o *output) bufFor(size int) []byte {
	c := o.conn
	b := o.buf()
	if size <= largestBuf || len(b)+size <= cap(b) {
		return b
	}
	o.pending = append(c.loop.bufs.sized(len(b)+size), b...)
	c.loop.bufs.put(b)
	return o.pending
}

// holdsMessages notes that n messages are about to be queued, of which the first was read then. See
// loopTimes.
func (o *output) holdsMessages(n uint32, readAt time.Duration) {
	if o.messages == 0 || readAt < o.readAt {
		o.readAt = readAt
	}
	o.messages += n
}

func (o *output) wrote(b []byte) {
	o.pending = b
	o.conn.loop.stats.framesOut++
	o.markDirty()
	if len(b) >= earlyFlush {
		o.flush()
	}
}

// wroteControl is wrote for frames that MaxPending does not refuse. These are answers, for which
// room is reserved. A client that fills even that room is slow. Its connection closes when there is
// no room for another reply.
func (o *output) wroteControl(b []byte) {
	c := o.conn
	o.wrote(b)
	over := o.queued() - o.maxPending - c.loop.eng.reserve
	if c.closed() || over <= 0 {
		return
	}
	if over > c.loop.memory.atMost(replyRoom*c.loop.eng.cfg.MaxPayload) {
		c.closeSlow(slowAnswers)
		return
	}
	o.noteFull()
}

// adopt queues a buffer of whole frames that another loop has filled, without copying it.
func (o *output) adopt(b []byte) {
	waited := o.pending
	o.pending = b
	o.markDirty()
	if len(waited) == 0 {
		o.conn.loop.bufs.put(waited)
		return
	}
	j := o.jammed()
	j.segments = append(j.segments, waited)
	o.segBytes += len(waited)
	if len(j.segments) >= maxSegments {
		o.flush()
	}
}

// takeSegments appends the segments to bufs.
func (o *output) takeSegments(bufs [][]byte) [][]byte {
	if o.segBytes > 0 {
		j := o.jam
		bufs = append(bufs, j.segments...)
		clear(j.segments)
		j.segments, o.segBytes = j.segments[:0], 0
	}
	return bufs
}

// maxSegments stays far below the 1,024 at which a vectored write fails.
const maxSegments = 64

func (o *output) markDirty() {
	c := o.conn
	if !o.dirty {
		o.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// flush hands everything that waits to the wire, in one write call. Afterwards c may be closed.
func (o *output) flush() {
	c := o.conn
	l := c.loop
	if c.sender.creditDue > 0 && c.state == stateOpen {
		c.sender.renewCredit()
	}
	if c.gone() {
		o.release() // closed while a frame of its own was being handled
		return
	}
	if len(o.pending) == 0 {
		return
	}
	size := o.segBytes + len(o.pending)
	// What is written moves to the loop's scratch first, because an error closes c in the middle of
	// the write.
	l.scratch.iov = append(o.takeSegments(l.scratch.iov[:0]), o.pending)
	o.pending = nil
	o.written += int64(size)
	if o.messages > 0 {
		l.stats.times.residence.Add(l.pace.stamped-o.readAt, uint64(o.messages))
		o.messages = 0
	}
	l.stats.writes++
	l.stats.traffic[c.kind].BytesOut += uint64(size)
	l.writeOut(c.wire)
	if c.gone() {
		return
	}
	o.setBacklog(c.wire.backlog())
	switch {
	case o.backlog > 0:
		o.observe()
	case o.allowance.Trims():
		c.quota.trimPending(0)
	}
}

// writeOut hands the buffers in iov over. If that fails, the connection has closed when writeOut
// returns. See teardown.
func (l *loop) writeOut(w wire) {
	bufs := l.scratch.iov
	l.scratch.iov = nil // the end of a connection can make another one flush
	w.write(l, bufs)
	l.scratch.iov = bufs
}

// release drops what waits to be written.
func (o *output) release() {
	bufs := &o.conn.loop.bufs
	bufs.put(o.pending)
	for _, b := range o.takeSegments(nil) {
		bufs.put(b)
	}
	o.pending, o.messages = nil, 0
}

func (o *output) observe() {
	c := o.conn
	if !o.observed {
		o.observed = true
		if !c.closed() {
			o.jammed().moved = c.loop.now
		}
		c.loop.observed = append(c.loop.observed, c)
	}
}

// check updates what gnet holds for the kernel and closes slow consumers. It returns whether to
// look again.
func (o *output) check() bool {
	c := o.conn
	if c.gone() {
		return false
	}
	l := c.loop
	o.setBacklog(c.wire.backlog())
	if c.closed() {
		return c.linger()
	}
	j := o.jammed()
	if taken := o.written - int64(o.backlog+o.inKernel()); taken > j.taken || o.backlog == 0 {
		j.taken, j.moved = taken, l.now
	}
	if o.queued() < o.maxPending/2 {
		j.fullSince = 0
	}
	c.quota.trimPending(o.queued())
	patience := l.eng.cfg.SlowConsumerTimeout.Milliseconds()
	switch {
	case o.backlog > 0 && l.now-j.moved >= patience:
		c.closeSlow(slowSilent)
		return true
	case j.fullSince != 0 && l.now-j.fullSince >= patience:
		c.closeSlow(slowFull)
		return true
	}
	return o.backlog > 0 || j.fullSince != 0
}

// inKernel returns how many bytes the kernel has taken and the peer has not.
func (o *output) inKernel() int {
	if o.backlog == 0 {
		return 0
	}
	return o.conn.wire.inKernel()
}
