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

// unknownFrom decides on a send whose sender is not one of this session's, as far as this node knows.
func (c *conn) unknownFrom(m *codec.Send) verdict {
	l := c.loop
	denied := verdict{codec.CodeDenied, reasonFrom}
	if l.eng.cluster == nil || string(m.From) == l.askedFrom {
		return denied
	}
	if code, ok := l.recent(m.From); ok && code == codec.CodeNoRoute {
		return denied
	}
	return verdict{code: codeHeld}
}

// hold lets a send wait behind those of its connection that wait already, or for the word on its sender.
func (c *conn) hold(body []byte, m *codec.Send) {
	l := c.loop
	if c.parked+len(body) > l.eng.cfg.MaxParked {
		c.finish(m, verdict{codec.CodeOverflow, reasonParked})
		return
	}
	if len(c.held) == 0 {
		from := string(m.From)
		if l.holding[from] == nil {
			l.eng.cluster.resolver.ask(from, l.idx)
		}
		l.holding[from] = append(l.holding[from], c.handle())
	}
	c.parked += len(body)
	l.parkedSends++
	c.held = append(c.held, append([]byte(nil), body...))
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
	for i, body := range held {
		if c.state == stateClosed {
			l.stats.abandoned += uint64(len(held) - i)
			l.parkedSends -= len(held) - i
			return
		}
		c.parked -= len(body)
		l.parkedSends--
		m := &l.send
		if err := codec.DecodeSend(body, m); err != nil {
			panic("engine: a held frame is corrupt") // it was decoded before
		}
		switch {
		case len(c.held) > 0:
			c.hold(body, m) // another sender that has to be asked for
		case code == codec.CodeRegistryUnavailable && string(m.From) == id:
			c.finish(m, verdict{code: code})
		default:
			l.askedFrom = id
			c.relay(body, m)
			l.askedFrom = ""
		}
	}
}

// releaseHeld forgets the sends of a connection that has ended.
func (l *loop) releaseHeld(c *conn) {
	l.stats.abandoned += uint64(len(c.held))
	l.parkedSends -= len(c.held)
	c.held = nil
}

// attached reports whether a session is attached somewhere that this node can reach.
func (e *Engine) attached(id routing.SessionID) bool {
	if s := e.table.Session(id); s != nil && len(s.Handles()) > 0 {
		return true
	}
	if e.cluster == nil {
		return false
	}
	s := e.cluster.remote.Session(id)
	return s != nil && len(s.Handles()) > 0
}
