package engine

import (
	"encoding/binary"
	"fmt"
	"slices"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Messages between nodes. A forward names the session and the epoch that its node went by; the other
// node delivers it on a match with what it knows, and never forwards it again. What does not match
// comes back, and is tried once more if the registry knows of another place (S14).

// flagRetried marks, between nodes, a message that has come back once.
const flagRetried = 1 << 7

// linkList returns the list of the entries that wait for a session at the other end of a link.
func (es *endings) linkList(h routing.Handle, session uint64) ackmgr.List {
	lists := es.linkLists[h]
	list, ok := lists[session]
	if !ok {
		if lists == nil {
			lists = make(map[uint64]ackmgr.List)
			es.linkLists[h] = lists
		}
		list = es.loop.settle.acks.NewList()
		lists[session] = list
	}
	return list
}

// endLink ends what waits for any session at the other end of a link that has ended.
func (es *endings) endLink(h routing.Handle) {
	if lists, ok := es.linkLists[h]; ok {
		delete(es.linkLists, h)
		es.add(ending{lists: lists, slot: -1})
	}
	for no, s := range es.sweeps {
		if s.link == h {
			es.endSweep(no)
		}
	}
}

// sweep is a list that ends as soon as all that may still come back has.
type sweep struct {
	link routing.Handle
	list ackmgr.List
}

// sweepPing tells pings of sweeps from those of heartbeats, which carry a time; the loop stands above sweepLoop.
const (
	sweepPing = 1 << 63
	sweepLoop = 40
)

// linkGone begins to end what waits for a session that has lost a connection at the other end of a link (S5). Forwards on
// their way there at this moment come back, and may go to where the session is now: so what waits is lost when a
// ping, sent behind the last of them, has its pong, and nothing that comes later is touched.
func (es *endings) linkGone(h routing.Handle, session uint64) {
	l := es.loop
	list, ok := es.linkLists[h][session]
	if !ok {
		return
	}
	delete(es.linkLists[h], session)
	if l.settle.acks.Empty(list) {
		l.settle.acks.FreeList(list)
		return
	}
	es.sweepNo++
	no := sweepPing | uint64(l.idx)<<sweepLoop | es.sweepNo
	es.sweeps[no] = sweep{h, list}
	l.links.send(h, codec.AppendPing(l.scratch.control[:0], no))
}

// handlePong takes the pong of a sweep to its loop.
func (k *link) handlePong(body []byte) error {
	c := k.conn
	no, err := codec.DecodePong(body)
	if loop := uint16(no &^ sweepPing >> sweepLoop); err == nil && no&sweepPing != 0 && int(loop) < len(c.loop.eng.loops) {
		c.loop.mail.notify(loop, note{kind: noteSwept, seq: no})
	}
	return err
}

func (es *endings) endSweep(no uint64) {
	if s, ok := es.sweeps[no]; ok {
		delete(es.sweeps, no)
		es.endList(s.list)
	}
}

// forwardRemote sends a message whose receiver is not attached here: over the link that a known route
// leads to, or, once the registry was asked, wherever it says.
func (s *sender) forward(m *codec.Send) verdict {
	l := s.conn.loop
	if parked := l.park.lines[string(m.To)]; parked == nil { // else: behind those that wait already (S20)
		if v, known := s.forwardKnown(m); known {
			return v
		}
		if code, ok := l.park.recent(m.To); ok {
			return verdict{code: code}
		}
	}
	return s.park(m)
}

// forwardKnown uses the route cache; known is false if it has no route that leads anywhere.
func (s *sender) forwardKnown(m *codec.Send) (v verdict, known bool) {
	l := s.conn.loop
	route, h, ok := l.eng.cluster.way(m.To)
	if !ok {
		return verdict{}, false
	}
	f := &l.scratch.forward
	id := route.Session.ID()
	f.Deliver = codec.Deliver{To: m.To, From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Epoch: route.Epoch, Payload: m.Payload}
	f.Session = append(l.scratch.sessionID[:0], id[:]...)
	dest, v := l.destination(h, codec.DeliverSize(&f.Deliver)+forwardExtra, f.From)
	if v.code != codec.CodeOK {
		return v, true
	}
	dest.list = l.endings.linkList(h, route.Session.Short())
	if v := s.stamp(m, &f.Deliver, route.Session.Short(), dest.list); v.code != codec.CodeOK {
		return v, true
	}
	l.writeForward(dest, f)
	return verdict{}, true
}

// way returns a route to an ID that leads somewhere, and the link that it leads over.
func (c *cluster) way(id []byte) (route routing.Route, link routing.Handle, ok bool) {
	route, ok = c.remote.Lookup(id)
	if !ok && c.follow(id) {
		route, ok = c.remote.Lookup(id)
	}
	if ok {
		link, ok = c.pick(route)
	}
	return route, link, ok
}

// pick chooses a link to a route's session. While the sessions of a link that has ended are forgotten,
// which takes several steps, it passes by that link.
func (c *cluster) pick(route routing.Route) (link routing.Handle, ok bool) {
	link, ok = route.Session.Pick(route.Hash)
	if !ok || c.detaching.Load() == 0 {
		return link, ok
	}
	open := *c.open.Load()
	if slices.Contains(open, link) {
		return link, true
	}
	for _, other := range route.Session.Handles() {
		if slices.Contains(open, other) {
			return other, true
		}
	}
	return link, false
}

// follow makes a route of a binding that was made here and whose session has moved to another node: the registry, which may be
// away, need not be asked. If the ID was bound anew since, the message comes back.
func (c *cluster) follow(id []byte) bool {
	r, ok := c.eng.table.Lookup(id)
	if !ok {
		return false
	}
	s := c.remote.Session(r.Session.ID())
	if s == nil || len(s.Handles()) == 0 || c.remote.Len() >= c.eng.cfg.MaxRoutes {
		return false
	}
	_, status := c.remote.Bind(string(id), s, r.Epoch)
	return status == routing.Bound
}

// forwardExtra is what a forward has beside the fields of a deliver, and a token in full.
const forwardExtra = codec.MaxToken + codec.SessionIDLen + 2

// writeForward appends a message to a link, or to the mail of its loop.
func (l *loop) writeForward(to destination, f *codec.Forward) {
	unacked := unackedOf(f.Flags, 1)
	if c := to.conn; c != nil {
		c.receiver.countUnacked(unacked)
		c.out.wrote(codec.AppendForward(c.out.buf(), codec.KindForward, f))
		return
	}
	ch := l.mail.chunkFor(to, unacked)
	ch.buf = codec.AppendForward(ch.buf, codec.KindForward, f)
	l.mail.gathered(to, ch)
}

// handleForward delivers a message from another node, or sends it back.
func (k *link) handleForward(body []byte) error {
	c := k.conn
	l := c.loop
	f := &l.scratch.forward
	if err := codec.DecodeForward(body, codec.KindForward, f); err != nil {
		return err
	}
	if err := checkForwardToken(f); err != nil {
		return err
	}
	s, h, back := l.links.receiver(f.To, routing.SessionID(f.Session), f.Epoch)
	if s == nil {
		c.out.wroteControl(codec.AppendForward(c.out.buf(), back, f))
		return nil
	}
	if f.Flags&codec.FlagAck == 0 {
		l.stats.received++
	}
	d := &l.scratch.deliver
	*d = f.Deliver
	d.Flags &= knownFlags
	d.Token = l.eng.tokens.AppendLink(l.scratch.token[:0], f.Token, k.handle, s.Short())
	dest, v := l.destination(h, codec.DeliverSize(d), d.From)
	if v.code == codec.CodeOK {
		v = l.eng.mayDeliver(s, d)
	}
	if v.code != codec.CodeOK {
		l.links.refuse(d, v)
		return nil
	}
	l.write(dest, d)
	return nil
}

// receiver finds the session and connection that a forward is for (S14). Nil: it goes back, as back.
func (ls *loopLinks) receiver(to []byte, id routing.SessionID, epoch uint64) (s *routing.Session, h routing.Handle, back codec.Kind) {
	l := ls.loop
	route, ok := l.eng.table.Lookup(to)
	s = route.Session
	if !ok || s.ID() != id {
		if ok && route.Epoch >= epoch || l.eng.dir.Over(to, epoch) {
			return nil, h, codec.KindNotMine
		}
		if ok {
			l.eng.dir.HeardOfBinding(to, routing.Binding{Session: id, Epoch: epoch})
		}
		s = l.eng.table.Session(id) // it may hold an ID that this node has not heard of, or an older story of
	} else if route.Epoch > epoch {
		return nil, h, codec.KindNotMine
	}
	if s != nil {
		if h, ok = s.Pick(route.Hash); ok {
			return s, h, 0
		}
	}
	return nil, h, codec.KindNotAttached
}

// checkForwardToken refuses tokens that no node gives out: what is made of one has to fit into a deliver, and tells by its
// length what it is.
func checkForwardToken(f *codec.Forward) error {
	n := len(f.Token)
	if ack := f.Flags&codec.FlagAck != 0; ack == (n == token.AckLen) && (n == 0 || n == token.AckLen || n == token.ReportLen) {
		return nil
	}
	return &codec.Error{Fault: codec.FaultBadValue, Kind: codec.KindForward, Field: "token", Offset: 2,
		Detail: fmt.Sprintf("%d bytes, with flags %#x", n, f.Flags)}
}

// refuseForward tells the node that a message came from that it was not written here, and why.
func (ls *loopLinks) refuse(d *codec.Deliver, v verdict) {
	l := ls.loop
	l.eng.undelivered(d, v.code)
	if d.Flags&codec.FlagAck == 0 { // this is where it ends; a message with ack ends where it began
		l.stats.outcomes[v.code]++
	}
	origin, h, ok := token.Link(d.Token)
	if !ok {
		return
	}
	ls.send(h, codec.AppendRefuse(l.scratch.control[:0], origin, v.code, v.reason))
}

// linkConn returns an open link of this loop, nil if the handle names none.
func (ls *loopLinks) conn(h routing.Handle) *conn {
	if c := ls.loop.conn(h); c != nil && c.link != nil && c.state == stateOpen {
		return c
	}
	return nil
}

// sendControl appends a control frame to a link, on whichever loop it is.
func (ls *loopLinks) send(h routing.Handle, frame []byte) {
	l := ls.loop
	if h.Loop == l.idx {
		if c := ls.conn(h); c != nil {
			c.out.wroteControl(append(c.out.buf(), frame...))
		}
		return
	}
	p := l.mail.parcelFor(h.Loop)
	p.notes = append(p.notes, note{kind: noteControl, handle: h, at: len(p.data), reply: len(frame)})
	p.data = append(p.data, frame...)
}

// toAllLinks sends a control frame to every node there is a link to.
func (ls *loopLinks) sendAll(frame []byte) {
	l := ls.loop
	if l.eng.cluster == nil {
		return
	}
	for _, h := range *l.eng.cluster.open.Load() {
		ls.send(h, frame)
	}
}

// handleAnswer ends an entry with what a receiver at another node said.
func (k *link) handleAnswer(body []byte) error {
	l := k.conn.loop
	f := &l.scratch.answer
	if err := codec.DecodeAnswer(body, f); err != nil {
		return err
	}
	t, ok := token.Ack(f.Token)
	if !ok || t.Loop() >= len(l.eng.loops) {
		l.stats.acksForged++
		return nil
	}
	l.settle.deliverAck(t, routing.SessionID(f.Session).Short(), f.Code, f.Reason, f.Reply)
	return nil
}

// handleRefuse ends a message that the other node could not write.
func (k *link) handleRefuse(body []byte) error {
	given, code, reason, err := codec.DecodeRefuse(body)
	if err != nil {
		return err
	}
	k.conn.loop.settle.endToken(given, verdict{code, reason}, 0)
	return nil
}

// endToken ends a message by the token that this node gave it, whichever kind that is. ended is how many
// messages without ack end here; the other node has counted those that ended there.
func (s *settling) endToken(given []byte, v verdict, ended uint64) {
	l := s.loop
	if t, ok := token.Ack(given); ok && t.Loop() < len(l.eng.loops) {
		l.mail.sayFailed(t, v)
	} else if len(given) == token.ReportLen {
		h, seq := token.Report(given)
		if int(h.Loop) >= len(l.eng.loops) {
			return // not what this node gives out
		}
		l.stats.outcomes[v.code] += ended
		l.mail.notify(h.Loop, note{kind: noteReport, handle: h, seq: seq, code: v.code})
	}
}

// handleGone ends what waits for a connection that the other node has lost (S5).
func (k *link) handleGone(body []byte) error {
	c := k.conn
	b, err := codec.DecodeGone(body)
	if err != nil {
		return err
	}
	n := note{kind: noteLinkGone, handle: c.handle(), session: routing.SessionID(b).Short()}
	for i := range c.loop.mail.boxes {
		c.loop.mail.notify(uint16(i), n)
	}
	return nil
}

// handleExpel takes the news that another node's bind has displaced a session (S13).
func (k *link) handleExpel(body []byte) error {
	b, id, epoch, err := codec.DecodeExpel(body, codec.KindExpel)
	if err != nil {
		return err
	}
	k.cluster.eng.dir.HeardExpel(routing.SessionID(b), id, epoch)
	return nil
}

// handleReleased takes the news that a session has given a binding back at another node.
func (k *link) handleReleased(body []byte) error {
	b, id, epoch, err := codec.DecodeExpel(body, codec.KindReleased)
	if err == nil {
		k.cluster.eng.dir.HeardReleased(routing.SessionID(b), id, epoch)
	}
	return err
}

// handleReturned takes back a message that the other node could not deliver, forgets what led there, and
// tries once more (S14).
func (k *link) handleReturned(kind codec.Kind, body []byte) error {
	f := &k.conn.loop.scratch.forward
	if err := codec.DecodeForward(body, kind, f); err != nil {
		return err
	}
	k.takeBack(kind, f)
	return nil
}

func (k *link) takeBack(kind codec.Kind, f *codec.Forward) {
	c := k.conn
	l := c.loop
	k.forgetWay(kind, f)
	if t, ok := token.Ack(f.Token); ok && t.Loop() != int(l.idx) {
		if t.Loop() < len(l.eng.loops) {
			p := l.mail.parcelFor(uint16(t.Loop()))
			at := len(p.data) + codec.PrefixLen
			p.data = codec.AppendForward(p.data, kind, f)
			p.notes = append(p.notes, note{kind: noteReturned, handle: c.handle(), at: at, reply: len(p.data) - at, seq: uint64(kind)})
		}
		return
	}
	l.bounce.returned(kind, c.handle(), f, new(token.SharedSum))
}

// forgetWay forgets what led a message that has come back to where it came back from.
func (k *link) forgetWay(kind codec.Kind, f *codec.Forward) {
	e := k.conn.loop.eng
	if s := e.table.Session(routing.SessionID(f.Session)); s != nil && kind == codec.KindNotMine {
		e.table.Unbind(string(f.To), s, f.Epoch) // or it would be followed again
	}
	if kind == codec.KindNotAttached { // the route stands: it leads to wherever the session is attached
		k.forget(routing.SessionID(f.Session))
	} else if s := e.cluster.remote.Session(routing.SessionID(f.Session)); s != nil {
		e.cluster.remote.Unbind(string(f.To), s, f.Epoch)
	}
}

// bounceToLink gives a message with ack back to the node that it came from; false: it came from none.
func (rv *receiver) bounceToLink(d *codec.Deliver) bool {
	c := rv.conn
	l := c.loop
	origin, h, ok := rv.linkBounce(d)
	if !ok {
		return false
	}
	rv.disown(d.To, d.Epoch)
	id := c.session.ID()
	f := codec.Forward{Deliver: *d, Session: append(l.scratch.sessionID[:0], id[:]...)}
	f.Token = origin
	l.scratch.control = codec.AppendForward(l.scratch.control[:0], codec.KindNotMine, &f)
	rv.giveBack(h, l.scratch.control)
	return true
}

// linkBounce returns the link that a message with ack came over, and the token it had there; false: it came over none.
func (rv *receiver) linkBounce(d *codec.Deliver) (origin []byte, h routing.Handle, ok bool) {
	c := rv.conn
	origin, h, ok = c.loop.eng.tokens.OpenLink(d.Token, c.short)
	return origin, h, ok && len(origin) == token.AckLen && d.Flags&^knownFlags == 0
}

// returned decides on a message that came back from another node over the link by, and kind says why. If it waits for an ack, its entry is on this loop.
func (b *bouncing) returned(kind codec.Kind, by routing.Handle, f *codec.Forward, sum *token.SharedSum) {
	l := b.loop
	retried := f.Flags&flagRetried != 0
	f.Flags &^= flagRetried
	if t, ok := token.Ack(f.Token); ok {
		entry, status := l.settle.acks.Lookup(t)
		switch {
		case status != ackmgr.Pending:
			return // it has ended meanwhile
		case entry.Session != routing.SessionID(f.Session).Short() || entry.Sum != l.eng.tokens.SumWith(sum.Of(&l.eng.tokens, f.Payload), &f.Deliver):
			l.stats.acksForged++ // not what was sent, or not to whom: it stays pending
			return
		}
		retried = entry.Flags&flagBounced != 0
		b.unsend(t, entry)
	}
	if f.Flags&codec.FlagAck == 0 {
		l.stats.returned++
	}
	if retried { // Its ID moves faster than messages do: two sessions did not have it, but somebody may.
		b.endReturned(f, codec.CodeUnreachable)
		return
	}
	f.Flags |= flagRetried
	b.retry(kind, by, f)
}

// unsend notes that a message came back: it waits for nobody's connection now, and has had its first try.
func (b *bouncing) unsend(t ackmgr.Token, entry ackmgr.Entry) {
	entry.Flags |= flagBounced
	b.loop.settle.acks.Redirect(t, entry, 0)
}

// retry sends a returned message to another node of its session, if there is one; else the registry is asked.
func (b *bouncing) retry(kind codec.Kind, by routing.Handle, f *codec.Forward) {
	l := b.loop
	if kind == codec.KindNotAttached && l.park.lines[string(f.To)] == nil {
		code, done := b.forwardAgain(kind, f)
		if done {
			return
		}
		if code == codec.CodeOverflow {
			b.endReturned(f, code)
			return
		}
	}
	if !l.park.parkReturned(kind, by, f, 0) {
		b.endReturned(f, codec.CodeOverflow)
	}
}

// askAgain lets a message that a session of this node would not have wait for the registry's word on who holds its ID;
// false: too many do.
func (b *bouncing) askAgain(t ackmgr.Token, entry ackmgr.Entry, by routing.Handle, d *codec.Deliver) bool {
	l := b.loop
	var from routing.SessionID
	binary.BigEndian.PutUint64(from[:], entry.Session) // half of the ID, which is what is compared
	f := &l.scratch.forward
	*f = codec.Forward{Deliver: *d, Session: append(l.scratch.sessionID[:0], from[:]...)}
	f.Token = d.Token[:token.AckLen] // as it is between nodes: the seal was for the session that has given it back
	b.unsend(t, entry)
	return l.park.parkReturned(codec.KindNotMine, by, f, 0)
}

func (b *bouncing) endReturned(f *codec.Forward, code codec.Code) {
	l := b.loop
	if f.Flags&flagBare != 0 {
		b.endBare(f, code)
		return
	}
	l.eng.unreturned(f, code)
	if len(f.Token) > 0 {
		l.settle.endToken(f.Token, verdict{code: code}, 1)
		return
	}
	l.stats.outcomes[code]++
}

// forwardAgain sends a returned message to where its receiver is now, as far as this node knows. It
// returns false if the message was not sent; codeMoving then means that this node knows of no other
// place than the one that it came back from. A session that does not hold the ID under some epoch
// is not asked for the same again (S14).
func (b *bouncing) forwardAgain(kind codec.Kind, f *codec.Forward) (codec.Code, bool) {
	l := b.loop
	if f.Flags&codec.FlagAck != 0 { // its receiver may have said it, so anything
		f.TTL = min(max(f.TTL, 1), uint32(l.eng.cfg.MaxTTL.Milliseconds()))
	}
	from, epoch := routing.SessionID(f.Session).Short(), f.Epoch
	same := func(r routing.Route) bool {
		return kind == codec.KindNotMine && r.Session.Short() == from && r.Epoch == epoch
	}
	if route, ok := l.eng.table.Lookup(f.To); ok && !same(route) {
		if h, ok := route.Session.Pick(route.Hash); ok {
			return b.deliverReturned(f, route, h)
		}
	}
	route, ok := l.eng.cluster.remote.Lookup(f.To)
	if !ok || same(route) {
		return codeMoving, false
	}
	h, ok := l.eng.cluster.pick(route)
	if !ok {
		return codec.CodeUnreachable, false
	}
	id := route.Session.ID()
	f.Epoch = route.Epoch
	f.Session = append(l.scratch.sessionID[:0], id[:]...)
	dest, v := l.destination(h, codec.DeliverSize(&f.Deliver)+forwardExtra, f.From)
	if v.code != codec.CodeOK {
		return v.code, false
	}
	dest.list = l.endings.linkList(h, route.Session.Short())
	if !b.rearm(f, route.Session.Short(), dest.list) {
		return 0, true // it has ended meanwhile
	}
	l.writeForward(dest, f)
	return 0, true
}

// deliverReturned is forwardAgain to a session that is attached here by now.
func (b *bouncing) deliverReturned(f *codec.Forward, route routing.Route, h routing.Handle) (codec.Code, bool) {
	l := b.loop
	f.Epoch = route.Epoch
	d := f.Deliver
	d.Flags &= knownFlags
	if len(d.Token) == token.ReportLen { // it was sealed for another session
		from, seq := token.Report(d.Token)
		d.Token = l.eng.tokens.AppendReport(l.scratch.token[:0], from, seq, route.Session.Short())
	} else {
		d.Token = l.eng.tokens.SealAck(append(l.scratch.token[:0], d.Token...), route.Session.Short())
	}
	dest, v := l.destination(h, codec.DeliverSize(&d), d.From)
	if v.code != codec.CodeOK {
		return v.code, false
	}
	if v := l.eng.mayDeliver(route.Session, &d); v.code != codec.CodeOK {
		b.endReturned(f, v.code)
		return 0, true
	}
	if !b.rearm(f, route.Session.Short(), dest.list) {
		return 0, true
	}
	l.write(dest, &d)
	return 0, true
}

// rearm moves the entry of a message, if it has one, to its new destination; false: the entry has ended.
func (b *bouncing) rearm(f *codec.Forward, session uint64, list ackmgr.List) bool {
	l := b.loop
	t, ok := token.Ack(f.Token)
	if !ok {
		return true
	}
	entry, status := l.settle.acks.Lookup(t)
	if status != ackmgr.Pending {
		return false
	}
	entry.Session, entry.Flags = session, entry.Flags|flagBounced
	sent := f.Deliver
	sent.Flags &= knownFlags
	entry.Sum = l.eng.tokens.Sum(&sent)
	return l.settle.acks.Redirect(t, entry, list)
}
