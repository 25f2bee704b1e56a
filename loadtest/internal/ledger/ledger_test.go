package ledger

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"distmsg/codec"
)

func newLedger(run uint64, acks bool, ids [][]byte, perConn, fanout int) *Ledger {
	return New(Config{Run: run, Acks: acks, IDs: ids, PerConn: perConn, Fanout: fanout})
}

func testIDs(n int) [][]byte {
	ids := make([][]byte, n)
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "id-%d", i)
	}
	return ids
}

// arrive delivers a message to the ledger as the driver would.
func arrive(l *Ledger, sender int, seq uint64, receiver uint32, at int64) Arrival {
	s := Stamp{Run: l.run, Sender: uint32(sender), Receiver: receiver, Seq: seq, At: at}
	payload := make([]byte, StampLen)
	s.Put(payload)
	return l.Deliver(l.Owner(receiver), l.ids[receiver], l.ids[l.From(sender, seq)], payload)
}

// TestLedgerFanout checks that the ledger judges each copy of a multicast on its own, by the ID
// that it comes to. Connection 1 of 3, with 2 IDs each, sends to 3 IDs from id-5 on: id-5, id-0 and
// id-1.
func TestLedgerFanout(t *testing.T) {
	const first = 4 // the second multicast
	l := newLedger(7, true, testIDs(6), 2, 3)
	for i := range 6 {
		l.Send(1, uint32(l.CopyTo(1, 5, i%3)), 5)
	}
	s := Stamp{Run: 7, Sender: 1, Receiver: 5, Seq: first, At: 5}
	payload := make([]byte, 50)
	s.Put(payload)
	deliver := func(to int) Arrival {
		return l.Deliver(to/2, fmt.Appendf(nil, "id-%d", to), fmt.Appendf(nil, "id-%d", l.From(1, first)), payload)
	}
	if from := [2]int{l.From(1, 1), l.From(1, first)}; from != [2]int{2, 3} {
		t.Errorf("the multicasts come from %v", from)
	}
	for _, to := range []int{1, 5, 0} {
		if a := deliver(to); !a.Intact || !a.Fresh || a.Sender != 1 {
			t.Errorf("the copy for %d: %+v", to, a)
		}
	}
	if l.faults != (Faults{}) || l.delivered != 3 {
		t.Errorf("%d delivered, %+v", l.delivered, l.faults)
	}
	if deliver(0); l.faults != (Faults{Duplicated: 1}) {
		t.Errorf("a copy came again: %+v", l.faults)
	}
	for n, to := range []int{2, 3, 4} { // the sender's own IDs, and one that is behind the last
		if a := deliver(to); a.Intact || l.faults.Misrouted != uint64(n+1) {
			t.Errorf("a copy for %d: %+v, %+v", to, a, l.faults)
		}
	}
	if a := l.Deliver(0, []byte("id-"), []byte("id-3"), payload); a.Intact || l.faults.Misrouted != 4 {
		t.Errorf("a copy for nobody: %+v, %+v", a, l.faults)
	}
	s.Seq = 1 // the first multicast comes later, to one ID
	s.Put(payload)
	if l.Deliver(2, []byte("id-5"), []byte("id-2"), payload); l.faults.Reordered != 1 {
		t.Errorf("a copy came after a later one: %+v", l.faults)
	}
	for seq := uint64(1); seq <= 6; seq++ {
		l.End(1, seq, codec.CodeAcked)
	}
	l.Close(func(int) bool { return true }, false)
	if want := (Faults{Duplicated: 1, Misrouted: 4, Reordered: 1, FalseAcked: 2}); l.faults != want {
		t.Errorf("%+v, want %+v: copies 2 and 3 were acked and never came", l.faults, want)
	}
}

// TestLedgerRefuses delivers payloads that are no message of this run for this connection.
func TestLedgerRefuses(t *testing.T) {
	good := Stamp{Run: 7, Sender: 0, Receiver: 3, Seq: 1, At: 5}
	change := func(f func(*Stamp)) []byte {
		s, p := good, make([]byte, 50)
		f(&s)
		s.Put(p)
		return p
	}
	flip := func(i int) []byte {
		p := change(func(*Stamp) {})
		p[i] ^= 4
		return p
	}
	for _, c := range []struct {
		name     string
		conn     int
		to, from string
		payload  []byte
		want     Faults
	}{
		{"good", 1, "id-3", "id-1", change(func(*Stamp) {}), Faults{}},
		{"first bit", 1, "id-3", "id-1", flip(0), Faults{Corrupted: 1}},
		{"stamp bit", 1, "id-3", "id-1", flip(13), Faults{Corrupted: 1}},
		{"filler bit", 1, "id-3", "id-1", flip(49), Faults{Corrupted: 1}},
		{"cut", 1, "id-3", "id-1", flip(0)[:20], Faults{Corrupted: 1}},
		{"from another ID", 1, "id-3", "id-0", change(func(*Stamp) {}), Faults{Corrupted: 1}},
		{"no such sender", 1, "id-3", "id-1", change(func(s *Stamp) { s.Sender = 9 }), Faults{Corrupted: 1}},
		{"never sent", 1, "id-3", "id-0", change(func(s *Stamp) { s.Seq = 2 }), Faults{Corrupted: 1}},
		{"another run's", 1, "id-3", "id-1", change(func(s *Stamp) { s.Run = 8 }), Faults{Misrouted: 1}},
		{"another connection's", 0, "id-3", "id-1", change(func(*Stamp) {}), Faults{Misrouted: 1}},
		{"another ID's", 1, "id-2", "id-1", change(func(*Stamp) {}), Faults{Misrouted: 1}},
	} {
		l := newLedger(7, true, testIDs(4), 2, 1)
		l.Send(0, 3, 5)
		a := l.Deliver(c.conn, []byte(c.to), []byte(c.from), c.payload)
		if l.faults != c.want || a.Intact != (c.want == Faults{}) {
			t.Errorf("%s: intact %v, faults %+v, want %+v", c.name, a.Intact, l.faults, c.want)
		}
	}
}

// TestOrderExcuses delivers message 2 before message 1 around changes. That must be a fault
// unless the order may change there (S20).
func TestOrderExcuses(t *testing.T) {
	const changed = 100
	first := func(l *Ledger) { l.Send(0, 1, 10) }
	later := func(l *Ledger) { l.Send(0, 1, changed+1) }
	last := func(l *Ledger) { l.Send(0, 1, changed+2) }
	lastArrives := func(l *Ledger) { arrive(l, 0, 2, 1, changed+2) }
	begin := func(l *Ledger) { l.BeginMove(1, 50) }
	end := func(l *Ledger) { l.EndMove(1, changed) }
	otherBegin := func(l *Ledger) { l.BeginMove(0, 50) }
	otherEnd := func(l *Ledger) { l.EndMove(0, changed) }
	reconnect := func(earliest, latest uint64) func(*Ledger) {
		return func(l *Ledger) { l.Reconnect(0, earliest, latest) }
	}
	legs := func(a, b uint32) func(*Ledger) {
		return func(l *Ledger) { l.Leg(0, 1, a); l.Leg(0, 2, b) }
	}
	type history = []func(*Ledger)
	for _, c := range []struct {
		name   string
		events history
		at     int64 // of message 1
		legal  bool
	}{
		{"nothing changes", history{first, last, lastArrives}, 10, false},
		{"the receiver moves meanwhile", history{first, begin, last, lastArrives, end}, 10, true},
		{"it is still moving", history{first, begin, last, lastArrives}, 10, true},
		{"it began to move when both were under way", history{first, last, begin, lastArrives, end}, 10, true},
		{"message 2 was there before it moved", history{first, last, lastArrives, begin, end}, 10, false},
		{"as before, and it moves again", history{first, last, lastArrives, begin, end, begin, end}, 10, false},
		{"it had moved before", history{begin, end, later, last, lastArrives}, changed + 1, false},
		{"another receiver moves", history{first, otherBegin, last, lastArrives, otherEnd}, 10, false},
		{"the sender reconnects between", history{first, reconnect(2, 2), last, lastArrives}, 10, true},
		{"the sender had reconnected before", history{reconnect(1, 1), first, last, lastArrives}, 10, false},
		{"the sender reconnects after both", history{first, last, reconnect(3, 3), lastArrives}, 10, false},
		{"the sender reconnects at one of both", history{first, last, reconnect(1, 3), lastArrives}, 10, true},
		{"the sender reconnects at a later one", history{first, last, reconnect(3, 4), lastArrives}, 10, false},
		{"they leave over two connections", history{first, last, legs(1, 2), lastArrives}, 10, true},
		{"both leave over the second", history{first, last, legs(2, 2), lastArrives}, 10, false},
		{"message 2 was there before it moved, same connection", history{first, last, legs(2, 2), lastArrives, begin, end}, 10, false},
	} {
		l := newLedger(7, true, testIDs(3), 1, 1)
		for _, e := range c.events {
			e(l)
		}
		arrive(l, 0, 1, 1, c.at)
		want := Faults{Reordered: 1}
		if c.legal {
			want = Faults{}
		}
		if l.faults != want {
			t.Errorf("%s: faults %+v, want %+v", c.name, l.faults, want)
		}
	}
}

// TestOrderHeardLate delivers message 2 before message 1. The driver hears of the change that
// caused it some time later.
func TestOrderHeardLate(t *testing.T) {
	const sent, notice = 10, 50
	for _, c := range []struct {
		name   string
		change int64 // when it is heard of; 0: never
		first  bool  // before message 1 comes
		want   uint64
	}{
		{"in time", sent + notice, false, 0},
		{"in time, and message 1 comes behind it", sent + notice, true, 0},
		{"too late", sent + notice + 1, false, 1},
		{"too late, and message 1 comes behind it", sent + notice + 1, true, 1},
		{"nothing has changed", 0, false, 1},
	} {
		l := newLedger(7, false, testIDs(3), 1, 1)
		l.notice = notice
		l.Send(0, 1, sent)
		l.Send(0, 1, sent+1)
		arrive(l, 0, 2, 1, sent+1)
		if c.first {
			l.BeginMove(1, c.change)
		}
		arrive(l, 0, 1, 1, sent)
		if c.change > 0 && !c.first {
			l.BeginMove(1, c.change)
		}
		l.Close(func(int) bool { return true }, false)
		if got := l.faults; got != (Faults{Reordered: c.want}) {
			t.Errorf("%s: faults %+v, want %d reordered", c.name, got, c.want)
		}
	}
}

// TestFalseNoRouteAndDenied ends a message with no_route or denied. Later it learns what became of
// the session in question: the receiver's for no_route, the sender's for denied.
func TestFalseNoRouteAndDenied(t *testing.T) {
	const bound, settled = 1000, 1000 + int64(BindSettle)
	const noRoute, denied = codec.CodeNoRoute, codec.CodeDenied
	up := func(int) bool { return true }
	down := func(int) bool { return false }
	for _, c := range []struct {
		name  string
		at    int64
		code  codec.Code
		after func(l *Ledger, conn int) // conn is who must not be forgotten
		up    func(int) bool
		want  uint64
	}{
		{"bound and up to the end", settled, noRoute, nil, up, 1},
		{"not yet known everywhere", settled - 1, noRoute, nil, up, 0},
		{"never seen again", settled, noRoute, nil, down, 0},
		{"resumed, and down at the end", settled, noRoute, (*Ledger).Resume, down, 1},
		{"resumed and lost again", settled, noRoute, func(l *Ledger, conn int) { l.Resume(conn); l.Bind(conn, settled) }, up, 1},
		{"bound again to a new session", settled, noRoute, func(l *Ledger, conn int) { l.Bind(conn, Unknown); l.Bind(conn, settled) }, up, 0},
		{"another connection's session is new", settled, noRoute, func(l *Ledger, conn int) { l.Bind(1-conn, settled) }, up, 1},
		{"unreachable", settled, codec.CodeUnreachable, nil, up, 0},

		{"sender: bound and up to the end", bound, denied, nil, up, 1},
		{"sender: intended before the bind", bound - 1, denied, nil, up, 0},
		{"sender: never seen again", bound, denied, nil, down, 0},
		{"sender: resumed, and down at the end", bound, denied, (*Ledger).Resume, down, 1},
		{"sender: resumed and lost again", bound, denied, func(l *Ledger, conn int) { l.Resume(conn); l.Bind(conn, settled) }, up, 1},
		{"sender: bound again to a new session", bound, denied, func(l *Ledger, conn int) { l.Bind(conn, Unknown); l.Bind(conn, settled) }, up, 0},
		{"sender: the receiver's session is new", bound, denied, func(l *Ledger, conn int) { l.Bind(1-conn, Unknown) }, up, 1},
	} {
		l := newLedger(7, true, testIDs(2), 1, 1)
		who, want := 1, Faults{FalseNoRoute: c.want}
		if c.code == denied {
			who, want = 0, Faults{FalseDenied: c.want}
		}
		l.Bind(who, bound)
		l.Send(0, 1, c.at)
		l.End(0, 1, c.code)
		if c.after != nil {
			c.after(l, who)
		}
		l.Close(c.up, false)
		if l.faults != want {
			t.Errorf("%s: faults %+v, want %+v", c.name, l.faults, want)
		}
	}
}

// TestTimeline checks that the timeline records what happened when.
func TestTimeline(t *testing.T) {
	const s = int64(time.Second)
	l := newLedger(7, true, testIDs(2), 1, 1)
	l.Time.Now = s / 2
	l.Time.Start()
	for i, at := range []int64{s, 2*s + 1, 2*s + 2} {
		l.Time.Now = at
		l.Send(0, 1, at)
		arrive(l, 0, uint64(i+1), 1, at)
	}
	l.Time.Now = 5 * s
	l.End(0, 1, codec.CodeAcked)
	l.End(0, 2, codec.CodeTimeout)
	l.Time.Now = 6 * s
	l.Time.Stop()
	if m := l.Time.Slowest(); m["acked"] != 4*s || len(m) != 2 {
		t.Errorf("slowest %v", m)
	}
	if l.Time.silence != 6*s-s/2 || l.Time.silentAt != s/2 { // nobody ever sent to connection 0
		t.Errorf("silence of %d from %d", l.Time.silence, l.Time.silentAt)
	}
}

// TestLedgerForgets sends a great many messages and checks how much of them the ledger keeps.
func TestLedgerForgets(t *testing.T) {
	const n, window = 200_000, 50
	for _, acks := range []bool{true, false} {
		l := newLedger(7, acks, testIDs(100), 1, 1)
		for i := range uint64(n) {
			l.Send(0, uint32(i%100), int64(i))
			if i == 10 {
				continue // one is neither delivered nor ended, and holds nothing else back
			}
			if i >= window {
				seq := i - window + 1
				if seq != 11 {
					arrive(l, 0, seq, uint32((seq-1)%100), int64(seq-1))
					if acks {
						l.End(0, seq, codec.CodeAcked)
					}
				}
			}
		}
		kept := 0
		for _, p := range l.streams[0].pages {
			if p != nil {
				kept++
			}
		}
		if kept > 3 || len(l.pages.pages) > 3 || len(l.streams[0].order.slots) > 256 {
			t.Errorf("acks %v: %d pages and %d spare ones, %d order slots for %d in flight",
				acks, kept, len(l.pages.pages), len(l.streams[0].order.slots), window)
		}
		arrive(l, 0, 1000, uint32(999%100), 999)
		if l.faults.Duplicated != 1 {
			t.Errorf("acks %v: a late repeat is not recognized: %+v", acks, l.faults)
		}
	}
}

// TestLedgerKeepsLittleOfFailures ends all messages "not delivered". A delivery may prove such an
// outcome false at any later time.
func TestLedgerKeepsLittleOfFailures(t *testing.T) {
	const n = 100_000
	l := newLedger(7, true, testIDs(2), 1, 1)
	for i := range uint64(n) {
		l.Send(0, 1, int64(i))
		l.End(0, i+1, codec.CodeOverflow)
	}
	if len(l.pages.flights) > 1 {
		t.Errorf("%d flights", len(l.pages.flights))
	}
	for n, p := range l.streams[0].pages[:len(l.streams[0].pages)-1] {
		if p.flights != nil {
			t.Fatalf("page %d keeps its flights", n)
		}
	}
	arrive(l, 0, 77, 1, 76)
	if l.faults != (Faults{FalseUndelivered: 1}) {
		t.Errorf("faults %+v", l.faults)
	}
}

// TestLedgerAllocates checks that the ledger allocates nothing once it has grown to the load.
func TestLedgerAllocations(t *testing.T) {
	l := newLedger(7, true, testIDs(200), 1, 1)
	payload := make([]byte, 128)
	seq := uint64(0)
	roundTrip := func() {
		seq++
		receiver := uint32(seq * 7919 % 200)
		s := Stamp{Run: 7, Receiver: receiver, Seq: seq, At: 1}
		s.Put(payload)
		l.Send(0, receiver, 1)
		l.Deliver(int(receiver), l.ids[receiver], nil, payload)
		l.End(0, seq, codec.CodeAcked)
	}
	for range 10_000 {
		roundTrip()
	}
	// The page index grows by 8 bytes every pageLen messages: far below one allocation a message.
	if n := testing.AllocsPerRun(10_000, roundTrip); n >= 0.01 {
		t.Errorf("%v allocations per message", n)
	}
	if l.faults != (Faults{}) {
		t.Errorf("faults %+v", l.faults)
	}
}

func BenchmarkLedger(b *testing.B) {
	const conns, window = 200, 50
	l := newLedger(7, true, testIDs(conns), 1, 1)
	rng := rand.New(rand.NewPCG(1, 0))
	payloads := make([][window][128]byte, conns)
	receivers := make([][window]uint32, conns)
	b.ReportAllocs()
	for b.Loop() {
		sender := rng.IntN(conns)
		seq := l.NextSeq(sender)
		i := seq % window
		if seq > window { // the slot's last message arrives and ends
			r := receivers[sender][i]
			l.Deliver(int(r), l.ids[r], nil, payloads[sender][i][:])
			l.End(sender, seq-window, codec.CodeAcked)
		}
		receivers[sender][i] = uint32(rng.IntN(conns))
		s := Stamp{Run: 7, Sender: uint32(sender), Receiver: receivers[sender][i], Seq: seq}
		s.Put(payloads[sender][i][:])
		l.Send(sender, s.Receiver, 0)
	}
}
