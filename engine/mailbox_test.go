package engine

import (
	"net"
	"testing"
	"time"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// on runs f on a loop and waits for it.
func (n *node) on(loop int, f func(l *loop)) {
	n.t.Helper()
	done := make(chan struct{})
	n.loops[loop].post(func() { defer close(done); f(n.loops[loop]) })
	select {
	case <-done:
	case <-time.After(patience):
		n.t.Fatal("the loop does not answer")
	}
}

// What a loop knows of connections on another one: their slots have tenants, one after the other,
// and news of a tenant's end may come before or after news of the next one (from the routing
// table).
func TestPeerGenerations(t *testing.T) {
	n := start(t, Config{Loops: 2})
	n.on(0, func(l *loop) {
		const slot = 1000 // where no connection is
		at := func(gen uint32) routing.Handle { return routing.Handle{Loop: 1, Slot: slot, Gen: gen} }
		var ended []uint64
		l.settle.lost = func(_ ackmgr.Token, e ackmgr.Entry) { ended = append(ended, e.Seq) }
		origin := l.settle.acks.NewList()
		arm := func(seq uint64, p *peerConn) {
			if _, ok := l.settle.acks.Arm(ackmgr.Entry{Seq: seq}, l.now+60_000, p.list, origin); !ok {
				t.Error("cannot arm")
			}
		}
		expect := func(when string, want ...uint64) {
			t.Helper()
			if len(ended) != len(want) {
				t.Errorf("%s: %v ended, want %v", when, ended, want)
			}
			for i := range min(len(ended), len(want)) {
				if ended[i] != want[i] {
					t.Errorf("%s: %v ended, want %v", when, ended, want)
				}
			}
			ended = nil
		}

		p := l.mail.peer(at(5))
		arm(1, p)
		if l.mail.peer(at(4)) != nil {
			t.Error("an older tenant was found")
		}
		if again := l.mail.peer(at(5)); again.list != p.list {
			t.Error("one tenant, two lists")
		}
		expect("nothing happened")

		// The note is late: the next tenant is met first.
		l.mail.peerGone(at(4))
		expect("a note about somebody before")
		arm(2, l.mail.peer(at(6)))
		expect("a new tenant, while the last acks of the old one may be on their way")
		l.mail.peerGone(at(5))
		expect("the late note", 1)
		l.mail.peerGone(at(5))
		expect("the late note again")
		if l.mail.peer(at(5)) != nil {
			t.Error("the tenant that left was found")
		}

		// The note comes first.
		l.mail.peerGone(at(6))
		expect("the note", 2)
		l.mail.peerGone(at(6))
		expect("the note again")
		if l.mail.peer(at(6)) != nil {
			t.Error("a late handle was taken for a tenant")
		}
		arm(3, l.mail.peer(at(7)))

		// A note about a connection that this loop has never heard of, and a handle to it that
		// comes later.
		l.mail.peerGone(routing.Handle{Loop: 1, Slot: slot + 5000, Gen: 1})
		l.mail.peerGone(at(9))
		expect("notes about strangers")
		l.mail.peerGone(at(7))
		expect("the last note", 3)
		if l.settle.acks.Len() != 0 {
			t.Errorf("%d entries are left", l.settle.acks.Len())
		}
		l.settle.acks.FreeList(origin)
	})
}

// A sender's loop meets the next tenant of a slot before it has opened the ack of the one before.
// The ack counts.
func TestAckBehindTheNextTenant(t *testing.T) {
	n := start(t, Config{Loops: 2})
	from := n.join("from")
	here := from.loop()
	to := n.joinOn(1-here, "to")
	seq := from.send("from", "to", "hi")
	d, session, sender := to.gets("from", "to", "hi"), n.table.Session(to.sessionID()), n.handleOf(from)
	was := session.Handles()[0]
	var next *client
	n.on(here, func(l *loop) { // its mail waits meanwhile
		to.ack(d, "")
		to.nc.Close()
		n.eventually("the connection has closed", func() bool { return len(session.Handles()) == 0 })
		next = n.join("next")
		if h := n.handleOf(next); h.Loop != was.Loop || h.Slot != was.Slot {
			t.Errorf("the next connection is %+v, want the place of %+v", h, was)
		}
		l.conn(sender).frame(sendFrame(seq+1, "from", "next", "hi", codec.FlagAck, 0)[codec.PrefixLen:])
	})
	from.hears(seq, codec.CodeAcked)
	next.ack(next.gets("from", "next", "hi"), "")
	from.hears(seq+1, codec.CodeAcked)
}

// The frames of a new tenant never go into the chunk of the one before.
func TestPeerChunks(t *testing.T) {
	n := start(t, Config{Loops: 2})
	n.on(0, func(l *loop) {
		at := func(gen uint32) routing.Handle { return routing.Handle{Loop: 1, Slot: 1000, Gen: gen} }
		old := l.mail.peerChunk(at(5), l.mail.peer(at(5)))
		if old.slot != 1000 || old.gen != 5 {
			t.Errorf("%+v", old)
		}
		if same := l.mail.peerChunk(at(5), l.mail.peer(at(5))); same != old {
			t.Error("one tenant, two chunks")
		}
		if next := l.mail.peerChunk(at(6), l.mail.peer(at(6))); next.gen != 6 {
			t.Errorf("met before the note: generation %d, want 6", next.gen)
		}
		l.mail.peerGone(at(6))
		if next := l.mail.peerChunk(at(7), l.mail.peer(at(7))); next.gen != 7 {
			t.Errorf("met after the note: generation %d, want 7", next.gen)
		}
		l.mail.drop()
		if next := l.mail.peerChunk(at(7), l.mail.peer(at(7))); next != &l.mail.boxes[1].parcel.chunks[0] {
			t.Error("a chunk of the mail that was dropped")
		}
		l.mail.drop()
	})
}

// bareConn makes a connection that only has its loop.
func bareConn(l *loop) *conn {
	c := newConn(clientConn, nil, 0)
	c.loop = l
	return c
}

// Slots are used again, and handles of earlier tenants find nobody.
func TestHandles(t *testing.T) {
	n := start(t, Config{})
	n.on(0, func(l *loop) {
		first := bareConn(l)
		l.addConn(first)
		h := first.handle()
		if l.conn(h) != first {
			t.Error("not found")
		}
		l.removeConn(first)
		l.freeSlot(first.slot)
		if l.conn(h) != nil {
			t.Error("found after its end")
		}
		second := bareConn(l)
		l.addConn(second)
		if second.slot != first.slot || second.gen == h.Gen {
			t.Errorf("%+v after %+v", second.handle(), h)
		}
		if l.conn(h) != nil || l.conn(second.handle()) != second {
			t.Error("the wrong tenant")
		}
		if l.conn(routing.Handle{Slot: 1 << 30}) != nil {
			t.Error("found beyond the end")
		}
		l.removeConn(second)
		l.freeSlot(second.slot)
	})
}

// A write error ends a connection in the middle of a flush, and its end can make others flush:
// nobody's buffer may get lost or be given back twice.
func TestFlushInFlush(t *testing.T) {
	n := start(t, Config{DefaultTTL: time.Minute})
	from, to := n.join("from"), n.join("to")
	const sends = 50
	for range sends {
		from.send("from", "to", "hi")
	}
	for range sends {
		to.gets("from", "to", "hi")
	}
	n.on(0, func(l *loop) {
		// A reset, which the loop cannot notice before it writes.
		to.nc.(*net.TCPConn).SetLinger(0)
		to.nc.Close()
		dying, other := l.conn(n.table.Session(to.sessionID()).Handles()[0]), l.conn(n.table.Session(from.sessionID()).Handles()[0])
		for len(other.out.pending) < earlyFlush-100 {
			other.out.wroteControl(codec.AppendPing(other.out.buf(), 1))
		}
		began := n.clock()
		for dying.state == stateOpen && n.clock()-began < patience {
			dying.out.wroteControl(codec.AppendPing(dying.out.buf(), 1))
			dying.out.flush()
		}
		if len(other.out.pending) >= earlyFlush-100 {
			t.Error("the other one was not flushed; this test needs that")
		}
		seen := make(map[*byte]bool)
		for _, b := range append(append([][]byte(nil), l.bufs.free...), other.out.pending) {
			if b != nil && seen[backing(b)] {
				t.Error("a buffer is there twice")
			}
			seen[backing(b)] = true
		}
	})
	for range sends {
		if o := from.outcome(); o.Code != codec.CodeLost {
			t.Errorf("%v", o.Code)
		}
	}
	from.silent()
}
