package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/directory"
)

// A session may hold IDs that this node has never heard of: it bound them through another one. So before a
// sender is denied the registry is asked (S7), and the connection's sends wait meanwhile, all of
// them, to stay in order.

// codeHeld is the verdict on a send that has to wait for the registry's word on its sender; it never leaves this package.
const codeHeld codec.Code = 127

// heldSends are the sends of a connection that wait until the registry has said whose their senders
// are. The connection's loop owns them.
type heldSends struct {
	conn *conn // static

	line   waitLine // those that wait for the answer, see hold
	ready  waitLine // those that resume with it in the connection's turn, before its input
	answer directory.Holder
}

// unknownFrom decides on a send whose sender is not one of this session's, as far as this node knows. What the registry said
// a moment ago does not count: the session may have bound the ID since, through another node.
func (s *sender) unknownFrom(m *codec.Send) verdict {
	c := s.conn
	l := c.loop
	switch {
	case l.eng.cluster == nil: // what this node does not know nobody does
		return verdict{codec.CodeDenied, reasonFrom}
	case string(m.From) != l.park.asked.ID:
		return verdict{code: codeHeld}
	case l.park.asked.Session == c.session.ID():
		return verdict{}
	}
	return verdict{codec.CodeDenied, reasonFrom}
}

// hold lets a send wait behind those of its connection that wait already, or for the word on its sender.
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

// holdBehind appends what is charged already, and asks if it is the first.
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

// senderKnown goes on with the sends that waited for the registry's word on a sender.
func (p *park) senderKnown(word directory.Holder) {
	waiting := p.holding[word.ID]
	delete(p.holding, word.ID)
	for _, handle := range waiting {
		if c := p.loop.conn(handle); c != nil {
			c.held.answered(word)
		}
	}
}

// answered has the connection's held sends go on in its turn. What was held again while others were
// going on comes before those that are still to go on.
func (h *heldSends) answered(word directory.Holder) {
	h.line.take(&h.ready)
	h.ready.take(&h.line)
	h.answer = word
	h.conn.in.await()
}

// resume goes on with sends until the connection's turn is over.
func (h *heldSends) resume() {
	l := h.conn.loop
	for !h.ready.empty() && !l.pace.turnOver {
		h.resumeOne(h.ready.pop(), h.answer)
		l.pace.worked(1)
	}
	if h.ready.empty() {
		h.answer = directory.Holder{}
	}
}

// resumeOne goes on with one send, given the registry's word on a sender.
func (h *heldSends) resumeOne(w *waiting, word directory.Holder) {
	c := h.conn
	l := c.loop
	if l.park.dequeue(w) == nil {
		return // c was closed meanwhile
	}
	m := &l.scratch.send
	switch {
	case w.late(l.now):
		h.finish(w, verdict{code: codec.CodeExpired})
	case !h.line.empty(): // another sender that has to be asked for
		c.sender.charge(w)
		h.holdBehind(w, m.From)
	case string(m.From) != word.ID:
		h.relay(w, m)
	case !word.Known:
		h.finish(w, verdict{code: codec.CodeRegistryUnavailable})
	case word.Session != c.session.ID() && w.round >= word.Round:
		// The question was asked before this send came. The session may have bound the ID in
		// between.
		c.sender.charge(w)
		h.holdBehind(w, m.From)
	default:
		l.park.asked = word
		h.relay(w, m)
		l.park.asked = directory.Holder{}
	}
}

// relay relays what dequeue has taken up.
func (h *heldSends) relay(w *waiting, m *codec.Send) {
	c := h.conn
	if k := w.cast; k != nil {
		k.multi.TTL = m.TTL
		c.multicasts.relay(k.body, &k.multi, k.grouped, k)
		return
	}
	c.sender.relay(w.frame, m)
}

// finish ends what dequeue has taken up.
func (h *heldSends) finish(w *waiting, v verdict) {
	c := h.conn
	if w.cast != nil {
		c.multicasts.finish(w.cast, v)
		return
	}
	c.sender.finish(&c.loop.scratch.send, v)
}

// releaseHeld forgets the sends of a connection that has ended.
func (l *loop) releaseHeld(c *conn) {
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
