package traffic

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/shape"
)

// recorder is a transport that keeps the stamps of the messages it is to send.
type recorder struct {
	sent []ledger.Stamp
	full func(conn int) bool
}

func (r *recorder) Send(conn int, m *Message) bool {
	if r.full != nil && r.full(conn) {
		return false
	}
	var s ledger.Stamp
	if !s.Read(m.Payload) {
		panic("a message that its own stamp does not fit")
	}
	r.sent = append(r.sent, s)
	return true
}

// newTestTraffic makes a traffic of small messages.
func newTestTraffic(cfg Config) (*Traffic, *recorder) {
	cfg.Run, cfg.Fanout = max(cfg.Run, 1), 1
	cfg.IDsPerConn, cfg.Sizes = max(cfg.IDsPerConn, 1), []shape.Size{{Bytes: 128, Weight: 1}}
	tr, r := New(&cfg), new(recorder)
	tr.Transport = r
	return tr, r
}

// evenly is an open loop of a message each millisecond.
func evenly() []shape.Stage { return []shape.Stage{{From: 1000, To: 1000, For: time.Second}} }

// TestOpenLoopSchedule checks that the stamp of each message has the time when it should have left,
// even if its connection could not take it then.
func TestOpenLoopSchedule(t *testing.T) {
	const gap = int64(time.Millisecond)
	tr, r := newTestTraffic(Config{Conns: 3, Acks: true, Stages: evenly()})
	r.full = func(conn int) bool { return conn == 1 }
	for c := range 3 {
		tr.ConnUp(c, Unlimited)
	}
	tr.Start()
	tr.schedule -= 10 * gap // ten periods ago
	if next := tr.Pace(); next <= 0 || next > time.Duration(gap) {
		t.Errorf("next in %v", next)
	}
	due := int(tr.due)
	if unsent := int(tr.Unsent()); due < 11 || unsent != (due+1)/3 || len(r.sent) != due-unsent {
		t.Fatalf("%d due, %d sent, %d unsent", due, len(r.sent), unsent)
	}
	r.full = nil
	tr.Fill(1)
	if tr.Unsent() != 0 || len(r.sent) != due {
		t.Fatalf("%d due, %d sent", due, len(r.sent))
	}
	slices.SortFunc(r.sent, func(a, b ledger.Stamp) int { return int(a.At - b.At) })
	for k, s := range r.sent {
		if s.At != tr.schedule+int64(k)*gap || int(s.Sender) != k%3 {
			t.Errorf("message %d: from %d at %d", k, s.Sender, s.At-tr.schedule)
		}
	}
}

// TestWindow checks that each connection keeps its window full, never exceeds it, and never sends
// to itself.
func TestWindow(t *testing.T) {
	tr, r := newTestTraffic(Config{Conns: 3, IDsPerConn: 2, Window: 5, Acks: true})
	tr.ConnUp(0, Unlimited)
	tr.Start()
	tr.ConnUp(1, 3) // its window counts, the driver has checked the node's limit
	if len(r.sent) != 10 {
		t.Fatalf("%d sent, want 10", len(r.sent))
	}
	tr.Outcome(0, 1, 1)
	tr.Outcome(0, 1, 1) // a second one frees nothing
	if len(r.sent) != 11 {
		t.Errorf("%d sent, want 11", len(r.sent))
	}
	for _, s := range r.sent {
		if s.Sender == s.Receiver/2 {
			t.Errorf("connection %d sends to its own ID %d", s.Sender, s.Receiver)
		}
	}
	tr.Stop()
	tr.Outcome(0, 2, 1)
	if len(r.sent) != 11 {
		t.Errorf("sent after stop")
	}
}

// TestSentIntoTheGap sends without ack after the driver has noticed that the receiver's connection
// ended, and before there is another one. These messages may get lost, because the node may notice
// the end later and write them to the old connection. Messages sent after that may not get lost.
func TestSentIntoTheGap(t *testing.T) {
	tr, r := newTestTraffic(Config{Conns: 2, Window: 1})
	tr.ConnUp(0, Unlimited)
	tr.ConnUp(1, Unlimited)
	tr.Start()
	tr.SessionDown(1, 1)
	gap := len(r.sent) // connection 0 has sent its second message by now
	tr.Restored(1)
	tr.ConnUp(1, Unlimited)
	tr.Restored(1) // it is no excuse for what comes now
	if gap != 3 || len(r.sent) != 5 {
		t.Fatalf("%d messages before, %d after", gap, len(r.sent))
	}
	tr.Stop()
	tr.Ledger.Close(func(int) bool { return true }, false)
	if f := tr.Ledger.Faults(); f != (ledger.Faults{Missing: 2}) || tr.Ledger.OutcomeWords()["lost"] != 3 {
		t.Errorf("%+v, %v", f, tr.Ledger.OutcomeWords())
	}
}

// TestSeed checks that a seed repeats the receivers, but neither the IDs nor the number of the run.
func TestSeed(t *testing.T) {
	sequence := func(seed, run uint64) (list []uint32, id []byte) {
		tr, r := newTestTraffic(Config{Run: run, Seed: seed, Conns: 200, Window: 50, Acks: true})
		tr.ConnUp(0, Unlimited)
		tr.Start()
		for _, s := range r.sent {
			list = append(list, s.Receiver)
		}
		return list, tr.IDs[0]
	}
	a, idA := sequence(1, 1)
	b, idB := sequence(1, 2)
	c, _ := sequence(2, 1)
	if !slices.Equal(a, b) || slices.Equal(a, c) || bytes.Equal(idA, idB) {
		t.Errorf("receivers %v, %v, %v; IDs %s, %s", a, b, c, idA, idB)
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

// TestReceivers checks to whom messages go: not to their senders, to some more often than to
// others, and a part of them to nobody.
func TestReceivers(t *testing.T) {
	tr, _ := newTestTraffic(Config{Conns: 10, IDsPerConn: 2, Zipf: 1.5, Offline: 0.25, OfflineIDs: 20})
	const n = 10_000
	seen := make([]int, len(tr.IDs))
	for range n {
		seen[tr.receiver(5)]++
	}
	offline := 0
	for _, v := range seen[tr.online:] {
		offline += v
	}
	if tr.online != 20 || offline < n/4-300 || offline > n/4+300 {
		t.Errorf("%d of %d went to nobody", offline, n)
	}
	if seen[10]+seen[11] > 0 || seen[0] < 3*seen[2] || seen[19] == 0 {
		t.Errorf("receivers %v", seen[:tr.online])
	}
}
