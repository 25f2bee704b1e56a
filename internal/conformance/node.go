package conformance

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"distmsg/codec"
)

// node is one of the nodes that a scenario plays: an address that a client can connect to.
type node struct {
	name string
	addr string
	ln   net.Listener
}

// event is something that happened on a connection. The scenario's goroutine receives events in
// order.
type event struct {
	conn *conn
	// with its prefix; nil if the connection has just been accepted, or has ended with err
	frame []byte
	err   error
	ended bool // the client program has ended, with err
}

// conn is one connection of the client. Its reader is a goroutine of its own; everything else
// belongs to the scenario's goroutine.
type conn struct {
	net.Conn              // through TLS, if the nodes use it
	socket   *net.TCPConn // below it
	node     *node
	number   int // from 1, in the order of accepting
	limits   codec.Limits
	session  *session
	hello    codec.Hello

	greeted bool // hello has come
	open    bool // welcome was sent
	resumed bool // welcome said that the session was resumed
	over    bool // the node has ended the connection, and discards what still comes
	ended   bool // the client has ended the connection
	mute    bool // the node reads, but does nothing else
	told    bool // the node has sent a closing error to the client
	left    bool // leave has come
	bye     bool // bye has come
	spare   bool // its session is new, and the client has another one elsewhere

	features uint64 // granted
	pings    map[uint64]bool
	pinged   int             // pings of the client
	requests map[uint64]bool // open binds that a scenario has not answered yet, by seq
	sends    map[uint64]*send
	used     uint64 // bytes of sends without ack
	credit   uint64
	said     []byte    // the frame written last
	heard    time.Time // when the last frame came

	// holds one token; if a scenario has taken it, the node does not read
	gate chan struct{}
}

// listen opens a node on a free port of the loopback interface, or at addr.
func (p *play) listen(name, addr string) (*node, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	n := &node{name: name, addr: ln.Addr().String(), ln: ln}
	p.nodes = append(p.nodes, n)
	p.readers.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.serve(n, nc)
		}
	})
	return n, nil
}

// serve passes the frames of one connection to the scenario.
func (p *play) serve(n *node, nc net.Conn) {
	c := &conn{Conn: nc, socket: nc.(*net.TCPConn), node: n, pings: map[uint64]bool{}, requests: map[uint64]bool{}, sends: map[uint64]*send{}, gate: make(chan struct{}, 1)}
	c.gate <- struct{}{}
	if p.tls != nil {
		c.Conn = tls.Server(nc, p.tls) // the handshake is part of the first read
	}
	p.mu.Lock()
	p.accepted = append(p.accepted, nc)
	over := p.ctx.Err() != nil
	p.mu.Unlock()
	if over || !p.emit(event{conn: c}) {
		nc.Close()
		return
	}
	p.readers.Go(func() {
		p.emit(event{conn: c, err: p.read(c)})
	})
}

func (p *play) read(c *conn) error {
	buf := make([]byte, 0, 64<<10)
	for {
		for {
			_, n, err := codec.Split(buf, maxFrame)
			if err != nil {
				p.emit(event{conn: c, frame: append([]byte(nil), buf[:min(len(buf), maxHex)]...), err: err})
				return err
			}
			if n == 0 {
				break
			}
			if !p.emit(event{conn: c, frame: append([]byte(nil), buf[:n]...)}) {
				return p.ctx.Err()
			}
			buf = buf[:copy(buf, buf[n:])]
		}
		if cap(buf)-len(buf) < 32<<10 {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		c.gate <- <-c.gate // waits until the node reads
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return err
		}
	}
}

// emit passes an event to the scenario, and reports whether the scenario still listens.
func (p *play) emit(e event) bool {
	select {
	case p.events <- e:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// maxFrame bounds the frames that are read from a client. A scenario's own limit is checked where
// the frame is handled.
const maxFrame = 64 << 20

// put writes a frame, after the scenario has transformed it.
func (p *play) put(c *conn, frame []byte) {
	if p.dress != nil {
		frame = p.dress(frame)
	}
	p.write(c, frame)
}

// write writes bytes unchanged. If the client has closed the connection, the write fails, which is
// not a fault here.
func (p *play) write(c *conn, b []byte) {
	c.said = b
	chunk := len(b)
	if p.trickle {
		chunk = 1
	}
	for rest := b; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
		_ = c.SetWriteDeadline(time.Now().Add(p.patience))
		_, err := c.Write(rest[:min(chunk, len(rest))])
		if nerr := net.Error(nil); errors.As(err, &nerr) && nerr.Timeout() {
			p.blame(c, secPolite, "the client reads while its own writing blocks", fmt.Sprintf("it did not read %d bytes within %v", len(b), p.patience), nil)
		}
		if err != nil {
			return
		}
		if p.trickle {
			p.pace()
		}
	}
}

// pace lets the client read what was written before the next byte.
func (p *play) pace() {
	select {
	case <-time.After(200 * time.Microsecond):
	case <-p.ctx.Done():
	}
}

// smallBuffer makes the kernel buffer little of what the node writes. (The receive buffer grows
// only with reading. Shrinking it now would withdraw a window that the client has been promised,
// and the kernel would then drop the client's acknowledgements.)
func (c *conn) smallBuffer() {
	_ = c.socket.SetWriteBuffer(64 << 10)
}

// hangUp ends a connection as a node does: it shuts down its sending side and gives the client a
// second to close.
func (p *play) hangUp(c *conn) {
	if c.over {
		return
	}
	p.lose(c)
	if secure, ok := c.Conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	_ = c.socket.CloseWrite()
	time.AfterFunc(time.Second, func() { c.Close() })
}

// reset ends a connection as a crash does.
func (p *play) reset(c *conn) {
	p.lose(c)
	_ = c.socket.SetLinger(0)
	_ = c.socket.Close()
}

// lose voids what is open on a connection that the node or the client has ended.
func (p *play) lose(c *conn) {
	c.over = true
	for _, d := range p.messages.deliveries {
		if d.conn == c {
			d.void = true
		}
	}
}
