package engine

import (
	"math"

	"distmsg/codec"
	"distmsg/routing"
)

// Multicasts over links. A forward_many is delivered as far as its recipients are here; the others go back together, in one
// return_many, and from there on each is a message of its own (S14): what comes back is the exception.

// handleForwardMany delivers a multicast from another node, or sends it back in part or whole.
func (c *conn) handleForwardMany(k *link, body []byte) error {
	l := c.loop
	m := &l.many
	if err := codec.DecodeDeliverMany(body, codec.KindForwardMany, math.MaxInt, m); err != nil {
		return err
	}
	defer l.fan.reset()
	walk := m.To
	for r, ok := walk.Next(); ok; r, ok = walk.Next() {
		if err := checkForwardToken(&codec.Forward{Deliver: codec.Deliver{Token: r.Token, Flags: m.Flags}}); err != nil {
			return err
		}
		s, h, back := l.receiver(r.To, routing.SessionID(r.Session), r.Epoch)
		if s == nil {
			r.Why = back
			l.fan.back = append(l.fan.back, r)
			continue
		}
		l.worked(1)
		l.fan.add(h, false, len(m.Payload), target{token: r.Token, to: r.To, session: s, epoch: r.Epoch})
	}
	if len(l.fan.back) > 0 {
		c.wroteControl(codec.AppendDeliverMany(c.out(), codec.KindReturnMany, m, l.fan.back))
	}
	for i := range l.fan.batches {
		l.deliverBatch(&l.fan.batches[i], m, k.handle)
	}
	return nil
}

// deliverBatch writes what came over a link for one connection.
func (l *loop) deliverBatch(b *batch, m *codec.DeliverMany, link routing.Handle) {
	many := *m
	many.Flags &= knownFlags
	l.stats.received += uint64(unackedOf(many.Flags, b.n))
	dest, v := l.destination(b.handle, b.size)
	all := l.fan.recipients
	for t := range l.fan.of(b) {
		d := &l.deliver
		*d = codec.Deliver{To: t.to, From: m.From, TTL: m.TTL, Flags: many.Flags, Epoch: t.epoch, Payload: m.Payload}
		d.Token = l.eng.appendLinkToken(l.token[:0], t.token, link, t.session.Short())
		may := v
		if may.code == codec.CodeOK {
			may = b.fits(dest, d)
		}
		if may.code == codec.CodeOK {
			may = l.eng.mayDeliver(t.session, d)
		}
		if may.code != codec.CodeOK {
			l.refuseForward(d, may.code)
			continue
		}
		all = append(all, l.recipient(d, t.session.ID()))
		l.worked(1)
	}
	l.writeMany(dest, codec.KindDeliverMany, &many, all)
	l.worked(len(m.Payload) / bytesPerUnit)
	l.fan.written(all)
}

// handleReturnMany takes back what another node could not deliver.
func (c *conn) handleReturnMany(k *link, body []byte) error {
	l := c.loop
	var m codec.DeliverMany
	if err := codec.DecodeDeliverMany(body, codec.KindReturnMany, math.MaxInt, &m); err != nil {
		return err
	}
	l.stats.multicastReturns++
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		l.forward = codec.Forward{Deliver: m.Deliver(&r), Session: r.Session}
		c.takeBack(k, r.Why, &l.forward)
		l.worked(1)
	}
	return nil
}

// handleNotHereMany takes back messages that this session cannot accept, as handleNotHere does one.
func (c *conn) handleNotHereMany(body []byte) {
	l := c.loop
	var m codec.DeliverMany
	if err := codec.DecodeDeliverMany(body, codec.KindNotHereMany, math.MaxInt, &m); err != nil {
		c.decodeFault(err, codec.KindNotHereMany)
		return
	}
	defer l.fan.reset()
	var link routing.Handle // that the messages in fan.back came over
	head := codec.MulticastSize[[]byte](len(m.Payload), nil)
	size := head // bounds the frame that they go back in: made-up ones must not end the link
	for r, ok := m.To.Next(); ok && c.state == stateOpen; r, ok = m.To.Next() {
		l.worked(1)
		d := m.Deliver(&r)
		if c.takeNotHere(&d) {
			continue
		}
		token, h, ok := c.linkBounce(&d)
		if !ok {
			l.refuseToken(c.handle(), codec.KindNotHereMany)
			continue
		}
		if h != link || size+codec.RecipientSize(r.To) > l.eng.maxFrame {
			l.returnMany(link, &m)
			link, size = h, head
		}
		size += codec.RecipientSize(r.To)
		id := c.session.ID()
		r.Token, r.Session, r.Why = token, append([]byte(nil), id[:]...), codec.KindNotMine
		l.fan.back = append(l.fan.back, r)
	}
	l.returnMany(link, &m)
}

// returnMany sends what is in fan.back to the node that it came from.
func (l *loop) returnMany(link routing.Handle, m *codec.DeliverMany) {
	if len(l.fan.back) == 0 {
		return
	}
	l.scratch = codec.AppendDeliverMany(l.scratch[:0], codec.KindReturnMany, m, l.fan.back)
	l.fan.back = l.fan.back[:0]
	l.sendControl(link, l.scratch)
}
