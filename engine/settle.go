package engine

import (
	"time"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/share"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// ackPart is the part of the free acks that one connection may hold.
const ackPart = 8

// settling holds the sends of a loop's connections that wait for an ack. Each ends by an ack, by
// its deadline, or because a connection is lost. The loop owns it.
type settling struct {
	loop *loop // static

	acks      *ackmgr.Manager
	most      int // static; how many the loop waits for at most
	expired   func(ackmgr.Token, ackmgr.Entry)
	lost      func(ackmgr.Token, ackmgr.Entry)
	abandoned func(ackmgr.Token, ackmgr.Entry)
}

// begin makes the books. The loop is there.
func (s *settling) begin() {
	l := s.loop
	s.most = l.eng.cfg.MaxAcks
	s.acks = ackmgr.New(ackmgr.Config{Tag: uint16(l.fenced), Loop: uint8(l.idx), Max: s.most}, l.now)
	end := func(code codec.Code) func(ackmgr.Token, ackmgr.Entry) {
		return func(_ ackmgr.Token, en ackmgr.Entry) {
			s.finish(en, code, nil, nil)
			l.pace.worked(1)
		}
	}
	s.expired, s.lost = end(codec.CodeTimeout), end(codec.CodeLost)
	s.abandoned = func(ackmgr.Token, ackmgr.Entry) {
		l.stats.abandoned++
		l.pace.worked(1)
	}
}

// entryTick is the resolution of Entry.Since. The count wraps after five hours, and no send waits
// for that long.
const entryTick = 1 << 12 * time.Nanosecond

// now returns the time as entries have it.
func (s *settling) now() uint32 { return uint32(s.loop.pace.stamped / entryTick) }

// since returns how long ago the send of an entry was accepted.
func (s *settling) since(entry ackmgr.Entry) time.Duration {
	return time.Duration(s.now()-entry.Since) * entryTick
}

// share is how many sends of one connection may wait for an ack now, of all that the loop may
// wait for.
func (s *settling) share() int {
	return share.Of(s.most, s.acks.Len(), ackPart)
}

// handleAck passes a receiver's answer to the loop that waits for it.
func (rv *receiver) handleAck(body []byte) {
	c := rv.conn
	l := c.loop
	a := &l.scratch.ack
	if err := codec.DecodeAck(body, a); err != nil {
		c.decodeFault(err, codec.KindAck)
		return
	}
	if len(a.Reply) > l.eng.cfg.MaxPayload {
		c.decodeFault(&codec.Error{Fault: codec.FaultBadValue, Kind: codec.KindAck, Field: "reply",
			Detail: "over max_payload"}, codec.KindAck)
		return
	}
	t, ok := l.eng.tokens.OpenAck(a.Token, c.short)
	switch {
	case ok:
		l.settle.deliverAck(t, c.short, a.Code, a.Reason, a.Reply)
	case l.eng.tokens.IsReport(a.Token, c.short):
		// Nobody waits for it, and answering it does no harm.
	default:
		if origin, h, ok := l.eng.tokens.OpenLink(a.Token, c.short); ok {
			rv.answerLink(origin, h, a)
			return
		}
		l.settle.refuseToken(c.handle(), codec.KindAck)
	}
}

// deliverAck passes a session's answer to the loop that waits for it.
func (s *settling) deliverAck(t ackmgr.Token, session uint64, code codec.Code, reason, reply []byte) {
	l := s.loop
	if t.Loop() == int(l.idx) {
		s.acked(t, session, code, reason, reply)
		return
	}
	p := l.mail.parcelFor(uint16(t.Loop()))
	p.notes = append(p.notes, note{kind: noteAck, token: t, session: session, code: code,
		at: len(p.data), reasonLen: len(reason), bodyLen: len(reply)})
	p.data = append(append(p.data, reason...), reply...)
}

// acked ends an entry of this loop with what the receiver said.
func (s *settling) acked(t ackmgr.Token, session uint64, code codec.Code, reason, reply []byte) {
	entry, ok := s.acks.Take(t, session)
	if !ok {
		s.loop.stats.acksLate++
		return
	}
	s.loop.stats.times.ackRoundTrip.Add(s.since(entry), 1)
	s.finish(entry, code, reason, reply)
}

// claim returns the entry of a token that a session has echoed, if it is pending and was last
// delivered to that session (S8). The token's seal has shown that it was given to that session: if
// it is not pending any more, or went to another session since, the answer is late.
func (s *settling) claim(t ackmgr.Token, session uint64) (ackmgr.Entry, bool) {
	entry, status := s.acks.Lookup(t)
	if status != ackmgr.Pending || entry.Session != session {
		s.loop.stats.acksLate++
		return entry, false
	}
	return entry, true
}

// badTokenText is the text of the error frame for a token that the session was never given.
const badTokenText = "the token was never given to this session"

// refuseToken notifies a connection, on whichever loop it is, that its session was never given this
// token.
func (s *settling) refuseToken(by routing.Handle, kind codec.Kind) {
	l := s.loop
	l.stats.acksForged++
	if l.scratch.fan.refusing {
		l.scratch.fan.refused = true
		return
	}
	l.mail.notify(by.Loop, note{kind: noteRefused, handle: by, frame: kind})
}

// failed ends an entry whose message another loop could not write.
func (s *settling) failed(t ackmgr.Token, code codec.Code, reason []byte) {
	if entry, status := s.acks.Lookup(t); status == ackmgr.Pending {
		s.acks.End(t)
		s.finish(entry, code, reason, nil)
	}
}

// finish answers a sender on this loop. The entry has ended.
func (s *settling) finish(entry ackmgr.Entry, code codec.Code, reason, reply []byte) {
	l := s.loop
	l.stats.outcomes[code]++
	if c := l.conns[entry.Conn]; c != nil { // else it has closed, and its entries end in steps
		c.sender.ended()
		if entry.Flags&flagGrouped != 0 {
			c.multicasts.answer(entry.Seq, code, reason, reply)
		} else {
			c.sender.outcome(entry.Seq, code, reason, reply)
		}
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

// endToken ends a message by the token that this node gave it, of whichever kind. ended is how many
// messages without ack end here. The other node has counted those that ended there.
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

// sayFailed makes the loop of an entry end it, because its message was not written here.
func (mr *mailroom) sayFailed(t ackmgr.Token, v verdict) {
	l := mr.loop
	if t.Loop() == int(l.idx) {
		l.settle.failed(t, v.code, v.reason)
		return
	}
	p := mr.parcelFor(uint16(t.Loop()))
	p.notes = append(p.notes, note{kind: noteFail, token: t, code: v.code, at: len(p.data), reasonLen: len(v.reason)})
	p.data = append(p.data, v.reason...)
}
