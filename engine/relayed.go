package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Clients' answers with replies and the messages that they return go to another node over a link. A
// client can send them as often as it likes. So each client has a share of the link's room (S32).
// Its answers neither close the link nor take the room of other clients' answers and of messages.

// relayPart is the part of a link's free room that one client may take.
const relayPart = 4

var reasonRelay = []byte("the receiver's answer did not fit on the link to this node")

// linkShare is about how much of a link one client uses.
type linkShare struct {
	before, since int   // bytes appended before mark, and since
	mark          int64 // of all bytes ever appended to the link
}

// mayRelay reports whether size bytes of a client may be appended to the link, and charges them. As
// long as little waits on the link, it charges nobody.
func (k *link) mayRelay(c *conn, session uint64, size int) bool {
	queued := c.out.queued()
	if queued+size <= c.out.maxPending/linkRoom {
		clear(k.shares)
		return true
	}
	s := k.shares[session]
	if c.out.written-int64(c.out.backlog) >= s.mark { // what was appended before the mark has left
		s.before, s.since, s.mark = s.since, 0, c.out.written+int64(c.out.queuedHere())
	}
	room := c.out.maxPending + replyRoom/2*c.loop.eng.cfg.MaxPayload - queued
	if s.before+s.since+size > room/relayPart {
		c.loop.stats.linkOverShare++
		return false
	}
	s.since += size
	if k.shares == nil {
		k.shares = make(map[uint64]linkShare)
	}
	k.shares[session] = s
	return true
}

// answerLink relays an ack to the node that waits for it, stamped with who acked (S8).
func (rv *receiver) answerLink(origin []byte, h routing.Handle, a *codec.Ack) {
	c := rv.conn
	if len(origin) != token.AckLen {
		return // nobody waits
	}
	id := c.session.ID()
	l := c.loop
	f := &l.scratch.answer
	*f = codec.Answer{Token: origin, Code: a.Code, Session: append(l.scratch.sessionID[:0], id[:]...), Reason: a.Reason, Reply: a.Reply}
	if h.Loop == l.idx {
		l.links.relayAnswer(h, c.short, f)
		return
	}
	p := l.mail.parcelFor(h.Loop)
	at := len(p.data)
	p.data = codec.AppendAnswer(p.data, f)
	p.notes = append(p.notes, note{kind: noteRelay, handle: h, session: c.short, at: at, bodyLen: len(p.data) - at})
}

// relayAnswer appends a client's answer to a link of this loop. If there is no room for it, the
// node notifies the other node that the answer is lost. If there is no room even for that, the send
// ends at its deadline.
func (ls *loopLinks) relayAnswer(h routing.Handle, session uint64, f *codec.Answer) {
	to := ls.conn(h)
	if to == nil {
		return
	}
	if !to.link.mayRelay(to, session, answerSize(f)) {
		f.Code, f.Reason, f.Reply = codec.CodeLost, reasonRelay, nil
		if !to.link.mayRelay(to, session, answerSize(f)) {
			return
		}
	}
	to.out.wroteControl(codec.AppendAnswer(to.out.bufFor(answerSize(f)), f))
}

func answerSize(f *codec.Answer) int { return scratchSize + len(f.Reason) + len(f.Reply) }

// giveBack returns messages of a client to the node that they came from, on whichever loop the link
// is.
func (rv *receiver) giveBack(h routing.Handle, frame []byte) {
	c := rv.conn
	l := c.loop
	if h.Loop == l.idx {
		l.links.relayFrame(h, c.short, frame)
		return
	}
	p := l.mail.parcelFor(h.Loop)
	p.notes = append(p.notes, note{kind: noteRelay, handle: h, session: c.short, at: len(p.data), bodyLen: len(frame)})
	p.data = append(p.data, frame...)
}

// relayFrame appends a client's frame to a link of this loop. If there is no room for messages that
// come back, they end here: they were not delivered.
func (ls *loopLinks) relayFrame(h routing.Handle, session uint64, frame []byte) {
	l := ls.loop
	body := frame[codec.PrefixLen:]
	kind, _ := codec.PeekKind(body)
	if kind == codec.KindAnswer {
		if err := codec.DecodeAnswer(body, &l.scratch.answer); err == nil { // it was encoded here
			ls.relayAnswer(h, session, &l.scratch.answer)
		}
		return
	}
	to := ls.conn(h)
	switch {
	case to == nil:
	case to.link.mayRelay(to, session, len(frame)):
		to.out.wroteControl(append(to.out.buf(), frame...))
	default:
		eachReturned(kind, body, func(token []byte) {
			l.pace.worked(1)
			if to.state == stateOpen && to.link.mayRelay(to, session, scratchSize) {
				to.out.wroteControl(codec.AppendRefuse(to.out.buf(), token, codec.CodeOverflow, nil))
			}
		})
	}
}

// eachReturned yields the tokens of messages in a frame of this node's that gives them back.
func eachReturned(kind codec.Kind, body []byte, yield func(token []byte)) {
	if kind != codec.KindReturnMany {
		var f codec.Forward
		if codec.DecodeForward(body, kind, &f) == nil {
			yield(f.Token)
		}
		return
	}
	var m codec.DeliverMany
	if codec.DecodeDeliverMany(body, kind, len(body), &m) != nil {
		return
	}
	for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
		yield(r.Token)
	}
}
