package engine

import (
	"sync"
	"sync/atomic"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// Loops talk to each other by mail. While an iteration runs, a loop fills one parcel for each
// loop it has something for; at the end of the iteration it hands the parcels over and rings the
// other's doorbell once. Frames for one connection gather in one buffer, which the other loop
// adopts as it is, so that crossing loops costs no second copy of a payload.

const (
	// maxInbox bounds the bytes that wait for a loop; a sender on another loop hears overflow beyond it.
	maxInbox = 64 << 20
	// staleAfter is the age in milliseconds from which a parcel's frames are looked at one by one
	// for their deadlines. Below it, waiting is within the clock's resolution.
	staleAfter = int64(tickEvery / 1e6)
)

// parcel is what one loop has for another after one iteration.
type parcel struct {
	at     int64 // the sender's clock, in milliseconds
	chunks []chunk
	notes  []note
	data   []byte // bytes that notes refer to
}

// chunk is a buffer of whole deliver frames for one connection, or of whole forwards for one link.
type chunk struct {
	slot, gen uint32
	unacked   uint32 // frames that nobody will answer
	frames    uint32
	many      bool // there is a frame for several receivers among them
	buf       []byte
}

// noteKind says what a note asks of the loop that gets it.
type noteKind uint8

const (
	noteAck          noteKind = iota // an ack came in here for an entry of yours
	noteBounce                       // a not_here came in here for an entry of yours; data is the frame body
	noteBare                         // likewise, without the message's content
	noteBackMany                     // a not_here_many came in here, and some entries are yours; data is the frame body
	noteFail                         // a frame of yours was not written; data is the reason
	noteReport                       // tell this connection how a send without ack failed
	noteGone                         // a connection of mine is gone
	noteRefused                      // the ack you sent me was refused
	noteControl                      // data is a control frame for this link of yours
	noteLinkGone                     // a connection of this session, at the other end of this link, is gone
	noteReturned                     // a message of yours came back from another node; data is the frame body
	noteReturnedMany                 // a return_many came in here, and some entries are yours; data is the frame body
	noteRelay                        // data is a frame of a client's for this link of yours, see relayFrame
	noteSwept                        // a link has brought all that could still come back of a list of yours, see linkGone
)

// note is a small message between loops.
type note struct {
	kind          noteKind
	code          codec.Code
	handle        routing.Handle // noteBounce, noteBare, noteBackMany: who sent it; noteReturned, noteReturnedMany: the link that it came over; else the connection or link that it is about
	token         ackmgr.Token   // noteAck, noteBounce, noteBare, noteFail
	session       uint64         // noteAck, noteBounce, noteBare, noteBackMany, noteRelay: of who sent it; noteLinkGone
	seq           uint64         // noteReport: of the send; noteBackMany: 1 if it is without content; noteSwept: of the sweep; noteRefused, noteReturned: see codecKind
	at            int            // where its bytes in data begin,
	reason, reply int            // and how many there are; a frame is reply
}

// outbox is the mail that a loop has for one other loop.
type outbox struct {
	parcel *parcel
	peers  []peerConn // by slot on the other loop
}

// peerConn is what a loop knows of a connection on another loop.
type peerConn struct {
	gen   uint32
	chunk uint32 // 1 + index of its chunk in the current parcel; 0: none
	list  ackmgr.List
}

// inbox is where other goroutines leave work for a loop.
type inbox struct {
	loop *loop // static

	bytes   atomic.Int64 // in parcels
	mu      sync.Mutex
	parcels []*parcel // guarded by mu
	tasks   []func()  // guarded by mu
	// owned by the loop: what it has taken out and not opened yet, and the slices of the last round
	openTasks    []func()
	openParcels  []*parcel
	task, parcel int // the next ones
	chunk, note  int // in the parcel, the next ones
	spareParcels []*parcel
	spareTasks   []func()
}

// post runs f on the loop, soon. Any goroutine may call it; it allocates, so it is not for messages.
func (l *loop) post(f func()) {
	l.inbox.mu.Lock()
	l.inbox.tasks = append(l.inbox.tasks, f)
	l.inbox.mu.Unlock()
	l.ring()
}

// opening reports whether the loop has taken out mail that it has yet to open.
func (in *inbox) opening() bool {
	return in.task < len(in.openTasks) || in.parcel < len(in.openParcels)
}

// takeOut makes what was left since the last time what the loop opens next.
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

// openMail does what others have left for this loop, as far as the iteration's share allows. It takes
// nothing new before it has opened all that it took before: a task comes behind the parcels that were
// there before it.
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
		f()
		l.pace.stamp() // nobody has said how long a task is
	}
	for in.task == len(in.openTasks) && in.parcel < len(in.openParcels) && !l.pace.full {
		if p := in.openParcels[in.parcel]; in.openParcel(p) {
			in.parcel++
			in.chunk, in.note = 0, 0
			l.eng.recycle(p)
		}
	}
}

// openParcel opens what is left of a parcel, and reports whether that was all.
func (in *inbox) openParcel(p *parcel) (done bool) {
	l := in.loop
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

func (p *parcel) size() int64 {
	n := len(p.data)
	for i := range p.chunks {
		n += len(p.chunks[i].buf)
	}
	return int64(n)
}

func (in *inbox) openNote(n *note, data []byte) {
	l := in.loop
	switch n.kind {
	case noteAck:
		reason := data[n.at : n.at+n.reason]
		reply := data[n.at+n.reason : n.at+n.reason+n.reply]
		l.settle.acked(n.token, n.session, n.code, reason, reply)
	case noteBounce:
		if err := codec.DecodeNotHere(data[n.at:n.at+n.reply], &l.scratch.deliver); err == nil { // it was checked before
			l.bounce.bounced(n.token, n.session, n.handle, &l.scratch.deliver, new(token.SharedSum))
			l.bounce.releaseDisowned()
		}
	case noteBare:
		if err := codec.DecodeNotHere(data[n.at:n.at+n.reply], &l.scratch.deliver); err == nil { // it was encoded here
			l.bounce.bareBack(n.token, n.session, n.handle, &l.scratch.deliver)
			l.bounce.releaseDisowned()
		}
	case noteFail:
		l.settle.failed(n.token, n.code, data[n.at:n.at+n.reason])
	case noteReport:
		if c := l.conn(n.handle); c != nil {
			c.sender.report(n)
		}
	case noteGone:
		l.mail.peerGone(n.handle)
		l.endings.endLink(n.handle)
	case noteBackMany:
		l.bounce.takeBackMine(n, data[n.at:n.at+n.reply])
	case noteControl, noteRelay, noteLinkGone, noteReturned, noteReturnedMany, noteSwept:
		in.openLinkNote(n, data)
	case noteRefused:
		if c := l.conn(n.handle); c != nil && c.link == nil {
			c.fail(codec.FaultBadToken, 0, n.codecKind(), 0, badTokenText)
		}
	}
}

// openLinkNote opens the notes that only nodes of a cluster have.
func (in *inbox) openLinkNote(n *note, data []byte) {
	l := in.loop
	switch n.kind {
	case noteControl:
		l.links.send(n.handle, data[n.at:n.at+n.reply])
	case noteRelay:
		l.links.relayFrame(n.handle, n.session, data[n.at:n.at+n.reply])
	case noteLinkGone:
		l.endings.linkGone(n.handle, n.session)
	case noteSwept:
		l.endings.endSweep(n.seq)
	case noteReturnedMany:
		l.bounce.returnedMine(n.handle, data[n.at:n.at+n.reply])
	case noteReturned:
		if err := codec.DecodeForward(data[n.at:n.at+n.reply], n.codecKind(), &l.scratch.forward); err == nil { // it was checked before
			l.bounce.returned(n.codecKind(), n.handle, &l.scratch.forward, new(token.SharedSum))
		}
	}
}

// codecKind is the kind of the frame that a note is about; it travels in seq.
func (n *note) codecKind() codec.Kind { return codec.Kind(n.seq) }

// mailroom is what a loop has for other loops. The loop owns it.
type mailroom struct {
	loop *loop // static

	boxes []outbox  // by loop
	walk  mailFrame // scratch of each
}

// parcelFor returns the parcel that is being filled for a loop.
func (mr *mailroom) parcelFor(target uint16) *parcel {
	l := mr.loop
	box := &mr.boxes[target]
	if box.parcel == nil {
		box.parcel = l.eng.newParcel()
		box.parcel.at = l.now
	}
	return box.parcel
}

// notify leaves a note for a loop, or opens it at once if it is this one.
func (mr *mailroom) notify(target uint16, n note) {
	l := mr.loop
	if target == l.idx {
		l.inbox.openNote(&n, nil)
		return
	}
	p := mr.parcelFor(target)
	p.notes = append(p.notes, n)
}

// sendMail hands over all parcels.
func (mr *mailroom) send() {
	for i := range mr.boxes {
		if mr.boxes[i].parcel != nil {
			mr.handOver(i)
		}
	}
}

func (mr *mailroom) handOver(target int) {
	box := &mr.boxes[target]
	p := box.parcel
	box.parcel = nil
	for i := range p.chunks {
		box.peers[p.chunks[i].slot].chunk = 0
	}
	to := mr.loop.eng.loops[target]
	to.inbox.bytes.Add(p.size())
	to.inbox.mu.Lock()
	to.inbox.parcels = append(to.inbox.parcels, p)
	to.inbox.mu.Unlock()
	to.ring()
}

// dropMail throws away what was not handed over yet (S24). Entries end with their connections; for the rest this is the end.
func (mr *mailroom) drop() {
	l := mr.loop
	for i := range mr.boxes {
		box := &mr.boxes[i]
		if box.parcel == nil {
			continue
		}
		for _, ch := range box.parcel.chunks {
			box.peers[ch.slot].chunk = 0
			l.stats.outcomes[codec.CodeUnreachable] += uint64(ch.unacked)
			mr.undelivered(ch.buf, codec.CodeUnreachable)
			l.bufs.put(ch.buf)
		}
		l.eng.recycle(box.parcel)
		box.parcel = nil
	}
}

// peer returns what this loop knows of a connection elsewhere, or nil if that is gone. If the slot has a new tenant, the
// entries that wait for the old one are lost: its note is still on the way.
func (mr *mailroom) peer(h routing.Handle) *peerConn {
	box := &mr.boxes[h.Loop]
	if need := int(h.Slot) + 1; need > len(box.peers) {
		box.peers = append(box.peers, make([]peerConn, need-len(box.peers))...)
	}
	p := &box.peers[h.Slot]
	if h.Gen < p.gen {
		return nil // older than the tenant that this loop has already met
	}
	if h.Gen > p.gen {
		mr.forgetPeer(p)
		p.gen = h.Gen
		p.chunk = 0 // a chunk for the old tenant stays in the parcel, and will find nobody
	}
	if p.list == 0 {
		p.list = mr.loop.settle.acks.NewList()
	}
	return p
}

func (mr *mailroom) forgetPeer(p *peerConn) {
	if p.list != 0 {
		mr.loop.endings.endList(p.list)
		p.list = 0
	}
}

// peerGone ends what waits for a connection that another loop has closed.
func (mr *mailroom) peerGone(h routing.Handle) {
	box := &mr.boxes[h.Loop]
	if int(h.Slot) < len(box.peers) && box.peers[h.Slot].gen == h.Gen {
		p := &box.peers[h.Slot]
		mr.forgetPeer(p)
		p.gen++     // so that a late handle is not taken for a tenant
		p.chunk = 0 // nor the next tenant's frames go with those of this one
	}
}

// announceGone tells every loop that a connection of this one is gone (S5).
func (mr *mailroom) announceGone(h routing.Handle) {
	for i := range mr.boxes {
		if i != int(mr.loop.idx) {
			mr.notify(uint16(i), note{kind: noteGone, handle: h})
		}
	}
}

// peerChunk returns the chunk that gathers frames for a connection elsewhere.
func (mr *mailroom) peerChunk(h routing.Handle, p *peerConn) *chunk {
	parcel := mr.parcelFor(h.Loop)
	if p.chunk == 0 {
		parcel.chunks = append(parcel.chunks, chunk{slot: h.Slot, gen: h.Gen, buf: mr.loop.bufs.get()})
		p.chunk = uint32(len(parcel.chunks))
	}
	return &parcel.chunks[p.chunk-1]
}

// chunkFor returns the chunk for a destination on another loop, to which one more frame is about to be appended: see gathered.
func (mr *mailroom) chunkFor(to destination, unacked int) *chunk {
	ch := mr.peerChunk(to.handle, to.peer)
	ch.frames++
	ch.unacked += uint32(unacked)
	return ch
}

// gathered hands the mail over before the iteration ends, if there is much.
func (mr *mailroom) gathered(to destination, ch *chunk) {
	if len(ch.buf) >= earlyFlush {
		mr.handOver(int(to.handle.Loop))
	}
}

// adoptChunk queues frames that another loop has made, as far as their destination is still there and has room.
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
	if ch.many && c.link == nil && !c.receiver.takesMany {
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
	c.out.adopt(ch.buf)
	if len(c.out.pending) >= earlyFlush {
		c.out.flush()
	}
}

// ageChunk subtracts the time the frames have waited from their ttl, and takes out those whose deadline has passed (S2).
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

// singleChunk turns frames for several receivers into one for each, for a client that does not know them: as many as it may have room
// for, and no more, for each has the payload. What is one too many trimChunk takes out, and what follows it.
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

// filterChunk keeps the frames for which decide says CodeOK, in place and in order, and refuses the others.
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

// refuse ends every frame in buf as v says: none of them was written.
func (mr *mailroom) refuse(buf []byte, v verdict) {
	mr.each(buf, func(_ []byte, f *mailFrame) { mr.refuseMail(f, v) })
}

// mailFrame is a frame between loops: a message on its way to a client or over a link, for one receiver or for several.
type mailFrame struct {
	kind    codec.Kind
	deliver codec.Deliver // of one for several, what they share
	forward codec.Forward // scratch
	many    codec.DeliverMany
}

func (f *mailFrame) decode(body []byte) (err error) {
	if f.kind, err = codec.PeekKind(body); err != nil {
		return err
	}
	switch f.kind {
	case codec.KindDeliver:
		return codec.DecodeDeliver(body, &f.deliver)
	case codec.KindDeliverMany, codec.KindForwardMany:
		err = codec.DecodeDeliverMany(body, f.kind, len(body), &f.many)
		f.deliver = codec.Deliver{From: f.many.From, TTL: f.many.TTL, Flags: f.many.Flags, Payload: f.many.Payload}
	default:
		err = codec.DecodeForward(body, f.kind, &f.forward)
		f.deliver = f.forward.Deliver
	}
	return err
}

func (f *mailFrame) isMany() bool {
	return f.kind == codec.KindDeliverMany || f.kind == codec.KindForwardMany
}

// count is how many receivers it has.
func (f *mailFrame) count() int {
	if f.isMany() {
		return f.many.To.Len()
	}
	return 1
}

// messages yields its messages, one for each receiver; each is good until the next.
func (f *mailFrame) messages(yield func(*codec.Deliver) bool) {
	if !f.isMany() {
		yield(&f.deliver)
		return
	}
	walk := f.many.To
	for r, ok := walk.Next(); ok; r, ok = walk.Next() {
		if d := f.many.Deliver(&r); !yield(&d) {
			return
		}
	}
}

// refuseMail ends a frame's messages.
func (mr *mailroom) refuseMail(f *mailFrame, v verdict) {
	for d := range f.messages {
		mr.refuseOne(d, v)
	}
}

// eachMail walks a buffer that this package has filled with whole frames. f may move
// the bytes of the frame it is given, but none that follow.
func (mr *mailroom) each(buf []byte, f func(frame []byte, m *mailFrame)) {
	for len(buf) > 0 {
		body, n, err := codec.Split(buf, len(buf))
		if err == nil {
			err = mr.walk.decode(body)
		}
		if err != nil || n == 0 {
			panic("engine: mail between loops is corrupt") // our own bytes, so our own bug
		}
		frame := buf[:n]
		buf = buf[n:]
		f(frame, &mr.walk)
		mr.loop.pace.worked(mr.walk.count())
	}
}

// refuseOne ends a message that was armed or reported by its own loop, and not written here.
func (mr *mailroom) refuseOne(d *codec.Deliver, v verdict) {
	l := mr.loop
	if _, _, ok := token.Link(d.Token); ok {
		l.links.refuse(d, v)
		return
	}
	code := v.code
	l.eng.undelivered(d, code)
	switch {
	case d.Flags&codec.FlagAck != 0:
		mr.sayFailed(token.Entry(d.Token), v)
	case d.Flags&codec.FlagReport != 0:
		l.stats.outcomes[code]++
		h, seq := token.Report(d.Token)
		mr.notify(h.Loop, note{kind: noteReport, handle: h, seq: seq, code: code})
	default:
		l.stats.outcomes[code]++
	}
}

// sayFailed has the loop of an entry end it: its message was not written here.
func (mr *mailroom) sayFailed(t ackmgr.Token, v verdict) {
	l := mr.loop
	if t.Loop() == int(l.idx) {
		l.settle.failed(t, v.code, v.reason)
		return
	}
	p := mr.parcelFor(uint16(t.Loop()))
	p.notes = append(p.notes, note{kind: noteFail, token: t, code: v.code, at: len(p.data), reason: len(v.reason)})
	p.data = append(p.data, v.reason...)
}
