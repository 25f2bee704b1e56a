package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
	"sync"
	"sync/atomic"
)

// inbox is where other goroutines leave work for a loop.
type inbox struct {
	loop *loop // static

	bytes   atomic.Int64 // in parcels
	mu      sync.Mutex
	parcels []*parcel // guarded by mu
	tasks   []func()  // guarded by mu
	// owned by the loop: work that it has taken out and not opened yet, and the slices of the last
	// round
	openTasks    []func()
	openParcels  []*parcel
	task, parcel int // the next ones
	chunk, note  int // the next ones in the parcel
	spareParcels []*parcel
	spareTasks   []func()
}

// post runs f on the loop soon. Any goroutine may call it. It allocates, so messages do not use it.
func (l *loop) post(f func()) {
	l.inbox.mu.Lock()
	l.inbox.tasks = append(l.inbox.tasks, f)
	l.inbox.mu.Unlock()
	l.ring()
}

// opening reports whether the loop has taken out mail and not opened all of it yet.
func (in *inbox) opening() bool {
	return in.task < len(in.openTasks) || in.parcel < len(in.openParcels)
}

// takeOut takes out all work that others have left since the last time. The loop opens it next.
func (in *inbox) takeOut() {
	clear(in.openTasks)
	clear(in.openParcels)
	in.spareTasks, in.spareParcels = in.openTasks, in.openParcels
	in.task, in.parcel = 0, 0
	in.mu.Lock()
	defer in.mu.Unlock()
	in.openTasks, in.openParcels = in.tasks, in.parcels
	in.tasks, in.parcels = in.spareTasks[:0], in.spareParcels[:0]
}

// open does the work that others have left for this loop, as far as the iteration's share allows.
// It takes nothing new out before it has opened everything from the last time. A task runs after
// the parcels that arrived before it.
func (in *inbox) open() {
	l := in.loop
	if in.opening() {
		l.pace.part(lateMailShare)
	} else {
		l.pace.part(mailShare)
		in.takeOut()
	}
	for in.task < len(in.openTasks) && !l.pace.full {
		f := in.openTasks[in.task]
		in.task++
		l.readAt = l.pace.stamped
		f()
		l.pace.stamp() // a task may take any time
	}
	for in.task == len(in.openTasks) && in.parcel < len(in.openParcels) && !l.pace.full {
		if p := in.openParcels[in.parcel]; in.openParcel(p) {
			in.parcel++
			in.chunk, in.note = 0, 0
			l.eng.recycle(p)
		}
	}
}

// openParcel opens the rest of a parcel. It reports whether it opened all of it.
func (in *inbox) openParcel(p *parcel) (done bool) {
	l := in.loop
	l.readAt = l.pace.stamped
	for ; in.chunk < len(p.chunks); in.chunk++ {
		if l.pace.full {
			return false
		}
		ch := &p.chunks[in.chunk]
		in.bytes.Add(-int64(len(ch.buf)))
		in.adoptChunk(ch, l.now-p.at)
		l.pace.worked(1)
	}
	for ; in.note < len(p.notes); in.note++ {
		if l.pace.full {
			return false
		}
		in.openNote(&p.notes[in.note], p.data)
		l.pace.worked(1)
	}
	in.bytes.Add(-int64(len(p.data)))
	return true
}

func (in *inbox) openNote(n *note, data []byte) {
	l := in.loop
	switch n.kind {
	case noteAck:
		l.settle.acked(n.token, n.session, n.code, n.reason(data), n.body(data))
	case noteBounce:
		// It was checked before.
		if err := codec.DecodeNotHere(n.body(data), &l.scratch.deliver); err == nil {
			l.bounce.bounced(n.token, n.session, n.handle, &l.scratch.deliver, new(token.SharedSum))
			l.bounce.releaseDisowned()
		}
	case noteBare:
		// It was encoded here.
		if err := codec.DecodeNotHere(n.body(data), &l.scratch.deliver); err == nil {
			l.bounce.bareBack(n.token, n.session, n.handle, &l.scratch.deliver)
			l.bounce.releaseDisowned()
		}
	case noteFail:
		l.settle.failed(n.token, n.code, n.reason(data))
	case noteReport:
		if c := l.conn(n.handle); c != nil {
			c.sender.report(n)
		}
	case noteGone:
		l.mail.peerGone(n.handle)
		l.endings.endLink(n.handle)
	case noteBackMany:
		l.bounce.takeBackMine(n, n.body(data))
	case noteControl, noteRelay, noteLinkGone, noteReturned, noteReturnedMany, noteEcho:
		in.openLinkNote(n, data)
	case noteRefused:
		if c := l.conn(n.handle); c != nil && c.kind != linkConn {
			c.fail(codec.FaultBadToken, 0, n.frame, 0, badTokenText)
		}
	}
}

// openLinkNote opens the notes that exist only in a cluster.
func (in *inbox) openLinkNote(n *note, data []byte) {
	l := in.loop
	switch n.kind {
	case noteControl:
		l.links.send(n.handle, n.body(data))
	case noteRelay:
		l.links.relayFrame(n.handle, n.session, n.body(data))
	case noteLinkGone:
		l.endings.linkGone(n.handle, n.session)
	case noteEcho:
		l.echoes.heard(n.seq)
	case noteReturnedMany:
		l.bounce.returnedMine(n.handle, n.body(data))
	case noteReturned:
		// It was checked before.
		if err := codec.DecodeForward(n.body(data), n.frame, &l.scratch.forward); err == nil {
			l.bounce.returned(n.frame, n.handle, &l.scratch.forward, new(token.SharedSum))
		}
	}
}

// adoptChunk queues frames that another loop has made, if their destination still exists and has
// room.
func (in *inbox) adoptChunk(ch *chunk, age int64) {
	l := in.loop
	c := l.conn(routing.Handle{Loop: l.idx, Slot: ch.slot, Gen: ch.gen})
	if c == nil {
		l.mail.refuse(ch.buf, verdict{code: codec.CodeUnreachable})
		l.bufs.put(ch.buf)
		return
	}
	if age >= staleAfter {
		in.ageChunk(ch, uint32(age))
	}
	if ch.many && c.kind != linkConn && !c.receiver.takesMany {
		in.singleChunk(c, ch)
	}
	if c.out.crowdedBy(len(ch.buf)) {
		in.trimChunk(c, ch)
	}
	if len(ch.buf) == 0 {
		l.bufs.put(ch.buf)
		return
	}
	c.receiver.countUnacked(int(ch.unacked))
	l.stats.framesOut += uint64(ch.frames)
	c.out.holdsMessages(ch.frames, ch.readAt)
	c.out.adopt(ch.buf)
	if len(c.out.pending) >= earlyFlush {
		c.out.flush()
	}
}

// ageChunk subtracts the time the frames have waited from their ttl, and takes out those whose
// deadline has passed (S2).
func (in *inbox) ageChunk(ch *chunk, age uint32) {
	in.filterChunk(ch, func(body []byte, f *mailFrame) verdict {
		switch ttl := f.deliver.TTL; {
		case ttl == 0: // no deadline
		case ttl <= age:
			return verdict{code: codec.CodeExpired}
		case f.isMany():
			codec.PatchManyTTL(body, &f.many, ttl-age)
		default:
			codec.PatchDeliverTTL(body, &f.deliver, ttl-age)
		}
		return verdict{}
	})
}

// singleChunk turns frames for several receivers into one frame per receiver, for a client that
// does not know the former. Each frame has the payload, so singleChunk makes only as many as may
// have room. trimChunk removes the frame that exceeds the room, and those behind it.
func (in *inbox) singleChunk(c *conn, ch *chunk) {
	l := in.loop
	room := c.out.room() - c.out.queued()
	buf := l.bufs.get()
	ch.unacked, ch.frames = 0, 0
	l.mail.each(ch.buf, func(_ []byte, f *mailFrame) {
		for d := range f.messages {
			if len(buf) > room {
				l.mail.refuseOne(d, c.out.full(len(buf)))
				continue
			}
			ch.frames++
			ch.unacked += uint32(unackedOf(d.Flags, 1))
			buf = codec.AppendDeliver(buf, d)
		}
	})
	l.bufs.put(ch.buf)
	ch.buf = buf
}

// filterChunk keeps the frames for which decide returns CodeOK, in place and in order. It refuses
// the others.
func (in *inbox) filterChunk(ch *chunk, decide func([]byte, *mailFrame) verdict) {
	l := in.loop
	kept := ch.buf[:0]
	ch.unacked, ch.frames = 0, 0
	l.mail.each(ch.buf, func(frame []byte, f *mailFrame) {
		if v := decide(frame[codec.PrefixLen:], f); v.code != codec.CodeOK {
			l.mail.refuseMail(f, v)
			return
		}
		ch.frames++
		ch.unacked += uint32(unackedOf(f.deliver.Flags, f.count()))
		kept = append(kept, frame...)
	})
	ch.buf = kept
}

// trimChunk removes the frames for which the connection has no room, or their senders no share.
// After it refuses a frame, it refuses all later frames of the same sender, which would overtake it
// otherwise. If there is no room, it refuses all later frames.
func (in *inbox) trimChunk(c *conn, ch *chunk) {
	l := in.loop
	ahead := 0
	tooMuch := 0 // 0: all messages so far have fitted
	over := make(map[uint64]bool)
	in.filterChunk(ch, func(body []byte, f *mailFrame) verdict {
		size, sender := codec.PrefixLen+len(body), l.eng.senderOf(f.deliver.From)
		switch {
		case tooMuch > 0:
			return c.out.full(tooMuch)
		case over[sender]:
			l.stats.overCrowd++
			return verdict{codec.CodeOverflow, reasonCrowd}
		case !c.out.fits(ahead + size):
			tooMuch = ahead + size
			return c.out.full(tooMuch)
		}
		v := c.out.admitsCrowded(ahead, size, sender)
		if v.code == codec.CodeOK {
			ahead += size
		} else {
			over[sender] = true
		}
		return v
	})
}
