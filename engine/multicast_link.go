package engine

import (
	"math"

	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Multicasts over links. A forward_many is delivered as far as its recipients are here; the others
// go back together, in one return_many, and from there on each is a message of its own (S14): what
// comes back is the exception.

// handleForwardMany delivers a multicast from another node, or sends it back in part or whole.
func (k *link) handleForwardMany(body []byte) error {
	c := k.conn
	m := &c.loop.scratch.many
	if err := codec.DecodeDeliverMany(body, codec.KindForwardMany, math.MaxInt, m); err != nil {
		return err
	}
	return c.in.inSlices(codec.KindForwardMany, body, m, func(c *conn, m *codec.DeliverMany) error { return c.link.deliverMany(m) })
}

// deliverMany delivers a multicast from another node to its next recipients.
func (k *link) deliverMany(m *codec.DeliverMany) error {
	c := k.conn
	l := c.loop
	defer l.scratch.fan.reset()
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		if err := checkForwardToken(&codec.Forward{Deliver: codec.Deliver{Token: r.Token, Flags: m.Flags}}); err != nil {
			return err
		}
		l.pace.worked(1)
		if s, h, back := l.links.receiver(r.To, routing.SessionID(r.Session), r.Epoch); s == nil {
			r.Why = back
			l.scratch.fan.back = append(l.scratch.fan.back, r)
			l.scratch.fan.cost += l.scratch.fan.each
		} else {
			l.scratch.fan.add(h, false, len(m.Payload), target{token: r.Token, to: r.To, session: s, epoch: r.Epoch})
		}
		if l.pace.sliceOver() {
			break
		}
	}
	if len(l.scratch.fan.back) > 0 {
		c.out.wroteControl(codec.AppendDeliverMany(c.out.buf(), codec.KindReturnMany, m, l.scratch.fan.back))
	}
	for i := range l.scratch.fan.batches {
		l.deliverBatch(&l.scratch.fan.batches[i], m, c.handle())
	}
	return nil
}

// deliverBatch writes what came over a link for one connection.
func (l *loop) deliverBatch(b *batch, m *codec.DeliverMany, link routing.Handle) {
	many := *m
	many.Flags &= knownFlags
	l.stats.received += uint64(unackedOf(many.Flags, b.n))
	dest, v := l.destination(b.handle, b.size, m.From)
	all := l.scratch.fan.recipients
	for t := range l.scratch.fan.of(b) {
		d := &l.scratch.deliver
		*d = codec.Deliver{To: t.to, From: m.From, TTL: m.TTL, Flags: many.Flags, Epoch: t.epoch, Payload: m.Payload, Trace: m.Trace}
		d.Token = l.eng.tokens.AppendLink(l.scratch.token[:0], t.token, link, t.session.Short())
		may := v
		if may.code == codec.CodeOK {
			may = b.fits(dest, d)
		}
		if may.code == codec.CodeOK {
			may = l.eng.hooks.mayDeliver(t.session, d)
		}
		if may.code != codec.CodeOK {
			l.links.refuse(d, may)
			continue
		}
		all = append(all, l.recipient(d, t.session.ID()))
		l.pace.worked(1)
	}
	l.writeMany(dest, codec.KindDeliverMany, &many, all)
	l.pace.worked(len(m.Payload) / bytesPerUnit)
	l.scratch.fan.written(all)
}

// handleReturnMany takes back what another node could not deliver.
func (k *link) handleReturnMany(body []byte) error {
	c := k.conn
	m := &c.loop.scratch.many
	if err := codec.DecodeDeliverMany(body, codec.KindReturnMany, math.MaxInt, m); err != nil {
		return err
	}
	c.loop.stats.multicastReturns++
	return c.in.inSlices(codec.KindReturnMany, body, m, func(c *conn, m *codec.DeliverMany) error { return c.link.takeReturned(m) })
}

// takeReturned takes the next messages of a return_many back. What belongs to other loops goes
// there in one piece: the payload is copied once for each loop, and not for each message.
func (k *link) takeReturned(m *codec.DeliverMany) error {
	c := k.conn
	l := c.loop
	defer l.scratch.fan.reset()
	var sum token.SharedSum
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		l.pace.worked(1)
		l.scratch.fan.cost += returnCost
		l.scratch.forward = codec.Forward{Deliver: m.Deliver(&r), Session: r.Session}
		k.forgetWay(r.Why, &l.scratch.forward)
		if t, ok := token.Ack(r.Token); ok && t.Loop() != int(l.idx) {
			l.scratch.fan.away(t.Loop(), len(l.eng.loops), r)
		} else {
			l.bounce.returned(r.Why, c.handle(), &l.scratch.forward, &sum)
		}
		if l.pace.sliceOver() {
			break
		}
	}
	l.mail.passOn(codec.KindReturnMany, m, note{kind: noteReturnedMany, handle: c.handle()})
	return nil
}

// passOn leaves what the fan has gathered for other loops there, each with such a note.
func (mr *mailroom) passOn(kind codec.Kind, m *codec.DeliverMany, n note) {
	l := mr.loop
	for loop, all := range l.scratch.fan.others {
		if len(all) == 0 {
			continue
		}
		p := mr.parcelFor(uint16(loop))
		n.at = len(p.data) + codec.PrefixLen
		p.data = codec.AppendDeliverMany(p.data, kind, m, all)
		n.bodyLen = len(p.data) - n.at
		p.notes = append(p.notes, n)
		l.pace.worked(len(all)/scanPerUnit + len(m.Payload)/bytesPerUnit)
	}
}

// returnedMine is returned for those of a return_many whose entries are on this loop.
func (b *bouncing) returnedMine(by routing.Handle, body []byte) {
	l := b.loop
	var m codec.DeliverMany
	if err := codec.DecodeDeliverMany(body, codec.KindReturnMany, math.MaxInt, &m); err != nil {
		return // it was checked before
	}
	var sum token.SharedSum
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		l.pace.worked(1)
		l.scratch.forward = codec.Forward{Deliver: m.Deliver(&r), Session: r.Session}
		b.returned(r.Why, by, &l.scratch.forward, &sum)
	}
}

// mostReturned is the most elements of a not_here_many. No deliver_many has more: whatever the
// limits of the node where the multicast began, it has to fit into a frame.
func (e *Engine) mostReturned() int {
	return (e.maxFrame - codec.MulticastSize[[]byte](0, nil)) / codec.RecipientSize([]byte{0})
}

// handleNotHereMany takes back messages that this session cannot accept, as handleNotHere does one.
func (rv *receiver) handleNotHereMany(body []byte) {
	c := rv.conn
	m := &c.loop.scratch.many
	err := codec.DecodeDeliverMany(body, codec.KindNotHereMany, c.loop.eng.mostReturned(), m)
	if err == nil {
		err = c.in.inSlices(codec.KindNotHereMany, body, m, func(c *conn, m *codec.DeliverMany) error { return c.receiver.takeNotHereMany(m) })
	}
	c.decodeFault(err, codec.KindNotHereMany)
}

// takeNotHereMany takes the next messages of a not_here_many back.
func (rv *receiver) takeNotHereMany(m *codec.DeliverMany) error {
	c := rv.conn
	l := c.loop
	defer l.scratch.fan.reset()
	l.scratch.fan.refusing = true
	defer l.bounce.endRefusing(c.handle())
	bare := rv.isBare(m.Flags)
	var sum token.SharedSum
	back := returning{conn: c, many: m}
	for r, ok := m.To.Next(); ok && c.state == stateOpen; r, ok = m.To.Next() {
		l.pace.worked(1)
		l.scratch.fan.cost += returnCost
		rv.takeOneBack(m, &r, bare, &sum, &back)
		if l.pace.sliceOver() {
			break
		}
	}
	back.flush()
	l.mail.passOn(codec.KindNotHereMany, m, note{kind: noteBackMany, handle: c.handle(), session: c.short, bare: bare})
	l.bounce.releaseDisowned()
	return nil
}

// takeOneBack takes one message of a not_here_many back.
func (rv *receiver) takeOneBack(m *codec.DeliverMany, r *codec.Recipient, bare bool, sum *token.SharedSum, back *returning) {
	c := rv.conn
	l := c.loop
	d := m.Deliver(r)
	if t, ok := l.eng.tokens.OpenAck(d.Token, c.short); ok && (bare || d.Flags&codec.FlagAck != 0) {
		if t.Loop() == int(l.idx) {
			l.bounce.givenBackHere(t, c.short, c.handle(), &d, bare, sum)
		} else {
			l.scratch.fan.away(t.Loop(), len(l.eng.loops), *r)
		}
		return
	}
	if rv.takeNotHere(&d) {
		return
	}
	origin, h, ok := rv.linkBounce(&d)
	if !ok {
		l.settle.refuseToken(c.handle(), codec.KindNotHereMany)
		return
	}
	rv.disown(d.To, d.Epoch)
	id := c.session.ID()
	r.Token, r.Session, r.Why = origin, append([]byte(nil), id[:]...), codec.KindNotMine
	back.add(h, *r)
}

// endRefusing tells a connection that of the messages which it gave back together some were never
// delivered to it: once, as an error for each would take ten times the bytes that it has sent
// (S32).
func (b *bouncing) endRefusing(by routing.Handle) {
	l := b.loop
	refused := l.scratch.fan.refused
	l.scratch.fan.refusing, l.scratch.fan.refused = false, false
	if refused {
		l.mail.notify(by.Loop, note{kind: noteRefused, handle: by, frame: codec.KindNotHereMany})
	}
}

// takeBackMine takes back those of a not_here_many whose entries are on this loop.
func (b *bouncing) takeBackMine(n *note, body []byte) {
	l := b.loop
	var m codec.DeliverMany
	if err := codec.DecodeDeliverMany(body, codec.KindNotHereMany, math.MaxInt, &m); err != nil {
		return // it was checked before
	}
	var sum token.SharedSum
	l.scratch.fan.refusing = true
	defer b.endRefusing(n.handle)
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		l.pace.worked(1)
		d := m.Deliver(&r)
		if t, ok := l.eng.tokens.OpenAck(d.Token, n.session); ok { // as the other loop has found
			b.givenBackHere(t, n.session, n.handle, &d, n.bare, &sum)
		}
	}
	b.releaseDisowned()
}

// returning gathers, in the loop's fan.back, messages that go back over one link in one frame.
type returning struct {
	conn *conn // that gives them back
	many *codec.DeliverMany
	link routing.Handle // that they came over
	size int            // bounds the frame: made-up messages must not end the link
}

func (b *returning) add(link routing.Handle, r codec.Recipient) {
	l := b.conn.loop
	if link != b.link || b.size+codec.RecipientSize(r.To) > l.eng.maxFrame {
		b.flush()
		b.link, b.size = link, codec.MulticastSize[[]byte](len(b.many.Payload), nil)
	}
	b.size += codec.RecipientSize(r.To)
	l.scratch.fan.back = append(l.scratch.fan.back, r)
}

func (b *returning) flush() { b.conn.receiver.returnMany(b.link, b.many) }

// returnMany sends what is in fan.back to the node that it came from.
func (rv *receiver) returnMany(link routing.Handle, m *codec.DeliverMany) {
	l := rv.conn.loop
	if len(l.scratch.fan.back) == 0 {
		return
	}
	l.scratch.control = codec.AppendDeliverMany(l.scratch.control[:0], codec.KindReturnMany, m, l.scratch.fan.back)
	l.scratch.fan.back = l.scratch.fan.back[:0]
	rv.giveBack(link, l.scratch.control)
}
