package engine

import (
	"math"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/ranking"
)

// A loop divides its time fairly by what its connections cost, not by how often they send (S32). It
// counts the work that the input of each connection causes. Connections that have caused less work
// go first. So the loop serves new and quiet connections at once. A connection with expensive
// frames waits for them, and then gets its share of the time, in as many turns as that takes.
//
// Input that has to wait stays in its connection, and the loop stops reading from the socket. So
// what waits is bounded. The rest stays in the kernel, which slows down the sender.

const (
	// maxConnUnread bounds the waiting input of one connection. The loop handles at once what
	// exceeds it. While more than maxUnread waits in all connections of a loop, new input has its
	// first turn at once. More than one read waits only if gnet reads a socket although the loop
	// asked it not to: gnet forgets that when its own buffer runs full or empty.
	maxConnUnread = 2 << 20
	maxUnread     = 128 << 20
	// turnSlack is how many units of work a connection may be ahead of the others without waiting.
	turnSlack = 512
	// lateSlack is the same when input takes longer than its share of an iteration.
	lateSlack = 16
	// crowdedWork is how much work in one iteration makes a loop crowded. In a loop that is not
	// crowded nobody has to wait.
	crowdedWork = 16 << 10
	// turnsWork is how much work the loop does for waiting connections before it checks whether
	// others have sent something.
	turnsWork = 4 << 10
	// readWork is the least that reading a connection again counts for.
	readWork = 16
	// bytesOfRecipient is about how many bytes of a frame name one recipient. Input that the loop
	// has not decoded may consist of recipients, and then costs as much as a slice.
	bytesOfRecipient = 8
)

// turns are the connections that wait for their turn.
type turns struct {
	loop   *loop   // static
	unread int     // bytes that wait in connections
	links  []*conn // the next one first
	// the first is the one that will have caused the least work after its turn
	clients  ranking.Ranking[*input]
	arriving []*conn // those that have come since the loop last gave turns
	entered  uint64  // how many have entered clients so far

	// The work of clients, counted so that all begin alike. A quiet client is at fair and saves
	// nothing up.
	fair  uint64 // what a client may have caused without waiting, apart from turnSlack
	most  uint64 // the most that any client has caused
	least uint64 // the least that any client served in this iteration has caused
}

// wait reports whether any connection waits for its turn.
func (t *turns) wait() bool { return len(t.links)+len(t.clients)+len(t.arriving) > 0 }

// settle forgives what clients are ahead if they held nobody up.
func (t *turns) settle(crowded bool) {
	switch {
	case !crowded:
		t.fair = t.most
	case len(t.clients)+len(t.arriving) == 0 && t.least != math.MaxUint64:
		t.fair = max(t.fair, t.least)
	}
	t.least = math.MaxUint64
}

// push queues a client for its turn.
func (t *turns) push(c *conn) {
	t.entered++
	c.in.caused = max(c.in.caused, t.fair)
	w := c.in.waits()
	w.due, w.entered = c.in.caused+c.in.nextWork(), t.entered
	t.clients.Add(&c.in)
}

// GoesBefore reports whether this client will have caused less work than the other after its turn.
// If both will have caused as much, the one that came first goes first.
func (in *input) GoesBefore(other *input) bool {
	a, b := in.later, other.later
	return a.due < b.due || a.due == b.due && a.entered < b.entered
}

func (in *input) StandsAt(int) {}

// nextWork estimates the work of the connection's next turn.
func (in *input) nextWork() uint64 {
	if !in.hasWork() { // nobody has looked at what comes next
		part := 0
		if carry := in.carry(); len(carry) > 0 {
			part = codec.Missing(carry)
		}
		return max(readWork, in.lastWork, uint64(part/bytesPerUnit))
	}
	if in.hasLong() {
		return max(turnSlack, in.lastWork)
	}
	n := len(in.unread())
	return max(in.lastWork, uint64(1+n/bytesPerUnit), uint64(min(n/bytesOfRecipient, sliceWork)))
}

// countTurn counts what a connection has caused in one turn or one read.
func (in *input) countTurn(before workDone) {
	work := in.conn.loop.pace.done().since(before)
	in.lastWork = uint64(work)
	in.countWork(work)
}

// countWork counts work that a connection has caused.
func (in *input) countWork(work int) {
	c := in.conn
	if c.kind == linkConn {
		return
	}
	t := &c.loop.turns
	in.caused = max(in.caused, t.fair) + uint64(work)
	t.most, t.least = max(t.most, in.caused), min(t.least, in.caused)
}

// isAhead reports whether the connection has caused so much work that others go before it. A
// connection with cheap frames goes on while others wait for expensive first turns, which may take
// seconds for all of them: it goes on as long as its next turn would end before that of the next
// one in line.
func (in *input) isAhead() bool {
	c := in.conn
	l := c.loop
	slack := uint64(turnSlack)
	if l.pace.late {
		slack = lateSlack
	}
	t := &l.turns
	if c.kind == linkConn || in.caused <= t.fair+slack || !l.turns.crowded() {
		return false
	}
	return len(t.clients) == 0 || in.caused+in.nextWork() > t.clients[0].later.due
}

// mayWait reports whether the loop can delay what comes next on the connection.
func (in *input) mayWait() bool { return !in.conn.closed() && in.conn.wire != nil }

// crowded reports whether some connections delay others.
func (t *turns) crowded() bool {
	l := t.loop
	return t.wait() || l.pace.late || l.pace.done().since(l.pace.before) > crowdedWork
}

// take handles what was read from a connection, or queues it for the connection's turn.
func (in *input) take(buf []byte) {
	c := in.conn
	l := c.loop
	if in.inTurns || (l.pace.full && c.kind != linkConn || in.isAhead()) && len(buf) >= codec.Missing(in.carry()) {
		in.keep(buf)
		return
	} // a part of a large frame is copied in any case
	l.readAt = l.pace.stamped
	before := l.pace.done()
	l.pace.beginTurn()
	rest := in.read(buf)
	in.countTurn(before)
	switch {
	case len(rest) > 0:
		in.keep(rest)
	case in.mayWait() && in.isAhead():
		in.await() // before the next read, which would have to be copied
	}
}

func (p *pace) beginTurn() { p.turnEnds, p.turnOver = p.stamped+turnShare, false }

// keep copies input that has to wait.
func (in *input) keep(buf []byte) {
	l := in.conn.loop
	l.stats.deferred++
	w := in.waits()
	if w.unread == nil {
		w.unread = l.bufs.get()
	}
	w.unread = append(w.unread, buf...)
	l.turns.unread += len(buf)
	in.await()
	before := l.pace.done()
	for len(w.unread) > maxConnUnread && in.hasWork() {
		l.pace.beginTurn()
		l.pace.turnEnds = math.MaxInt64
		in.resume()
	}
	// Only one turn, because thousands of connections may come here one after the other.
	if l.turns.unread > maxUnread && in.hasWork() {
		l.pace.beginTurn()
		in.resume()
	}
	in.caused = max(in.caused, l.turns.fair) + uint64(l.pace.done().since(before))
}

// await queues the connection for its turn and stops reading from it.
func (in *input) await() {
	c := in.conn
	if !in.inTurns {
		in.inTurns = true
		in.waits().readAt = c.loop.pace.stamped
		c.loop.turns.arriving = append(c.loop.turns.arriving, c)
	}
	in.setReading(false)
}

// unread returns the input that waits for the connection's turn.
func (in *input) unread() []byte {
	if in.later == nil {
		return nil
	}
	return in.later.unread
}

// hasWork reports whether the connection has anything to do in its turn.
func (in *input) hasWork() bool {
	c := in.conn
	return !c.closed() && (in.hasLong() || c.held.areReady() || len(in.unread()) > 0)
}

// resume handles what waits until the turn is over.
func (in *input) resume() {
	c, w := in.conn, in.waits()
	l := c.loop
	l.readAt = w.readAt
	if w.long != nil {
		in.resumeLong()
	}
	if !l.pace.turnOver && c.held.areReady() {
		c.held.resume()
		l.readAt = w.readAt // what was held was read earlier
	}
	if l.pace.turnOver || c.closed() {
		return
	}
	waited := w.unread
	w.unread = nil // if the connection closes meanwhile, drop must not give this buffer back
	l.turns.unread -= len(waited)
	rest := in.read(waited)
	if c.closed() || len(rest) == 0 {
		l.bufs.put(waited)
		return
	}
	w.unread = waited[:copy(waited, rest)]
	l.turns.unread += len(rest)
}

// drop ends what waits. The connection has closed.
func (in *input) drop() {
	l := in.conn.loop
	if w := in.later; w != nil {
		if w.long != nil {
			w.long.drop(l)
		}
		l.turns.unread -= len(w.unread)
		l.bufs.put(w.unread)
		l.bufs.put(w.carry)
		w.long, w.unread, w.carry = nil, nil, nil
	}
	in.sealed = 0
	in.count()
}

// serve gives connections their turns for at most share. Links come first and have half of the
// share, because the other node drops a link that does not answer in time.
func (t *turns) serve(share time.Duration) {
	for i, c := range t.arriving {
		t.arriving[i] = nil
		if c.kind == linkConn {
			t.links = append(t.links, c)
		} else {
			t.push(c)
		}
	}
	t.arriving = t.arriving[:0]
	if !t.wait() {
		return
	}
	end := t.loop.pace.stamped + share
	t.serveLinks(end - share/2)
	t.serveClients(end)
}

// serveLinks gives each waiting link one turn until the given time, but serves at least one link. A
// link that needs another turn goes to the end of the line.
func (t *turns) serveLinks(until time.Duration) {
	l := t.loop
	l.pace.partEnds, l.pace.full = until, false
	for n := len(t.links); n > 0 && !l.pace.full; n-- {
		c := t.links[0]
		t.links[0] = nil
		t.links = t.links[1:]
		if c.in.takeTurn() {
			t.links = append(t.links, c)
		}
	}
}

// serveClients gives turns to clients, first to those that have caused the least work. It ends at
// the given time. It also ends once it has done turnsWork and either has something to write or
// others have sent something, which may be cheap to handle.
func (t *turns) serveClients(until time.Duration) {
	l := t.loop
	l.pace.partEnds, l.pace.full = until, false
	for work := 0; len(t.clients) > 0 && !l.pace.full; {
		if work >= turnsWork && (len(l.dirty) > 0 || l.poll.inputWaits()) {
			return
		}
		c := t.clients.TakeFirst().conn
		t.fair = max(t.fair, c.in.caused)
		before, expected := l.pace.done(), 0
		if !c.in.hasWork() { // it is read again
			expected = int(c.in.nextWork())
		}
		if c.in.takeTurn() {
			t.push(c)
		}
		work += max(l.pace.done().since(before), expected)
	}
}

// takeTurn gives a connection its turn. It reports whether the connection needs another one.
func (in *input) takeTurn() (more bool) {
	c := in.conn
	l := c.loop
	l.pace.beginTurn()
	worked := in.hasWork()
	if worked {
		before := l.pace.done()
		in.resume()
		in.count()
		in.countTurn(before)
	}
	// Nobody has read the socket meanwhile, so the client may have sent more.
	c.live.lastHeard, c.live.lastFrame = l.beats.awake, l.now
	switch {
	case in.hasWork() || worked && in.mayWait() && in.isAhead():
		return true
	case !c.closed() && c.gone():
		c.teardown() // its end has waited for this
	}
	in.inTurns = false
	in.setReading(true)
	return false
}
