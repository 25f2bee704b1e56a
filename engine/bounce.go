package engine

import (
	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/token"
	"distmsg/routing"
	"encoding/binary"
)

// bouncing handles messages that come back to a loop. It sends them elsewhere or ends them. The
// loop owns it.
type bouncing struct {
	loop *loop // static

	disowned *directory.Request // bindings that the current frame gives back, see releaseDisowned
}

// flagBounced marks an entry whose message came back once. The loop does not retry it a second time
// (S14).
const flagBounced = 1

// flagRetried marks, between nodes, a message that has come back once.
const flagRetried = 1 << 7

// handleNotHere takes back a message that this session cannot accept. The session decides which IDs
// it holds. So the node also removes the binding that led here, if it still stands (S11).
func (rv *receiver) handleNotHere(body []byte) {
	c := rv.conn
	l := c.loop
	d := &l.scratch.deliver
	if err := codec.DecodeNotHere(body, d); err != nil {
		c.decodeFault(err, codec.KindNotHere)
		return
	}
	if !rv.takeNotHere(d) && !rv.bounceToLink(d) {
		l.settle.refuseToken(c.handle(), codec.KindNotHere)
	}
	l.bounce.releaseDisowned()
}

// takeNotHere takes back one message. It returns false if this node did not make the message's
// token, or if the message has an ack and came over a link.
func (rv *receiver) takeNotHere(d *codec.Deliver) bool {
	c := rv.conn
	l := c.loop
	bare := rv.isBare(d.Flags)
	t, ok := l.eng.tokens.OpenAck(d.Token, c.short)
	switch {
	case ok && (bare || d.Flags&codec.FlagAck != 0):
		if t.Loop() == int(l.idx) {
			l.bounce.givenBackHere(t, c.short, c.handle(), d, bare, new(token.SharedSum))
			return true
		}
		kind := noteBounce
		if bare {
			kind = noteBare
		}
		p := l.mail.parcelFor(uint16(t.Loop()))
		at := len(p.data) + codec.PrefixLen
		back := *d
		if bare {
			back = d.Short()
		}
		p.data = codec.AppendNotHere(p.data, &back)
		p.notes = append(p.notes, note{kind: kind, handle: c.handle(), token: t, session: c.short, at: at, bodyLen: len(p.data) - at})
		return true
	case bare && rv.takeBare(d):
		return true
	case d.Flags&codec.FlagAck == 0:
		rv.bouncedUnacked(d)
		return true
	}
	return false
}

// givenBackHere takes back a message with ack whose token belongs to this loop and has been opened.
func (b *bouncing) givenBackHere(t ackmgr.Token, session uint64, by routing.Handle, d *codec.Deliver, bare bool, sum *token.SharedSum) {
	if bare {
		b.bareBack(t, session, by, d)
		return
	}
	b.bounced(t, session, by, d, sum)
}

// bouncedUnacked ends a message without ack for good. The node kept nothing of its content, so it
// cannot check whether the returned message is the one that was sent.
func (rv *receiver) bouncedUnacked(d *codec.Deliver) {
	c := rv.conn
	l := c.loop
	origin, link, remote := l.eng.tokens.OpenLink(d.Token, c.short)
	remote = remote && len(origin) == token.ReportLen // else it has an ack
	known := remote || len(d.Token) == 0 || l.eng.tokens.IsReport(d.Token, c.short)
	// A token cannot come back more often than messages were delivered.
	if !known || rv.unacked == 0 {
		l.settle.refuseToken(c.handle(), codec.KindNotHere)
		return
	}
	rv.unacked--
	l.stats.bounced++
	rv.disown(d.To, d.Epoch)
	if len(d.Token) == 0 {
		return
	}
	code := l.bounce.givenBack(d, c.short)
	if remote {
		l.links.send(link, codec.AppendRefuse(l.scratch.control[:0], origin, code, nil))
		return
	}
	h, seq := token.Report(d.Token)
	l.mail.notify(h.Loop, note{kind: noteReport, handle: h, seq: seq, code: code})
}

// bounced retries a message that came back, if another session holds its ID by now.
func (b *bouncing) bounced(t ackmgr.Token, session uint64, by routing.Handle, d *codec.Deliver, sum *token.SharedSum) {
	l := b.loop
	entry, ok := l.settle.claim(t, session)
	if !ok {
		return
	}
	b.disownHere(session, by, d.To, d.Epoch)
	if entry.Sum != l.eng.tokens.SumWith(sum.Of(&l.eng.tokens, d.Payload), d) {
		// This is not the message that was delivered, so the entry stays pending.
		l.settle.refuseToken(by, codec.KindNotHere)
		return
	}
	code := b.givenBack(d, session)
	if entry.Flags&flagBounced == 0 {
		var done bool
		if done, code = b.redirect(t, entry, d, sum); done {
			return
		}
		// The registry may know of another session.
		if code != codec.CodeOverflow && l.eng.cluster != nil {
			if b.askAgain(t, entry, by, d) {
				return
			}
			code = codec.CodeOverflow
		}
	}
	l.settle.acks.End(t)
	l.eng.hooks.undelivered(d, code)
	l.settle.finish(entry, code, nil, nil)
}

// givenBack returns how a message that a session has given back ends if the loop does not retry it.
// Without a cluster, this node knows all bindings. In a cluster, a session that this node has not
// heard of yet may hold the ID.
func (b *bouncing) givenBack(d *codec.Deliver, session uint64) codec.Code {
	l := b.loop
	route, ok := l.eng.table.Lookup(d.To)
	if l.eng.cluster == nil && (!ok || route.Session.Short() == session && route.Epoch == d.Epoch) {
		return codec.CodeNoRoute
	}
	return codec.CodeUnreachable
}

// redirect delivers a bounced message to a binding other than the one it came from. It returns true
// if the message is on its way, or has ended because a hook refused it. Otherwise it returns false
// and the reason.
func (b *bouncing) redirect(t ackmgr.Token, entry ackmgr.Entry, d *codec.Deliver, sum *token.SharedSum) (done bool, code codec.Code) {
	l := b.loop
	route, ok := l.eng.table.Lookup(d.To)
	if !ok || (route.Session.Short() == entry.Session && route.Epoch == d.Epoch) {
		return false, b.givenBack(d, entry.Session)
	}
	h, ok := route.Session.Pick(route.Hash)
	if !ok {
		return false, codec.CodeUnreachable
	}
	again := *d
	again.Token = l.eng.tokens.SealAck(append(l.scratch.token[:0], d.Token[:token.AckLen]...), route.Session.Short())
	again.Epoch = route.Epoch
	// The receiver sent the TTL, so it may be any value.
	again.TTL = min(max(d.TTL, 1), uint32(l.eng.cfg.MaxTTL.Milliseconds()))
	dest, v := l.destination(h, codec.DeliverSize(&again), again.From)
	if v.code != codec.CodeOK {
		return false, v.code
	}
	if v := l.eng.hooks.mayDeliver(route.Session, &again); v.code != codec.CodeOK {
		// End it for good: the registry's answer would not change the hook's decision.
		l.settle.acks.End(t)
		l.eng.hooks.undelivered(&again, v.code)
		l.settle.finish(entry, v.code, v.reason, nil)
		return true, 0
	}
	entry.Session, entry.Sum, entry.Flags = route.Session.Short(), l.eng.tokens.SumWith(sum.Of(&l.eng.tokens, d.Payload), &again), entry.Flags|flagBounced
	l.settle.acks.Redirect(t, entry, dest.list)
	l.write(dest, &again)
	return true, 0
}

// bounceToLink gives a message with ack back to the node that it came from. It returns false if it
// did not come from another node.
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

// linkBounce returns the link over which a message with ack came, and the token that it had there.
// It returns false if the message did not come over a link.
func (rv *receiver) linkBounce(d *codec.Deliver) (origin []byte, h routing.Handle, ok bool) {
	c := rv.conn
	origin, h, ok = c.loop.eng.tokens.OpenLink(d.Token, c.short)
	return origin, h, ok && len(origin) == token.AckLen && d.Flags&^knownFlags == 0
}

// handleReturned takes back a message that the other node could not deliver. It forgets the route
// that led there, and retries once (S14).
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
			p.notes = append(p.notes, note{kind: noteReturned, handle: c.handle(), at: at, bodyLen: len(p.data) - at, frame: kind})
		}
		return
	}
	l.bounce.returned(kind, c.handle(), f, new(token.SharedSum))
}

// forgetWay forgets the binding or route that led a returned message to the node that returned it.
func (k *link) forgetWay(kind codec.Kind, f *codec.Forward) {
	e := k.conn.loop.eng
	if s := e.table.Session(routing.SessionID(f.Session)); s != nil && kind == codec.KindNotMine {
		e.table.Unbind(string(f.To), s, f.Epoch) // otherwise the retry would follow it again
	}
	// The route stands: it leads to the node where the session is attached.
	if kind == codec.KindNotAttached {
		k.forget(routing.SessionID(f.Session))
	} else if s := e.cluster.remote.Session(routing.SessionID(f.Session)); s != nil {
		e.cluster.remote.Unbind(string(f.To), s, f.Epoch)
	}
}

// returned decides on a message that another node returned over the link by. kind is the reason. If
// the message waits for an ack, its entry is on this loop.
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
			// The content or the receiver is not that of the sent message, so the entry stays
			// pending.
			l.stats.acksForged++
			return
		}
		retried = entry.Flags&flagBounced != 0
		b.unsend(t, entry)
	}
	if f.Flags&codec.FlagAck == 0 {
		l.stats.returned++
	}
	// The ID moves faster than messages do. Two sessions did not have it, but another one may.
	if retried {
		b.endReturned(f, codec.CodeUnreachable)
		return
	}
	f.Flags |= flagRetried
	b.retry(kind, by, f)
}

// unsend records that a message came back. Its entry no longer waits for a connection, and its
// first try is used up.
func (b *bouncing) unsend(t ackmgr.Token, entry ackmgr.Entry) {
	entry.Flags |= flagBounced
	b.loop.settle.acks.Redirect(t, entry, 0)
}

// retry sends a returned message to another node of its session, if there is one. Otherwise it asks
// the registry.
func (b *bouncing) retry(kind codec.Kind, by routing.Handle, f *codec.Forward) {
	l := b.loop
	if kind == codec.KindNotAttached && l.park.lines[string(f.To)] == nil {
		done, code := b.resend(kind, f)
		if done == attemptDone {
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

// askAgain parks a message that a session of this node has given back, until the registry says who
// holds its ID. It returns false if too many messages wait.
func (b *bouncing) askAgain(t ackmgr.Token, entry ackmgr.Entry, by routing.Handle, d *codec.Deliver) bool {
	l := b.loop
	var from routing.SessionID
	binary.BigEndian.PutUint64(from[:], entry.Session) // half of the ID; only this half is compared
	f := &l.scratch.forward
	*f = codec.Forward{Deliver: *d, Session: append(l.scratch.sessionID[:0], from[:]...)}
	// Use the form between nodes: the seal was for the session that gave the message back.
	f.Token = d.Token[:token.AckLen]
	b.unsend(t, entry)
	return l.park.parkReturned(codec.KindNotMine, by, f, 0)
}

func (b *bouncing) endReturned(f *codec.Forward, code codec.Code) {
	l := b.loop
	if f.Flags&flagBare != 0 {
		b.endBare(f, code)
		return
	}
	l.eng.hooks.unreturned(f, code)
	if len(f.Token) > 0 {
		l.settle.endToken(f.Token, verdict{code: code}, 1)
		return
	}
	l.stats.outcomes[code]++
}

// attempt is the result of a retry.
type attempt uint8

const (
	attemptDone    attempt = iota // the message is on its way, or has ended
	attemptFailed                 // the message could not be sent, and the code is the reason
	attemptNowhere                // this node knows no place but the one that returned it
)

// resend sends a returned message to its receiver's present place, as far as this node knows it.
// Unless the attempt is done, the code is how the message ends if nothing else is tried. If a
// session does not hold the ID under an epoch, resend does not send it the message for that epoch
// again (S14).
func (b *bouncing) resend(kind codec.Kind, f *codec.Forward) (attempt, codec.Code) {
	l := b.loop
	// The receiver may have sent the TTL, so it may be any value.
	if f.Flags&codec.FlagAck != 0 {
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
		return attemptNowhere, codec.CodeUnreachable
	}
	h, ok := l.eng.cluster.pick(route)
	if !ok {
		return attemptFailed, codec.CodeUnreachable
	}
	id := route.Session.ID()
	f.Epoch = route.Epoch
	f.Session = append(l.scratch.sessionID[:0], id[:]...)
	dest, v := l.destination(h, codec.DeliverSize(&f.Deliver)+forwardExtra, f.From)
	if v.code != codec.CodeOK {
		return attemptFailed, v.code
	}
	dest.list = l.endings.linkList(h, route.Session.Short())
	if !b.rearm(f, route.Session.Short(), dest.list) {
		return attemptDone, 0 // it has ended meanwhile
	}
	l.writeForward(dest, f)
	return attemptDone, 0
}

// deliverReturned is like resend, for a session that is attached to this node by now.
func (b *bouncing) deliverReturned(f *codec.Forward, route routing.Route, h routing.Handle) (attempt, codec.Code) {
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
		return attemptFailed, v.code
	}
	if v := l.eng.hooks.mayDeliver(route.Session, &d); v.code != codec.CodeOK {
		b.endReturned(f, v.code)
		return attemptDone, 0
	}
	if !b.rearm(f, route.Session.Short(), dest.list) {
		return attemptDone, 0
	}
	l.write(dest, &d)
	return attemptDone, 0
}

// rearm moves the entry of a message, if it has one, to its new destination. It returns false if
// the entry has ended.
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
