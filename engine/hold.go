package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// A session may hold IDs that this node has never heard of: it bound them through another one. So before a
// sender is denied the registry is asked (S7), and the connection's sends wait meanwhile, all of
// them, to stay in order.

// codeHeld is the verdict on a send that has to wait for the registry's word on its sender; it never leaves this package.
const codeHeld codec.Code = 127

// unknownFrom decides on a send whose sender is not one of this session's, as far as this node knows. What the registry said
// a moment ago does not count: the session may have bound the ID since, through another node.
func (c *conn) unknownFrom(m *codec.Send) verdict {
	l := c.loop
	switch {
	case l.eng.cluster == nil: // what this node does not know nobody does
		return verdict{codec.CodeDenied, reasonFrom}
	case string(m.From) != l.asked.id:
		return verdict{code: codeHeld}
	case l.asked.session == c.session.ID():
		return verdict{}
	}
	return verdict{codec.CodeDenied, reasonFrom}
}

// hold lets a send wait behind those of its connection that wait already, or for the word on its sender.
func (c *conn) hold(body []byte, m *codec.Send) {
	w, v := c.keep(body, m)
	if v.code != codec.CodeOK {
		c.finish(m, v)
		return
	}
	w.round = c.loop.eng.cluster.holders.round.Load()
	c.holdBehind(w, m.From)
}

// holdBehind appends what is charged already, and asks if it is the first.
func (c *conn) holdBehind(w *waiting, sender []byte) {
	l := c.loop
	if c.held.empty() {
		from := string(sender)
		l.holding[from] = append(l.holding[from], c.handle())
		l.eng.cluster.holders.ask(l.idx, from)
	}
	w.held = true
	c.held.push(w)
}

// senderKnown goes on with the sends that waited for the registry's word on a sender.
func (l *loop) senderKnown(h holder) {
	waiting := l.holding[h.id]
	delete(l.holding, h.id)
	for _, handle := range waiting {
		if c := l.conn(handle); c != nil {
			c.heldGoOn(h)
		}
	}
}

// heldGoOn has the connection's held sends go on in its turn. What was held again while others were
// going on comes before those that are still to go on.
func (c *conn) heldGoOn(h holder) {
	c.held.take(&c.going)
	c.going.take(&c.held)
	c.word = h
	c.await()
}

// goOnHeld goes on with sends until the connection's turn is over.
func (c *conn) goOnHeld() {
	l := c.loop
	for !c.going.empty() && !l.turnOver {
		c.goOnHeldSend(c.going.pop(), c.word)
		l.worked(1)
	}
	if c.going.empty() {
		c.word = holder{}
	}
}

// goOnHeldSend goes on with one send, given the registry's word on a sender.
func (c *conn) goOnHeldSend(w *waiting, h holder) {
	l := c.loop
	if l.takeUp(w) == nil {
		return // c was closed meanwhile
	}
	m := &l.send
	switch {
	case w.late(l.now):
		c.finishHeld(w, verdict{code: codec.CodeExpired})
	case !c.held.empty(): // another sender that has to be asked for
		c.charge(w)
		c.holdBehind(w, m.From)
	case string(m.From) != h.id:
		c.relayHeld(w, m)
	case !h.known:
		c.finishHeld(w, verdict{code: codec.CodeRegistryUnavailable})
	case h.session != c.session.ID() && w.round >= h.round:
		// The question was asked before this send came. The session may have bound the ID in
		// between.
		c.charge(w)
		c.holdBehind(w, m.From)
	default:
		l.asked = h
		c.relayHeld(w, m)
		l.asked = holder{}
	}
}

// relayHeld relays what takeUp has taken up.
func (c *conn) relayHeld(w *waiting, m *codec.Send) {
	if k := w.cast; k != nil {
		k.multi.TTL = m.TTL
		c.relayMany(k.body, &k.multi, k.grouped, k)
		return
	}
	c.relay(w.frame, m)
}

// finishHeld ends what takeUp has taken up.
func (c *conn) finishHeld(w *waiting, v verdict) {
	if w.cast != nil {
		c.finishMany(w.cast, v)
		return
	}
	c.finish(&c.loop.send, v)
}

// releaseHeld forgets the sends of a connection that has ended.
func (l *loop) releaseHeld(c *conn) {
	for _, q := range []*waitLine{&c.held, &c.going} {
		for w := q.pop(); w != nil; w = q.pop() {
			n := w.count()
			l.unwaits(w)
			l.stats.abandoned += uint64(n)
			l.parkedSends -= n
			l.worked(1)
		}
	}
}

// attached reports whether a session is attached somewhere that this node can reach.
func (e *Engine) attached(id routing.SessionID) bool {
	if s := e.table.Session(id); s != nil && len(s.Handles()) > 0 {
		return true
	}
	return e.cluster != nil && e.cluster.attached(id)
}
