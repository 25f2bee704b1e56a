package engine

import (
	"slices"

	"distmsg/codec"
	"distmsg/routing"
)

// Messages to an ID that this node does not know wait, in order, while the registry is asked off the
// loop: the park queue. What waits is copied, is charged to the connection it came from, and bounded.

const (
	// recentFor is how long the registry's "nobody" is believed (S19).
	recentFor = 100 // milliseconds
	// maxRecent bounds how many such answers a loop remembers.
	maxRecent = 1 << 14
	// maxReturned bounds the bytes of returned messages that wait on a loop.
	maxReturned = 16 << 20
	// waitingSize is about what a message that waits takes beside its frame.
	waitingSize = 192
	// parkTries is how often a message is parked whose route was found and gone again before the loop came to it.
	parkTries = 3
)

// codeMoving is the word on an ID of which more is about to be heard: its session attaches
// somewhere, or somebody else binds it. It never leaves this package.
const codeMoving codec.Code = 126

// recentAnswer is what the registry said of an ID a moment ago.
type recentAnswer struct {
	code  codec.Code
	until int64
}

// recent returns the registry's last word on an ID that nobody holds, while it is fresh.
func (l *loop) recent(id []byte) (codec.Code, bool) {
	a, ok := l.recents[string(id)]
	if !ok {
		return 0, false
	}
	if a.until <= l.now {
		delete(l.recents, string(id))
		return 0, false
	}
	return a.code, true
}

func (l *loop) remember(id string, code codec.Code) {
	if len(l.recents) >= maxRecent {
		clear(l.recents)
	}
	l.recents[id] = recentAnswer{code, l.now + recentFor}
}

// keep copies a send that has to wait and charges it to its connection (S21), unless too much of it waits already.
func (s *sender) retain(body []byte, m *codec.Send) (w *waiting, v verdict) {
	c := s.conn
	l := c.loop
	if v = s.mayPark(len(body) + waitingSize); v.code != codec.CodeOK {
		return w, v
	}
	w = &waiting{conn: c.handle(), frame: append([]byte(nil), body...), deadline: l.waitDeadline(m.Flags, m.TTL)}
	s.charge(w)
	return w, v
}

// waitDeadline is when a send with that ttl is no longer to be written; 0: never.
func (l *loop) waitDeadline(flags uint8, ttl uint32) int64 {
	switch {
	case flags&codec.FlagAck != 0:
		return l.deadline(ttl)
	case ttl > 0:
		return l.now + int64(ttl)
	}
	return 0
}

func (s *sender) charge(w *waiting) {
	c := s.conn
	n := w.cost()
	if k := w.cast; k != nil {
		n += k.unpaid()
		k.waits++
	}
	s.parked += n
	c.loop.holds(n)
	c.loop.parkedSends += w.count()
	c.loop.waitsUntil(w)
}

// discharge is the reverse of charge, for what waits no longer.
func (s *sender) discharge(w *waiting) { s.parked -= s.conn.loop.unwaits(w) }

// unwaits counts what waits no longer, and returns how many bytes that is.
func (l *loop) unwaits(w *waiting) int {
	l.waitsNoLonger(w)
	n := w.cost()
	if k := w.cast; k != nil {
		k.waits--
		n += k.unpaid()
	}
	l.holds(-n)
	return n
}

// takeUp decodes a send that has waited into l.send, with what is left of its ttl (S2). Nil: its connection is gone, and
// with that it is ended.
func (l *loop) takeUp(w *waiting) *conn {
	l.parkedSends -= w.count()
	c := l.conn(w.conn)
	if c == nil {
		l.stats.abandoned += uint64(w.count()) // with or without ack: nobody is left to be told, and it was not written
		l.unwaits(w)
		return nil
	}
	c.sender.discharge(w)
	if k := w.cast; k != nil {
		l.toBuf = append(l.toBuf[:0], w.to...)
		m := &k.multi
		l.send = codec.Send{Seq: w.seq, To: l.toBuf, From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload}
	} else if err := codec.DecodeSend(w.frame, &l.send); err != nil {
		panic("engine: a waiting frame is corrupt") // it was decoded before
	}
	if w.deadline != 0 {
		l.send.TTL = uint32(max(0, w.deadline-l.now))
	}
	return c
}

// park lets a send wait for the registry's word on its receiver.
func (s *sender) park(m *codec.Send) verdict {
	c := s.conn
	w, v := s.retain(c.loop.body, m)
	if v.code != codec.CodeOK {
		return v
	}
	if m.Flags&codec.FlagAck != 0 {
		s.inFlight++
	}
	c.loop.enqueue(string(m.To), w)
	return verdict{}
}

func (l *loop) enqueue(id string, w *waiting) {
	if l.line(id, w) {
		l.ask(id, w)
	}
}

// ask asks the registry about an ID, for the first message that waits for it.
func (l *loop) ask(id string, first *waiting) {
	by := first.conn
	if by.Gen == 0 {
		by = first.by
	}
	l.eng.dir.Resolve(l.idx, by, id)
}

// line puts w behind what waits for id; first: nothing did, so the registry has to be asked.
func (l *loop) line(id string, w *waiting) (first bool) {
	q := l.parked[id]
	if q == nil {
		q = new(waitLine)
		l.parked[id] = q
		first = true
	}
	l.lined++
	w.no = l.lined
	q.push(w)
	return first
}

// parkReturned lets a message that came back wait likewise; false: too many do. kind says why it came back, not_mine or
// not_attached, by is the connection or link that it came back on, and the fields of f say whence. tries is how often it was parked before.
func (l *loop) parkReturned(kind codec.Kind, by routing.Handle, f *codec.Forward, tries int) bool {
	if size := codec.DeliverSize(&f.Deliver) + waitingSize; size > l.freeForReturned(by) {
		return false // before it is copied
	}
	w := &waiting{by: by, frame: codec.AppendForward(nil, kind, f)[codec.PrefixLen:], tries: tries}
	l.chargeReturned(w, w.cost())
	if f.TTL > 0 {
		w.deadline = l.now + int64(f.TTL)
		l.waitsUntil(w)
	}
	if f.Flags&codec.FlagAck == 0 {
		l.parkedSends++ // one with ack is pending meanwhile
	}
	l.enqueue(string(f.To), w)
	if kind == codec.KindNotMine {
		l.eng.dir.Disown(string(f.To), routing.SessionID(f.Session).Short(), f.Epoch)
	}
	return true
}

// freeForReturned is how many bytes of returned messages may yet wait that came back on a connection or
// link. Each may have as much as is left free, so none can take it all from the others (S32).
func (l *loop) freeForReturned(by routing.Handle) int {
	return maxReturned - l.returnedBytes - l.returnedOn[by]
}

func (l *loop) chargeReturned(w *waiting, cost int) {
	l.returnedBytes += cost
	l.holds(cost)
	if l.returnedOn[w.by] += cost; l.returnedOn[w.by] == 0 {
		delete(l.returnedOn, w.by)
	}
}

// word is what the registry has said of an ID, and what has waited for it.
type word struct {
	id    string
	code  codec.Code // CodeOK if the routes are in place, else how sends end
	stale bool       // a part of it was remembered: the loop does not remember it for longer

	rest  waitLine  // what goes on now
	later *waitLine // what goes on after that
	upTo  uint64    // the last that had been parked when the word came, by its number; 0: it has just come
}

// resolved goes on with what waited for the registry's words: a step at a time, and as long as other
// mail might. What is left waits in its place, and what comes meanwhile goes behind it.
func (l *loop) resolved(words []*word) {
	for len(words) > 0 {
		words = l.goOnWords(words)
		if l.full && len(words) > 0 {
			l.stats.sliced++
			l.post(func() { l.resolved(words) })
			return
		}
	}
}

// goOnWords goes on with up to resolvedStep messages, and returns the words that there is more for.
func (l *loop) goOnWords(words []*word) (left []*word) {
	n, room := 0, resolvedStep
	for ; n < len(words) && room > 0; n++ {
		room -= l.beginWord(words[n], room)
	}
	now := words[:n]
	open := slices.Clone(now)
	for len(open) > 0 { // recipients of one multicast go together, and what waited behind them after that
		more := open[:0]
		for _, w := range open {
			if l.advance(w) {
				more = append(more, w)
			}
		}
		open = more
		l.goOnCasts()
	}
	for _, w := range now {
		if l.putBack(w) {
			left = append(left, w)
		}
	}
	return append(left, words[n:]...)
}

// beginWord has up to most messages of those that had waited for a word go on, and returns how many.
func (l *loop) beginWord(w *word, most int) (n int) {
	if w.upTo == 0 {
		w.upTo = l.lined
		if !w.stale && (w.code == codec.CodeNoRoute || w.code == codec.CodeUnreachable) {
			l.remember(w.id, w.code)
		}
	}
	w.later = l.parked[w.id]
	if w.later == nil {
		return 1
	}
	delete(l.parked, w.id)
	for ; n < most && !w.later.empty() && w.later.first().no <= w.upTo; n++ {
		w.rest.push(w.later.pop())
	}
	return max(1, n)
}

// putBack has what has not gone on with a word wait again, and reports whether it is for that word. If
// one before it was parked again, it waits for the answer that this one waits for (S20). What came when
// the word was there already is asked for.
func (l *loop) putBack(w *word) (more bool) {
	later := w.later
	w.later = nil
	if later == nil || later.empty() {
		return false
	}
	if q := l.parked[w.id]; q != nil {
		q.take(later)
		return false
	}
	l.parked[w.id] = later
	if first := later.first(); first.no > w.upTo {
		l.ask(w.id, first)
		return false
	}
	return true
}

// advance goes on with what waited for one ID, up to a send of a multicast. It reports whether there is more.
func (l *loop) advance(r *word) (more bool) {
	for w := r.rest.pop(); w != nil; w = r.rest.pop() {
		l.goOn(w, r.code)
		l.worked(1)
		if w.cast != nil {
			break
		}
	}
	return !r.rest.empty()
}

// goOn ends what waited in a park queue, or sends it.
func (l *loop) goOn(w *waiting, code codec.Code) {
	switch {
	case w.conn.Gen == 0:
		l.goOnReturned(w, code)
	case w.cast != nil:
		l.goOnMember(w, code)
	default:
		l.goOnSend(w, code)
	}
}

// unpark is takeUp for what was parked, given the registry's word on it.
func (l *loop) unpark(w *waiting, code codec.Code) (*conn, codec.Code) {
	c := l.takeUp(w)
	if c != nil && l.send.Flags&codec.FlagAck != 0 {
		c.sender.inFlight--
	}
	if w.late(l.now) {
		code = codec.CodeExpired
	}
	return c, code
}

func (l *loop) goOnSend(w *waiting, code codec.Code) {
	c, code := l.unpark(w, code)
	if c == nil {
		return
	}
	m := &l.send
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

// forwardResolved is forward after the registry was asked. Known is false if the route that was found is gone again: a session
// that attaches here, too, makes its routes elsewhere be forgotten.
func (s *sender) routeResolved(m *codec.Send) (v verdict, known bool) {
	if s.conn.loop.parked[string(m.To)] != nil { // one before it was parked again (S20)
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

// parkAgain parks what takeUp has taken up. Those behind it find it parked, and follow.
func (s *sender) parkAgain(m *codec.Send, w *waiting) {
	w.tries++
	s.charge(w)
	if m.Flags&codec.FlagAck != 0 {
		s.inFlight++
	}
	s.conn.loop.enqueue(string(m.To), w)
}

// goOnReturned ends a returned message, or sends it again.
func (l *loop) goOnReturned(w *waiting, code codec.Code) {
	l.waitsNoLonger(w)
	l.chargeReturned(w, -w.cost())
	kind, _ := codec.PeekKind(w.frame)
	f := &l.forward
	if err := codec.DecodeForward(w.frame, kind, f); err != nil {
		panic("engine: a waiting frame is corrupt") // it was encoded here
	}
	if f.Flags&codec.FlagAck == 0 {
		l.parkedSends--
	}
	if w.late(l.now) {
		code = codec.CodeExpired
	}
	if code == codec.CodeOK {
		if w.deadline != 0 {
			f.TTL = uint32(w.deadline - l.now)
		}
		var done bool
		if f.Flags&flagBare != 0 {
			code = l.bareCode(f)
		} else if code, done = l.forwardAgain(kind, f); done {
			return
		}
		if code == codeMoving {
			code = codec.CodeUnreachable
			if w.tries < parkTries {
				if l.parkReturned(kind, w.by, f, w.tries+1) {
					return
				}
				code = codec.CodeOverflow
			}
		}
	}
	l.endReturned(f, code)
}

// dropReturned ends the returned messages that wait (S24). Sends end with their connections.
func (l *loop) dropReturned() {
	for _, q := range l.parked { // nothing is parked meanwhile
		for w := range q.all {
			if w.conn.Gen == 0 {
				w.leave()
				l.goOn(w, codec.CodeUnreachable)
			}
			l.worked(1)
		}
	}
}
