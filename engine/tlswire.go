package engine

import (
	"crypto/tls"
	"errors"
	"io"

	"github.com/panjf2000/gnet/v2"

	"distmsg/internal/tlsline"
)

// tlsWire is a socket of gnet's with TLS. The handshake makes it without the socket (see shake).
// The loop adds the socket, and the handshake is over then. The loop encrypts what a connection has
// to write at the end of the iteration, so one record holds many frames. It decrypts what was read
// before it looks for frames.
type tlsWire struct {
	socket
	conn *conn         // static
	line *tlsline.Conn // static

	gathers bool // records wait in the loop's scratch, for one write call
	ended   bool // the peer has said that nothing follows
}

const (
	// bytesPerCrypt is how many bytes to encrypt or decrypt count as one unit of work.
	bytesPerCrypt = 1 << 10
	// plainBuffer is how many bytes the loop decrypts before it looks for frames.
	plainBuffer = 32 << 10
)

// setSocket gives a connection the socket that has come to its loop.
func (c *conn) setSocket(gc gnet.Conn) {
	w, secure := c.wire.(*tlsWire)
	if !secure {
		c.wire = &socket{gc}
		return
	}
	w.gc = gc
	w.line.Detach(w.emit)
	w.count()
}

// socket returns the connection's socket. It returns nil if the connection is one in memory, or has
// lost its socket.
func (c *conn) socket() *socket {
	switch w := c.wire.(type) {
	case *socket:
		return w
	case *tlsWire:
		return &w.socket
	}
	return nil
}

// security returns what is known of a client with TLS. It returns nil without TLS.
func (c *conn) security() *tls.ConnectionState {
	w, ok := c.wire.(*tlsWire)
	if !ok {
		return nil
	}
	state := w.line.State()
	return &state
}

// emit takes records that are to be written.
func (w *tlsWire) emit(b []byte) error {
	if w.conn.wire != wire(w) {
		return errWireClosed
	}
	l := w.conn.loop
	if !w.gathers {
		_, err := w.gc.Write(b)
		return err
	}
	l.scratch.records = append(l.scratch.records, b...)
	if len(l.scratch.records) < earlyFlush {
		return nil
	}
	return w.writeRecords()
}

var errWireClosed = errors.New("engine: the socket is closed")

// writeRecords writes the gathered records. The loop's scratch is taken away meanwhile, because the
// end of a connection can make another one flush.
func (w *tlsWire) writeRecords() error {
	l := w.conn.loop
	records := l.scratch.records
	l.scratch.records = nil
	_, err := w.gc.Write(records)
	l.scratch.records = records[:0]
	return err
}

// write encrypts the buffers. What fits one record goes from there to the kernel without a copy. If
// a write fails, the connection has closed, and the rest is dropped.
func (w *tlsWire) write(l *loop, bufs [][]byte) {
	size := 0
	for _, b := range bufs {
		size += len(b)
	}
	l.pace.worked(1 + size/bytesPerCrypt)
	w.gathers = size > tlsline.MaxRecord
	w.seal(l, bufs)
	if w.gathers = false; len(l.scratch.records) > 0 {
		_ = w.writeRecords()
	}
}

// seal makes records of the buffers, as few as possible, and gives the buffers back.
func (w *tlsWire) seal(l *loop, bufs [][]byte) {
	var part []byte // less than a record, from several buffers
	for i, b := range bufs {
		rest := b
		if len(part) > 0 {
			n := min(len(rest), tlsline.MaxRecord-len(part))
			part, rest = append(part, rest[:n]...), rest[n:]
			if len(part) == tlsline.MaxRecord {
				_ = w.line.Write(part)
				part = part[:0]
			}
		}
		whole := len(rest)
		if i < len(bufs)-1 {
			whole -= whole % tlsline.MaxRecord
		}
		if whole > 0 && len(part) == 0 {
			_ = w.line.Write(rest[:whole])
			rest = rest[whole:]
		}
		if len(rest) > 0 && len(part) == 0 {
			if part == nil {
				part = l.bufs.get()
			}
			part = append(part, rest...)
		}
		l.bufs.put(b)
	}
	if len(part) > 0 {
		_ = w.line.Write(part)
	}
	l.bufs.put(part)
}

// heard decrypts what was read from the socket, and passes it on.
func (w *tlsWire) heard(buf []byte) {
	c := w.conn
	l := c.loop
	if l.scratch.plain == nil {
		l.scratch.plain = make([]byte, plainBuffer)
	}
	c.live.lastHeard = l.beats.awake
	if c.kind == linkConn {
		c.live.lastFrame = l.now
	}
	l.pace.worked(1 + len(buf)/bytesPerCrypt)
	w.line.Feed(buf)
	for filled := 0; !c.closed(); {
		n, err := w.line.Read(l.scratch.plain[filled:])
		filled += n
		if n > 0 && filled < plainBuffer {
			continue
		}
		if filled > 0 && !c.closed() { // what TLS had to answer may have failed
			c.in.heard(l.scratch.plain[:filled])
			filled = 0
		}
		if err != nil {
			w.end(err)
			return
		}
		if n == 0 {
			break
		}
	}
	w.count()
}

// end ends the connection because the peer has ended it, or has sent what is not valid.
func (w *tlsWire) end(err error) {
	c := w.conn
	if c.closed() {
		return
	}
	if errors.Is(err, io.EOF) {
		w.ended = true
		w.line.CloseWrite()
		c.closeSocket()
		return
	}
	e := c.loop.eng
	e.acceptor.tlsFailed.Add(1)
	if c.kind == linkConn {
		e.cluster.peers.Complain("TLS with a node failed", "node", c.link.node, "remote", c.remote, "error", err)
	} else {
		e.clients.log.Debug("connection closed", "remote", c.remote, "error", err)
	}
	c.end()
}

// count notes what TLS holds, and what it has written itself: answers to requests for new keys. A
// client that sends many and does not read closes.
func (w *tlsWire) count() {
	c := w.conn
	if c.closed() || c.gone() {
		return
	}
	c.in.sealed = int32(w.line.Held())
	c.in.count()
	if n := w.backlog(); n != c.out.backlog {
		c.out.setBacklog(n)
		c.out.observe()
		if n > c.out.maxPending+c.loop.eng.reserve {
			c.closeSlow(slowAnswers)
		}
	}
}

// shut says that nothing follows. If the kernel does not take that at once, the socket stays open
// for it.
func (w *tlsWire) shut() {
	w.line.CloseWrite()
	if w.conn.wire == wire(w) && w.backlog() == 0 {
		w.socket.shut()
	}
}

func (w *tlsWire) cut() {
	if w.backlog() == 0 {
		w.line.CloseWrite()
	}
	if w.conn.wire == wire(w) {
		w.socket.cut()
	}
}
