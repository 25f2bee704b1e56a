package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/directory"
)

// A session may hold IDs that this node has never heard of, because it bound them through another
// node. So before it denies a sender, the node asks the registry (S7). All sends of the connection
// wait meanwhile, so that they stay in order.

// heldSends are the sends of a connection that wait for the registry to say who holds their sender
// IDs. The connection's loop owns it. A connection has none before its first send waits.
type heldSends struct {
	conn *conn // static

	line   waitLine          // sends that wait for the answer, see hold
	ready  waitLine          // sends that resume with the answer, in the connection's turn, first
	answer *directory.Holder // nil if no send is ready
}

// heldSends returns what holds the connection's sends.
func (s *sender) heldSends() *heldSends {
	c := s.conn
	if c.held == nil {
		c.held = &heldSends{conn: c}
	}
	return c.held
}

// wait reports whether sends wait for an answer.
func (h *heldSends) wait() bool { return h != nil && !h.line.empty() }

// areReady reports whether sends may resume.
func (h *heldSends) areReady() bool { return h != nil && !h.ready.empty() }

// unknownFrom decides on a send whose sender ID is not bound to this session, as far as this node
// knows. It returns known as false if the node must ask the registry. It does not use an earlier
// answer of the registry, because the session may have bound the ID since, through another node.
func (s *sender) unknownFrom(m *codec.Send) (v verdict, known bool) {
	c := s.conn
	l := c.loop
	switch {
	case l.eng.cluster == nil: // without a cluster, this node knows all bindings
		return verdict{codec.CodeDenied, reasonFrom}, true
	case string(m.From) != l.park.asked.ID:
		return verdict{}, false
	case l.park.asked.Session == c.session.ID():
		return verdict{}, true
	}
	return verdict{codec.CodeDenied, reasonFrom}, true
}

// hold queues a send behind those of its connection that already wait. If there are none, it waits
// until the registry says who holds its sender ID.
func (h *heldSends) hold(body []byte, m *codec.Send) {
	c := h.conn
	w, v := c.sender.retain(body, m)
	if v.code != codec.CodeOK {
		c.sender.finish(m, v)
		return
	}
	w.round = c.loop.eng.dir.HolderRound()
	h.holdBehind(w, m.From)
}

// holdBehind queues a send that is already charged. If it is the first, holdBehind asks the
// registry.
func (h *heldSends) holdBehind(w *waiting, sender []byte) {
	c := h.conn
	l := c.loop
	if h.line.empty() {
		from := string(sender)
		l.park.holding[from] = append(l.park.holding[from], c.handle())
		l.eng.dir.AskHolder(l.idx, from)
	}
	w.held = true
	h.line.push(w)
}

// senderKnown resumes the sends that waited for the registry's answer about a sender ID.
func (p *park) senderKnown(answer directory.Holder) {
	waiting := p.holding[answer.ID]
	delete(p.holding, answer.ID)
	for _, handle := range waiting {
		if c := p.loop.conn(handle); c != nil {
			c.held.answered(answer)
		}
	}
}

// answered makes the held sends ready to resume in the connection's turn. A send that was held
// again while others resumed comes before those that have not resumed yet.
func (h *heldSends) answered(answer directory.Holder) {
	h.line.take(&h.ready)
	h.ready.take(&h.line)
	h.answer = &answer
	h.conn.in.await()
}

// resume resumes held sends until the connection's turn is over.
func (h *heldSends) resume() {
	l := h.conn.loop
	for !h.ready.empty() && !l.pace.turnOver {
		h.resumeOne(h.ready.pop(), *h.answer)
		l.pace.worked(1)
	}
	if h.ready.empty() {
		h.answer = nil
	}
}

// resumeOne resumes one send with the registry's answer about a sender ID.
func (h *heldSends) resumeOne(w *waiting, answer directory.Holder) {
	c := h.conn
	l := c.loop
	if l.park.dequeue(w) == nil {
		return // the connection has closed meanwhile
	}
	m := &l.scratch.send
	switch {
	case w.late(l.now):
		h.finish(w, verdict{code: codec.CodeExpired})
	case !h.line.empty(): // the node must ask for another sender ID first
		c.sender.charge(w)
		h.holdBehind(w, m.From)
	case string(m.From) != answer.ID:
		h.relay(w, m)
	case !answer.Known:
		h.finish(w, verdict{code: codec.CodeRegistryUnavailable})
	case answer.Session != c.session.ID() && w.round >= answer.Round:
		// The node asked the registry before this send arrived. The session may have bound the ID
		// in between.
		c.sender.charge(w)
		h.holdBehind(w, m.From)
	default:
		l.park.asked = answer
		h.relay(w, m)
		l.park.asked = directory.Holder{}
	}
}

// relay relays a send that has left the queue.
func (h *heldSends) relay(w *waiting, m *codec.Send) {
	c := h.conn
	if k := w.cast; w.kind == waitCast {
		k.multi.TTL = m.TTL
		c.multicasts.relay(k.body, &k.multi, k.grouped, k)
		return
	}
	c.sender.relay(w.frame, m)
}

// finish ends a send that has left the queue.
func (h *heldSends) finish(w *waiting, v verdict) {
	c := h.conn
	if w.kind == waitCast {
		c.multicasts.finish(w.cast, v)
		return
	}
	c.sender.finish(&c.loop.scratch.send, v)
}

// releaseHeld drops the held sends of a connection that has ended.
func (l *loop) releaseHeld(c *conn) {
	if c.held == nil {
		return
	}
	for _, q := range []*waitLine{&c.held.line, &c.held.ready} {
		for w := q.pop(); w != nil; w = q.pop() {
			n := w.count()
			l.park.unwaits(w)
			l.stats.abandoned += uint64(n)
			l.park.sends -= n
			l.pace.worked(1)
		}
	}
}
