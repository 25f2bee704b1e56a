package engine

import (
	"math"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/ranking"
)

// A loop divides its time fairly by what its connections cost, not by how often they say something
// (S32). It counts the work that the input of each connection causes. Those that have caused less go
// first. So new and quiet connections are served at once, and one whose frames are expensive waits
// until they have been: it gets its share of the time, in as many turns as that takes.
//
// Input of a connection that has to wait stays in the connection, and the loop reads no more from its
// socket. So what waits is bounded, and the rest stays in the kernel, which holds up who sends it.

const (
	// maxConnUnread bounds what waits of one connection. What is over is handled at once. While more
	// than maxUnread waits of all of a loop, what comes has its first turn at once. More than one read waits only if gnet reads a socket that it
	// was asked not to read: it forgets that when its own buffer runs full, or empty.
	maxConnUnread = 2 << 20
	maxUnread     = 128 << 20
	// turnSlack is how far, in units of work, a connection may be ahead of the others without
	// waiting.
	turnSlack = 512
	// lateSlack is the same where input takes longer than its share of an iteration.
	lateSlack = 16
	// crowdedWork is how much work in one iteration makes a loop crowded. Where nobody is held up,
	// nobody has to wait.
	crowdedWork = 16 << 10
	// turnsWork is how much work the loop does for those that wait before it looks whether others
	// have sent something.
	turnsWork = 4 << 10
	// readWork is what it counts for at least when a connection is read again.
	readWork = 16
	// bytesOfRecipient is about what a frame says of a recipient. Input that nobody has looked at may
	// consist of recipients, and costs as much as a slice then.
	bytesOfRecipient = 8
)

// turns are the connections that wait for their turn.
type turns struct {
	links    []*conn                // the next one first
	clients  ranking.Ranking[*conn] // the first is the one that will have caused the least work after its turn
	arriving []*conn                // those that have come since turns were taken last
	entered  uint64                 // how many have entered clients so far

	// The work of clients, counted so that all begin alike: who has been quiet is at fair, and saves
	// nothing up.
	fair  uint64 // what a client may have caused without waiting for others, but for turnSlack
	most  uint64 // the most that any has caused
	least uint64 // the least that any has caused of those that were served in this iteration
}

// wait reports whether any connection waits for its turn.
func (t *turns) wait() bool { return len(t.links)+len(t.clients)+len(t.arriving) > 0 }

// settle forgives all that they are ahead, if nobody has been held up.
func (t *turns) settle(crowded bool) {
	switch {
	case !crowded:
		t.fair = t.most
	case len(t.clients)+len(t.arriving) == 0 && t.least != math.MaxUint64:
		t.fair = max(t.fair, t.least)
	}
	t.least = math.MaxUint64
}

// push has a client wait for its turn.
func (t *turns) push(c *conn) {
	t.entered++
	c.entered = t.entered
	c.caused = max(c.caused, t.fair)
	c.due = c.caused + c.nextWork()
	t.clients.Add(c)
}

// GoesBefore says which client will have caused less after its turn and, if they will have caused as
// much, which has come first.
func (c *conn) GoesBefore(d *conn) bool {
	return c.due < d.due || c.due == d.due && c.entered < d.entered
}

func (c *conn) StandsAt(int) {}

// nextWork is about how much work the connection's next turn is.
func (c *conn) nextWork() uint64 {
	if !c.hasWork() { // nobody has looked at what comes next
		part := 0
		if len(c.carry) > 0 {
			part = codec.Missing(c.carry)
		}
		return max(readWork, c.lastWork, uint64(part/bytesPerUnit))
	}
	if c.long != nil {
		return max(turnSlack, c.lastWork)
	}
	n := len(c.unread)
	return max(c.lastWork, uint64(1+n/bytesPerUnit), uint64(min(n/bytesOfRecipient, sliceWork)))
}

// countTurn counts what a connection has caused in one turn, or read.
func (c *conn) countTurn(before workDone) {
	work := c.loop.done().since(before)
	c.lastWork = uint64(work)
	c.countWork(work)
}

// countWork counts work that a connection has caused.
func (c *conn) countWork(work int) {
	if c.link != nil {
		return
	}
	t := &c.loop.turns
	c.caused = max(c.caused, t.fair) + uint64(work)
	t.most, t.least = max(t.most, c.caused), min(t.least, c.caused)
}

// isAhead reports whether the connection has caused so much work that others go before it. One with
// cheap frames goes on while others wait for their first expensive turns, which may take seconds for all
// of them: its next turn would end before that of the one that is the next.
func (c *conn) isAhead() bool {
	l := c.loop
	slack := uint64(turnSlack)
	if l.late {
		slack = lateSlack
	}
	t := &l.turns
	if c.link != nil || c.caused <= t.fair+slack || !l.crowded() {
		return false
	}
	return len(t.clients) == 0 || c.caused+c.nextWork() > t.clients[0].due
}

// mayWait reports whether the loop can hold up what comes next on the connection.
func (c *conn) mayWait() bool { return c.state != stateClosed && c.wire != nil }

// crowded reports whether some connections hold others up.
func (l *loop) crowded() bool {
	return l.turns.wait() || l.late || l.done().since(l.before) > crowdedWork
}

// input handles what was read from a connection, or lets it wait.
func (c *conn) input(buf []byte) {
	l := c.loop
	if c.inTurns || (l.full && c.link == nil || c.isAhead()) && len(buf) >= codec.Missing(c.carry) {
		c.keepUnread(buf)
		return
	} // a part of a large frame is copied in any case
	before := l.done()
	l.beginTurn()
	rest := c.read(buf)
	c.countTurn(before)
	switch {
	case len(rest) > 0:
		c.keepUnread(rest)
	case c.mayWait() && c.isAhead():
		c.await() // before the next read, which would have to be copied
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
	before := l.done()
	for len(c.unread) > maxConnUnread && c.hasWork() {
		l.beginTurn()
		l.turnEnds = math.MaxInt64
		c.work()
	}
	if l.unread > maxUnread && c.hasWork() { // a turn and no more: thousands may come here one after the other
		l.beginTurn()
		c.work()
	}
	c.caused = max(c.caused, l.turns.fair) + uint64(l.done().since(before))
}

// await has the connection wait for its turn, and stops reading from it.
func (c *conn) await() {
	if !c.inTurns {
		c.inTurns = true
		c.loop.turns.arriving = append(c.loop.turns.arriving, c)
	}
	c.setReading(false)
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

// takeTurns gives connections their turns, for as long as share at most. Links come first, because a
// link that cannot answer in time is given up. They have half of the share.
func (l *loop) takeTurns(share time.Duration) {
	t := &l.turns
	for i, c := range t.arriving {
		t.arriving[i] = nil
		if c.link != nil {
			t.links = append(t.links, c)
		} else {
			t.push(c)
		}
	}
	t.arriving = t.arriving[:0]
	if !t.wait() {
		return
	}
	end := l.stamped + share
	l.serveLinks(end - share/2)
	l.serveClients(end)
}

// serveLinks gives each link that waits a turn, until then but at least one. Those that need another
// one go to the end.
func (l *loop) serveLinks(until time.Duration) {
	l.partEnds, l.full = until, false
	t := &l.turns
	for n := len(t.links); n > 0 && !l.full; n-- {
		c := t.links[0]
		t.links[0] = nil
		t.links = t.links[1:]
		if c.takeTurn() {
			t.links = append(t.links, c)
		}
	}
}

// serveClients gives clients turns, those first that have caused the least work. It ends then, or when
// it has done some work and has something to write, or others have sent something: that may be cheap.
func (l *loop) serveClients(until time.Duration) {
	l.partEnds, l.full = until, false
	t := &l.turns
	for work := 0; len(t.clients) > 0 && !l.full; {
		if work >= turnsWork && (len(l.dirty) > 0 || l.inputWaits()) {
			return
		}
		c := t.clients.TakeFirst()
		t.fair = max(t.fair, c.caused)
		before, expected := l.done(), 0
		if !c.hasWork() { // it is read again
			expected = int(c.nextWork())
		}
		if c.takeTurn() {
			t.push(c)
		}
		work += max(l.done().since(before), expected)
	}
}

// takeTurn gives a connection its turn, and reports whether it needs another one.
func (c *conn) takeTurn() (more bool) {
	l := c.loop
	l.beginTurn()
	worked := c.hasWork()
	if worked {
		before := l.done()
		c.work()
		c.countInput()
		c.countTurn(before)
	}
	c.lastHeard, c.lastFrame = l.awake, l.now // more may have come: nobody has read it
	switch {
	case c.hasWork() || worked && c.mayWait() && c.isAhead():
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
