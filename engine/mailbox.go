package engine

import (
	"time"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// Loops exchange messages by mail. During an iteration a loop fills one parcel for each loop to
// which it has something to send. At the end of the iteration it hands the parcels over and wakes
// each receiving loop once. Frames for one connection gather in one buffer. The other loop adopts
// that buffer as it is, so crossing loops costs no second copy of a payload.

const (
	// maxInbox bounds the bytes that wait for a loop. Beyond it, a sender on another loop hears
	// overflow.
	maxInbox = 64 << 20
	// staleAfter is the age in milliseconds from which a loop checks the deadline of each frame of
	// a parcel. A younger parcel has waited for less than the clock's resolution.
	staleAfter = int64(tickEvery / 1e6)
)

// parcel is what one loop sends another after one iteration.
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
	many      bool          // there is a frame for several receivers among them
	readAt    time.Duration // when the first of their messages was read
	buf       []byte
}

// noteKind says what a note asks of the loop that receives it.
type noteKind uint8

const (
	noteAck noteKind = iota // an ack came in here for an entry of yours
	// a not_here came in here for an entry of yours; data is the frame body
	noteBounce
	noteBare // likewise, without the message's content
	// a not_here_many came in here, and some entries are yours; data is the frame body
	noteBackMany
	noteFail    // a frame of yours was not written; data is the reason
	noteReport  // tell this connection how a send without ack failed
	noteGone    // a connection of mine is gone
	noteRefused // the ack you sent me was refused
	noteControl // data is a control frame for this link of yours
	// a connection of this session, at the other end of this link, is gone
	noteLinkGone
	// a message of yours came back from another node; data is the frame body
	noteReturned
	// a return_many came in here, and some entries are yours; data is the frame body
	noteReturnedMany
	// data is a frame of a client's for this link of yours, see relayFrame
	noteRelay
	// the pong of an echo of yours has come
	noteEcho
)

// note is a small message between loops.
type note struct {
	kind noteKind
	code codec.Code
	// noteRefused: of the frame that was refused; noteReturned: of the frame in data
	frame codec.Kind
	bare  bool // noteBackMany: the messages come back without their content
	// handle is the connection that sent it (noteBounce, noteBare, noteBackMany), the link that it
	// came over (noteReturned, noteReturnedMany), or else the connection or link that it is about.
	handle routing.Handle
	token  ackmgr.Token // noteAck, noteBounce, noteBare, noteFail
	// of who sent it (noteAck, noteBounce, noteBare, noteBackMany, noteRelay); noteLinkGone
	session uint64
	seq     uint64 // noteReport: of the send; noteEcho: of the ping

	// Its bytes in the parcel's data begin at at: first a reason, then a body.
	at, reasonLen, bodyLen int
}

// reason is why an entry ended.
func (n *note) reason(data []byte) []byte { return data[n.at : n.at+n.reasonLen] }

// body is a reply (noteAck) or a frame.
func (n *note) body(data []byte) []byte { return data[n.at+n.reasonLen:][:n.bodyLen] }

// outbox is the mail of a loop for one other loop.
type outbox struct {
	parcel *parcel
	ring   bool       // a parcel was handed over, and the loop has yet to be woken
	peers  []peerConn // by slot on the other loop
}

// peerConn is what a loop knows of a connection on another loop.
type peerConn struct {
	gen   uint32
	chunk uint32 // 1 + index of its chunk in the current parcel; 0: none
	list  ackmgr.List
}

func (p *parcel) size() int64 {
	n := len(p.data)
	for i := range p.chunks {
		n += len(p.chunks[i].buf)
	}
	return int64(n)
}

// mailroom is the mail of a loop for all other loops. The loop owns it.
type mailroom struct {
	loop *loop // static

	boxes []outbox  // by loop
	walk  mailFrame // scratch of each
	// entries that wait for a connection whose slot on another loop has a new tenant. They end when
	// the note about the end of that connection comes. Nil before the first.
	left map[routing.Handle]ackmgr.List
}

// parcelFor returns the parcel that the loop is filling for another loop.
func (mr *mailroom) parcelFor(target uint16) *parcel {
	l := mr.loop
	box := &mr.boxes[target]
	if box.parcel == nil {
		box.parcel = l.eng.newParcel()
		box.parcel.at = l.now
	}
	return box.parcel
}

// notify queues a note for a loop, or handles it at once if it is for this loop.
func (mr *mailroom) notify(target uint16, n note) {
	l := mr.loop
	if target == l.idx {
		l.inbox.openNote(&n, nil)
		return
	}
	p := mr.parcelFor(target)
	p.notes = append(p.notes, n)
}

// send hands over all parcels. Then the caller calls wake.
func (mr *mailroom) send() {
	for i := range mr.boxes {
		if mr.boxes[i].parcel != nil {
			mr.handOver(i)
		}
	}
}

// wake wakes the loops that have got parcels. At the end of an iteration, a loop first gives its
// CPU away, because the loops that it wakes may wait for it.
func (mr *mailroom) wake() {
	for i := range mr.boxes {
		if box := &mr.boxes[i]; box.ring {
			box.ring = false
			mr.loop.eng.loops[i].ring()
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
	box.ring = true
}

// drop drops the mail that was not handed over yet (S24). Entries end with their connections.
// Everything else ends here.
func (mr *mailroom) drop() {
	l := mr.loop
	for _, list := range mr.left { // another loop may drop the note
		l.endings.endList(list)
	}
	clear(mr.left)
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

// peer returns what this loop knows of a connection elsewhere, or nil if that has closed. If the
// slot has a new tenant, the note about the end of the old one is still on the way.
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
		mr.leave(routing.Handle{Loop: h.Loop, Slot: h.Slot, Gen: p.gen}, p)
		p.gen = h.Gen
		p.chunk = 0 // a chunk for the old tenant stays in the parcel, and will find nobody
	}
	if p.list == 0 {
		p.list = mr.loop.settle.acks.NewList()
	}
	return p
}

// leave keeps the entries that wait for the old tenant of a slot, because its last acks come before
// the note about its end.
func (mr *mailroom) leave(h routing.Handle, p *peerConn) {
	acks := mr.loop.settle.acks
	switch {
	case acks.Empty(p.list):
		acks.FreeList(p.list)
	case mr.left == nil:
		mr.left = map[routing.Handle]ackmgr.List{h: p.list}
	default:
		mr.left[h] = p.list
	}
	p.list = 0
}

// peerGone ends what waits for a connection that another loop has closed.
func (mr *mailroom) peerGone(h routing.Handle) {
	if list, ok := mr.left[h]; ok {
		delete(mr.left, h)
		mr.loop.endings.endList(list)
		return
	}
	box := &mr.boxes[h.Loop]
	if int(h.Slot) < len(box.peers) && box.peers[h.Slot].gen == h.Gen {
		p := &box.peers[h.Slot]
		mr.loop.endings.endList(p.list)
		p.list = 0
		p.gen++     // so that a late handle is not taken for a tenant
		p.chunk = 0 // nor the next tenant's frames go with those of this one
	}
}

// announceGone notifies every loop that a connection of this one has closed (S5).
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

// chunkFor returns the chunk for a destination on another loop, to which one more frame is about to
// be appended: see gathered.
func (mr *mailroom) chunkFor(to destination, unacked int) *chunk {
	ch := mr.peerChunk(to.handle, to.peer)
	if l := mr.loop; ch.frames == 0 || l.readAt < ch.readAt {
		ch.readAt = l.readAt
	}
	ch.frames++
	ch.unacked += uint32(unacked)
	return ch
}

// gathered hands the mail over before the iteration ends, if there is much.
func (mr *mailroom) gathered(to destination, ch *chunk) {
	if len(ch.buf) >= earlyFlush {
		mr.handOver(int(to.handle.Loop))
		mr.wake()
	}
}
