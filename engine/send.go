package engine

import (
	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/limit"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Reasons that senders get with an outcome. They say what the code alone does not.
var (
	reasonFrom     = []byte("from is not bound by this session")
	reasonNoFrom   = []byte("from is empty")
	reasonHook     = []byte("refused by the node's policy")
	reasonInFlight = []byte("too many sends of this connection wait for an ack")
	reasonShare    = []byte("the node waits for many acks, and this connection has its share of them")
	reasonAcks     = []byte("the node cannot wait for more acks")
	reasonParked   = []byte("too many messages of this connection wait for a lookup")
	reasonQueue    = []byte("the receiver's queue is full")
	reasonMemory   = []byte("the node's memory budget is nearly used up")
	reasonPending  = []byte("the clients of the receiver's identity have reached their limit identity-pending-bytes")
)

// knownFlags are the bits of a send that this version passes on.
const knownFlags = codec.FlagAck | codec.FlagReport

// verdict is the result for a send so far. It is CodeOK as long as the send may go on.
type verdict struct {
	code   codec.Code
	reason []byte
}

// sender is a connection's state as a sender: its credit, and its sends under way. The connection's
// loop owns it.
type sender struct {
	conn *conn // static

	from      routing.LastOwn
	inFlight  limit.Places // of those that wait for an ack
	parked    int          // bytes of messages that wait for the registry
	used      uint64       // bytes of sends without ack so far
	granted   uint64       // and how many are allowed
	creditDue uint64       // what will be allowed from the next write on; 0: no more than now
	reports   *reports     // of failed sends without ack; nil before the first
}

// receiver is a connection's state as a receiver: its session acks the messages delivered to it, or
// returns them. The connection's loop owns it.
type receiver struct {
	conn *conn // static

	takesMany   bool   // the client knows deliver_many and outcomes
	returnsBare bool   // the client may give messages back without their content
	unacked     uint64 // messages without ack that were delivered to it and have not come back
}

// handle is the hot path: one message from the wire into the buffer of its destination.
func (s *sender) handle(body []byte) {
	c := s.conn
	l := c.loop
	m := &l.scratch.send
	if err := codec.DecodeSend(body, m); err != nil {
		c.decodeFault(err, codec.KindSend)
		return
	}
	if m.Flags&codec.FlagAck == 0 && !s.spendCredit(codec.PrefixLen+len(body)) {
		return
	}
	l.stats.sends++ // from here on it has an outcome
	if v := c.quota.admit(1, codec.PrefixLen+len(body)); v.code != codec.CodeOK {
		s.finish(m, v)
		return
	}
	if c.held.wait() {
		c.held.hold(body, m)
		return
	}
	s.relay(body, m)
}

// relay decides on a send and carries it out. m was decoded from body.
func (s *sender) relay(body []byte, m *codec.Send) {
	c := s.conn
	c.loop.scratch.body = body
	v, known := s.admit(m)
	if !known {
		s.heldSends().hold(body, m)
		return
	}
	if v.code == codec.CodeOK {
		v = s.route(m)
	}
	s.finish(m, v)
}

// finish ends a send that was not written. With CodeOK the send was written or waits, and finish
// does nothing.
func (s *sender) finish(m *codec.Send, v verdict) {
	c := s.conn
	if v.code == codec.CodeOK {
		return
	}
	s.trim()
	c.loop.stats.outcomes[v.code]++
	c.loop.eng.hooks.unsent(m, v.code)
	if m.Flags&(codec.FlagAck|codec.FlagReport) != 0 {
		s.outcome(m.Seq, v.code, v.reason, nil)
	}
}

// spendCredit counts a send without ack against the connection's credit (S21), renews the credit in
// good time, and closes the connection if it is exceeded.
func (s *sender) spendCredit(size int) bool {
	c := s.conn
	s.used += uint64(size)
	if s.used > s.granted {
		c.close(codec.FaultCreditExceeded, "the client has sent more bytes without ack than its credit allows")
		return false
	}
	if credit := uint64(c.loop.eng.cfg.Credit); s.creditDue == 0 && s.granted-s.used < credit/2 {
		s.creditDue = s.used + credit
		c.out.markDirty()
	}
	return true
}

// renewCredit grants the credit that is due. The credit counts from the write that carries it, so
// the node notices a client that sends on without waiting for it.
func (s *sender) renewCredit() {
	c := s.conn
	s.granted, s.creditDue = s.creditDue, 0
	c.out.pending = codec.AppendCredit(c.out.buf(), s.granted)
	c.loop.stats.framesOut++
}

// admit checks what does not depend on where the receiver is. It returns known as false if the
// registry must first say whose the sender is.
func (s *sender) admit(m *codec.Send) (v verdict, known bool) {
	if v, known = s.admitFrom(m); !known || v.code != codec.CodeOK {
		return v, known
	}
	return s.admitOne(m), true
}

// admitFrom checks what is the same for all recipients of a multicast.
func (s *sender) admitFrom(m *codec.Send) (v verdict, known bool) {
	c := s.conn
	e := c.loop.eng
	if len(m.Payload) > e.cfg.MaxPayload {
		return verdict{code: codec.CodeTooLarge}, true
	}
	if e.drain.over(c.loop.now) {
		return verdict{code: codec.CodeDraining}, true
	}
	if len(m.From) == 0 {
		if !e.cfg.AllowNoFrom {
			return verdict{codec.CodeDenied, reasonNoFrom}, true
		}
	} else if !e.table.Holds(c.session, m.From, &s.from) {
		return s.unknownFrom(m)
	}
	return verdict{}, true
}

// admitOne checks what is each message's own.
func (s *sender) admitOne(m *codec.Send) verdict {
	if v := s.maySend(m); v.code != codec.CodeOK {
		return v
	}
	if m.Flags&codec.FlagAck != 0 {
		return s.mayWait()
	}
	return verdict{}
}

// mayWait returns why no further send may wait for an ack. It returns the zero verdict if one may.
func (s *sender) mayWait() verdict {
	if s.inFlight.Free() {
		return verdict{}
	}
	return s.conn.quota.reserve(&s.inFlight)
}

// ended frees the place of a send that has waited for an ack.
func (s *sender) ended() {
	s.inFlight.Drop()
	s.trim()
}

// trim gives back places for sends that wait for an ack, if the connection has too many in advance.
func (s *sender) trim() {
	if s.inFlight.Trims() {
		s.conn.quota.trim(&s.inFlight)
	}
}

// forward finds the receiver and writes the message on its way.
func (s *sender) route(m *codec.Send) verdict {
	c := s.conn
	if v, known := s.deliver(m); known {
		return v
	}
	if c.loop.eng.cluster != nil {
		return s.forward(m)
	}
	if _, bound := c.loop.eng.table.Lookup(m.To); bound {
		return verdict{code: codec.CodeUnreachable}
	}
	return verdict{code: codec.CodeNoRoute}
}

// deliver writes the message to a connection of this node, or to the mail of that connection's
// loop. It returns known as false if the receiver is not attached here.
func (s *sender) deliver(m *codec.Send) (v verdict, known bool) {
	l := s.conn.loop
	route, ok := l.eng.table.Lookup(m.To)
	if !ok {
		return verdict{}, false
	}
	h, ok := route.Session.Pick(route.Hash)
	if !ok {
		return verdict{}, false
	}
	if len(l.park.lines) > 0 && l.park.lines[string(m.To)] != nil {
		return verdict{}, false // not past those that wait (S20)
	}
	d := &l.scratch.deliver
	d.Token, d.To, d.From, d.TTL, d.Flags = nil, m.To, m.From, m.TTL, m.Flags&knownFlags
	d.Epoch, d.Payload, d.Trace = route.Epoch, m.Payload, m.Trace
	dest, v := l.destination(h, codec.DeliverSize(d)+codec.MaxToken, m.From)
	if v.code != codec.CodeOK {
		return v, true
	}
	if v := l.eng.hooks.mayDeliver(route.Session, d); v.code != codec.CodeOK {
		return v, true
	}
	if v := s.stamp(m, d, route.Session.Short(), dest.list); v.code != codec.CodeOK {
		return v, true
	}
	d.Token = l.eng.tokens.SealAck(d.Token, route.Session.Short())
	l.write(dest, d)
	return verdict{}, true
}

// stamp gives the message the token that its answer will carry. It is that of a pending entry, or
// one that names the connection to notify of a failure.
func (s *sender) stamp(m *codec.Send, d *codec.Deliver, session uint64, list ackmgr.List) verdict {
	c := s.conn
	l := c.loop
	switch {
	case m.Flags&codec.FlagAck != 0:
		return s.arm(m, d, session, list, ackmgr.Entry{Sum: l.eng.tokens.Sum(d)})
	case m.Flags&codec.FlagReport != 0:
		d.Token = l.eng.tokens.AppendReport(l.scratch.token[:0], c.handle(), m.Seq, session)
	}
	return verdict{}
}

// arm makes an entry for a message with ack. Sum and flags of the entry are there already.
func (s *sender) arm(m *codec.Send, d *codec.Deliver, session uint64, list ackmgr.List, entry ackmgr.Entry) verdict {
	c := s.conn
	l := c.loop
	if s.inFlight.Used() >= l.settle.share() {
		l.stats.overShare++
		return verdict{codec.CodeOverflow, reasonShare}
	}
	deadline := l.settle.deadline(m.TTL)
	d.TTL = uint32(deadline - l.now)
	entry.Seq, entry.Session, entry.Conn, entry.Since = m.Seq, session, c.slot, l.settle.now()
	t, ok := l.settle.acks.Arm(entry, deadline, list, c.list)
	if !ok {
		return verdict{codec.CodeOverflow, reasonAcks}
	}
	s.inFlight.Use()
	d.Token = token.AppendEntry(l.scratch.token[:0], t)
	return verdict{}
}

// deadline turns a ttl into a moment on the loop's clock.
func (s *settling) deadline(ttl uint32) int64 {
	l := s.loop
	if ttl == 0 {
		return l.now + l.eng.cfg.DefaultTTL.Milliseconds()
	}
	return l.now + min(int64(ttl), l.eng.cfg.MaxTTL.Milliseconds())
}

// destination is a connection as a writer sees it: one of this loop, or the mail for another one.
type destination struct {
	conn   *conn // nil if it is on another loop
	handle routing.Handle
	peer   *peerConn
	list   ackmgr.List
}

// destination resolves a handle and makes sure that size more bytes of a sender may be queued
// there.
func (l *loop) destination(h routing.Handle, size int, from []byte) (destination, verdict) {
	if h.Loop == l.idx {
		c := l.conn(h)
		if c == nil {
			return destination{}, verdict{code: codec.CodeUnreachable}
		}
		if v := c.out.admits(size, from); v.code != codec.CodeOK {
			return destination{}, v
		}
		return destination{conn: c, list: c.list}, verdict{}
	}
	p := l.mail.peer(h)
	if p == nil {
		return destination{}, verdict{code: codec.CodeUnreachable}
	}
	if l.eng.loops[h.Loop].inbox.bytes.Load() > maxInbox {
		return destination{}, verdict{codec.CodeOverflow, reasonQueue}
	}
	return destination{handle: h, peer: p, list: p.list}, verdict{}
}

// write appends the message to its destination: the only copy of a payload in this process.
func (l *loop) write(to destination, d *codec.Deliver) {
	if len(d.Trace) > 0 {
		l.spans.note(d.Trace, false, 1)
	}
	unacked := unackedOf(d.Flags, 1)
	if c := to.conn; c != nil {
		c.receiver.countUnacked(unacked)
		c.out.holdsMessages(1, l.readAt)
		c.out.wrote(codec.AppendDeliver(c.out.buf(), d))
		return
	}
	ch := l.mail.chunkFor(to, unacked)
	ch.buf = codec.AppendDeliver(ch.buf, d)
	l.mail.gathered(to, ch)
}

// unackedOf returns how many of n messages with those flags get no answer.
func unackedOf(flags uint8, n int) int {
	if flags&codec.FlagAck != 0 {
		return 0
	}
	return n
}

// countUnacked counts messages without ack that are written to c.
func (rv *receiver) countUnacked(n int) {
	c := rv.conn
	if c.kind == linkConn {
		c.loop.stats.forwarded += uint64(n)
		return
	}
	c.loop.stats.written += uint64(n)
	rv.unacked += uint64(n)
}

func (s *sender) outcome(seq uint64, code codec.Code, reason, reply []byte) {
	c := s.conn
	c.out.wroteControl(codec.AppendOutcome(c.out.bufFor(scratchSize+len(reason)+len(reply)), &codec.Outcome{Seq: seq, Code: code, Reason: reason, Reply: reply}))
}
