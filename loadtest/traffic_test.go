package loadtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"distmsg/loadtest/internal/ledger"
)

// recorder is a driver that keeps the stamps of the messages it is to send.
type recorder struct {
	sent []ledger.Stamp
	full func(conn int) bool
}

func (*recorder) connect(context.Context) error { return nil }
func (*recorder) do(f func())                   { f() }
func (*recorder) settle(context.Context) error  { return nil }
func (*recorder) close()                        {}

func (r *recorder) send(conn int, m *message) bool {
	if r.full != nil && r.full(conn) {
		return false
	}
	var s ledger.Stamp
	if !s.Read(m.payload) {
		panic("a message that its own stamp does not fit")
	}
	r.sent = append(r.sent, s)
	return true
}

func newTestTraffic(t *testing.T, cfg Config) (*traffic, *recorder) {
	t.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	tr, r := newTraffic(&cfg, 1), new(recorder)
	tr.driver = r
	return tr, r
}

// TestOpenLoopSchedule checks that the stamp of each message has the time when it should have left,
// even if its connection could not take it then.
func TestOpenLoopSchedule(t *testing.T) {
	const gap = int64(time.Millisecond)
	tr, r := newTestTraffic(t, Config{Conns: 3, Rate: 1000})
	r.full = func(conn int) bool { return conn == 1 }
	for c := range 3 {
		tr.connUp(c, unlimited)
	}
	tr.start()
	tr.schedule -= 10 * gap // ten periods ago
	if next := tr.pace(); next <= 0 || next > time.Duration(gap) {
		t.Errorf("next in %v", next)
	}
	due := int(tr.due)
	if unsent := int(tr.unsent()); due < 11 || unsent != (due+1)/3 || len(r.sent) != due-unsent {
		t.Fatalf("%d due, %d sent, %d unsent", due, len(r.sent), unsent)
	}
	r.full = nil
	tr.fill(1)
	if tr.unsent() != 0 || len(r.sent) != due {
		t.Fatalf("%d due, %d sent", due, len(r.sent))
	}
	slices.SortFunc(r.sent, func(a, b ledger.Stamp) int { return int(a.At - b.At) })
	for k, s := range r.sent {
		if s.At != tr.schedule+int64(k)*gap || int(s.Sender) != k%3 {
			t.Errorf("message %d: from %d at %d", k, s.Sender, s.At-tr.schedule)
		}
	}
}

// TestMeasuredTimeEndsWithTheSchedule ends the measured time while the goroutine that keeps the
// schedule is late. The messages that are due by then must be sent and counted.
func TestMeasuredTimeEndsWithTheSchedule(t *testing.T) {
	cfg := Config{Conns: 1, Rate: 1000}
	tr, sent := newTestTraffic(t, cfg)
	tr.connUp(0, unlimited)
	tr.start()
	tr.schedule -= int64(20 * time.Millisecond)
	r := run{cfg: cfg, t: tr, d: sent}
	r.mark(&tr.meter.to)
	if due := (tr.meter.to - tr.schedule) / int64(time.Millisecond); len(sent.sent) != int(due)+1 {
		t.Errorf("%d messages were sent, %d should have left", len(sent.sent), due+1)
	}
}

// TestWindow checks that each connection keeps its window full, never exceeds it, and never sends
// to itself.
func TestWindow(t *testing.T) {
	tr, r := newTestTraffic(t, Config{Conns: 3, IDsPerConn: 2, Window: 5})
	tr.connUp(0, unlimited)
	tr.start()
	tr.connUp(1, 3) // its window counts, the wire driver has checked the node's limit
	if len(r.sent) != 10 {
		t.Fatalf("%d sent, want 10", len(r.sent))
	}
	tr.outcome(0, 1, 1)
	tr.outcome(0, 1, 1) // a second one frees nothing
	if len(r.sent) != 11 {
		t.Errorf("%d sent, want 11", len(r.sent))
	}
	for _, s := range r.sent {
		if s.Sender == s.Receiver/2 {
			t.Errorf("connection %d sends to its own ID %d", s.Sender, s.Receiver)
		}
	}
	tr.stop()
	tr.outcome(0, 2, 1)
	if len(r.sent) != 11 {
		t.Errorf("sent after stop")
	}
}

// TestSentIntoTheGap sends without ack after the driver has noticed that the receiver's connection
// ended, and before there is another one. These messages may get lost, because the node may notice
// the end later and write them to the old connection. Messages sent after that may not get lost.
func TestSentIntoTheGap(t *testing.T) {
	tr, r := newTestTraffic(t, Config{Conns: 2, Window: 1, NoAck: true})
	tr.connUp(0, unlimited)
	tr.connUp(1, unlimited)
	tr.start()
	tr.sessionDown(1, 1)
	gap := len(r.sent) // connection 0 has sent its second message by now
	tr.restored(1)
	tr.connUp(1, unlimited)
	tr.restored(1) // it is no excuse for what comes now
	if gap != 3 || len(r.sent) != 5 {
		t.Fatalf("%d messages before, %d after", gap, len(r.sent))
	}
	tr.stop()
	tr.ledger.Close(func(int) bool { return true }, false)
	if f := tr.ledger.Faults(); f != (ledger.Faults{Missing: 2}) || tr.ledger.OutcomeWords()["lost"] != 3 {
		t.Errorf("%+v, %v", f, tr.ledger.OutcomeWords())
	}
}

// TestSeed checks that a seed repeats the receivers, but neither the IDs nor the number of the run.
func TestSeed(t *testing.T) {
	sequence := func(seed, run uint64) (list []uint32, id []byte) {
		cfg, _ := Config{Seed: seed, Window: 50}.withDefaults()
		tr, r := newTraffic(&cfg, run), new(recorder)
		tr.driver = r
		tr.connUp(0, unlimited)
		tr.start()
		for _, s := range r.sent {
			list = append(list, s.Receiver)
		}
		return list, tr.ids[0]
	}
	a, idA := sequence(1, 1)
	b, idB := sequence(1, 2)
	c, _ := sequence(2, 1)
	if !slices.Equal(a, b) || slices.Equal(a, c) || bytes.Equal(idA, idB) {
		t.Errorf("receivers %v, %v, %v; IDs %s, %s", a, b, c, idA, idB)
	}
}

func TestSleeper(t *testing.T) {
	s, err := newSleeper()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, d := range []time.Duration{0, time.Microsecond, 3 * time.Millisecond} {
		begin := time.Now()
		if err := s.sleep(d); err != nil || time.Since(begin) < d {
			t.Errorf("%v: %v after %v", d, err, time.Since(begin))
		}
	}
}

// upLeg makes a leg that is ready to send, but has no network.
func upLeg(c *wireConn) *leg {
	l := &leg{conn: c}
	l.proto = c.speak(l)
	c.next = l
	l.up("a node", unlimited)
	return l
}

// TestSendAllocations ends and sends messages by the relay protocol, but
// without a network.
func TestSendAllocations(t *testing.T) {
	cfg, _ := Config{Nodes: []string{"x:1"}}.withDefaults()
	tr := newTraffic(&cfg, 1)
	w := newWire(tr, nil, nil, newRelay)
	w.armed = true // there is no loop
	tr.driver = w
	for i := range w.conns {
		upLeg(&w.conns[i])
	}
	tr.start()
	seq := uint64(0)
	step := func() {
		seq++
		for i := range w.conns {
			tr.outcome(i, seq, 1)
			w.conns[i].cur.pending = w.conns[i].cur.pending[:0]
		}
	}
	for range 1000 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step) / float64(len(w.conns)); n > 0.02 {
		t.Errorf("%v allocations per message", n)
	}
}

// TestPlaces moves connections between nodes and checks which ones each may choose.
func TestPlaces(t *testing.T) {
	const conns = 9
	p, rng := newPlaces(conns), rand.New(rand.NewPCG(1, 0))
	var at [conns]int
	for i := range conns {
		at[i] = i % 3
		p.put(i, fmt.Sprint(at[i]))
	}
	for range 200 {
		moved := rng.IntN(conns)
		at[moved] = rng.IntN(4)
		p.put(moved, fmt.Sprint(at[moved]))
		for conn := range conns {
			for _, elsewhere := range []bool{false, true} {
				want, got := map[int]bool{}, map[int]bool{}
				for other := range conns {
					if other != conn && (at[other] != at[conn]) == elsewhere {
						want[other] = true
					}
				}
				for range 150 {
					if other, ok := p.pick(rng, conn, elsewhere); ok {
						got[other] = true
					}
				}
				if !maps.Equal(got, want) {
					t.Fatalf("connections at %v: %d chooses %v, may choose %v", at, conn, got, want)
				}
			}
		}
	}
}
