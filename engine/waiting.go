package engine

import (
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// waitKind says what kind of message waits.
type waitKind uint8

const (
	waitSend     waitKind = iota // a send, in frame
	waitMember                   // one send of a multicast: to and seq of cast
	waitCast                     // a multicast as a whole, in cast
	waitReturned                 // a message that came back, in frame as a forward
)

// waiting is a message that waits for an answer of the registry. A parked message waits to learn
// who holds its receiver's ID (see park.go). A held message waits to learn whose its sender's ID is
// (see hold.go). It stands in a line and, if it has a deadline, among the loop's deadlines. Leaving
// both takes constant or logarithmic time.
type waiting struct {
	kind waitKind
	held bool // it waits for the answer about its sender
	// the connection that sent it; if it came back, that or the link on which it did
	by       routing.Handle
	frame    []byte        // the body of a send, or of a returned forward
	deadline int64         // 0: none
	readAt   time.Duration // when it was read; 0: it has not waited yet
	since    time.Duration // when it began to wait for this answer
	tries    int           // how often it was parked before
	// of a held one: the last question about senders that was asked before it came, see holders
	round uint64

	cast  *cast  // of a multicast, which has the frame
	to    string // of a waitMember: the ID
	seq   uint64 // and the number
	sends int    // of a waitCast: how many sends it is

	place        // in its line
	no    uint64 // grows with each that is parked, see resolution
	age   uint64 // grows with each among the loop's deadlines
	due   int    // 1 + its index there; 0: it is not there
}

func (w *waiting) cost() int { return len(w.frame) + len(w.to) + waitingSize }

// count returns how many sends the message stands for.
func (w *waiting) count() int {
	if w.kind == waitCast {
		return w.sends
	}
	return 1
}

func (w *waiting) late(now int64) bool { return w.deadline != 0 && w.deadline <= now }

// place is a message's place in a line.
type place struct {
	prev, next *place
	w          *waiting // nil: the head of the line
}

// leave removes a message from its line, if it is in one.
func (p *place) leave() {
	if p.next != nil {
		p.prev.next, p.next.prev = p.next, p.prev
		p.prev, p.next = nil, nil
	}
}

// waitLine is a queue of messages. The zero value is empty. It must not be copied.
type waitLine struct{ head place }

func (q *waitLine) empty() bool { return q.head.next == nil || q.head.next == &q.head }

// first returns the first message, or nil if there is none.
func (q *waitLine) first() *waiting {
	if q.head.next == nil {
		return nil
	}
	return q.head.next.w
}

// push puts a message, which is in no line, at the end.
func (q *waitLine) push(w *waiting) {
	if q.head.next == nil {
		q.head.prev, q.head.next = &q.head, &q.head
	}
	w.place = place{prev: q.head.prev, next: &q.head, w: w}
	w.prev.next, q.head.prev = &w.place, &w.place
}

// pop removes and returns the first message, or nil if there is none.
func (q *waitLine) pop() *waiting {
	w := q.first()
	if w != nil {
		w.leave()
	}
	return w
}

// take moves all messages of other behind those of q.
func (q *waitLine) take(other *waitLine) {
	if other.empty() {
		return
	}
	if q.head.next == nil {
		q.head.prev, q.head.next = &q.head, &q.head
	}
	first, last := other.head.next, other.head.prev
	first.prev, q.head.prev.next = q.head.prev, first
	last.next, q.head.prev = &q.head, last
	other.head.prev, other.head.next = nil, nil
}

// all yields the messages in order. The message that is yielded may leave meanwhile.
func (q *waitLine) all(yield func(*waiting) bool) {
	for p := q.head.next; p != nil && p != &q.head; {
		next := p.next
		if !yield(p.w) {
			return
		}
		p = next
	}
}

// GoesBefore reports whether this message has the earlier deadline or, if both have the same, came
// first.
func (w *waiting) GoesBefore(other *waiting) bool {
	return w.deadline < other.deadline || w.deadline == other.deadline && w.age < other.age
}

func (w *waiting) StandsAt(i int) { w.due = i + 1 }

// begins notes that a message waits from now on.
func (w *waiting) begins(l *loop) {
	if w.since = l.pace.stamped; w.readAt == 0 {
		w.readAt = l.readAt
	}
}

// ends notes that a message waits no longer, and is handled now.
func (w *waiting) ends(l *loop) {
	l.stats.times.lookupWait.Add(l.pace.stamped-w.since, uint64(w.count()))
	l.readAt = w.readAt
}

// waitsUntil adds a message that has a deadline to the loop's deadlines.
func (p *park) waitsUntil(w *waiting) {
	if w.deadline != 0 {
		p.lined++
		w.age = p.lined
		p.deadlines.Add(w)
	}
}

// waitsNoLonger removes a message from the loop's deadlines.
func (p *park) waitsNoLonger(w *waiting) {
	if w.due > 0 {
		p.deadlines.Remove(w.due - 1)
	}
}

// expire ends messages that have waited past their deadline. The others keep their places (S1). It
// reports whether there are more that do not fit into the iteration's share.
func (p *park) expire() (more bool) {
	l := p.loop
	for len(p.deadlines) > 0 && p.deadlines[0].late(l.now) {
		if l.pace.full {
			return true
		}
		w := p.deadlines[0]
		w.leave()
		if w.held {
			if c := p.dequeue(w); c != nil {
				c.held.finish(w, verdict{code: codec.CodeExpired})
			}
		} else {
			p.resume(w, codec.CodeExpired)
		}
		l.pace.worked(1)
	}
	return false
}
