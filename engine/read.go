package engine

import (
	"time"

	"distmsg/codec"
)

// input is what was read from a connection and is not handled yet, and the work that
// the connection has caused. The connection's loop owns it.
type input struct {
	conn *conn // static

	later   *laterInput // nil: all input so far was handled at once
	inTurns bool        // it is in the loop's turns
	sealed  int32       // what TLS holds for the connection, in bytes
	carried int         // the size of the buffers of later and of that, as it was counted

	// see turns
	caused   uint64 // work that its input has caused
	lastWork uint64 // of that, its latest turn or read
}

// laterInput is input that has to wait.
type laterInput struct {
	carry  []byte        // the beginning of a frame whose end has not come yet
	unread []byte        // input that waits for the connection's turn
	readAt time.Duration // when that was read, or the first part of it
	long   longFrame     // nil, or a frame of which a part has been handled

	// in turns.clients
	due     uint64 // what it will have caused after its next turn, about
	entered uint64 // which one it was to enter
}

// waits returns the connection's input that has to wait.
func (in *input) waits() *laterInput {
	if in.later == nil {
		in.later = new(laterInput)
	}
	return in.later
}

// carry returns the beginning of a frame whose end has not come yet.
func (in *input) carry() []byte {
	if in.later == nil {
		return nil
	}
	return in.later.carry
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
	for len(in.carry()) > 0 && len(buf) > 0 {
		buf = in.readCarry(buf)
	}
	for len(buf) > 0 && !c.closed() && !l.pace.turnOver {
		body, n, err := codec.Split(buf, in.frameLimit())
		if err != nil {
			c.malformed(buf, err)
			return nil
		}
		if n == 0 {
			if w := in.waits(); w.carry == nil {
				w.carry = l.bufs.get()
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
	w := in.waits()
	if need := len(w.carry) + len(part); need > cap(w.carry) {
		size := whole
		if need < whole/4 {
			size = 2 * need
		}
		larger := append(c.loop.bufs.sized(max(size, need)), w.carry...)
		c.loop.bufs.put(w.carry)
		w.carry = larger
	}
	w.carry = append(w.carry, part...)
	c.loop.pace.worked(1 + len(part)/bytesPerUnit)
}

// readCarry adds to the partial frame what it lacks and returns the rest of buf.
func (in *input) readCarry(buf []byte) []byte {
	c, w := in.conn, in.later
	missing := codec.Missing(w.carry)
	take := min(missing, len(buf))
	in.keepPart(buf[:take], len(w.carry)+missing)
	body, n, err := codec.Split(w.carry, in.frameLimit())
	switch {
	case err != nil:
		c.malformed(w.carry, err)
		return nil
	case n > 0:
		carry := w.carry
		w.carry = nil // the frame's handler may close the connection, which gives carry back
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
