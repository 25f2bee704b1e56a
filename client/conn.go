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
// a writer, and a keeper of time that outlives the two and then ends what is left.
//
// Lock order: conn.mu, then budget.mu. No callback runs and nothing is written to a socket under
// either.
type conn struct {
	// Static after construction.
	s           *Session
	nc          net.Conn
	direct      direct    // nc, if it is one
	born        time.Time // when welcome came
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
	retired     chan struct{}    // closed when the session has moved away from here
	// closed when the connection is gone and every send on it has ended
	dead chan struct{}

	credit budget // for posts; in bytes

	// Shared without a lock.
	heard    atomic.Bool  // something was read since the last tick
	spoke    atomic.Bool  // something was written since the last tick
	draining atomic.Bool  // the node has said so
	moved    atomic.Int64 // when the session moved away from here, on its clock; 0: not yet
	left     atomic.Bool  // the node delivers nothing any more
	owed     atomic.Int64 // answers that the handlers have yet to give

	// Guarded by attachments.mu.
	gone   bool // closed or retired: no send goes here any more
	closed bool
	told   bool // OnState is to hear of its end

	leaving bool // leave was sent; the ticker's

	mu       sync.Mutex
	wake     sync.Cond // the writer's
	out      []byte    // whole frames, to be written
	spare    []byte    // the buffer written before, for reuse
	writing  bool      // a batch is being written
	unsent   []byte    // at the end: frames of which no byte was written
	shut     bool      // nothing is appended any more
	cause    error     // why
	ended    bool      // bye was appended: no message may follow
	calls    calls
	requests map[uint64]*request
	nextReq  uint64
	to, from [codec.MaxID]byte // scratch for the frame being encoded
}

const (
	// maxTick is how often a connection is looked after, at least; it is a quarter of a heartbeat
	// if that is less.
	maxTick = 250 * time.Millisecond
	// lasting is how long a connection has to live to count as a success: then the pauses before
	// attempts are short again, and what happens is worth a line in the log.
	lasting = 10 * time.Second
	// deadBeats of silence in a row end the connection.
	deadBeats = 3
	// writeStall is how long the node may take no byte.
	writeStall = 10 * time.Second
	// guardSlack is how long after its deadline a send is ended here if the node has not done so,
	// in milliseconds.
	guardSlack = 1000
	// linger is how long after it has moved the session leaves its former connection, in
	// milliseconds: all nodes should have heard of the new one by then.
	linger = 200
	// leaveTimeout is how long the node may take to say that it delivers nothing any more, in
	// milliseconds.
	leaveTimeout = 10_000

	readBuffer = 32 << 10
	// keepBuffer bounds the buffers that are kept when they are empty.
	keepBuffer = 1 << 20
)

// errConnClosed sends a caller back to wait for another connection.
var errConnClosed = errors.New("client: the connection is closed")

var (
	errSilent  = errors.New("client: the node is silent")
	errMoved   = errors.New("client: the session has moved to another node")
	errBacklog = errors.New("client: the node does not read")
)

// start begins to serve the connection. early is what was read behind welcome.
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

// append adds a frame to what will be written. encode must not block.
func (c *conn) append(encode func(b []byte) []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.commit(encode(c.out))
	return true
}

// direct is a connection that can take bytes without a system call that may block, as a connection
// to an engine in this process can.
type direct interface {
	// TryWrite is Write if there is room for all of b at once. Otherwise it does nothing and
	// returns false.
	TryWrite(b []byte) bool
}

// commit takes over the grown out buffer, or writes it if the connection takes it at once: that
// spares the writer's goroutine. It needs c.mu.
func (c *conn) commit(out []byte) {
	if c.direct != nil && !c.writing && c.direct.TryWrite(out) {
		c.s.count.writes.Add(1)
		c.s.count.bytesOut.Add(uint64(len(out)))
		c.spoke.Store(true)
		c.out = out[:0]
		return
	}
	if len(c.out) == 0 {
		c.wake.Signal()
	}
	c.out = out
}

// write is the writer: it writes whatever was appended since the last time, at once.
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
		c.spoke.Store(true)
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

// nextBatch waits for frames and takes them; nil when the connection is closed.
func (c *conn) nextBatch() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 && !c.shut {
		c.wake.Wait()
		// The sender that woke the writer is rarely alone: let the others append first. It saves
		// most of the write calls when many goroutines send at once.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	if c.shut {
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

// read is the reader: it hands every frame to dispatch. It must never wait for a handler or a
// sender.
func (c *conn) read(early []byte) {
	buf := make([]byte, readBuffer+len(early))
	end := copy(buf, early)
	for {
		taken, err := c.frames(buf[:end])
		if err != nil {
			c.close(fmt.Errorf("client: from %s: %w", c.addr, err))
			return
		}
		buf, end = makeRoom(buf, taken, end)
		n, err := c.nc.Read(buf[end:])
		c.s.count.reads.Add(1)
		c.s.count.bytesIn.Add(uint64(n))
		end += n
		if n > 0 {
			c.heard.Store(true)
		}
		if err != nil {
			c.close(fmt.Errorf("client: read from %s: %w", c.addr, err))
			return
		}
	}
}

// frames dispatches the whole frames in b and returns how many bytes they took.
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
	if len(rest) >= codec.PrefixLen { // Split has checked the length it declares
		need = max(need, len(rest)+codec.Missing(rest))
	}
	if len(buf) < need || len(buf) > keepBuffer && need < keepBuffer {
		grown := make([]byte, need)
		return grown, copy(grown, rest)
	}
	return buf, copy(buf, rest)
}

// tickUntil looks after the connection until reader and writer are over.
func (c *conn) tickUntil(over <-chan struct{}) {
	every := max(min(c.s.cfg.Heartbeat/4, maxTick), time.Millisecond)
	t := time.NewTicker(every)
	defer t.Stop()
	// Silence is counted in ticks, not in time: a pause of this process is not the node's fault.
	quiet, mute, beat := 0, 0, int(max(c.s.cfg.Heartbeat/every, 1))
	for {
		select {
		case <-over:
			return
		case <-t.C:
			quiet, mute = c.tick(quiet, mute, beat)
		}
	}
}

// tick pings a silent node, gives up one that stays silent, and ends the sends that the node
// forgot. It also pings if nothing was written for a heartbeat: hello has promised the node that it
// hears something that often, and the node gives up a client that breaks the promise. quiet and
// mute are how many ticks in a row nothing came, and nothing was written; beat is how many make a
// heartbeat.
func (c *conn) tick(quiet, mute, beat int) (int, int) {
	now := c.s.now()
	if quiet++; c.heard.Swap(false) {
		quiet = 0
	}
	if mute++; c.spoke.Swap(false) {
		mute = 0
	}
	switch {
	case quiet >= deadBeats*beat:
		c.close(fmt.Errorf("%w for %d heartbeats of %v", errSilent, deadBeats, c.s.cfg.Heartbeat))
	case c.backlog() > c.s.cfg.MaxInFlightBytes+c.s.cfg.QueueTotal:
		c.close(errBacklog)
	case quiet > 0 && quiet%beat == 0, mute > 0 && mute%beat == 0:
		c.append(func(b []byte) []byte { return codec.AppendPing(b, uint64(now)) })
	}
	c.endOverdue(now - guardSlack)
	c.leave(now)
	return quiet, mute
}

// backlog returns the bytes that wait to be written. Window and credit bound the messages among
// them, but not the answers to a node that delivers and does not read.
func (c *conn) backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

// endOverdue ends the sends whose deadline was before limit: their node never answered.
func (c *conn) endOverdue(limit int64) {
	c.mu.Lock()
	seqs := c.calls.overdue(limit, nil)
	c.mu.Unlock()
	for _, seq := range seqs {
		c.end(seq, Reply{}, &Error{Code: codec.CodeTimeout, Reason: "the node did not answer either"})
	}
}

// close begins the end of the connection. It may be called from any goroutine, more than once; the
// first cause counts.
func (c *conn) close(cause error) {
	c.mu.Lock()
	if !c.shut {
		c.shut, c.cause = true, cause
		c.wake.Signal()
	}
	c.mu.Unlock()
	c.s.attachments.drop(c)
	c.nc.Close()
}

// leave takes a connection that the session has moved away from out of the session, and closes it
// when the node delivers nothing any more and all that is open on it has ended.
func (c *conn) leave(now int64) {
	moved := c.moved.Load()
	if moved == 0 || now-moved < linger {
		return
	}
	if !c.leaving {
		c.leaving = true
		c.append(codec.AppendLeave)
		return
	}
	if (c.left.Load() || now-moved > leaveTimeout) && c.shutIdle(errMoved) {
		c.close(errMoved)
	}
}

// shutIdle lets nothing be appended any more if nothing is open: no send, no request, no answer, no
// frame to be written. Looking and shutting are one step, or a sender that has chosen this
// connection long ago could append in between.
func (c *conn) shutIdle(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.calls.len() > 0 || len(c.requests) > 0 || len(c.out) > 0 || c.writing || c.owed.Load() > 0 {
		return false
	}
	c.shut, c.cause = true, cause
	c.wake.Signal()
	return true
}

// bye ends the session at the node, which then closes the connection. Nothing is sent after it.
func (c *conn) bye() {
	c.append(func(b []byte) []byte {
		c.ended = true
		return codec.AppendBye(b)
	})
}

// finish ends what is left when neither reader nor writer runs any more: unreachable if no byte of
// it was handed to the kernel, else lost (S1).
func (c *conn) finish() {
	c.mu.Lock()
	unsent := [2][]byte{c.unsent, c.out}
	c.unsent, c.out = nil, nil
	cause := c.cause
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
		c.end(seq, Reply{}, &Error{Code: codec.CodeLost, Reason: "the connection to the node died", cause: cause})
	}
	for _, r := range requests {
		r.answer <- answer{code: codec.CodeLost}
	}
	if c.ended && cause != ErrClosed { // it is Close that has ended it
		cause = nil
	}
	c.s.attachments.forget(c, cause)
	close(c.dead)
}

// endUnsent ends what waits for the answer to a frame that was never written.
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

// endUnsentSends ends n sends or posts, numbered from seq.
func (c *conn) endUnsentSends(seq uint64, n int, cause error) {
	err := &Error{Code: codec.CodeUnreachable, Reason: "not written before the connection died", cause: cause}
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
