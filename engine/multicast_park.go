package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// A multicast may have to wait for the registry: as a whole, if its sender is unknown (see
// hold.go), or in part, if some of its recipients are. Recipients that one answer is about resume
// together, so that they still share their frames.

// cast is a multicast that waits, whole or in part.
type cast struct {
	multi   codec.Multicast // decoded from body
	body    []byte          // a copy
	grouped bool            // see newTally
	// messages of it that wait; its connection is charged for body until none waits
	waits int
	ready []target // those that may go on, until resumeCasts
}

func newCast(body []byte, grouped bool) *cast {
	k := &cast{body: append([]byte(nil), body...), grouped: grouped}
	if err := codec.DecodeMulticast(k.body, len(body), &k.multi); err != nil {
		panic("engine: a multicast changed while it was copied") // it was decoded before
	}
	return k
}

// park lets one send of a multicast wait until the registry has said who holds its ID. See
// askForParked.
func (mc *multicasts) park(s *codec.Send, k *cast, tries int) verdict {
	c := mc.conn
	w := &waiting{kind: waitMember, by: c.handle(), cast: k, to: string(s.To), seq: s.Seq, tries: tries, deadline: c.loop.park.waitDeadline(s.Flags, s.TTL)}
	if v := c.sender.mayPark(w.cost() + k.unpaid()); v.code != codec.CodeOK {
		return v
	}
	c.sender.charge(w)
	if s.Flags&codec.FlagAck != 0 {
		c.sender.inFlight.Use()
	}
	if c.loop.park.line(w.to, w) {
		c.loop.scratch.fan.asking = append(c.loop.scratch.fan.asking, w.to)
	}
	return verdict{}
}

// askForParked asks the registry for all that park has parked, in one question.
func (mc *multicasts) askForParked() {
	c := mc.conn
	l := c.loop
	if len(l.scratch.fan.asking) > 0 {
		l.eng.dir.Resolve(l.idx, c.handle(), l.scratch.fan.asking...)
	}
}

// unpaid is what the next message of k that waits is charged beside its own cost.
func (k *cast) unpaid() int {
	if k.waits > 0 {
		return 0
	}
	return len(k.body)
}

// resumeMember ends a parked send of a multicast, or makes it ready to resume with the others.
func (p *park) resumeMember(w *waiting, code codec.Code) {
	c, code := p.unpark(w, code)
	if c == nil {
		return
	}
	s, k := &p.loop.scratch.send, w.cast
	if code != codec.CodeOK {
		c.multicasts.finishOne(s, verdict{code: code}, k.grouped)
		return
	}
	if len(k.ready) == 0 {
		p.casts = append(p.casts, readyCast{c.handle(), k})
	}
	k.multi.TTL = s.TTL
	k.ready = append(k.ready, target{seq: w.seq, to: []byte(w.to), tries: w.tries})
}

// resumeCasts sends what resumeMember has made ready.
func (p *park) resumeCasts() {
	l := p.loop
	casts := p.casts
	p.casts = nil
	for _, r := range casts {
		ready := r.cast.ready
		r.cast.ready = nil
		if c := l.conn(r.conn); c != nil {
			c.multicasts.sendReady(r.cast, ready)
		} else {
			l.stats.abandoned += uint64(len(ready))
		}
	}
	clear(casts)
	if p.casts == nil {
		p.casts = casts[:0]
	}
}

// sendReady sends to recipients that the registry was asked for.
func (mc *multicasts) sendReady(k *cast, ready []target) {
	c := mc.conn
	l := c.loop
	m := &k.multi
	s := &l.scratch.send
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	for _, t := range ready {
		if c.closed() {
			l.stats.abandoned++
			continue
		}
		s.Seq, s.To = t.seq, t.to
		v, known := mc.reach(s)
		if !known && t.tries < parkTries { // the route is gone again, see routeResolved
			v = mc.park(s, k, t.tries+1)
		}
		mc.finishOne(s, v, k.grouped)
		l.pace.worked(1)
	}
	mc.askForParked()
	mc.sendFan(m, k.grouped)
}

// hold holds a multicast as a whole.
func (mc *multicasts) hold(body []byte, m *codec.Multicast, grouped bool) {
	c := mc.conn
	l := c.loop
	n := m.To.Len()
	k := newCast(body, grouped)
	w := &waiting{kind: waitCast, by: c.handle(), cast: k, sends: n, deadline: l.park.waitDeadline(m.Flags, m.TTL), round: l.eng.dir.HolderRound()}
	if v := c.sender.mayPark(w.cost() + k.unpaid()); v.code != codec.CodeOK {
		mc.finish(k, v)
		return
	}
	c.sender.charge(w)
	c.sender.heldSends().holdBehind(w, k.multi.From)
}

// finish ends all sends of a multicast alike.
func (mc *multicasts) finish(k *cast, v verdict) {
	c := mc.conn
	s := &c.loop.scratch.send
	m := &k.multi
	*s = codec.Send{From: m.From, TTL: m.TTL, Flags: m.Flags, Payload: m.Payload, Trace: m.Trace}
	for seq, to := range numbered(m) {
		if c.closed() {
			c.loop.stats.abandoned++
			continue
		}
		s.Seq, s.To = seq, to
		mc.finishOne(s, v, k.grouped)
		c.loop.pace.worked(1)
	}
}

// readyCast is a multicast of which some recipients may go on.
type readyCast struct {
	conn routing.Handle
	cast *cast
}
