package engine

import (
	"encoding/binary"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Messages with ack that a session gives back without their content (codec.FeatureShortNotHere).
// The node keeps no copy of what it has delivered, so they cannot go elsewhere, and their sends
// end. All that is left to find out is what to call it: unreachable if another session holds the ID
// by now, or this one under another epoch, and no_route if nobody does. Either may be sent again.

// flagBare marks such a message among those that came back and wait for the registry. It never
// leaves the node.
const flagBare = 1 << 6

// flagGivenBack marks an entry whose message came back without its content: it is about to end.
const flagGivenBack = 4

// isBare reports whether what c gives back with these flags may be without content. With content,
// the flags are those of the deliver.
func (rv *receiver) isBare(flags uint8) bool { return rv.returnsBare && flags&codec.FlagAck == 0 }

// takeBare takes back a message with ack that came over a link, without its content. It returns
// false if d is none.
func (rv *receiver) takeBare(d *codec.Deliver) bool {
	c := rv.conn
	origin, _, ok := c.loop.eng.tokens.OpenLink(d.Token, c.short)
	if !ok || len(origin) != token.AckLen {
		return false
	}
	rv.disown(d.To, d.Epoch)
	c.loop.bounce.endWithTruth(d.Token, c.session.ID(), c.handle(), d) // here, where the binding is being taken back; the other node hears how it ended
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
	binary.BigEndian.PutUint64(id[:], session) // half of the ID, which is what is compared
	b.endWithTruth(d.Token[:token.AckLen], id, by, d)
}

// endWithTruth ends a message that a session gave back, as soon as it is known who holds its ID.
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

// bareCode says how a message without content ends, as far as this node knows. Like resend it
// returns attemptNowhere if no other place is known than the one that the message came back from. A
// node without others knows all bindings.
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

// endBare tells whoever waits for a message how it ended. If that is another node, it is also told
// that the route which led here leads nowhere: what would be given back has ended by then, so it
// comes without content.
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
