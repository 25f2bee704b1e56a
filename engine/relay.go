package engine

import (
	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Reasons that go to senders with an outcome; they name what the code alone does not.
var (
	reasonFrom     = []byte("from is not bound by this session")
	reasonNoFrom   = []byte("from is empty")
	reasonHook     = []byte("refused by the node's policy")
	reasonInFlight = []byte("too many sends of this connection wait for an ack")
	reasonShare    = []byte("the node waits for many acks, and this connection has its share of them")
	reasonAcks     = []byte("the node waits for as many acks as it can")
	reasonParked   = []byte("too many messages of this connection wait for a look-up")
	reasonQueue    = []byte("the receiver's queue is full")
	reasonMemory   = []byte("the node's memory budget is nearly used up")
)

// knownFlags are the bits of a send that this version passes on.
const knownFlags = codec.FlagAck | codec.FlagReport

// verdict is how a send is doing: CodeOK as long as it may go on.
type verdict struct {
	code   codec.Code
	reason []byte
}

// sender is what a connection sends: its credit, and its sends that are under way. The
// connection's loop owns it.
type sender struct {
	conn *conn // static

	inFlight  int     // that wait for an ack
	parked    int     // bytes of messages that wait for the registry
	used      uint64  // bytes of sends without ack so far
	granted   uint64  // and how many are allowed
	creditDue uint64  // what will be allowed from the next write on; 0: no more than now
	reports   reports // of failed sends without ack
}

// receiver is what a session does with the messages that were delivered to it on one connection:
// it acks them, or gives them back. The connection's loop owns it.
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
	if !c.held.line.empty() {
		c.held.hold(body, m)
		return
	}
	s.relay(body, m)
}

// relay decides on a send and carries it out. body is what m was decoded from.
func (s *sender) relay(body []byte, m *codec.Send) {
	c := s.conn
	c.loop.scratch.body = body
	v := s.admit(m)
	if v.code == codeHeld {
		c.held.hold(body, m)
		return
	}
	if v.code == codec.CodeOK {
		v = s.route(m)
	}
	s.finish(m, v)
}

// finish ends a send that was not written; with CodeOK it was, or it waits.
func (s *sender) finish(m *codec.Send, v verdict) {
	c := s.conn
	if v.code == codec.CodeOK {
		return
	}
	c.loop.stats.outcomes[v.code]++
	c.loop.eng.unsent(m, v.code)
	if m.Flags&(codec.FlagAck|codec.FlagReport) != 0 {
		s.outcome(m.Seq, v.code, v.reason, nil)
	}
}

// spendCredit counts a send without ack against the connection's credit (S21), renews the credit in
// good time, and closes the connection if it is exceeded.
func (s *sender) spendCredit(size int) bool {
	c := s.conn
	if c.local != nil {
		return true // its senders are held up instead, see submit
	}
	s.used += uint64(size)
	if s.used > s.granted {
		c.close(codec.FaultCreditExceeded, "more bytes sent without ack than credit was given for")
		return false
	}
	if credit := uint64(c.loop.eng.cfg.Credit); s.creditDue == 0 && s.granted-s.used < credit/2 {
		s.creditDue = s.used + credit
		c.out.markDirty()
	}
	return true
}

// renewCredit grants the credit that is due. It counts from the write that carries it, so
// that a client which sends on without waiting for it is found out.
func (s *sender) renewCredit() {
	c := s.conn
	s.granted, s.creditDue = s.creditDue, 0
	c.out.pending = codec.AppendCredit(c.out.buf(), s.granted)
	c.loop.stats.framesOut++
}

// admit checks what does not depend on the receiver's place.
func (s *sender) admit(m *codec.Send) verdict {
	if v := s.admitFrom(m); v.code != codec.CodeOK {
		return v
	}
	return s.admitOne(m)
}

// admitFrom checks what is the same for all recipients of a multicast.
func (s *sender) admitFrom(m *codec.Send) verdict {
	c := s.conn
	e := c.loop.eng
	if len(m.Payload) > e.cfg.MaxPayload {
		return verdict{code: codec.CodeTooLarge}
	}
	if e.drained(c.loop.now) {
		return verdict{code: codec.CodeDraining}
	}
	if len(m.From) == 0 {
		if !e.cfg.AllowNoFrom {
			return verdict{codec.CodeDenied, reasonNoFrom}
		}
	} else if r, ok := e.table.Lookup(m.From); !ok || r.Session != c.session {
		return s.unknownFrom(m)
	}
	return verdict{}
}

// admitOne checks what is each message's own.
func (s *sender) admitOne(m *codec.Send) verdict {
	if v := s.maySend(m); v.code != codec.CodeOK {
		return v
	}
	if m.Flags&codec.FlagAck != 0 && s.inFlight >= s.conn.loop.eng.cfg.MaxInFlight {
		return verdict{codec.CodeOverflow, reasonInFlight}
	}
	return verdict{}
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

// forwardLocal writes the message to a connection of this node, or to the mail of that connection's
// loop; known is false if the receiver is not attached here.
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
	*d = codec.Deliver{To: m.To, From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Epoch: route.Epoch, Payload: m.Payload}
	dest, v := l.destination(h, codec.DeliverSize(d)+codec.MaxToken, m.From)
	if v.code != codec.CodeOK {
		return v, true
	}
	if v := l.eng.mayDeliver(route.Session, d); v.code != codec.CodeOK {
		return v, true
	}
	if v := s.stamp(m, d, route.Session.Short(), dest.list); v.code != codec.CodeOK {
		return v, true
	}
	d.Token = l.eng.tokens.SealAck(d.Token, route.Session.Short())
	l.write(dest, d)
	return verdict{}, true
}

// stamp gives the message the token that its answer will carry: that of a pending entry, or one that
// says whom to tell of a failure.
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
	if s.inFlight >= l.settle.share() {
		l.stats.overShare++
		return verdict{codec.CodeOverflow, reasonShare}
	}
	deadline := l.settle.deadline(m.TTL)
	d.TTL = uint32(deadline - l.now)
	entry.Seq, entry.Session, entry.Conn = m.Seq, session, c.slot
	t, ok := l.settle.acks.Arm(entry, deadline, list, c.list)
	if !ok {
		return verdict{codec.CodeOverflow, reasonAcks}
	}
	s.inFlight++
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

// destination resolves a handle and makes sure that size more bytes of a sender may be queued there.
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
	unacked := unackedOf(d.Flags, 1)
	if c := to.conn; c != nil {
		c.receiver.countUnacked(unacked)
		c.out.wrote(codec.AppendDeliver(c.out.buf(), d))
		return
	}
	ch := l.mail.chunkFor(to, unacked)
	ch.buf = codec.AppendDeliver(ch.buf, d)
	l.mail.gathered(to, ch)
}

// unackedOf is how many of n messages with those flags nobody will answer.
func unackedOf(flags uint8, n int) int {
	if flags&codec.FlagAck != 0 {
		return 0
	}
	return n
}

// countUnacked counts messages without ack that are written to c.
func (rv *receiver) countUnacked(n int) {
	c := rv.conn
	if c.link != nil {
		c.loop.stats.forwarded += uint64(n)
		return
	}
	c.loop.stats.written += uint64(n)
	rv.unacked += uint64(n)
}

// handleAck takes a receiver's answer to the loop that waits for it.
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

// settling is the sends of a loop's connections that wait for an ack, and how each ends: by an ack,
// by its deadline, or because a connection is lost. The loop owns it.
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

// deliverAck takes a session's answer to the loop that waits for it.
func (s *settling) deliverAck(t ackmgr.Token, session uint64, code codec.Code, reason, reply []byte) {
	l := s.loop
	if t.Loop() == int(l.idx) {
		s.acked(t, session, code, reason, reply)
		return
	}
	p := l.mail.parcelFor(uint16(t.Loop()))
	p.notes = append(p.notes, note{kind: noteAck, token: t, session: session, code: code,
		at: len(p.data), reason: len(reason), reply: len(reply)})
	p.data = append(append(p.data, reason...), reply...)
}

// acked ends an entry of this loop with what the receiver said.
func (s *settling) acked(t ackmgr.Token, session uint64, code codec.Code, reason, reply []byte) {
	if entry, ok := s.claim(t, session); ok {
		s.acks.End(t)
		s.finish(entry, code, reason, reply)
	}
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

// refuseToken tells a connection, on whichever loop it is, that its token is none of its own.
func (s *settling) refuseToken(by routing.Handle, kind codec.Kind) {
	l := s.loop
	l.stats.acksForged++
	if l.scratch.fan.refusing {
		l.scratch.fan.refused = true
		return
	}
	l.mail.notify(by.Loop, note{kind: noteRefused, handle: by, seq: uint64(kind)})
}

// failed ends an entry whose message another loop could not write.
func (s *settling) failed(t ackmgr.Token, code codec.Code, reason []byte) {
	if entry, status := s.acks.Lookup(t); status == ackmgr.Pending {
		s.acks.End(t)
		s.finish(entry, code, reason, nil)
	}
}

// finishEntry answers a sender on this loop. The entry has ended.
func (s *settling) finish(entry ackmgr.Entry, code codec.Code, reason, reply []byte) {
	l := s.loop
	l.stats.outcomes[code]++
	if c := l.conns[entry.Conn]; c != nil { // else it has closed, and its entries end in steps
		c.sender.inFlight--
		c.multicasts.answer(entry.Flags&flagGrouped != 0, entry.Seq, code, reason, reply)
	}
}

func (s *sender) outcome(seq uint64, code codec.Code, reason, reply []byte) {
	c := s.conn
	c.out.wroteControl(codec.AppendOutcome(c.out.bufFor(scratchSize+len(reason)+len(reply)), &codec.Outcome{Seq: seq, Code: code, Reason: reason, Reply: reply}))
}

// flagBounced marks an entry whose message came back once: it is not tried a second time (S14).
const flagBounced = 1

// handleNotHere takes back a message that this session cannot accept. The session has the final word
// on who it holds, so the binding that led here goes too, if it still stands (S11).
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

// takeNotHere takes back one message; false: its token is not of this node, or is that of a message with ack that came over a link.
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
		p.notes = append(p.notes, note{kind: kind, handle: c.handle(), token: t, session: c.short, at: at, reply: len(p.data) - at})
		return true
	case bare && rv.takeBare(d):
		return true
	case d.Flags&codec.FlagAck == 0:
		rv.bouncedUnacked(d)
		return true
	}
	return false
}

// bouncing is what a loop does with messages that come back: it sends them elsewhere, or ends them.
// The loop owns it.
type bouncing struct {
	loop *loop // static

	disowned *directory.Request // what the frame in hand gives back, see releaseDisowned
}

// givenBackHere takes back a message with ack whose token is of this loop, and was opened.
func (b *bouncing) givenBackHere(t ackmgr.Token, session uint64, by routing.Handle, d *codec.Deliver, bare bool, sum *token.SharedSum) {
	if bare {
		b.bareBack(t, session, by, d)
		return
	}
	b.bounced(t, session, by, d, sum)
}

// bouncedUnacked ends a message without ack for good: nobody kept its content, so it cannot be told
// whether what came back is what was sent.
func (rv *receiver) bouncedUnacked(d *codec.Deliver) {
	c := rv.conn
	l := c.loop
	origin, link, remote := l.eng.tokens.OpenLink(d.Token, c.short)
	remote = remote && len(origin) == token.ReportLen // else of a message with ack
	known := remote || len(d.Token) == 0 || l.eng.tokens.IsReport(d.Token, c.short)
	if !known || rv.unacked == 0 { // no token can come back more often than messages were delivered
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

// bounced tries a message that came back once more, if somebody else holds its ID by now.
func (b *bouncing) bounced(t ackmgr.Token, session uint64, by routing.Handle, d *codec.Deliver, sum *token.SharedSum) {
	l := b.loop
	entry, ok := l.settle.claim(t, session)
	if !ok {
		return
	}
	b.disownHere(session, by, d.To, d.Epoch)
	if entry.Sum != l.eng.tokens.SumWith(sum.Of(&l.eng.tokens, d.Payload), d) {
		l.settle.refuseToken(by, codec.KindNotHere) // not the message that was delivered: it stays pending
		return
	}
	code := b.givenBack(d, session)
	if entry.Flags&flagBounced == 0 {
		code = b.redirect(t, entry, d, sum)
		if code != codec.CodeOverflow && code != codec.CodeOK && l.eng.cluster != nil { // the registry may know of somebody else
			code = codec.CodeOverflow
			if b.askAgain(t, entry, by, d) {
				code = codec.CodeOK
			}
		}
		if code == codec.CodeOK {
			return
		}
	}
	l.settle.acks.End(t)
	l.eng.undelivered(d, code)
	l.settle.finish(entry, code, nil, nil)
}

// givenBack says how a message ends that a session has given back, if it is not tried again. A node
// without others knows all bindings. In a cluster somebody may hold the ID whom this node has yet
// to hear of.
func (b *bouncing) givenBack(d *codec.Deliver, session uint64) codec.Code {
	l := b.loop
	route, ok := l.eng.table.Lookup(d.To)
	if l.eng.cluster == nil && (!ok || route.Session.Short() == session && route.Epoch == d.Epoch) {
		return codec.CodeNoRoute
	}
	return codec.CodeUnreachable
}

// redirect delivers a bounced message to a binding other than the one it came from, or ends it, or says why not.
func (b *bouncing) redirect(t ackmgr.Token, entry ackmgr.Entry, d *codec.Deliver, sum *token.SharedSum) codec.Code {
	l := b.loop
	route, ok := l.eng.table.Lookup(d.To)
	if !ok || (route.Session.Short() == entry.Session && route.Epoch == d.Epoch) {
		return b.givenBack(d, entry.Session)
	}
	h, ok := route.Session.Pick(route.Hash)
	if !ok {
		return codec.CodeUnreachable
	}
	again := *d
	again.Token = l.eng.tokens.SealAck(append(l.scratch.token[:0], d.Token[:token.AckLen]...), route.Session.Short())
	again.Epoch = route.Epoch
	again.TTL = min(max(d.TTL, 1), uint32(l.eng.cfg.MaxTTL.Milliseconds())) // the receiver has said it, so anything
	dest, v := l.destination(h, codec.DeliverSize(&again), again.From)
	if v.code != codec.CodeOK {
		return v.code
	}
	if v := l.eng.mayDeliver(route.Session, &again); v.code != codec.CodeOK {
		l.settle.acks.End(t) // for good: to ask the registry would not change it
		l.eng.undelivered(&again, v.code)
		l.settle.finish(entry, v.code, v.reason, nil)
		return codec.CodeOK
	}
	entry.Session, entry.Sum, entry.Flags = route.Session.Short(), l.eng.tokens.SumWith(sum.Of(&l.eng.tokens, d.Payload), &again), entry.Flags|flagBounced
	l.settle.acks.Redirect(t, entry, dest.list)
	l.write(dest, &again)
	return codec.CodeOK
}
