package drive

import (
	"testing"
	"time"

	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/shape"
	"distmsg/loadtest/internal/traffic"
)

// The pause before a new connection grows while no connection lasts. So a node that accepts every
// connection and closes it is not kept busy.
func TestPausesGrow(t *testing.T) {
	w := &wire{t: &traffic.Traffic{Ledger: new(ledger.Ledger)}}
	c := &wireConn{wire: w}
	var longest time.Duration
	for n := range 50 {
		w.t.Ledger.Time.Now += int64(time.Second)
		longest = max(longest, (&leg{conn: c, madeAt: w.t.Ledger.Time.Now - int64(time.Second)}).pause())
		if c.short != n+1 {
			t.Fatalf("%d of %d short connections were counted", c.short, n+1)
		}
	}
	if longest <= minBackoff || longest > maxBackoff {
		t.Errorf("the longest pause was %v", longest)
	}
	w.t.Ledger.Time.Now += int64(lasting)
	if pause := (&leg{conn: c, madeAt: w.t.Ledger.Time.Now - int64(lasting)}).pause(); c.short != 0 || pause > minBackoff {
		t.Errorf("after a connection that has lasted: a pause of %v, %d short ones", pause, c.short)
	}
}

// newTestWire makes a wire driver of a kind that has no network, for messages of 128 bytes with
// ack.
func newTestWire(conns int, speak func(*wireConn) func(*leg) protocol) *wire {
	t := traffic.New(&traffic.Config{Run: 1, Acks: true, Conns: conns, IDsPerConn: 1, Fanout: 1, Window: 1, Sizes: []shape.Size{{Bytes: 128, Weight: 1}}})
	w := newWire(t, new(Config), speak)
	w.armed = true // there is no loop
	t.Transport = w
	return w
}

// upLeg makes a leg that is ready to send, but has no network.
func upLeg(c *wireConn) *leg {
	l := &leg{conn: c}
	l.proto = c.speak(l)
	c.next = l
	l.up("a node", traffic.Unlimited)
	return l
}

// feed gives parts of a stream to the protocol of a leg and returns what it has not used.
func feed(l *leg, parts ...string) (carry []byte, err error) {
	for _, part := range parts {
		carry = append(carry, part...)
		used, err := l.proto.parse(carry)
		if err != nil {
			return carry, err
		}
		carry = carry[used:]
	}
	return carry, nil
}

// TestSendAllocations ends and sends messages by the relay protocol, but without a network.
func TestSendAllocations(t *testing.T) {
	w := newTestWire(200, newRelay)
	tr := w.t
	for i := range w.conns {
		upLeg(&w.conns[i])
	}
	tr.Start()
	seq := uint64(0)
	step := func() {
		seq++
		for i := range w.conns {
			tr.Outcome(i, seq, 1)
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
