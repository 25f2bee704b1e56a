package engine

import (
	"cmp"
	"slices"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// A multicast is many sends in one frame. Each recipient is decided on like a send of its own, with a sequence number, an entry and an
// outcome of its own. What they share is the way: those that go to one connection, or over one link, are written
// in one frame, with one payload. (How they go over links and come back: multicast_link.go.)

// tallyFlush is the size at which outcomes of multicasts are told before all are there.
const tallyFlush = 32 << 10

// maxTallies bounds the multicasts of one connection whose outcomes are told together; those of more are told one by one.
const maxTallies = 1 << 10

// tally counts the outcomes of one multicast that are still to come.
type tally struct {
	first   uint64 // its numbers begin here
	n, left int
}

// multicasts is what a connection sends to many at once. The connection's loop owns it.
type multicasts struct {
	conn *conn // static

	tallies   []tally // by their numbers, see answer
	told      []byte  // outcomes that were not written yet
	toldCount int
	telling   bool // it is in the loop's telling
}

// target is a recipient whose way is known.
type target struct {
	seq     uint64 // of its send, where it began
	token   []byte // of its forward, where it came over a link
	to      []byte
	session *routing.Session
	epoch   uint64
	tries   int // how often it was parked
	next    int // in the fan: 1 + the place of the next one of its batch; 0: it is the last
}

// batch is what goes to one connection, or over one link.
type batch struct {
	handle      routing.Handle
	link        bool
	size        int // bounds the frame
	singly      int // what the messages take so far for a client that gets a frame for each
	n           int // targets
	first, last int // their places in fan.targets
}

// fits makes room for one more message, where b.size does not: a client that knows no deliver_many gets the payload with each (S21).
func (b *batch) fits(dest destination, d *codec.Deliver) verdict {
	c := dest.conn
	if c == nil || c.link != nil || c.receiver.takesMany {
		return verdict{}
	}
	b.singly += codec.DeliverSize(d) + codec.MaxToken
	if !c.out.fits(b.singly) {
		return c.out.full(b.singly)
	}
	return verdict{}
}

// fan gathers the targets of one multicast by their ways. It is the loop's scratch: empty between two multicasts.
type fan struct {
	at         map[routing.Handle]int // where in batches
	batches    []batch
	targets    []target // of all batches
	recipients []codec.Recipient
	bytes      []byte // tokens and session IDs of recipients
	back       []codec.Recipient
	others     [][]codec.Recipient // by loop, what is to go on there
	asking     []string
	refusing   bool // many messages are being taken back, and one error says that some are refused
	refused    bool // some are
	each       int  // what it costs to write to one of them, in units of work
	cost       int  // about what it costs for all, and their payloads
}

func (f *fan) add(h routing.Handle, link bool, payload int, t target) {
	i, ok := f.at[h]
	if !ok {
		if f.at == nil {
			f.at = make(map[routing.Handle]int)
		}
		i = len(f.batches)
		f.at[h] = i
		f.cost += batchCost + payload/bytesPerUnit
		f.batches = append(f.batches, batch{handle: h, link: link, size: codec.MulticastSize[[]byte](payload, nil), first: len(f.targets)})
	}
	b := &f.batches[i]
	if b.n > 0 {
		f.targets[b.last].next = len(f.targets) + 1
	}
	b.last = len(f.targets)
	b.n++
	f.cost += f.each
	b.size += codec.RecipientSize(t.to)
	f.targets = append(f.targets, t)
}

// of yields the targets of a batch, in the order in which they were added.
func (f *fan) of(b *batch) func(yield func(*target) bool) {
	return func(yield func(*target) bool) {
		for i := b.first + 1; i > 0; i = f.targets[i-1].next {
			if !yield(&f.targets[i-1]) {
				return
			}
		}
	}
}

// away gathers what is to go on on another loop, if there is one with that index among n.
func (f *fan) away(loop, n int, r codec.Recipient) {
	if loop >= n {
		return
	}
	for len(f.others) < n {
		f.others = append(f.others, nil)
	}
	f.others[loop] = append(f.others[loop], r)
}

// reset forgets the targets, and with them what they refer to.
func (f *fan) reset() {
	clear(f.targets)
	clear(f.back)
	clear(f.asking)
	clear(f.at)
	for i := range f.others {
		clear(f.others[i])
		f.others[i] = f.others[i][:0]
	}
	f.batches, f.targets, f.back, f.asking, f.cost = f.batches[:0], f.targets[:0], f.back[:0], f.asking[:0], 0
}

// written forgets the recipients of a frame, and with them what they refer to.
func (f *fan) written(all []codec.Recipient) {
	clear(all)
	f.recipients, f.bytes = all[:0], f.bytes[:0]
}

// handleMulticast relays one message to many IDs.
func (mc *multicasts) handle(body []byte) {
	c := mc.conn
	l := c.loop
	m := &l.scratch.multi
	if err := codec.DecodeMulticast(body, l.eng.cfg.MaxMulticast, m); err != nil {
		c.decodeFault(err, codec.KindMulticast)
		return
	}
	if m.Flags&codec.FlagAck == 0 && !c.sender.spendCredit(codec.PrefixLen+len(body)) {
		return
	}
	n := m.To.Len()
	l.stats.multicasts++
	if n == 0 {
		return // nothing to decide on, nor to hold
	}
	l.stats.sends += uint64(n)
	grouped := m.Flags&codec.FlagAck != 0 && mc.newTally(m.Seq, n)
	if !c.held.line.empty() {
		mc.hold(body, m, grouped)
		return
	}
	mc.relay(body, m, grouped, nil)
}

// relayMany decides on the sends of a multicast and carries them out. body is what m was decoded from, and kept is the copy if there is one
// already, for when somebody has to be asked for.
func (mc *multicasts) relay(body []byte, m *codec.Multicast, grouped bool, kept *cast) {
	c := mc.conn
	l := c.loop
	s := &l.scratch.send
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload}
	all := verdict{code: codec.CodeTooLarge}
	if l.eng.multicastFits(m) {
		all = c.sender.admitFrom(s) // once: its binding may end before the last recipient's turn
	}
	if all.code == codeHeld {
		mc.hold(body, m, grouped)
		return
	}
	r := relaying{m: m, body: body, kept: kept, grouped: grouped, all: all, ttl: m.TTL, left: m.To, seq: m.Seq}
	if !r.goOn(c) {
		c.in.suspend(r.keep())
	}
}

// relaying is a multicast on its way, as far as it has come.
type relaying struct {
	m       *codec.Multicast
	body    []byte // that m was decoded from
	kept    *cast  // nil, or a copy
	grouped bool
	all     verdict // on all recipients alike
	ttl     uint32
	left    codec.IDList // the recipients that are left
	seq     uint64       // of the first of them
}

// goOn decides on the next sends, until the slice is over, and carries them out.
func (r *relaying) goOn(c *conn) (done bool) {
	l := c.loop
	l.pace.beginSlice()
	s, m := &l.scratch.send, r.m
	m.TTL = r.ttl // a cast that waits in part has less when it goes on
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload}
	for v, ok := r.left.Next(); ok; v, ok = r.left.Next() {
		s.Seq, s.To = r.seq, v.ID
		r.seq++
		r.decide(c, s)
		l.pace.worked(1)
		if l.pace.sliceOver() {
			break
		}
	}
	c.multicasts.askForParked()
	c.multicasts.sendFan(m, r.grouped)
	if c.state == stateClosed {
		r.drop(l)
		return true
	}
	return r.left.Len() == 0
}

// decide decides on one send, and gathers it if its way is known.
func (r *relaying) decide(c *conn, s *codec.Send) {
	if c.state == stateClosed {
		c.loop.stats.abandoned++
		return
	}
	v := r.all
	if v.code == codec.CodeOK {
		v = c.sender.admitOne(s)
	}
	if v.code == codec.CodeOK {
		var known bool
		if v, known = c.multicasts.reach(s); !known {
			if r.kept == nil {
				r.kept = newCast(r.body, r.grouped)
			}
			v = c.multicasts.park(s, r.kept, 0)
		}
	}
	c.multicasts.finishOne(s, v, r.grouped)
}

// keep copies what is left, because the frame's bytes do not last.
func (r *relaying) keep() *relaying {
	k := *r
	if k.kept == nil {
		k.kept = newCast(r.body, r.grouped)
	}
	k.m, k.body = &k.kept.multi, k.kept.body
	k.left = k.m.To
	for range k.left.Len() - r.left.Len() {
		k.left.Next()
	}
	return &k
}

// drop ends the sends that are left: nobody is there to be told of them.
func (r *relaying) drop(l *loop) {
	l.stats.abandoned += uint64(r.left.Len())
	r.left = codec.IDList{}
}

// numbered yields the recipients with the numbers of their sends.
func numbered(m *codec.Multicast) func(yield func(seq uint64, to []byte) bool) {
	return func(yield func(uint64, []byte) bool) {
		walk := m.To
		for seq := m.Seq; ; seq++ {
			v, ok := walk.Next()
			if !ok || !yield(seq, v.ID) {
				return
			}
		}
	}
}

// multicastFits reports whether the frames that will come of m fit the limit for frames.
func (e *Engine) multicastFits(m *codec.Multicast) bool {
	size := codec.MulticastSize[[]byte](len(m.Payload), nil)
	for _, to := range numbered(m) {
		size += codec.RecipientSize(to)
	}
	return size <= e.maxFrame
}

// reach gathers a recipient whose way is known, or says how its send ends; known is false if the registry has to be asked.
func (mc *multicasts) reach(s *codec.Send) (v verdict, known bool) {
	l := mc.conn.loop
	e := l.eng
	if len(l.park.lines) > 0 && l.park.lines[string(s.To)] != nil {
		return verdict{code: codec.CodeUnreachable}, false // not past those that wait (S20)
	}
	route, bound := e.table.Lookup(s.To)
	if bound {
		if h, ok := route.Session.Pick(route.Hash); ok {
			l.scratch.fan.add(h, false, len(s.Payload), target{seq: s.Seq, to: s.To, session: route.Session, epoch: route.Epoch})
			return verdict{}, true
		}
	}
	if e.cluster == nil {
		if bound {
			return verdict{code: codec.CodeUnreachable}, true
		}
		return verdict{code: codec.CodeNoRoute}, true
	}
	if route, h, ok := e.cluster.way(s.To); ok {
		l.scratch.fan.add(h, true, len(s.Payload), target{seq: s.Seq, to: s.To, session: route.Session, epoch: route.Epoch})
		return verdict{}, true
	}
	if code, ok := l.park.recent(s.To); ok {
		return verdict{code: code}, true
	}
	return verdict{code: codec.CodeUnreachable}, false
}

// sendFan writes what was gathered of m, one frame for each connection and link.
func (mc *multicasts) sendFan(m *codec.Multicast, grouped bool) {
	l := mc.conn.loop
	sum := l.eng.tokens.PayloadSum(m.Payload)
	for i := range l.scratch.fan.batches {
		mc.sendBatch(&l.scratch.fan.batches[i], m, grouped, sum)
	}
	l.scratch.fan.reset()
}

// sendBatch arms and writes the messages of one batch, or ends them all alike.
func (mc *multicasts) sendBatch(b *batch, m *codec.Multicast, grouped bool, sum uint64) {
	c := mc.conn
	l := c.loop
	dest, room := l.destination(b.handle, b.size, m.From)
	many := codec.DeliverMany{From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Payload: m.Payload}
	kind := codec.KindDeliverMany
	if b.link {
		kind = codec.KindForwardMany
	}
	all := l.scratch.fan.recipients
	s := &l.scratch.send
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload}
	for t := range l.scratch.fan.of(b) {
		if c.state == stateClosed { // its answers are not read
			l.stats.abandoned++
			continue
		}
		s.Seq, s.To = t.seq, t.to
		v := room
		if v.code == codec.CodeOK {
			d := &l.scratch.deliver
			*d = codec.Deliver{To: t.to, From: m.From, TTL: m.TTL, Flags: many.Flags, Epoch: t.epoch, Payload: m.Payload}
			list := dest.list
			if b.link {
				list = l.endings.linkList(b.handle, t.session.Short())
			} else if v = b.fits(dest, d); v.code == codec.CodeOK {
				v = l.eng.mayDeliver(t.session, d)
			}
			if v.code == codec.CodeOK {
				v = mc.stamp(s, d, t.session.Short(), list, grouped, sum)
			}
			if v.code == codec.CodeOK {
				many.TTL = d.TTL
				if !b.link {
					d.Token = l.eng.tokens.SealAck(d.Token, t.session.Short())
				}
				all = append(all, l.recipient(d, t.session.ID()))
			}
		}
		mc.finishOne(s, v, grouped)
		l.pace.worked(1)
	}
	l.writeMany(dest, kind, &many, all)
	l.pace.worked(len(m.Payload) / bytesPerUnit)
	l.scratch.fan.written(all)
}

// stampMember is stamp for one message of a multicast.
func (mc *multicasts) stamp(s *codec.Send, d *codec.Deliver, session uint64, list ackmgr.List, grouped bool, sum uint64) verdict {
	c := mc.conn
	e := c.loop.eng
	if s.Flags&codec.FlagAck == 0 {
		return c.sender.stamp(s, d, session, list)
	}
	if c.sender.inFlight >= e.cfg.MaxInFlight { // those of this multicast have just been armed
		return verdict{codec.CodeOverflow, reasonInFlight}
	}
	return c.sender.arm(s, d, session, list, ackmgr.Entry{Sum: e.tokens.SumWith(sum, d), Flags: entryFlags(grouped)})
}

// flagGrouped marks entries whose outcomes are told with others of their multicast.
const flagGrouped = 2

func entryFlags(grouped bool) uint8 {
	if grouped {
		return flagGrouped
	}
	return 0
}

// recipient copies what does not last to the fan's bytes.
func (l *loop) recipient(d *codec.Deliver, session routing.SessionID) codec.Recipient {
	keep := func(b []byte) []byte {
		l.scratch.fan.bytes = append(l.scratch.fan.bytes, b...)
		return l.scratch.fan.bytes[len(l.scratch.fan.bytes)-len(b):]
	}
	return codec.Recipient{Token: keep(d.Token), To: d.To, Epoch: d.Epoch, Session: keep(session[:])}
}

// writeMany appends a message for several recipients to its destination, as write does one for one.
func (l *loop) writeMany(to destination, kind codec.Kind, m *codec.DeliverMany, all []codec.Recipient) {
	if len(all) == 0 {
		return
	}
	unacked := unackedOf(m.Flags, len(all))
	if kind == codec.KindForwardMany {
		l.stats.multicastForwards++
	} else {
		l.stats.multicastDelivers++
	}
	c := to.conn
	if c == nil {
		ch := l.mail.chunkFor(to, unacked)
		ch.many = true
		ch.buf = codec.AppendDeliverMany(ch.buf, kind, m, all)
		l.mail.gathered(to, ch)
		return
	}
	c.receiver.countUnacked(unacked)
	if kind == codec.KindDeliverMany && !c.receiver.takesMany {
		l.stats.framesOut += uint64(len(all) - 1)
		c.out.wrote(appendSingly(c.out.buf(), m, all))
		return
	}
	c.out.wrote(codec.AppendDeliverMany(c.out.buf(), kind, m, all))
}

// appendSingly appends a deliver for each recipient, for a client that knows no deliver_many.
func appendSingly(b []byte, m *codec.DeliverMany, all []codec.Recipient) []byte {
	for i := range all {
		d := m.Deliver(&all[i])
		b = codec.AppendDeliver(b, &d)
	}
	return b
}

// newTally begins to count the outcomes of a multicast of n sends; false: they are told one by one.
func (mc *multicasts) newTally(first uint64, n int) bool {
	if !mc.conn.receiver.takesMany || len(mc.tallies) == maxTallies || first+uint64(n) < first {
		return false
	}
	i := mc.tallyAt(first)
	if i > 0 && mc.tallies[i-1].first+uint64(mc.tallies[i-1].n) > first || i < len(mc.tallies) && mc.tallies[i].first < first+uint64(n) {
		return false // numbers that are in use
	}
	mc.tallies = slices.Insert(mc.tallies, i, tally{first, n, n})
	return true
}

// tallyAt returns the place of the first tally that begins behind a number, or at it.
func (mc *multicasts) tallyAt(seq uint64) int {
	i, _ := slices.BinarySearchFunc(mc.tallies, seq, func(g tally, seq uint64) int { return cmp.Compare(g.first, seq) })
	return i
}

// countOutcome notes that there is one outcome less to come, and reports whether it was the last.
func (mc *multicasts) countOutcome(seq uint64) (last bool) {
	i := mc.tallyAt(seq)
	if i == len(mc.tallies) || mc.tallies[i].first > seq {
		i--
	}
	g := &mc.tallies[i]
	if g.left--; g.left > 0 {
		return false
	}
	mc.tallies = slices.Delete(mc.tallies, i, i+1)
	return true
}

// finishMember is finish for a send of a multicast.
func (mc *multicasts) finishOne(s *codec.Send, v verdict, grouped bool) {
	c := mc.conn
	if v.code == codec.CodeOK {
		return
	}
	c.loop.stats.outcomes[v.code]++
	c.loop.eng.unsent(s, v.code)
	if s.Flags&(codec.FlagAck|codec.FlagReport) != 0 {
		mc.answer(grouped, s.Seq, v.code, v.reason, nil)
	}
}

// answer tells how a send ended: at once, or together with others of its multicast.
func (mc *multicasts) answer(grouped bool, seq uint64, code codec.Code, reason, reply []byte) {
	c := mc.conn
	if !grouped || c.state == stateClosed {
		c.sender.outcome(seq, code, reason, reply)
		return
	}
	l := c.loop
	if len(mc.told)+len(reason)+len(reply) > tallyFlush {
		mc.flush()
	}
	if mc.told == nil {
		mc.told = l.bufs.get()
	}
	mc.told = codec.AppendOneOutcome(mc.told, &codec.Outcome{Seq: seq, Code: code, Reason: reason, Reply: reply})
	mc.toldCount++
	if !mc.telling {
		mc.telling = true
		l.telling = append(l.telling, c)
	}
	if mc.countOutcome(seq) {
		mc.flush()
	}
}

// sendTold writes the outcomes that have gathered.
func (mc *multicasts) flush() {
	c := mc.conn
	if mc.toldCount == 0 {
		return
	}
	n, told := mc.toldCount, mc.told
	mc.toldCount, mc.told = 0, nil
	b := codec.AppendOutcomes(c.out.buf(), n, told)
	c.loop.bufs.put(told)
	c.out.wroteControl(b)
}

// tellAll does so for all connections, at every tick, as far as the iteration's share allows. It reports
// whether there are more.
func (l *loop) tellAll() (more bool) {
	telling := l.telling
	l.telling = nil // to write can end connections, which makes outcomes for others
	n := 0
	for ; n < len(telling) && !l.pace.full; n++ {
		c := telling[n]
		c.multicasts.telling = false
		if c.state == stateOpen {
			l.pace.worked(1 + len(c.multicasts.told)/bytesPerUnit)
			c.multicasts.flush()
		}
	}
	more = n < len(telling)
	left := append(telling[:copy(telling, telling[n:])], l.telling...)
	clear(telling[min(len(left), len(telling)):])
	l.telling = left
	return more
}
