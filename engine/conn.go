package engine

import (
	"net"
	"sync/atomic"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// state is the phase of a connection's life.
type state uint8

const (
	stateHello   state = iota // no frame has arrived yet
	stateJoining              // hello has arrived, and the welcome is prepared off the loop
	stateOpen
	stateClosed // torn down; the socket may linger so that the peer can read the last error frame
	stateShut   // this side of the lingering socket is shut; the peer's side may still be open
)

// connKind says who is at the other end of a connection.
type connKind uint8

const (
	clientConn connKind = iota // a client over the network
	insideConn                 // a client in this process; the node trusts it
	linkConn                   // another node
	connKinds                  // how many there are
)

// standing says whether an open connection of a client takes part in its session.
type standing uint8

const (
	inSession   standing = iota // it may get the session's messages
	steppedBack                 // it may be dead, and the session does not use it, see stepBack
	hasLeft                     // its client wants no more messages here
)

// lingerMillis is how long a closed connection waits for the peer to close its side of the socket.
// Closing a socket with unread input in the kernel would reset the connection, and the peer might
// never read the reason.
const lingerMillis = 1000

// conn is a connection of a client, or a link to another node. Only its loop touches it.
//
// A message touches its receiver's connection in a few places only, and that memory is seldom in
// the CPU's caches. So these places stand together, from the middle of out to loop (TestHotConn).
type conn struct {
	// static after the loop has it
	remote    net.Addr
	slot, gen uint32 // from addConn
	port      *port  // the port that accepted it; nil if this node dialled
	link      *link  // set if this is a linkConn

	// owned by the loop; what a message touches on its way to the connection, and its outcome
	out      output
	receiver receiver
	list     ackmgr.List // pending acks to and from this connection
	kind     connKind    // static
	state    state
	standing standing
	loop     *loop // static after the loop has it
	sender   sender

	place portPlace // at the port; guarded by port.mu

	// owned by the loop; static once open
	session     *routing.Session
	login       *login // nil: the client may do everything
	term        *term  // how long the login lasts; nil: for ever
	short       uint64 // of the session, as ack entries hold it
	incarnation uint64 // of the node when the connection opened

	// owned by the loop: its life
	wire   wire  // nil after it has closed
	opened int64 // when it opened
	// when its hello must have come, or 0: HelloTimeout after the loop has it; and when the socket
	// of a closed connection is closed for good
	deadline int64
	live     liveness

	// owned by the loop: what comes in
	in         input
	multicasts *multicasts // nil before its first
	held       *heldSends  // nil before its first send is held
	quota      quota

	// owned by the loop: what it asks of the registry
	watchList *watchList   // IDs that the client watches; nil before the first
	asked     int          // bytes of pending binds, unbinds and lookups
	ended     *atomic.Bool // tells the lanes that it has closed; nil before its first request
}

// newConn makes a connection that does not belong to a loop yet.
func newConn(kind connKind, remote net.Addr, maxPending int) *conn {
	c := &conn{kind: kind, remote: remote}
	c.live.conn, c.in.conn, c.out.conn = c, c, c
	c.sender.conn, c.receiver.conn, c.quota.conn = c, c, c
	c.out.maxPending = maxPending
	return c
}

func (c *conn) handle() routing.Handle {
	return routing.Handle{Loop: c.loop.idx, Slot: c.slot, Gen: c.gen}
}

// closed reports whether the connection was torn down.
func (c *conn) closed() bool { return c.state >= stateClosed }

// gone reports whether the socket has closed. The loop must then not ask gnet to write to it.
func (c *conn) gone() bool { return c.wire == nil }

// close ends the connection with an error frame. The socket lingers until the peer has closed its
// side, too.
func (c *conn) close(f codec.Fault, detail string) {
	c.closeFor(f, 0, detail)
}

// closeFor is like close, for a fault in a frame of the given kind.
func (c *conn) closeFor(f codec.Fault, kind codec.Kind, detail string) {
	if c.closed() {
		return
	}
	c.fail(f, codec.ErrorClosing, kind, 0, detail)
	c.loop.eng.clients.closing(c, f, kind, detail)
	c.end()
}

// end is like close, without an error frame.
func (c *conn) end() {
	if c.closed() {
		return
	}
	c.sender.creditDue = 0 // nothing may follow an error frame that closes
	c.out.flush()
	c.teardown()
	if c.gone() {
		return
	}
	c.deadline = c.loop.now + lingerMillis
	c.out.observe()
	c.linger()
}

// linger shuts this side of the socket once everything is written, and closes it for good after a
// while. It returns whether the loop must check the connection again. If the peer has shut its
// side, gnet closes the socket.
func (c *conn) linger() bool {
	if c.loop.now >= c.deadline {
		c.closeSocket()
		return false
	}
	if c.wire.backlog() == 0 && c.state != stateShut {
		c.state = stateShut
		c.wire.shut()
	}
	return true
}

// drop ends the connection at once. Bytes that gnet still holds must not be written any more (S24).
func (c *conn) drop() {
	c.dropFor(codec.FaultFenced, "the node was suspended for a while: connect again")
}

// dropFor is like drop, with another reason. Only a client that has read everything else gets the
// reason.
func (c *conn) dropFor(f codec.Fault, detail string) {
	if c.kind == linkConn {
		c.link.why = detail
	}
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

// cut closes the wire and drops its backlog.
func (c *conn) cut() {
	c.wire.cut()
	c.closeSocket()
}

// closeSocket closes the wire, which calls wireClosed before it returns.
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

// announceGone notifies the other nodes that a connection of the session has closed. They cannot
// know which messages it had, so all that they have forwarded to the session ends lost. That must
// not happen when a client has moved to another connection to this node, and left this one.
func (c *conn) announceGone() {
	if c.standing == hasLeft && len(c.session.Handles()) > 0 {
		return
	}
	id := c.session.ID()
	c.loop.links.sendAll(codec.AppendGone(nil, id[:]))
}

// teardown removes the connection from everything but its socket: its route, its pending acks and
// its buffers. It runs once, either from end or because the socket has closed.
func (c *conn) teardown() {
	if c.closed() {
		return
	}
	l := c.loop
	l.pace.worked(2 * writeWork) // includes the error frame before
	wasOpen := c.state == stateOpen
	c.state = stateClosed
	l.removeConn(c)
	if c.kind == linkConn {
		c.link.end(c, wasOpen)
	}
	l.expiries.leave(c)
	c.endWatches()
	c.forgetRequests()
	c.quota.close()
	if wasOpen {
		if c.session != nil {
			c.endAside()
			if c.standing != hasLeft {
				l.eng.detach(c)
			}
			c.announceGone()
			l.releaseHeld(c)
		}
		l.endings.add(ending{list: c.list, slot: int64(c.slot)})
		l.mail.announceGone(c.handle())
	} else {
		l.freeSlot(c.slot)
	}
	c.in.drop()
	c.multicasts.drop()
	c.out.release()
}
