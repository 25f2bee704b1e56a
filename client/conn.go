package client

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// conn is one connection to one node, from welcome to its end. Three goroutines serve it: a reader,
// a writer, and a ticker. The ticker runs until the other two have ended, and then ends the sends
// and requests that are left.
//
// Lock order: conn.mu, then budget.mu. No goroutine calls the application or writes to a socket
// while it holds one of them.
type conn struct {
	// Static after construction.
	s           *Session
	nc          net.Conn
	direct      direct    // nc as a direct, or nil
	born        time.Time // when welcome arrived
	addr        string
	session     string // public session ID, in hex
	node        string
	incarnation uint64 // of the node
	limits      codec.Limits
	resumed     bool
	multicasts  bool             // the node grants codec.FeatureMulticast
	returnsBare bool             // the node grants codec.FeatureShortNotHere
	gen         uint64           // of the bindings: see holdings.gen
	maxRead     int              // bytes of a frame's body
	drained     chan codec.Drain // capacity 1: the node's drain frame
	reassert    chan uint64      // capacity 1: the node's last reassert frame
	relogin     chan order       // capacity 1: the node's relogin frame
	retired     chan struct{}    // closed when the session has moved to another connection
	// closed when the connection has closed and every send on it has ended
	dead chan struct{}

	credit budget // for posts; in bytes

	pace, lookupPace pacer // of messages, and of IDs that are looked up

	// Shared without a lock.
	activity  activity
	departure departure
	draining  atomic.Bool  // the node has sent a drain frame
	renewing  atomic.Bool  // the node has sent a relogin frame: another connection takes its place
	owed      atomic.Int64 // answers that handlers have not given yet

	// Guarded by attachments.mu.
	place    place
	reported bool // OnState has reported the attachment, and must report its end

	// Guarded by mu: what is to be written.
	mu       sync.Mutex
	wake     sync.Cond // the writer's
	out      []byte    // whole frames, to be written
	spare    []byte    // the buffer written last, for reuse
	writing  bool      // the writer is writing a batch
	unsent   []byte    // when it ends: frames of which no byte was written
	outPhase outPhase
	cause    error                // why it was shut
	to, from [codec.MaxID]byte    // scratch for the frame being encoded
	trace    [codec.TraceLen]byte // likewise

	// Guarded by mu: what waits for the node.
	calls    calls
	requests map[uint64]*request
	nextReq  uint64
}

const (
	// maxTick is the longest time between two ticks of a connection. A tick is a quarter of a
	// heartbeat if that is less.
	maxTick = 250 * time.Millisecond
	// lasting is how long a connection has to live to count as a success. After a success, the
	// pauses between attempts are short again, and the session logs the next events at once.
	lasting = 10 * time.Second
	// deadBeats is how many silent heartbeats in a row end the connection.
	deadBeats = 3
	// writeStall is how long the node may accept no byte.
	writeStall = 10 * time.Second
	// guardSlack is how many milliseconds after a send's deadline the SDK ends the send, if the
	// node has not ended it.
	guardSlack = 1000
	// linger is how many milliseconds the session waits after a move before it leaves its former
	// connection. By then, all nodes should know the new one.
	linger = 200
	// leaveTimeout is how many milliseconds the node may take to answer leave.
	leaveTimeout = 10_000

	readBuffer = 32 << 10
	// keepBuffer bounds the empty buffers that are kept for reuse.
	keepBuffer = 1 << 20
)

// errConnClosed makes a caller wait for another connection.
var errConnClosed = errors.New("client: the connection is closed")

var (
	errSilent  = errors.New("client: the node is silent")
	errMoved   = errors.New("client: the session has moved to another node")
	errBacklog = errors.New("client: the node does not read")
)

// start begins to serve the connection. early holds the bytes that were read after welcome.
func (c *conn) start(early []byte) {
	over := make(chan struct{})
	var left atomic.Int32
	left.Store(2)
	serve := func(f func()) {
		f()
		if left.Add(-1) == 0 {
			close(over)
		}
	}
	go serve(func() { c.read(early) })
	go serve(c.write)
	go func() {
		c.tickUntil(over)
		c.finish()
	}()
}

// lasted reports whether the connection has lived long enough to prove that its node can be used.
func (c *conn) lasted() bool { return time.Since(c.born) >= lasting }

// append adds a frame to the bytes to be written. encode must not block.
func (c *conn) append(encode func(b []byte) []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.outPhase.frames() {
		return false
	}
	c.commit(encode(c.out))
	return true
}

// direct is a connection that can take bytes without a system call that may block, as a connection
// to an engine in this process can.
type direct interface {
	// TryWrite writes b and returns true if there is room for all of it. Otherwise it does nothing
	// and returns false.
	TryWrite(b []byte) bool
}

// commit makes out, which has grown by a frame, the outgoing buffer. If the connection accepts the
// bytes at once, commit writes them itself, so that the writer need not wake up. The caller holds
// c.mu.
func (c *conn) commit(out []byte) {
	if c.direct != nil && !c.writing && c.direct.TryWrite(out) {
		c.s.count.writes.Add(1)
		c.s.count.bytesOut.Add(uint64(len(out)))
		c.activity.spoke.Store(true)
		c.out = out[:0]
		return
	}
	if len(c.out) == 0 {
		c.wake.Signal()
	}
	c.out = out
}

// write is the writer. It writes all frames appended since the last time with one call.
func (c *conn) write() {
	for {
		batch := c.nextBatch()
		if batch == nil {
			return
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeStall))
		n, err := c.nc.Write(batch)
		c.s.count.writes.Add(1)
		c.s.count.bytesOut.Add(uint64(n))
		c.activity.spoke.Store(true)
		if err != nil {
			c.mu.Lock()
			c.unsent = batch[wholeFrames(batch, n):]
			c.mu.Unlock()
			c.close(fmt.Errorf("client: write to %s: %w", c.addr, err))
			return
		}
		c.reuse(batch)
	}
}

// nextBatch waits for frames and takes them. It returns nil when the connection is closed.
func (c *conn) nextBatch() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 && c.outPhase.frames() {
		c.wake.Wait()
		// The sender that woke the writer is rarely alone, so let the others append first. This
		// saves most write calls when many goroutines send at once.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	if !c.outPhase.frames() {
		return nil
	}
	batch := c.out
	c.out, c.spare, c.writing = c.spare, nil, true
	return batch
}

func (c *conn) reuse(batch []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = false
	if cap(batch) <= keepBuffer {
		c.spare = batch[:0]
	}
}

// read is the reader. It passes every frame to dispatch. It must never wait for a handler or a
// sender.
func (c *conn) read(early []byte) {
	buf := make([]byte, readBuffer+len(early))
	end := copy(buf, early)
	for {
		taken, err := c.frames(buf[:end])
		if err != nil {
			c.close(fmt.Errorf("client: malformed frame from %s: %w", c.addr, err))
			return
		}
		buf, end = makeRoom(buf, taken, end)
		n, err := c.nc.Read(buf[end:])
		c.s.count.reads.Add(1)
		c.s.count.bytesIn.Add(uint64(n))
		end += n
		if n > 0 {
			c.activity.heard.Store(true)
		}
		if err != nil {
			c.close(fmt.Errorf("client: read from %s: %w", c.addr, err))
			return
		}
	}
}

// frames dispatches the complete frames in b and returns how many bytes they had.
func (c *conn) frames(b []byte) (taken int, err error) {
	for {
		body, n, err := codec.Split(b[taken:], c.maxRead)
		if err != nil || n == 0 {
			return taken, err
		}
		if err := c.dispatch(body); err != nil {
			return taken, err
		}
		taken += n
	}
}

// makeRoom moves the partial frame buf[taken:end] to the front of a buffer that it fits into.
func makeRoom(buf []byte, taken, end int) ([]byte, int) {
	rest := buf[taken:end]
	need := readBuffer
	if len(rest) >= codec.PrefixLen { // Split has checked the declared length
		need = max(need, len(rest)+codec.Missing(rest))
	}
	if len(buf) < need || len(buf) > keepBuffer && need < keepBuffer {
		grown := make([]byte, need)
		return grown, copy(grown, rest)
	}
	return buf, copy(buf, rest)
}

// tickUntil is the ticker. It runs until the reader and the writer have ended.
func (c *conn) tickUntil(over <-chan struct{}) {
	every := max(min(c.s.cfg.Heartbeat/4, maxTick), time.Millisecond)
	t := time.NewTicker(every)
	defer t.Stop()
	c.activity.beat = int(max(c.s.cfg.Heartbeat/every, 1))
	for {
		select {
		case <-over:
			return
		case <-t.C:
			c.tick()
		}
	}
}

// tick pings a silent node, closes the connection if the node stays silent, and ends the sends that
// the node did not end in time.
func (c *conn) tick() {
	now := c.s.now()
	c.activity.tick()
	switch {
	case c.activity.dead():
		c.close(fmt.Errorf("%w for %d heartbeats of %v", errSilent, deadBeats, c.s.cfg.Heartbeat))
	case c.backlog() > c.s.cfg.MaxInFlightBytes+c.s.cfg.QueueTotal:
		c.close(errBacklog)
	case c.activity.pingDue():
		c.append(func(b []byte) []byte { return codec.AppendPing(b, uint64(now)) })
	}
	c.endOverdue(now - guardSlack)
	c.leave(now)
}

// backlog returns how many bytes wait to be written. Window and credit bound the messages among
// them. They do not bound the answers to a node that delivers but does not read.
func (c *conn) backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

// endOverdue ends the sends whose deadline was before limit. The node has not answered them.
func (c *conn) endOverdue(limit int64) {
	c.mu.Lock()
	seqs := c.calls.overdue(limit, nil)
	c.mu.Unlock()
	for _, seq := range seqs {
		c.end(seq, Reply{}, &Error{Code: codec.CodeTimeout, Reason: "the node sent no outcome"})
	}
}

// close begins to close the connection. Any goroutine may call it, more than once. The first cause
// counts.
func (c *conn) close(cause error) {
	c.mu.Lock()
	c.shut(cause)
	c.mu.Unlock()
	c.s.attachments.drop(c)
	c.nc.Close()
}

// leave makes the session leave a connection after a move. It closes the connection when the node
// delivers no more messages on it, and all sends, requests and answers on it have ended.
func (c *conn) leave(now int64) {
	switch {
	case c.departure.mayLeave(now):
		c.append(codec.AppendLeave)
	case c.departure.over(now) && c.shutIdle(errMoved):
		c.close(errMoved)
	}
}

// shut stops the writer and refuses further frames. The first cause counts. The caller holds mu.
func (c *conn) shut(cause error) {
	if c.outPhase.frames() {
		c.outPhase, c.cause = c.outPhase.shut(), cause
		c.wake.Signal()
	}
}

// shutIdle refuses further frames if the connection is idle: no send, request or answer is open,
// and no frame waits to be written. It checks and refuses in one step. Otherwise a sender that has
// chosen this connection long ago could append in between.
func (c *conn) shutIdle(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	busy := c.calls.len() > 0 || len(c.requests) > 0 || len(c.out) > 0 || c.writing || c.owed.Load() > 0
	if busy || !c.outPhase.frames() {
		return false
	}
	c.shut(cause)
	return true
}

// bye ends the session at the node, which then closes the connection. Nothing is sent after it.
func (c *conn) bye() {
	c.append(func(b []byte) []byte {
		c.outPhase = c.outPhase.bye()
		return codec.AppendBye(b)
	})
}

// finish ends the sends and requests that are left when reader and writer have ended. A send ends
// with unreachable if no byte of it was passed to the kernel, and with lost otherwise (S1).
func (c *conn) finish() {
	c.mu.Lock()
	unsent := [2][]byte{c.unsent, c.out}
	c.unsent, c.out = nil, nil
	cause, asked := c.cause, c.outPhase.saidBye()
	c.mu.Unlock()

	c.credit.close(errConnClosed)
	for _, frames := range unsent {
		for len(frames) > 0 {
			body, n, _ := codec.Split(frames, len(frames))
			c.endUnsent(body, cause)
			frames = frames[n:]
		}
	}
	c.mu.Lock()
	lost := c.calls.overdue(1<<62, nil)
	requests := c.requests
	c.requests = nil
	c.mu.Unlock()
	for _, seq := range lost {
		c.end(seq, Reply{}, &Error{Code: codec.CodeLost, Reason: "the connection to the node was lost", cause: cause})
	}
	for _, r := range requests {
		r.answer <- answer{code: codec.CodeLost}
	}
	if asked && cause != ErrClosed { // Close has ended the session, and the node has closed
		cause = nil
	}
	c.s.attachments.forget(c, cause)
	close(c.dead)
}

// endUnsent ends the sends or the request of a frame that was never written.
func (c *conn) endUnsent(body []byte, cause error) {
	kind, _ := codec.PeekKind(body)
	switch kind {
	case codec.KindSend:
		var f codec.Send
		_ = codec.DecodeSend(body, &f) // our own frame
		c.endUnsentSends(f.Seq, 1, cause)
	case codec.KindMulticast:
		var f codec.Multicast
		_ = codec.DecodeMulticast(body, len(body), &f)
		c.endUnsentSends(f.Seq, f.To.Len(), cause)
	case codec.KindBind, codec.KindUnbind, codec.KindLookup:
		c.endRequest(requestSeq(kind, body), answer{code: unwritten(kind)})
	}
}

// endUnsentSends ends the n sends or posts whose numbers begin at seq.
func (c *conn) endUnsentSends(seq uint64, n int, cause error) {
	err := &Error{Code: codec.CodeUnreachable, Reason: "not written before the connection was lost", cause: cause}
	var failed []failure
	for ; n > 0; n-- {
		if id, ok := postID(seq); ok {
			failed = append(failed, failure{id, err})
		} else {
			c.end(seq, Reply{}, err)
		}
		seq++
	}
	c.s.postsFailed(failed)
}

// wholeFrames returns the offset of the first frame in b that begins at or after n.
func wholeFrames(b []byte, n int) int {
	off := 0
	for off < n {
		_, size, _ := codec.Split(b[off:], len(b))
		off += size
	}
	return off
}
