package engine

import (
	"time"

	"distmsg/codec"
)

// input is what was read from a connection and is not handled yet, and the work that
// the connection has caused. The connection's loop owns it.
type input struct {
	conn *conn // static

	carry   []byte        // the beginning of a frame whose end has not come yet
	unread  []byte        // input that waits for the connection's turn
	inTurns bool          // it is in the loop's turns
	readAt  time.Duration // when the input that waits was read, or the first part of it
	long    longFrame     // nil, or a frame of which a part has been handled
	sealed  int           // what TLS holds for the connection, in bytes
	carried int           // the size of the two buffers and of that, as it was counted

	// see turns
	caused   uint64 // work that its input has caused
	lastWork uint64 // of that, its latest turn or read
	due      uint64 // what it will have caused after its next turn, about
	entered  uint64 // which one it was to enter turns.clients
}

// heard takes what was read from a socket.
func (in *input) heard(buf []byte) {
	c := in.conn
	l := c.loop
	l.stats.traffic[c.kind].BytesIn += uint64(len(buf))
	c.live.lastHeard = l.beats.awake
	if c.kind == linkConn {
		c.live.lastFrame = l.now // of a large frame on a slow link, every part is a sign of life
		c.link.bytesIn += uint64(len(buf))
	}
	in.take(buf)
	in.count()
}

// read takes bytes off the wire until the connection's turn is over, and returns what is left. A
// frame whose end is missing waits in carry; all others are decoded where they are.
func (in *input) read(buf []byte) (rest []byte) {
	c := in.conn
	l := c.loop
	for len(in.carry) > 0 && len(buf) > 0 {
		buf = in.readCarry(buf)
	}
	for len(buf) > 0 && !c.closed() && !l.pace.turnOver {
		body, n, err := codec.Split(buf, in.frameLimit())
		if err != nil {
			c.malformed(buf, err)
			return nil
		}
		if n == 0 {
			if in.carry == nil {
				in.carry = l.bufs.get()
			}
			in.keepPart(buf, len(buf)+codec.Missing(buf))
			return nil
		}
		buf = buf[n:]
		c.frame(body)
		l.pace.worked(1 + n/bytesPerUnit)
	}
	if c.closed() {
		return nil // nobody wants it, and it must not wait
	}
	return buf
}

// keepPart appends a part of a frame of whole bytes to carry. The buffer grows in few steps, and is
// as large as the frame once a quarter of that has come: for a few bytes that say so, nobody gets
// more.
func (in *input) keepPart(part []byte, whole int) {
	c := in.conn
	if need := len(in.carry) + len(part); need > cap(in.carry) {
		size := whole
		if need < whole/4 {
			size = 2 * need
		}
		larger := append(c.loop.bufs.sized(max(size, need)), in.carry...)
		c.loop.bufs.put(in.carry)
		in.carry = larger
	}
	in.carry = append(in.carry, part...)
	c.loop.pace.worked(1 + len(part)/bytesPerUnit)
}

// readCarry adds to the partial frame what it lacks and returns the rest of buf.
func (in *input) readCarry(buf []byte) []byte {
	c := in.conn
	missing := codec.Missing(in.carry)
	take := min(missing, len(buf))
	in.keepPart(buf[:take], len(in.carry)+missing)
	body, n, err := codec.Split(in.carry, in.frameLimit())
	switch {
	case err != nil:
		c.malformed(in.carry, err)
		return nil
	case n > 0:
		carry := in.carry
		in.carry = nil // the frame's handler may close the connection, which gives carry back
		c.frame(body)
		c.loop.bufs.put(carry)
		c.loop.pace.worked(1 + n/bytesPerUnit)
		if c.closed() {
			return nil
		}
	}
	return buf[take:]
}

// frameLimit is small until the client has shown who it is.
func (in *input) frameLimit() int {
	c := in.conn
	switch {
	case c.state == stateOpen && c.kind == linkConn:
		return c.loop.eng.maxFrame + codec.FrameOverhead // a forward says a little more than a send
	case c.state == stateOpen:
		return c.loop.eng.maxFrame
	}
	return codec.MaxHelloFrame
}
