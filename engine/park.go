package engine

import (
	"slices"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/ranking"
	"distmsg/routing"
)

// A loop parks messages to an ID that this node does not know. They wait in order while the
// directory asks the registry. The loop copies each message, charges it to the connection that it
// came from, and bounds what waits.

const (
	// recentFor is how long a loop believes the registry's answer that nobody holds an ID (S19).
	recentFor = 100 // milliseconds
	// maxRecent bounds how many such answers a loop remembers.
	maxRecent = 1 << 14
	// maxReturned bounds the bytes of returned messages that wait on a loop.
	maxReturned = 16 << 20
	// waitingSize is about how many bytes a waiting message takes besides its frame.
	waitingSize = 192
	// parkTries is how often a message is parked again because its route was found, and gone before
	// the loop came to it.
	parkTries = 3
)

// park is what waits on a loop for an answer of the registry. The loop owns it.
type park struct {
	loop *loop // static

	lines     map[string]*waitLine      // by ID of the receiver
	lined     uint64                    // grows with each message that waits
	deadlines ranking.Ranking[*waiting] // of all that waits
	// sends counts the sends that wait, here and in connections' held. Of returned messages it
	// counts those without ack.
	sends         int
	returnedBytes int // of returned messages in lines
	// those bytes, by the connection or link that they came back on
	returnedOn map[routing.Handle]int
	recents    map[string]recentAnswer
	// connections with held sends, by the sender they wait for
	holding map[string][]routing.Handle
	casts   []readyCast // multicasts of which some recipients may go on
	// the answer about the sender whose held sends resume now
	asked directory.Holder
}

// recentAnswer is what the registry said of an ID a moment ago.
type recentAnswer struct {
	code  codec.Code
	until int64
}

// recent returns the registry's last answer on an ID that nobody holds, while it is fresh.
func (p *park) recent(id []byte) (codec.Code, bool) {
	a, ok := p.recents[string(id)]
	if !ok {
		return 0, false
	}
	if a.until <= p.loop.now {
		delete(p.recents, string(id))
		return 0, false
	}
	return a.code, true
}

func (p *park) remember(id string, code codec.Code) {
	if len(p.recents) >= maxRecent {
		clear(p.recents)
	}
	p.recents[id] = recentAnswer{code, p.loop.now + recentFor}
}

// retain copies a send that has to wait, and charges it to its connection (S21). If too much of the
// connection's waits already, it returns why not.
func (s *sender) retain(body []byte, m *codec.Send) (w *waiting, v verdict) {
	c := s.conn
	l := c.loop
	if v = s.mayPark(len(body) + waitingSize); v.code != codec.CodeOK {
		return w, v
	}
	w = &waiting{kind: waitSend, by: c.handle(), frame: append([]byte(nil), body...), deadline: l.park.waitDeadline(m.Flags, m.TTL)}
	s.charge(w)
	return w, v
}

// waitDeadline is when a send with that ttl must not be written any more. It is 0 if that is never.
func (p *park) waitDeadline(flags uint8, ttl uint32) int64 {
	l := p.loop
	switch {
	case flags&codec.FlagAck != 0:
		return l.settle.deadline(ttl)
	case ttl > 0:
		return l.now + int64(ttl)
	}
	return 0
}

func (s *sender) charge(w *waiting) {
	c := s.conn
	w.begins(c.loop)
	n := w.cost()
	if k := w.cast; k != nil {
		n += k.unpaid()
		k.waits++
	}
	s.parked += n
	c.loop.memory.holds(n)
	c.loop.park.sends += w.count()
	c.loop.park.waitsUntil(w)
}

// discharge is the reverse of charge, for what waits no longer.
func (s *sender) discharge(w *waiting) { s.parked -= s.conn.loop.park.unwaits(w) }

// unwaits counts what no longer waits, and returns how many bytes that is.
func (p *park) unwaits(w *waiting) int {
	p.waitsNoLonger(w)
	n := w.cost()
	if k := w.cast; k != nil {
		k.waits--
		n += k.unpaid()
	}
	p.loop.memory.holds(-n)
	return n
}

// dequeue decodes a send that has waited into the scratch, with what is left of its ttl (S2). It
// returns nil if the connection has closed; the send has then already ended.
func (p *park) dequeue(w *waiting) *conn {
	l := p.loop
	p.sends -= w.count()
	c := l.conn(w.by)
	if c == nil {
		// With or without ack: nobody is left to notify, and the message was not written.
		l.stats.abandoned += uint64(w.count())
		p.unwaits(w)
		return nil
	}
	c.sender.discharge(w)
	w.ends(l)
	if k := w.cast; k != nil {
		l.scratch.to = append(l.scratch.to[:0], w.to...)
		m := &k.multi
		l.scratch.send = codec.Send{Seq: w.seq, To: l.scratch.to, From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	} else if err := codec.DecodeSend(w.frame, &l.scratch.send); err != nil {
		panic("engine: a waiting frame is corrupt") // it was decoded before
	}
	if w.deadline != 0 {
		l.scratch.send.TTL = uint32(max(0, w.deadline-l.now))
	}
	return c
}

// park lets a send wait until the registry has said who holds the ID that it goes to.
func (s *sender) park(m *codec.Send) verdict {
	c := s.conn
	w, v := s.retain(c.loop.scratch.body, m)
	if v.code != codec.CodeOK {
		return v
	}
	if m.Flags&codec.FlagAck != 0 {
		s.inFlight.Use()
	}
	c.loop.park.enqueue(string(m.To), w)
	return verdict{}
}

func (p *park) enqueue(id string, w *waiting) {
	if p.line(id, w) {
		p.ask(id, w)
	}
}

// ask asks the registry about an ID, for the first message that waits for it.
func (p *park) ask(id string, first *waiting) {
	l := p.loop
	l.eng.dir.Resolve(l.idx, first.by, id)
}

// line puts w behind what waits for id. It returns true if nothing did. Then the caller must ask
// the registry.
func (p *park) line(id string, w *waiting) (first bool) {
	q := p.lines[id]
	if q == nil {
		q = new(waitLine)
		p.lines[id] = q
		first = true
	}
	p.lined++
	w.no = p.lined
	q.push(w)
	return first
}

// parkReturned lets a message that came back wait likewise. It returns false if too many do. kind
// says why the message came back, not_mine or not_attached. by is the connection or link that it
// came back on, and f says from which session. tries is how often it was parked before.
func (p *park) parkReturned(kind codec.Kind, by routing.Handle, f *codec.Forward, tries int) bool {
	l := p.loop
	if size := codec.DeliverSize(&f.Deliver) + waitingSize; size > p.freeForReturned(by) {
		return false // before it is copied
	}
	w := &waiting{kind: waitReturned, by: by, frame: codec.AppendForward(nil, kind, f)[codec.PrefixLen:], tries: tries}
	p.chargeReturned(w, w.cost())
	w.begins(l)
	if f.TTL > 0 {
		w.deadline = l.now + int64(f.TTL)
		p.waitsUntil(w)
	}
	if f.Flags&codec.FlagAck == 0 {
		p.sends++ // one with ack is pending meanwhile
	}
	p.enqueue(string(f.To), w)
	if kind == codec.KindNotMine {
		l.eng.dir.Disown(string(f.To), routing.SessionID(f.Session).Short(), f.Epoch)
	}
	return true
}

// freeForReturned returns how many more bytes of returned messages may wait that came back on a
// connection or link. Each may have as much as it leaves free, so none can take all from the others
// (S32).
func (p *park) freeForReturned(by routing.Handle) int {
	return maxReturned - p.returnedBytes - p.returnedOn[by]
}

func (p *park) chargeReturned(w *waiting, cost int) {
	p.returnedBytes += cost
	p.loop.memory.holds(cost)
	if p.returnedOn[w.by] += cost; p.returnedOn[w.by] == 0 {
		delete(p.returnedOn, w.by)
	}
}

// resolution is the registry's answer about an ID, and what has waited for it.
type resolution struct {
	id    string
	code  codec.Code // CodeOK if the routes are in place, else how sends end
	stale bool       // a part of it was remembered: the loop does not remember it for longer

	rest  waitLine  // what resumes now
	later *waitLine // what resumes after that
	// the number of the last message that was parked when the answer came; 0: it has just come
	upTo uint64
}

// resolved resumes what waited for the registry's answers, one step at a time and within the share
// of mail. What is left keeps its place, and new messages queue behind it.
func (p *park) resolved(words []*resolution) {
	l := p.loop
	for len(words) > 0 {
		words = p.resumeSome(words)
		if l.pace.full && len(words) > 0 {
			l.stats.sliced++
			l.post(func() { p.resolved(words) })
			return
		}
	}
}

// resumeSome resumes up to resolvedStep messages, and returns the answers for which more of them
// wait.
func (p *park) resumeSome(words []*resolution) (left []*resolution) {
	n, room := 0, resolvedStep
	for ; n < len(words) && room > 0; n++ {
		room -= p.begin(words[n], room)
	}
	now := words[:n]
	open := slices.Clone(now)
	// Recipients of one multicast go together. What waited behind them goes after that.
	for len(open) > 0 {
		more := open[:0]
		for _, w := range open {
			if p.advance(w) {
				more = append(more, w)
			}
		}
		open = more
		p.resumeCasts()
	}
	for _, w := range now {
		if p.requeue(w) {
			left = append(left, w)
		}
	}
	return append(left, words[n:]...)
}

// begin takes up to most of the messages that had waited for an answer, and returns how many.
func (p *park) begin(w *resolution, most int) (n int) {
	if w.upTo == 0 {
		w.upTo = p.lined
		if !w.stale && (w.code == codec.CodeNoRoute || w.code == codec.CodeUnreachable) {
			p.remember(w.id, w.code)
		}
	}
	w.later = p.lines[w.id]
	if w.later == nil {
		return 1
	}
	delete(p.lines, w.id)
	for ; n < most && !w.later.empty() && w.later.first().no <= w.upTo; n++ {
		w.rest.push(w.later.pop())
	}
	return max(1, n)
}

// requeue lets the messages wait again that were not resumed. It reports whether they wait for the
// same answer. If one before them was parked again, they wait behind it, for a new answer (S20).
// For those that came after the answer, the registry is asked anew.
func (p *park) requeue(w *resolution) (more bool) {
	later := w.later
	w.later = nil
	if later == nil || later.empty() {
		return false
	}
	if q := p.lines[w.id]; q != nil {
		q.take(later)
		return false
	}
	p.lines[w.id] = later
	if first := later.first(); first.no > w.upTo {
		p.ask(w.id, first)
		return false
	}
	return true
}

// advance resumes what waited for one ID, up to a send of a multicast. It reports whether there is
// more.
func (p *park) advance(r *resolution) (more bool) {
	for w := r.rest.pop(); w != nil; w = r.rest.pop() {
		p.resume(w, r.code)
		p.loop.pace.worked(1)
		if w.kind == waitMember {
			break
		}
	}
	return !r.rest.empty()
}

// resume ends a message that was parked, or sends it.
func (p *park) resume(w *waiting, code codec.Code) {
	switch w.kind {
	case waitReturned:
		p.resumeReturned(w, code)
	case waitMember:
		p.resumeMember(w, code)
	case waitSend:
		p.resumeSend(w, code)
	case waitCast: // it is held, and never parked
	}
}

// unpark is dequeue for a send that was parked, given the registry's answer.
func (p *park) unpark(w *waiting, code codec.Code) (*conn, codec.Code) {
	l := p.loop
	c := p.dequeue(w)
	if c != nil && l.scratch.send.Flags&codec.FlagAck != 0 {
		c.sender.inFlight.Drop() // it may take its place again at once
	}
	if w.late(l.now) {
		code = codec.CodeExpired
	}
	return c, code
}

func (p *park) resumeSend(w *waiting, code codec.Code) {
	c, code := p.unpark(w, code)
	if c == nil {
		return
	}
	m := &p.loop.scratch.send
	v := verdict{code: code}
	if v.code == codec.CodeOK {
		var known bool
		if v, known = c.sender.routeResolved(m); !known && w.tries < parkTries {
			c.sender.parkAgain(m, w)
			return
		}
	}
	c.sender.finish(m, v)
}

// routeResolved is route after the registry was asked. It returns known as false if the route that
// was found is gone again: when a session attaches here too, this node forgets its routes
// elsewhere.
func (s *sender) routeResolved(m *codec.Send) (v verdict, known bool) {
	if s.conn.loop.park.lines[string(m.To)] != nil { // one before it was parked again (S20)
		return verdict{code: codec.CodeUnreachable}, false
	}
	if v, known := s.deliver(m); known {
		return v, true
	}
	if v, known := s.forwardKnown(m); known {
		return v, true
	}
	return verdict{code: codec.CodeUnreachable}, false
}

// parkAgain parks a send again that was dequeued. Those behind it find it parked, and follow.
func (s *sender) parkAgain(m *codec.Send, w *waiting) {
	w.tries++
	s.charge(w)
	if m.Flags&codec.FlagAck != 0 {
		s.inFlight.Use()
	}
	s.conn.loop.park.enqueue(string(m.To), w)
}

// resumeReturned ends a returned message, or sends it again.
func (p *park) resumeReturned(w *waiting, code codec.Code) {
	l := p.loop
	p.waitsNoLonger(w)
	p.chargeReturned(w, -w.cost())
	w.ends(l)
	kind, _ := codec.PeekKind(w.frame)
	f := &l.scratch.forward
	if err := codec.DecodeForward(w.frame, kind, f); err != nil {
		panic("engine: a waiting frame is corrupt") // it was encoded here
	}
	if f.Flags&codec.FlagAck == 0 {
		p.sends--
	}
	if w.late(l.now) {
		code = codec.CodeExpired
	}
	if code == codec.CodeOK {
		if w.deadline != 0 {
			f.TTL = uint32(w.deadline - l.now)
		}
		var done attempt
		if f.Flags&flagBare != 0 {
			done, code = l.bounce.bareCode(f)
		} else if done, code = l.bounce.resend(kind, f); done == attemptDone {
			return
		}
		if done == attemptNowhere && w.tries < parkTries {
			if p.parkReturned(kind, w.by, f, w.tries+1) {
				return
			}
			code = codec.CodeOverflow
		}
	}
	l.bounce.endReturned(f, code)
}

// dropReturned ends the returned messages that wait (S24). Sends end with their connections.
func (p *park) dropReturned() {
	for _, q := range p.lines { // nothing is parked meanwhile
		for w := range q.all {
			if w.kind == waitReturned {
				w.leave()
				p.resume(w, codec.CodeUnreachable)
			}
			p.loop.pace.worked(1)
		}
	}
}
