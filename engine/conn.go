package engine

import (
	"net"
	"sync/atomic"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// state is where a connection stands in its life.
type state uint8

const (
	stateHello   state = iota // nothing has come yet
	stateJoining              // hello came, welcome is being prepared off the loop
	stateOpen
	stateClosed // torn down; the socket may linger so that the peer can read the last error frame
)

// connKind is who is at the other end of a connection.
type connKind uint8

const (
	clientConn connKind = iota // a client that came over the network
	insideConn                 // a client in this process: the node trusts it
	linkConn                   // another node
)

// standing is whether an open connection of a client takes part in its session.
type standing uint8

const (
	inSession   standing = iota // the session's messages may come to it
	steppedBack                 // it may be dead, and its session does without it, see stepBack
	hasLeft                     // its client wants no more messages here
)

// lingerMillis is how long a closed connection's socket waits for the peer to close its side. To
// close with unread input in the kernel would reset the connection, and the peer might never see
// why.
const lingerMillis = 1000

// conn is a connection of a client, or a link to another node. Only its loop
// touches it.
type conn struct {
	// static after the loop has it
	kind      connKind
	loop      *loop
	remote    net.Addr
	slot, gen uint32 // from addConn
	port      *port  // where it came in; nil if this node has dialled

	place portPlace // there; guarded by port.mu

	// owned by the loop; static once open
	session     *routing.Session
	short       uint64      // of the session, as ack entries hold it
	incarnation uint64      // of the node when it opened
	list        ackmgr.List // pending acks to and from this connection

	// owned by the loop: its life
	wire     wire  // nil once it is closed
	link     *link // of a linkConn
	state    state
	standing standing
	shutdown bool  // our side of the socket is shut
	deadline int64 // when a closed connection's socket is closed for good
	live     liveness

	// owned by the loop: what comes in and goes out
	in         input
	out        output
	sender     sender
	multicasts multicasts
	held       heldSends
	receiver   receiver

	// owned by the loop: what it asks of the registry
	watchList *watchList   // IDs that it watches; nil before the first
	asked     int          // bytes of its binds, unbinds and lookups that are under way
	ended     *atomic.Bool // it has closed, for the lanes; nil until it asks for something
}

// newConn makes a connection that no loop has yet.
func newConn(kind connKind, remote net.Addr, maxPending int) *conn {
	c := &conn{kind: kind, remote: remote}
	c.live.conn, c.in.conn, c.out.conn = c, c, c
	c.sender.conn, c.multicasts.conn, c.held.conn, c.receiver.conn = c, c, c, c
	c.out.maxPending = maxPending
	return c
}

func (c *conn) handle() routing.Handle {
	return routing.Handle{Loop: c.loop.idx, Slot: c.slot, Gen: c.gen}
}

// gone reports whether the socket has been closed, so that gnet must not be asked to write to it.
func (c *conn) gone() bool { return c.wire == nil }

// close ends the connection with an error frame. The socket lingers until the peer has closed it
// too.
func (c *conn) close(f codec.Fault, detail string) {
	c.closeFor(f, 0, detail)
}

// closeFor is close for a frame of that kind.
func (c *conn) closeFor(f codec.Fault, kind codec.Kind, detail string) {
	if c.state == stateClosed {
		return
	}
	c.fail(f, codec.ErrorClosing, kind, 0, detail)
	c.loop.eng.cfg.Logger.Debug("connection closed", "remote", c.remote, "fault", f, "detail", detail)
	c.end()
}

// end is close without an error frame.
func (c *conn) end() {
	if c.state == stateClosed {
		return
	}
	c.sender.creditDue = 0 // nothing comes behind an error frame that closes
	c.out.flush()
	c.teardown()
	if c.gone() {
		return
	}
	c.deadline = c.loop.now + lingerMillis
	c.out.observe()
	c.linger()
}

// linger shuts our side once everything is written, and closes the socket for good after a while.
// It returns whether to look again. gnet closes the socket itself when the peer has shut its side.
func (c *conn) linger() bool {
	if c.loop.now >= c.deadline {
		c.closeSocket()
		return false
	}
	if c.wire.backlog() == 0 && !c.shutdown {
		c.shutdown = true
		c.wire.shut()
	}
	return true
}

// drop ends the connection at once: what gnet still holds must not be written any more (S24).
func (c *conn) drop() {
	c.dropFor(codec.FaultFenced, "the node was stopped for a while and starts anew")
}

// dropFor is drop for that reason, which is told only to a client that has read everything else.
func (c *conn) dropFor(f codec.Fault, detail string) {
	c.out.release()
	if c.gone() {
		c.teardown()
		return
	}
	c.out.setBacklog(c.wire.backlog())
	if c.out.backlog == 0 {
		c.fail(f, codec.ErrorClosing, 0, 0, detail)
		c.out.flush()
	}
	c.teardown()
	if !c.gone() {
		c.cut()
	}
}

// cut closes the wire without writing what is in its backlog.
func (c *conn) cut() {
	c.wire.cut()
	c.closeSocket()
}

// closeSocket frees the wire, which calls wireClosed in the middle of it.
func (c *conn) closeSocket() {
	if w := c.wire; w != nil {
		w.close(c.loop)
	}
}

// fail appends an error frame and counts the fault.
func (c *conn) fail(f codec.Fault, flags uint8, kind codec.Kind, seq uint64, message string) {
	c.loop.stats.faults[f]++
	b := codec.AppendError(c.out.buf(), &codec.ErrorFrame{Fault: f, Flags: flags, Kind: kind, Seq: seq, Message: message})
	if flags&codec.ErrorClosing != 0 {
		c.out.wrote(b)
	} else {
		c.out.wroteControl(b)
	}
}

// teardown ends the connection's part in everything but its socket: route, pending acks, buffers.
// It runs once, either from end or because gnet closed the socket.
func (c *conn) teardown() {
	if c.state == stateClosed {
		return
	}
	l := c.loop
	l.pace.worked(2 * writeWork) // with the error frame before it
	wasOpen := c.state == stateOpen
	c.state = stateClosed
	l.removeConn(c)
	if c.kind == linkConn {
		c.link.end(c, wasOpen)
	}
	c.endWatches()
	c.forgetRequests()
	if wasOpen {
		if c.session != nil {
			c.endAside()
			if c.standing != hasLeft {
				l.eng.detach(c)
			}
			id := c.session.ID()
			l.links.sendAll(codec.AppendGone(nil, id[:]))
			l.releaseHeld(c)
		}
		l.endings.add(ending{list: c.list, slot: int64(c.slot)})
		l.mail.announceGone(c.handle())
	} else {
		l.freeSlot(c.slot)
	}
	c.in.drop()
	l.bufs.put(c.in.carry)
	l.bufs.put(c.multicasts.told)
	c.in.carry, c.multicasts.told, c.multicasts.toldCount = nil, nil, 0
	c.in.count()
	c.out.release()
}
