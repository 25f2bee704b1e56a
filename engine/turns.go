package engine

import (
	"errors"
	"io"
	"math"
	"os"
	"time"
)

// Input that came in when the iteration's share was over, or is more than fits into one turn, waits in
// its connection. The loop serves such connections one after the other, each for a turn. Meanwhile it
// reads no more from their sockets, so what waits is bounded, and the rest stays in the kernel, which
// holds up who sends it.

const (
	// maxConnUnread bounds what waits of one connection, and maxUnread all that waits of one loop.
	// What is over is handled at once. More than one read waits only if gnet reads a socket that it
	// was asked not to read: it forgets that when its own buffer runs full, or empty.
	maxConnUnread = 2 << 20
	maxUnread     = 64 << 20
)

// turns are connections whose input waits, the next one first.
type turns []*conn

func (t *turns) pop() *conn {
	c := (*t)[0]
	(*t)[0] = nil
	*t = (*t)[1:]
	return c
}

// input handles what was read from a connection, or lets it wait.
func (c *conn) input(buf []byte) {
	l := c.loop
	if c.inTurns || l.full && c.link == nil {
		c.keepUnread(buf)
		return
	}
	l.beginTurn()
	if rest := c.read(buf); len(rest) > 0 {
		c.keepUnread(rest)
	}
}

func (l *loop) beginTurn() { l.turnEnds, l.turnOver = l.stamped+turnShare, false }

// keepUnread copies input that has to wait.
func (c *conn) keepUnread(buf []byte) {
	l := c.loop
	l.stats.deferred++
	if c.unread == nil {
		c.unread = l.bufs.get()
	}
	c.unread = append(c.unread, buf...)
	l.unread += len(buf)
	c.await()
	for (len(c.unread) > maxConnUnread || l.unread > maxUnread) && c.hasWork() {
		l.beginTurn()
		l.turnEnds = math.MaxInt64
		c.work()
	}
}

// await puts the connection into the loop's turns, and stops reading from it.
func (c *conn) await() {
	if !c.inTurns {
		c.inTurns = true
		t := c.turns()
		*t = append(*t, c)
	}
	c.setReading(false)
}

// The turns of a loop. Links come first: a link that cannot answer in time is given up. Then come
// those that wait for their first turn, which for most clients is all that they need. Those that have
// used up a turn come last.
const (
	linkTurns = iota
	firstTurns
	moreTurns
	turnKinds
)

// turns is where the connection waits for its first turn.
func (c *conn) turns() *turns {
	if c.link != nil {
		return &c.loop.turns[linkTurns]
	}
	return &c.loop.turns[firstTurns]
}

// hasWork reports whether there is anything to do in the connection's turn.
func (c *conn) hasWork() bool {
	return c.state != stateClosed && (c.long != nil || !c.going.empty() || len(c.unread) > 0)
}

// work goes on with what waits, until the turn is over.
func (c *conn) work() {
	l := c.loop
	if c.long != nil {
		c.goOnLong()
	}
	if !l.turnOver {
		c.goOnHeld()
	}
	if l.turnOver || c.state == stateClosed {
		return
	}
	in := c.unread
	c.unread = nil // the end of the connection must not give it back meanwhile
	l.unread -= len(in)
	rest := c.read(in)
	if c.state == stateClosed || len(rest) == 0 {
		l.bufs.put(in)
		return
	}
	c.unread = in[:copy(in, rest)]
	l.unread += len(rest)
}

// dropWork ends what waits: the connection has closed.
func (c *conn) dropWork() {
	if c.long != nil {
		c.long.drop(c.loop)
		c.long = nil
	}
	c.loop.unread -= len(c.unread)
	c.loop.bufs.put(c.unread)
	c.unread = nil
}

// turnsWait reports whether any connection waits for its turn.
func (l *loop) turnsWait() bool {
	return len(l.turns[linkTurns])+len(l.turns[firstTurns])+len(l.turns[moreTurns]) > 0
}

// takeTurns gives connections their turns, each at most one, for as long as share. Links have half of
// it, and a quarter is left for those that have had a turn before.
func (l *loop) takeTurns(share time.Duration) {
	if !l.turnsWait() {
		return
	}
	more := len(l.turns[moreTurns]) // those that come to it in this iteration wait for the next
	end := l.stamped + share
	l.serve(linkTurns, linkTurns, len(l.turns[linkTurns]), end-share/2)
	l.serve(firstTurns, moreTurns, len(l.turns[firstTurns]), end-share/4)
	l.serve(moreTurns, moreTurns, more, end)
}

// serve gives up to n connections of one kind a turn, until then but at least one. Those that need
// another one go on to next.
func (l *loop) serve(kind, next, n int, until time.Duration) {
	l.partEnds, l.full = until, false
	for ; n > 0 && !l.full; n-- {
		if c := l.turns[kind].pop(); c.takeTurn() {
			l.turns[next] = append(l.turns[next], c)
		}
	}
}

// takeTurn gives a connection its turn, and reports whether it needs another one.
func (c *conn) takeTurn() (more bool) {
	l := c.loop
	l.beginTurn()
	if c.hasWork() {
		c.work()
		c.countInput()
	}
	c.lastHeard, c.lastFrame = l.awake, l.now // more may have come: nobody has read it
	switch {
	case c.hasWork():
		return true
	case c.state != stateClosed && c.gone():
		c.teardown() // its end has waited for this
	}
	c.inTurns = false
	c.setReading(true)
	if c.local != nil {
		c.local.read()
	}
	return false
}

// outlives reports whether a connection whose socket has closed lives on until its input is handled:
// the client has sent it all, and then closed the connection in good order.
func (c *conn) outlives(err error) bool {
	var read *os.SyscallError // else the connection was reset
	return c.hasWork() && errors.As(err, &read) && errors.Is(read.Err, io.EOF)
}
