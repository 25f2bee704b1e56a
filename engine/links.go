package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// loopLinks holds the links of a loop, and reaches those of other loops. The loop owns it.
type loopLinks struct {
	loop *loop // static

	all []*conn // to other nodes, before and after the handshake
}

// check pings silent nodes and closes links to dead ones, sooner than for clients. Time in which
// this node was stalled does not count as silence, because the other nodes may have been stalled at
// the same time.
func (ls *loopLinks) check() {
	l := ls.loop
	kept := ls.all[:0]
	for _, c := range ls.all {
		silence := c.live.silentFor()
		switch {
		case c.closed():
			continue
		case c.in.inTurns: // has unread input, so it is not silent
		case c.state == stateOpen && silence >= linkDead.Milliseconds():
			c.close(codec.FaultIdleTimeout, "no frame for "+linkDead.String())
			continue
		case c.state == stateOpen && silence >= linkPing.Milliseconds() && !c.live.pinged:
			c.live.pinged = true
			c.out.wroteControl(codec.AppendPing(c.out.buf(), uint64(l.now)))
		}
		kept = append(kept, c)
	}
	clear(ls.all[len(kept):])
	ls.all = kept
}

// conn returns an open link of this loop, or nil if the handle names none.
func (ls *loopLinks) conn(h routing.Handle) *conn {
	if c := ls.loop.conn(h); c != nil && c.kind == linkConn && c.state == stateOpen {
		return c
	}
	return nil
}

// send appends a control frame to a link on any loop.
func (ls *loopLinks) send(h routing.Handle, frame []byte) {
	l := ls.loop
	if h.Loop == l.idx {
		if c := ls.conn(h); c != nil {
			c.out.wroteControl(append(c.out.buf(), frame...))
		}
		return
	}
	p := l.mail.parcelFor(h.Loop)
	p.notes = append(p.notes, note{kind: noteControl, handle: h, at: len(p.data), bodyLen: len(frame)})
	p.data = append(p.data, frame...)
}

// sendAll sends a control frame over every open link.
func (ls *loopLinks) sendAll(frame []byte) {
	l := ls.loop
	if l.eng.cluster == nil {
		return
	}
	for _, h := range *l.eng.cluster.open.Load() {
		ls.send(h, frame)
	}
}

// open returns the open links of this loop.
func (ls *loopLinks) open() (all []routing.Handle) {
	for _, c := range ls.all {
		if c.state == stateOpen {
			all = append(all, c.handle())
		}
	}
	return all
}

// sendOwn sends a control frame over every open link of this loop.
func (ls *loopLinks) sendOwn(frame []byte) {
	for _, c := range ls.all {
		if c.state == stateOpen {
			c.out.wroteControl(append(c.out.buf(), frame...))
		}
	}
}

// introduce sends another node the sessions that are attached through connections of this loop. A
// connection may have been silent for so long that another node would give it up. The loop pings
// such a connection first. After a partition its session may have moved long ago, and no message
// must follow it to the wrong place.
func (ls *loopLinks) introduce(to routing.Handle) { ls.introduceFrom(0, to) }

// introduceFrom introduces the sessions of the connections from a slot on, as far as the
// iteration's share allows, and continues in the next iteration. Sessions that attach meanwhile are
// announced separately.
func (ls *loopLinks) introduceFrom(slot int, to routing.Handle) {
	l := ls.loop
	for ; slot < len(l.conns); slot++ {
		if l.pace.full {
			l.post(func() { ls.introduceFrom(slot, to) })
			return
		}
		l.pace.worked(1)
		switch c := l.conns[slot]; {
		case c == nil || c.state != stateOpen || c.session == nil || c.standing == hasLeft:
		case c.kind == insideConn || l.now-c.live.lastFrame < linkDead.Milliseconds():
			ls.send(to, c.attachedFrame(l.scratch.control[:0]))
		default:
			c.live.distrust()
			c.live.stepBack()
		}
	}
}
