package engine

import (
	"encoding/binary"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

const manyAcks = 5 * endingStep

// sendMany sends messages that b does not ack, and waits until the loop waits for all of them.
func (a *client) sendMany(n *node, from, to string) (first uint64) {
	for i := range manyAcks {
		if seq := a.send(from, to, "x"); i == 0 {
			first = seq
		}
	}
	n.eventually("all are pending", func() bool { return n.counters().Pending == manyAcks })
	return first
}

// endConn ends the connection of a session, and returns how many acks are pending right after that,
// and its slot.
func (n *node) endConn(c *client) (pending int, slot uint32) {
	n.on(0, func(l *loop) {
		h := n.table.Session(c.sessionID()).Handles()[0]
		l.conn(h).end()
		pending, slot = l.settle.acks.Len(), h.Slot
	})
	return pending, slot
}

// Sends that wait for the acks of a connection that ends are lost, a step at a time. Each sender
// gets its outcomes once, in the order in which it sent.
func TestEndOfManyAcksFromAReceiver(t *testing.T) {
	n := start(t, Config{DefaultTTL: time.Minute})
	a, b := n.join("a"), n.join("b")
	first := a.sendMany(n, "a", "b")
	if left, _ := n.endConn(b); left != manyAcks-endingStep {
		t.Errorf("%d of %d acks are pending after the first step of %d", left, manyAcks, endingStep)
	}
	for seq := first; seq < first+manyAcks; seq++ {
		a.hears(seq, codec.CodeLost)
	}
	a.silent()
	if s := n.counters(); s.Pending != 0 || s.Outcomes[codec.CodeLost] != manyAcks {
		t.Errorf("%+v", s)
	}
}

// The sends of a connection that ends are abandoned, a step at a time. Its slot has no new tenant
// before all are: it would hear of them.
func TestEndOfManyAcksOfASender(t *testing.T) {
	n := start(t, Config{DefaultTTL: time.Minute})
	a := n.join("a")
	n.join("b")
	a.sendMany(n, "a", "b")
	left, slot := 0, uint32(0)
	n.on(0, func(l *loop) {
		c := l.conn(n.table.Session(a.sessionID()).Handles()[0])
		c.end()
		left, slot = l.settle.acks.Len(), c.slot
		next := bareConn(l)
		next.state = stateClosed
		l.addConn(next)
		if next.slot == slot {
			t.Error("the slot has a new tenant while entries name the one before")
		}
		l.removeConn(next)
		l.freeSlot(next.slot)
	})
	if left != manyAcks-endingStep {
		t.Errorf("%d of %d acks are pending after the first step of %d", left, manyAcks, endingStep)
	}
	n.eventually("all are abandoned", func() bool { s := n.counters(); return s.Pending == 0 && s.Abandoned == manyAcks })
	n.eventually("the slot is free", func() (free bool) {
		n.on(0, func(l *loop) { free = l.freeSlots[len(l.freeSlots)-1] == slot })
		return free
	})
}

// A fence ends everything at once: nothing of the old incarnation is pending under the new one
// (S24).
func TestFenceInTheMiddleOfAnEnd(t *testing.T) {
	n := start(t, Config{DefaultTTL: time.Minute})
	a, b := n.join("a"), n.join("b")
	a.sendMany(n, "a", "b")
	n.on(0, func(l *loop) {
		l.conn(n.table.Session(b.sessionID()).Handles()[0]).end()
		if len(l.endings.all) == 0 {
			t.Error("nothing is left to end")
		}
		n.fence(time.Hour)
		l.heedFence()
		if l.settle.acks.Len() != 0 || len(l.endings.all) != 0 {
			t.Errorf("%d acks are pending after the fence", l.settle.acks.Len())
		}
	})
}

// What is left of a link that ends is forgotten a step at a time: the sessions at its other end.
func TestEndOfLinkWithManySessions(t *testing.T) {
	const many = endingStep + endingStep/2
	g := startGroup(t, 2, 1)
	n := g.nodes[0]
	k := n.cluster.linkTo("n1")
	attached := func() (count int) {
		for i := range many {
			if n.dir.AttachedElsewhere(manySession(i)) {
				count++
			}
		}
		return count
	}
	n.on(int(k.handle.Loop), func(l *loop) {
		for i := range many {
			id := manySession(i)
			s := k.cluster.remote.OpenSession(id, "")
			k.cluster.remote.Attach(s, k.handle)
			k.sessions[id] = attachment{session: s, serial: 1}
		}
		l.conn(k.handle).end()
		if left := attached(); left != many-endingStep {
			t.Errorf("%d of %d sessions are attached after the first step of %d", left, many, endingStep)
		}
		for i := range many {
			if s := k.cluster.remote.Session(manySession(i)); s != nil {
				if _, ok := k.cluster.pick(routing.Route{Session: s}); ok {
					t.Fatalf("session %d is sent to over a link that has ended", i)
				}
			}
		}
	})
	n.eventually("none is attached", func() bool { return attached() == 0 })
}

func manySession(i int) (id routing.SessionID) {
	binary.BigEndian.PutUint64(id[:], uint64(i+1))
	return id
}

// Outcomes that have gathered for many connections are written as far as there is time. The others'
// turn comes in the next iteration.
func TestToldAsFarAsThereIsTime(t *testing.T) {
	n := start(t, Config{})
	all := []*client{n.joinMany("a"), n.joinMany("b"), n.joinMany("c")}
	n.on(0, func(l *loop) {
		for _, c := range all {
			conn := l.conn(n.table.Session(c.sessionID()).Handles()[0])
			conn.sender.multicast().newTally(1000, 2)
			conn.multicasts.answer(1000, codec.CodeLost, nil, nil)
		}
		every := l.pace.every
		l.pace.every = 1 // it stamps after each
		defer func() { l.pace.every = every }()
		l.pace.part(-time.Hour)
		if more := l.tellAll(); !more || len(l.telling) != len(all)-1 {
			t.Errorf("more is %v, %d of %d have yet to be told when the time is over after the first", more, len(l.telling), len(all))
		}
	})
	for i, c := range all {
		if o, _ := c.tells(1); o[1000].Code != codec.CodeLost {
			t.Errorf("client %d: %v", i, o)
		}
	}
}
