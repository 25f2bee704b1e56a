package client

import "sync/atomic"

// place says whether the session uses a connection. It only moves forward. attachments.mu guards
// it.
type place uint8

const (
	placeOpen    place = iota // sends may go here
	placeRetired              // the session has moved away, and only waits for what is open here
	placeClosed
)

// reach moves on to q, unless the connection is already further.
func (p *place) reach(q place) { *p = max(*p, q) }

// outPhase says what may be appended to a connection's outgoing buffer. conn.mu guards it.
type outPhase uint8

const (
	outOpen    outPhase = iota // every frame
	outBye                     // bye was appended, so no message may follow
	outShut                    // nothing
	outByeShut                 // nothing, and bye was appended before
)

// messages reports whether messages may be appended.
func (p outPhase) messages() bool { return p == outOpen }

// frames reports whether any frames may be appended.
func (p outPhase) frames() bool { return p < outShut }

// saidBye reports whether bye was appended, so that the node has ended the session as asked.
func (p outPhase) saidBye() bool { return p == outBye || p == outByeShut }

// bye is the phase after bye was appended. The caller appends it only where frames returns true.
func (p outPhase) bye() outPhase {
	if p == outOpen {
		return outBye
	}
	return p
}

// shut is the phase after which nothing more is appended.
func (p outPhase) shut() outPhase {
	switch p {
	case outOpen:
		return outShut
	case outBye:
		return outByeShut
	}
	return p
}

// departure says how far the session has left a connection that it has moved away from. The caller
// of move holds attachments.mu, the reader calls answered, and the ticker calls the others.
type departure struct {
	phase atomic.Uint32 // a leavePhase; it only moves forward
	since int64         // when the session moved, on its clock; set before phase becomes hasMoved
}

type leavePhase = uint32

const (
	stays     leavePhase = iota // the session uses the connection
	hasMoved                    // the session has moved away, and other nodes may not know it yet
	isLeaving                   // leave was sent
	hasLeft                     // the node delivers no more messages here
)

// move records that the session has moved away at now. It returns false if it had done so before.
func (d *departure) move(now int64) bool {
	if d.phase.Load() != stays {
		return false
	}
	d.since = now
	d.phase.Store(hasMoved)
	return true
}

// mayLeave reports, once, that leave must be sent: the session moved away linger before now.
func (d *departure) mayLeave(now int64) bool {
	if d.phase.Load() != hasMoved || now-d.since < linger {
		return false
	}
	d.phase.Store(isLeaving)
	return true
}

// answered records that the node has answered leave.
func (d *departure) answered() { d.phase.CompareAndSwap(isLeaving, hasLeft) }

// over reports whether nothing more comes: the node has answered leave, or takes too long.
func (d *departure) over(now int64) bool {
	p := d.phase.Load()
	return p == hasLeft || p == isLeaving && now-d.since > leaveTimeout
}

// activity counts ticks in which nothing was read or written. It counts ticks and not time, because
// the node does not cause a pause of this process.
type activity struct {
	heard atomic.Bool // the reader has read bytes since the last tick
	spoke atomic.Bool // the writer, or a sender in its place, has written bytes since the last tick

	// Owned by the ticker.
	beat  int // ticks of a heartbeat
	quiet int // ticks in a row that brought no byte
	mute  int // ticks in a row that wrote none
}

// tick begins the next tick.
func (a *activity) tick() {
	if a.quiet++; a.heard.Swap(false) {
		a.quiet = 0
	}
	if a.mute++; a.spoke.Swap(false) {
		a.mute = 0
	}
}

// dead reports whether the node has been silent for too long.
func (a *activity) dead() bool { return a.quiet >= deadBeats*a.beat }

// pingDue reports whether the node was silent for another heartbeat, or this side was. Hello has
// promised the node to send something that often, and the node drops a client that breaks the
// promise.
func (a *activity) pingDue() bool {
	return a.quiet > 0 && a.quiet%a.beat == 0 || a.mute > 0 && a.mute%a.beat == 0
}
