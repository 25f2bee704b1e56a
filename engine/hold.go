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
	if l.eng.cluster == nil || string(m.From) == l.askedFrom {
		return verdict{codec.CodeDenied, reasonFrom}
	}
	return verdict{code: codeHeld}
}

// hold lets a send wait behind those of its connection that wait already, or for the word on its sender.
func (c *conn) hold(body []byte, m *codec.Send) {
	w, ok := c.keep(body, m)
	if !ok {
		c.finish(m, verdict{codec.CodeOverflow, reasonParked})
		return
	}
	c.holdBehind(w, m.From)
}

// holdBehind appends what is charged already, and asks if it is the first.
func (c *conn) holdBehind(w waiting, sender []byte) {
	l := c.loop
	if len(c.held) == 0 {
		from := string(sender)
		if l.holding[from] == nil {
			l.eng.cluster.resolver.ask(l.idx, from)
		}
		l.holding[from] = append(l.holding[from], c.handle())
	}
	c.held = append(c.held, w)
}

// senderKnown goes on with the sends that waited for the registry's word on a sender.
func (l *loop) senderKnown(id string, code codec.Code) {
	waiting := l.holding[id]
	delete(l.holding, id)
	for _, h := range waiting {
		if c := l.conn(h); c != nil {
			c.goOnHeld(id, code)
		}
	}
}

func (c *conn) goOnHeld(id string, code codec.Code) {
	l := c.loop
	held := c.held
	c.held = nil
	for i := range held {
		w := &held[i]
		if l.takeUp(w) == nil {
			continue // c was closed meanwhile
		}
		m := &l.send
		switch {
		case w.late(l.now):
			c.finishHeld(w, verdict{code: codec.CodeExpired})
		case len(c.held) > 0: // another sender that has to be asked for
			c.charge(w)
			c.holdBehind(*w, m.From)
		case code == codec.CodeRegistryUnavailable && string(m.From) == id:
			c.finishHeld(w, verdict{code: code})
		case code == codec.CodeOK && w.tries < parkTries && c.holderUnknown(m.From):
			w.tries++
			c.charge(w)
			c.holdBehind(*w, m.From)
		default:
			l.askedFrom = id
			c.relayHeld(w, m)
			l.askedFrom = ""
		}
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

// holderUnknown reports whether the word on a sender, which came, does not say whose it is: the question was asked when c's session
// was attached elsewhere only, and the route there has been forgotten since, or is about to be.
func (c *conn) holderUnknown(id []byte) bool {
	e := c.loop.eng
	if _, ok := e.table.Lookup(id); ok {
		return false
	}
	r, ok := e.cluster.remote.Lookup(id)
	return !ok || r.Session.ID() == c.session.ID()
}

// expireHeld ends the held sends whose deadline is over.
func (c *conn) expireHeld() {
	l := c.loop
	held := c.held
	c.held = held[:0]
	for _, w := range held {
		switch {
		case c.state == stateClosed:
			l.takeUp(&w) // counts it
		case !w.late(l.now):
			l.waitUntil(w.deadline)
			c.held = append(c.held, w)
		case l.takeUp(&w) != nil:
			c.finishHeld(&w, verdict{code: codec.CodeExpired})
		}
	}
	clear(held[len(c.held):])
}

// releaseHeld forgets the sends of a connection that has ended.
func (l *loop) releaseHeld(c *conn) {
	for i := range c.held {
		n := c.held[i].count()
		l.stats.abandoned += uint64(n)
		l.parkedSends -= n
	}
	c.held = nil
}

// attached reports whether a session is attached somewhere that this node can reach.
func (e *Engine) attached(id routing.SessionID) bool {
	if s := e.table.Session(id); s != nil && len(s.Handles()) > 0 {
		return true
	}
	return e.cluster != nil && e.cluster.attached(id)
}
