package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how many bytes wait in each direction of a pipe, as in the kernel's buffers of a
// socket. A client that has filled its direction waits. What the node writes beyond pipeBuffer
// counts as a backlog.
const pipeBuffer = 64 << 10

// pipe is a connection in memory between a client in this process and a loop. The loop uses it as
// its wire, and the client has the other end (clientEnd).
type pipe struct {
	// static
	conn  *conn
	login *login
	pump  func() // take, as a task for the loop

	up   upstream
	down downstream
}

// half is what both directions of a pipe need for the client's calls, which wait in it.
type half struct {
	mu       sync.Mutex
	changed  sync.Cond // on mu; the client's goroutines wait
	deadline time.Time // guarded by mu; of the client's calls; zero: none
	closed   bool      // guarded by mu; the client has closed its end
}

// mayCall returns why a call of the client cannot go on, or nil if it can. The caller holds mu.
func (h *half) mayCall() error {
	switch {
	case h.closed:
		return net.ErrClosed
	case !h.deadline.IsZero() && !time.Now().Before(h.deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait waits until something has changed or the deadline has passed. The caller holds mu.
func (h *half) wait() {
	if !h.deadline.IsZero() {
		defer time.AfterFunc(time.Until(h.deadline), h.wake).Stop()
	}
	h.changed.Wait()
}

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed.Broadcast()
}

func (h *half) setDeadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = t
	h.changed.Broadcast()
}

// upstream holds what the client has written and the loop has not taken.
type upstream struct {
	half
	writing sync.Mutex // held during a call of Write, so that two do not mix; taken before mu

	in     *written // guarded by mu; nil: nothing
	waking bool     // guarded by mu; the loop is about to take it
	held   bool     // guarded by mu; the loop takes nothing at the moment
	dead   bool     // guarded by mu; the node reads nothing any more
}

// written is a buffer that a client writes to. An idle pipe has none.
type written struct{ b []byte }

var errNodeClosed = errors.New("engine: the node has closed the connection")

// put appends as much of b as fits. It waits until at least one byte fits. If wake is true, the
// caller must wake the loop.
func (u *upstream) put(e *Engine, b []byte) (n int, wake bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		if u.dead {
			return 0, false, errNodeClosed
		}
		if err := u.mayCall(); err != nil {
			return 0, false, err
		}
		if u.in == nil {
			u.in = e.inputs.Get().(*written)
		}
		if room := pipeBuffer - len(u.in.b); room > 0 {
			n = min(room, len(b))
			u.in.b = append(u.in.b, b[:n]...)
			return n, u.needsWake(), nil
		}
		u.wait()
	}
}

// tryPut appends all of b or nothing. If wake is true, the caller must wake the loop.
func (u *upstream) tryPut(e *Engine, b []byte) (wrote, wake bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dead || u.closed {
		return false, false
	}
	if u.in == nil {
		u.in = e.inputs.Get().(*written)
	}
	if len(u.in.b)+len(b) > pipeBuffer {
		return false, false
	}
	u.in.b = append(u.in.b, b...)
	return true, u.needsWake()
}

// needsWake reports whether the loop must be woken, and expects the caller to do it. The caller
// holds mu.
func (u *upstream) needsWake() bool {
	if u.waking || u.held || u.in == nil && !u.closed {
		return false
	}
	u.waking = true
	return true
}

// take returns what the loop may have now. ended is true if the client has closed its end behind
// it.
func (u *upstream) take() (in *written, ended bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waking = false
	if u.held {
		return nil, false
	}
	in, u.in = u.in, nil
	if in != nil && len(in.b) >= pipeBuffer {
		u.changed.Broadcast()
	}
	return in, u.closed
}

// hold stops the loop from taking anything, or lets it take again. If wake is true, the caller must
// wake the loop.
func (u *upstream) hold(on bool) (wake bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = on
	return !on && u.needsWake()
}

// end makes every later write of the client fail.
func (u *upstream) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead, u.in = true, nil
	u.changed.Broadcast()
}

// downstream holds what the loop has written and the client has not read.
type downstream struct {
	half
	bufs  [][]byte // guarded by mu; bufs[first:] are left
	first int      // guarded by mu
	off   int      // guarded by mu; bytes of the first one that were read
	bytes int      // guarded by mu; that are left
	ended bool     // guarded by mu; nothing comes behind them
}

// add takes ownership of bufs. It copies a small buffer behind the last one if it fits there.
// Otherwise a client that does not read would hold a whole buffer for each small message.
func (d *downstream) add(pool *bufPool, bufs [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range bufs {
		if d.closed || d.ended {
			pool.put(b)
			continue
		}
		d.bytes += len(b)
		if n := len(d.bufs); n > d.first && len(b) <= newBuf && cap(d.bufs[n-1])-len(d.bufs[n-1]) >= len(b) {
			d.bufs[n-1] = append(d.bufs[n-1], b...)
			pool.put(b)
			continue
		}
		d.bufs = append(d.bufs, b)
	}
	d.changed.Signal()
}

// read copies what there is to b, and waits until there is something. It returns in spent, as far
// as there is room, the buffers that were read to their end.
func (d *downstream) read(b []byte, spent [][]byte) (n int, free [][]byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if err := d.mayCall(); err != nil {
			return 0, spent, err
		}
		if d.bytes > 0 {
			break
		}
		if d.ended {
			return 0, spent, io.EOF
		}
		d.wait()
	}
	for n < len(b) && d.first < len(d.bufs) && len(spent) < cap(spent) {
		from := d.bufs[d.first]
		m := copy(b[n:], from[d.off:])
		n, d.off = n+m, d.off+m
		if d.off == len(from) {
			spent = append(spent, from)
			d.bufs[d.first] = nil
			d.first, d.off = d.first+1, 0
		}
	}
	if d.bytes -= n; d.bytes == 0 {
		d.forget()
	}
	return n, spent, nil
}

// keepBufs is the longest empty list of buffers that is reused.
const keepBufs = 64

// forget empties the list of buffers. The caller holds mu.
func (d *downstream) forget() {
	clear(d.bufs)
	d.bufs, d.first, d.off, d.bytes = d.bufs[:0], 0, 0, 0
	if cap(d.bufs) > keepBufs {
		d.bufs = nil
	}
}

func (d *downstream) unread() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

// end ends what the client reads after what is there. With discard, it also drops what is there if
// that is more than pipeBuffer.
func (d *downstream) end(discard bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if discard && d.bytes > pipeBuffer {
		d.forget()
	}
	d.changed.Broadcast()
}

// take handles what the client has written. It runs on the loop.
func (p *pipe) take() {
	c := p.conn
	if c.wire == nil {
		return
	}
	in, ended := p.up.take()
	if in != nil {
		if !c.closed() {
			c.in.heard(in.b)
		}
		in.b = in.b[:0]
		c.loop.eng.inputs.Put(in)
	}
	if ended && c.wire != nil {
		c.wireClosed(true)
	}
}

func (p *pipe) write(l *loop, bufs [][]byte) { p.down.add(&l.bufs, bufs) }

func (p *pipe) backlog() int { return max(0, p.down.unread()-pipeBuffer) }

func (p *pipe) inKernel() int { return min(p.down.unread(), pipeBuffer) }

func (p *pipe) hold(l *loop, on bool) {
	if p.up.hold(on) {
		l.post(p.pump)
	}
}

func (p *pipe) shut() { p.down.end(false) }

func (p *pipe) cut() { p.down.end(true) }

func (p *pipe) close(*loop) {
	p.up.end()
	p.down.end(false)
	p.conn.wireClosed(false)
}

// clientEnd is the client's end of a pipe. It is a net.Conn.
type clientEnd struct{ p *pipe }

// Read returns what the node has written, and then io.EOF.
func (e *clientEnd) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var room [16][]byte
	n, spent, err := e.p.down.read(b, room[:0])
	if len(spent) > 0 {
		e.p.conn.loop.eng.bufs.give(spent)
	}
	return n, err
}

// Write hands b to the node's loop. It waits while the pipe is full, until the loop takes what was
// written before.
func (e *clientEnd) Write(b []byte) (n int, err error) {
	p := e.p
	p.up.writing.Lock()
	defer p.up.writing.Unlock()
	for n < len(b) {
		m, wake, err := p.up.put(p.conn.loop.eng, b[n:])
		if wake {
			p.conn.loop.post(p.pump)
		}
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// TryWrite writes all of b if there is room for it at once. Otherwise it writes nothing and returns
// false. It never waits.
func (e *clientEnd) TryWrite(b []byte) bool {
	p := e.p
	if !p.up.writing.TryLock() {
		return false
	}
	defer p.up.writing.Unlock()
	wrote, wake := p.up.tryPut(p.conn.loop.eng, b)
	if wake {
		p.conn.loop.post(p.pump)
	}
	return wrote
}

// Close closes the connection. The node still handles what was written before.
func (e *clientEnd) Close() error {
	p := e.p
	p.up.mu.Lock()
	again := p.up.closed
	p.up.closed = true
	wake := p.up.needsWake()
	p.up.changed.Broadcast()
	p.up.mu.Unlock()
	if wake {
		p.conn.loop.post(p.pump)
	}
	p.down.mu.Lock()
	p.down.closed = true
	p.down.forget()
	p.down.changed.Broadcast()
	p.down.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	return nil
}

// LocalAddr returns the address that all connections in memory have.
func (e *clientEnd) LocalAddr() net.Addr { return memoryAddr{} }

// RemoteAddr returns the same address as LocalAddr.
func (e *clientEnd) RemoteAddr() net.Addr { return memoryAddr{} }

// SetDeadline sets the deadlines of Read and Write.
func (e *clientEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

// SetReadDeadline bounds calls of Read, including those under way.
func (e *clientEnd) SetReadDeadline(t time.Time) error { e.p.down.setDeadline(t); return nil }

// SetWriteDeadline bounds calls of Write, including those under way.
func (e *clientEnd) SetWriteDeadline(t time.Time) error { e.p.up.setDeadline(t); return nil }

// memoryAddr is the address of clients in the engine's own process.
type memoryAddr struct{}

// Network returns "memory".
func (memoryAddr) Network() string { return "memory" }

// String returns InProcessAddr.
func (memoryAddr) String() string { return InProcessAddr }
