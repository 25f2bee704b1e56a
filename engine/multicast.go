package engine

import (
	"bytes"

	"distmsg/ackmgr"
	"distmsg/codec"
)

// A multicast is many sends in one frame. Each recipient is decided on like a send of its own, with
// a sequence number, an entry and an outcome of its own. What they share is the way: those that go
// to one connection, or over one link, are written in one frame, with one payload. (How they go
// over links and come back: multicast_link.go.)

// multicasts is what a connection sends to many at once. The connection's loop owns it.
type multicasts struct {
	conn *conn // static

	tallies   []tally // by their numbers, see answer
	told      []byte  // outcomes that were not written yet
	toldCount int
	telling   bool // it is in the loop's telling
}

// multicast returns what the connection sends to many at once.
func (s *sender) multicast() *multicasts {
	c := s.conn
	if c.multicasts == nil {
		c.multicasts = &multicasts{conn: c}
	}
	return c.multicasts
}

// handle relays one message to many IDs.
func (mc *multicasts) handle(body []byte) {
	c := mc.conn
	l := c.loop
	m := &l.scratch.multi
	if err := codec.DecodeMulticast(body, l.eng.cfg.MaxMulticast, m); err != nil {
		c.decodeFault(err, codec.KindMulticast)
		return
	}
	if m.Flags&codec.FlagAck == 0 && !c.sender.spendCredit(codec.PrefixLen+len(body)) {
		return
	}
	n := m.To.Len()
	l.stats.multicasts++
	if n == 0 {
		return // nothing to decide on, nor to hold
	}
	l.stats.sends += uint64(n)
	grouped := m.Flags&codec.FlagAck != 0 && mc.newTally(m.Seq, n)
	if v := c.quota.admit(n, codec.PrefixLen+len(body)); v.code != codec.CodeOK {
		v.reason = bytes.Clone(v.reason) // the scratch may change before the last recipient's turn
		mc.carry(body, m, grouped, nil, v)
		return
	}
	if c.held.wait() {
		mc.hold(body, m, grouped)
		return
	}
	mc.relay(body, m, grouped, nil)
}

// drop drops the outcomes that were not written. The connection has closed.
func (mc *multicasts) drop() {
	if mc != nil {
		mc.conn.loop.bufs.put(mc.told)
		mc.told, mc.toldCount = nil, 0
	}
}

// relay decides on the sends of a multicast and carries them out. body is what m was decoded from,
// and kept is the copy if there is one already, for when somebody has to be asked for.
func (mc *multicasts) relay(body []byte, m *codec.Multicast, grouped bool, kept *cast) {
	c := mc.conn
	l := c.loop
	s := &l.scratch.send
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	all := verdict{code: codec.CodeTooLarge}
	if l.eng.multicastFits(m) {
		var known bool
		// once: its binding may end before the last recipient's turn
		all, known = c.sender.admitFrom(s)
		if !known {
			mc.hold(body, m, grouped)
			return
		}
	}
	mc.carry(body, m, grouped, kept, all)
}

// carry carries out the sends of a multicast on which all is the verdict so far.
func (mc *multicasts) carry(body []byte, m *codec.Multicast, grouped bool, kept *cast, all verdict) {
	c := mc.conn
	r := relaying{m: m, body: body, kept: kept, grouped: grouped, all: all, ttl: m.TTL, left: m.To, seq: m.Seq}
	if !r.goOn(c) {
		c.in.suspend(r.keep())
	}
}

// relaying is a multicast on its way, as far as it has come.
type relaying struct {
	m       *codec.Multicast
	body    []byte // that m was decoded from
	kept    *cast  // nil, or a copy
	grouped bool
	all     verdict // on all recipients alike
	ttl     uint32
	left    codec.IDList // the recipients that are left
	seq     uint64       // of the first of them
}

// goOn decides on the next sends, until the slice is over, and carries them out.
func (r *relaying) goOn(c *conn) (done bool) {
	l := c.loop
	l.pace.beginSlice()
	s, m := &l.scratch.send, r.m
	m.TTL = r.ttl // a cast that waits in part has less when it goes on
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	for v, ok := r.left.Next(); ok; v, ok = r.left.Next() {
		s.Seq, s.To = r.seq, v.ID
		r.seq++
		r.decide(c, s)
		l.pace.worked(1)
		if l.pace.sliceOver() {
			break
		}
	}
	c.multicasts.askForParked()
	c.multicasts.sendFan(m, r.grouped)
	if c.closed() {
		r.drop(l)
		return true
	}
	return r.left.Len() == 0
}

// decide decides on one send, and gathers it if its way is known.
func (r *relaying) decide(c *conn, s *codec.Send) {
	if c.closed() {
		c.loop.stats.abandoned++
		return
	}
	v := r.all
	if v.code == codec.CodeOK {
		v = c.sender.admitOne(s)
	}
	if v.code == codec.CodeOK {
		var known bool
		if v, known = c.multicasts.reach(s); !known {
			if r.kept == nil {
				r.kept = newCast(r.body, r.grouped)
			}
			v = c.multicasts.park(s, r.kept, 0)
		}
	}
	c.multicasts.finishOne(s, v, r.grouped)
}

// keep copies what is left, because the frame's bytes do not last.
func (r *relaying) keep() *relaying {
	k := *r
	if k.kept == nil {
		k.kept = newCast(r.body, r.grouped)
	}
	k.m, k.body = &k.kept.multi, k.kept.body
	k.left = k.m.To
	for range k.left.Len() - r.left.Len() {
		k.left.Next()
	}
	return &k
}

// drop ends the sends that are left: nobody is there to be told of them.
func (r *relaying) drop(l *loop) {
	l.stats.abandoned += uint64(r.left.Len())
	r.left = codec.IDList{}
}

// numbered yields the recipients with the numbers of their sends.
func numbered(m *codec.Multicast) func(yield func(seq uint64, to []byte) bool) {
	return func(yield func(uint64, []byte) bool) {
		walk := m.To
		for seq := m.Seq; ; seq++ {
			v, ok := walk.Next()
			if !ok || !yield(seq, v.ID) {
				return
			}
		}
	}
}

// multicastFits reports whether the frames that will come of m fit the limit for frames.
func (e *Engine) multicastFits(m *codec.Multicast) bool {
	size := codec.MulticastSize[[]byte](len(m.Payload), nil)
	for _, to := range numbered(m) {
		size += codec.RecipientSize(to)
	}
	return size <= e.maxFrame
}

// reach gathers a recipient whose way is known, or says how its send ends; known is false if the
// registry has to be asked.
func (mc *multicasts) reach(s *codec.Send) (v verdict, known bool) {
	l := mc.conn.loop
	e := l.eng
	if len(l.park.lines) > 0 && l.park.lines[string(s.To)] != nil {
		return verdict{code: codec.CodeUnreachable}, false // not past those that wait (S20)
	}
	route, bound := e.table.Lookup(s.To)
	if bound {
		if h, ok := route.Session.Pick(route.Hash); ok {
			l.scratch.fan.add(h, false, len(s.Payload), target{seq: s.Seq, to: s.To, session: route.Session, epoch: route.Epoch})
			return verdict{}, true
		}
	}
	if e.cluster == nil {
		if bound {
			return verdict{code: codec.CodeUnreachable}, true
		}
		return verdict{code: codec.CodeNoRoute}, true
	}
	if route, h, ok := e.cluster.way(s.To); ok {
		l.scratch.fan.add(h, true, len(s.Payload), target{seq: s.Seq, to: s.To, session: route.Session, epoch: route.Epoch})
		return verdict{}, true
	}
	if code, ok := l.park.recent(s.To); ok {
		return verdict{code: code}, true
	}
	return verdict{code: codec.CodeUnreachable}, false
}

// sendFan writes what was gathered of m, one frame for each connection and link.
func (mc *multicasts) sendFan(m *codec.Multicast, grouped bool) {
	l := mc.conn.loop
	sum := l.eng.tokens.PayloadSum(m.Payload)
	for i := range l.scratch.fan.batches {
		mc.sendBatch(&l.scratch.fan.batches[i], m, grouped, sum)
	}
	l.scratch.fan.reset()
}

// sendBatch arms and writes the messages of one batch, or ends them all alike.
func (mc *multicasts) sendBatch(b *batch, m *codec.Multicast, grouped bool, sum uint64) {
	c := mc.conn
	l := c.loop
	dest, room := l.destination(b.handle, b.size, m.From)
	many := codec.DeliverMany{From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Payload: m.Payload, Trace: m.Trace}
	kind := codec.KindDeliverMany
	if b.link {
		kind = codec.KindForwardMany
	}
	all := l.scratch.fan.recipients
	s := &l.scratch.send
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	for t := range l.scratch.fan.of(b) {
		if c.closed() { // its answers are not read
			l.stats.abandoned++
			continue
		}
		s.Seq, s.To = t.seq, t.to
		v := room
		if v.code == codec.CodeOK {
			d := &l.scratch.deliver
			*d = codec.Deliver{To: t.to, From: m.From, TTL: m.TTL, Flags: many.Flags, Epoch: t.epoch, Payload: m.Payload, Trace: m.Trace}
			list := dest.list
			if b.link {
				list = l.endings.linkList(b.handle, t.session.Short())
			} else if v = b.fits(dest, d); v.code == codec.CodeOK {
				v = l.eng.hooks.mayDeliver(t.session, d)
			}
			if v.code == codec.CodeOK {
				v = mc.stamp(s, d, t.session.Short(), list, grouped, sum)
			}
			if v.code == codec.CodeOK {
				many.TTL = d.TTL
				if !b.link {
					d.Token = l.eng.tokens.SealAck(d.Token, t.session.Short())
				}
				all = append(all, l.recipient(d, t.session.ID()))
			}
		}
		mc.finishOne(s, v, grouped)
		l.pace.worked(1)
	}
	l.writeMany(dest, kind, &many, all)
	l.pace.worked(len(m.Payload) / bytesPerUnit)
	l.scratch.fan.written(all)
}

// stamp is stamp for one message of a multicast.
func (mc *multicasts) stamp(s *codec.Send, d *codec.Deliver, session uint64, list ackmgr.List, grouped bool, sum uint64) verdict {
	c := mc.conn
	e := c.loop.eng
	if s.Flags&codec.FlagAck == 0 {
		return c.sender.stamp(s, d, session, list)
	}
	// Those of this multicast that were armed before it have taken their places.
	if v := c.sender.mayWait(); v.code != codec.CodeOK {
		return v
	}
	return c.sender.arm(s, d, session, list, ackmgr.Entry{Sum: e.tokens.SumWith(sum, d), Flags: entryFlags(grouped)})
}

// flagGrouped marks entries whose outcomes are told with others of their multicast.
const flagGrouped = 2

func entryFlags(grouped bool) uint8 {
	if grouped {
		return flagGrouped
	}
	return 0
}

// finishOne is finish for a send of a multicast.
func (mc *multicasts) finishOne(s *codec.Send, v verdict, grouped bool) {
	c := mc.conn
	if v.code == codec.CodeOK {
		return
	}
	c.sender.trim()
	c.loop.stats.outcomes[v.code]++
	c.loop.eng.hooks.unsent(s, v.code)
	switch {
	case grouped:
		mc.answer(s.Seq, v.code, v.reason, nil)
	case s.Flags&(codec.FlagAck|codec.FlagReport) != 0:
		c.sender.outcome(s.Seq, v.code, v.reason, nil)
	}
}
