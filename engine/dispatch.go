package engine

import (
	"errors"
	"io"
	"os"

	"github.com/panjf2000/gnet/v2"

	"distmsg/codec"
	"distmsg/internal/tlsline"
)

// handler receives gnet's callbacks, each on the loop of its connection.
type handler struct {
	gnet.BuiltinEventEngine
	eng *Engine
}

// OnOpen gives the connection a slot and a deadline for its hello.
func (h *handler) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	switch v := gc.Context().(type) {
	case *anchor:
		v.el <- gc.EventLoop()
	case *conn:
		l := h.eng.loopOf(gc.EventLoop())
		l.enter()
		v.loop = l
		v.setSocket(gc)
		l.welcomeSocket(v)
	}
	return nil, gnet.None
}

// welcomeSocket adds a new connection to the loop. The connection must send hello.
func (l *loop) welcomeSocket(c *conn) {
	l.addConn(c)
	l.stats.accepted++
	c.live.lastFrame, c.live.lastHeard = l.now, l.beats.awake
	deadline := c.deadline
	if deadline == 0 {
		deadline = l.now + l.eng.cfg.HelloTimeout.Milliseconds()
	}
	l.expectHello(hello{c.handle(), deadline})
	if c.kind == linkConn {
		l.links.all = append(l.links.all, c)
		c.link.begin(c)
	}
}

// OnTraffic handles every complete frame that has arrived.
func (h *handler) OnTraffic(gc gnet.Conn) gnet.Action {
	// The loop takes all bytes every time, so this is gnet's read buffer itself, not a copy.
	buf, _ := gc.Next(-1)
	switch c := gc.Context().(type) {
	case *conn:
		c.loop.enter()
		if c.closed() {
			break
		}
		c.heard(buf)
		if len(buf) == readBuffer {
			if more := c.loop.poll.readOn(c); len(more) > 0 {
				c.heard(more)
			}
		}
	case *anchor:
		l := h.eng.loopOf(gc.EventLoop())
		l.poll.nudged = false
		l.enter()
	default:
		return gnet.Close
	}
	return gnet.None
}

// heard takes what was read from the connection's socket.
func (c *conn) heard(buf []byte) {
	if w, secure := c.wire.(*tlsWire); secure {
		w.heard(buf)
		return
	}
	c.in.heard(buf)
}

// OnClose tears the connection down.
func (h *handler) OnClose(gc gnet.Conn, err error) gnet.Action {
	if _, ok := gc.Context().(*anchor); ok {
		h.eng.fail(errLoopEnded) // has no effect while the engine stops
		return gnet.None
	}
	if c, ok := gc.Context().(*conn); ok && c.loop != nil {
		c.loop.enter()
		var read *os.SyscallError // if it is not EOF, the connection was reset
		inGoodOrder := errors.As(err, &read) && errors.Is(read.Err, io.EOF)
		if w, secure := c.wire.(*tlsWire); secure && w.ended {
			inGoodOrder = true
		}
		c.wireClosed(inGoodOrder)
	}
	return gnet.None
}

// wireClosed tears the connection down after its wire has closed. If the client closed it in good
// order, it had sent all its frames first. The connection then stays until it has handled its
// input. After a reset it does not stay: until its turn came, messages for its session would be
// written to it and end lost, though they might reach the session elsewhere (S5). So acks in input
// that waits then end lost, too.
func (c *conn) wireClosed(inGoodOrder bool) {
	if !inGoodOrder || !c.in.hasWork() {
		c.teardown()
	}
	c.wire = nil
	c.out.setBacklog(0)
	c.loop.stats.closed++
	c.loop.eng.acceptor.wireClosed(c)
}

// frame handles one complete frame. body is valid only during the call.
func (c *conn) frame(body []byte) {
	c.loop.stats.framesIn++
	c.live.lastFrame = c.loop.now
	c.live.pinged = false
	if c.live.doubted > 0 {
		c.live.heardAgain()
	}
	kind, err := codec.PeekKind(body)
	if err != nil {
		c.decodeFault(err, kind)
		return
	}
	if c.kind == linkConn {
		c.linkFrame(kind, body)
		return
	}
	if c.state != stateOpen {
		c.firstFrame(kind, body)
		return
	}
	switch kind {
	case codec.KindSend:
		c.sender.handle(body)
	case codec.KindAck:
		c.receiver.handleAck(body)
	case codec.KindNotHere:
		c.receiver.handleNotHere(body)
	case codec.KindMulticast:
		c.sender.multicast().handle(body)
	case codec.KindNotHereMany:
		c.receiver.handleNotHereMany(body)
	case codec.KindPing:
		c.handlePing(body)
	case codec.KindPong:
		c.loop.probing.handlePong(c, body)
	case codec.KindBind:
		c.handleBind(body)
	case codec.KindUnbind:
		c.handleUnbind(body)
	case codec.KindLookup:
		c.handleLookup(body)
	case codec.KindWatch:
		c.handleWatch(body)
	case codec.KindUnwatch:
		c.handleUnwatch(body)
	case codec.KindBye:
		c.handleBye(body)
	case codec.KindLeave:
		c.handleLeave(body)
	case codec.KindHello, codec.KindWelcome, codec.KindError, codec.KindDrain, codec.KindCredit, codec.KindReassert, codec.KindLeft,
		codec.KindMembers, codec.KindRelogin, codec.KindBound, codec.KindUnbound, codec.KindFound, codec.KindKick, codec.KindDeliver, codec.KindOutcome,
		codec.KindDeliverMany, codec.KindOutcomes, codec.KindWatched, codec.KindChanged:
		c.unexpected(kind, "a client must not send "+kind.String()+" on an open connection")
	default:
		c.fail(codec.FaultUnknownKind, 0, kind, 0, kind.String()+" is not known to version 1")
	}
}

// linkFrame handles a frame from another node.
func (c *conn) linkFrame(kind codec.Kind, body []byte) {
	if c.state == stateOpen {
		c.link.frame(c, kind, body)
		return
	}
	c.link.take(c, c.link.shaking.Handle(kind, body))
}

// firstFrame handles frames before the connection is open. It accepts one hello and nothing else.
func (c *conn) firstFrame(kind codec.Kind, body []byte) {
	switch {
	case kind == codec.KindPeerHello:
		c.unexpected(kind, "this address is for clients; other nodes connect to the peer address")
	case kind != codec.KindHello:
		c.unexpected(kind, "a client must send nothing but hello before welcome")
	case c.state == stateJoining:
		c.unexpected(kind, "a second hello")
	default:
		c.handleHello(body)
	}
}

func (c *conn) unexpected(kind codec.Kind, detail string) {
	c.closeFor(codec.FaultUnexpectedKind, kind, detail)
}

// decodeFault closes the connection because of malformed bytes. It does nothing if err is nil.
func (c *conn) decodeFault(err error, kind codec.Kind) {
	var e *codec.Error
	if !errors.As(err, &e) {
		return
	}
	c.closeFor(e.Fault, kind, e.Error())
}

// malformed closes the connection because of bytes that do not begin a frame.
func (c *conn) malformed(b []byte, err error) {
	e := c.loop.eng
	if c.state == stateHello && tlsline.Begins(b) {
		if c.kind == linkConn {
			e.cluster.peers.Complain("a node or a stranger wants TLS, and this node does not use TLS for links: use it on all nodes or on none", "remote", c.remote)
		} else {
			e.acceptor.complain("a client wants TLS, and this node does not use it", "remote", c.remote)
		}
	}
	c.decodeFault(err, 0)
}

func (c *conn) handlePing(body []byte) {
	nonce, err := codec.DecodePing(body)
	if err != nil {
		c.decodeFault(err, codec.KindPing)
		return
	}
	c.out.wroteControl(codec.AppendPong(c.out.buf(), nonce))
}
