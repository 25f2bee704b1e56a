package engine

import (
	"encoding/binary"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// A session may give back a message with ack without its content (codec.FeatureShortNotHere). The
// node keeps no copy of a delivered message, so it cannot send it elsewhere, and the send ends.
// Only the outcome is still open. It is unreachable if another session holds the ID by now, or the
// same session holds it under another epoch. It is no_route if nobody holds it. The sender may send
// again after either.

// flagBare marks such a message among the returned ones that wait for the registry. The flag never
// leaves the node.
const flagBare = 1 << 6

// flagGivenBack marks an entry whose message came back without its content and is about to end.
const flagGivenBack = 4

// isBare reports whether a message that c gives back with these flags may lack its content. If it
// has content, the flags are those of the deliver.
func (rv *receiver) isBare(flags uint8) bool { return rv.returnsBare && flags&codec.FlagAck == 0 }

// takeBare takes back a message with ack that came over a link, without its content. It returns
// false if d is no such message.
func (rv *receiver) takeBare(d *codec.Deliver) bool {
	c := rv.conn
	origin, _, ok := c.loop.eng.tokens.OpenLink(d.Token, c.short)
	if !ok || len(origin) != token.AckLen {
		return false
	}
	rv.disown(d.To, d.Epoch)
	// The message ends on this node, because this node takes the binding back. The other node is
	// notified of the outcome.
	c.loop.bounce.endWithTruth(d.Token, c.session.ID(), c.handle(), d)
	return true
}

// bareBack ends a message of this loop that came back without its content.
func (b *bouncing) bareBack(t ackmgr.Token, session uint64, by routing.Handle, d *codec.Deliver) {
	l := b.loop
	entry, ok := l.settle.claim(t, session)
	if !ok {
		return
	}
	if entry.Flags&flagGivenBack != 0 {
		l.stats.acksLate++
		return
	}
	b.disownHere(session, by, d.To, d.Epoch)
	entry.Flags |= flagGivenBack
	b.unsend(t, entry)
	var id routing.SessionID
	binary.BigEndian.PutUint64(id[:], session) // half of the ID; only this half is compared
	b.endWithTruth(d.Token[:token.AckLen], id, by, d)
}

// endWithTruth ends a message that a session gave back, once the node knows who holds its ID.
func (b *bouncing) endWithTruth(given []byte, id routing.SessionID, by routing.Handle, d *codec.Deliver) {
	l := b.loop
	f := &l.scratch.forward
	*f = codec.Forward{Deliver: d.Short(), Session: append(l.scratch.sessionID[:0], id[:]...)}
	f.Token, f.Flags = given, codec.FlagAck|flagBare
	switch {
	case l.eng.cluster == nil:
		_, code := b.bareCode(f)
		b.endReturned(f, code)
	case !l.park.parkReturned(codec.KindNotMine, by, f, 0):
		b.endReturned(f, codec.CodeOverflow)
	}
}

// bareCode returns how a message without content ends, as far as this node knows. Like resend, it
// returns attemptNowhere if the only known place is the one that gave the message back. A node
// without a cluster knows all bindings.
func (b *bouncing) bareCode(f *codec.Forward) (attempt, codec.Code) {
	l := b.loop
	session := routing.SessionID(f.Session).Short()
	other := func(r routing.Route, ok bool) bool {
		return ok && (r.Session.Short() != session || r.Epoch != f.Epoch)
	}
	switch {
	case other(l.eng.table.Lookup(f.To)):
		return attemptFailed, codec.CodeUnreachable
	case l.eng.cluster == nil:
		return attemptFailed, codec.CodeNoRoute
	case other(l.eng.cluster.remote.Lookup(f.To)):
		return attemptFailed, codec.CodeUnreachable
	}
	return attemptNowhere, codec.CodeUnreachable
}

// endBare reports the outcome of a message to its sender's side. If that is another node, endBare
// also sends it a not_mine frame, which says that its route leads nowhere. The frame has no
// content, because the message has ended by then.
func (b *bouncing) endBare(f *codec.Forward, code codec.Code) {
	l := b.loop
	origin, link, ok := token.Link(f.Token)
	if !ok {
		l.settle.endToken(f.Token, verdict{code: code}, 1)
		return
	}
	l.links.send(link, codec.AppendRefuse(l.scratch.control[:0], origin, code, nil))
	f.Token, f.Flags = origin, codec.FlagAck
	l.scratch.control = codec.AppendForward(l.scratch.control[:0], codec.KindNotMine, f)
	l.links.send(link, l.scratch.control)
}
