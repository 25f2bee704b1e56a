package engine

import (
	"testing"
	"time"

	"distmsg/codec"
)

// passes waits until that much more time has passed on the engine's clock.
func (n *node) passes(d time.Duration) {
	n.t.Helper()
	end := n.clock() + d
	n.eventually("time has passed", func() bool { return n.clock() >= end })
}

// held is longer than what 2^-6 s and less has room for, which is 15.6 ms.
const held = 20 * time.Millisecond

// A message counts once where it is written, and its ack once at the sender's loop.
func TestTimesOfMessages(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		began := time.Now()
		seq := from.send("from", "to", "with ack")
		d := to.gets("from", "to", "with ack")
		n.passes(held)
		to.ack(d, "")
		from.hears(seq, codec.CodeAcked)
		from.post("from", "to", "without", 0)
		to.gets("from", "to", "without")
		stats := n.counters()
		times, took := &stats.Times, time.Since(began).Seconds()
		if r := &times.Residence; r.Count() != 2 || r.Sum() > 2*took {
			t.Errorf("residence: %v in %v s", r, took)
		}
		if a := &times.AckRoundTrip; a.Count() != 1 || a.UpTo(-6) != 0 || a.Sum() > took {
			t.Errorf("ack round trip: %v in %v s", a, took)
		}
		if got := times.Iteration.Count(); got == 0 || got > stats.Wakeups {
			t.Errorf("%d iterations measured of %d", got, stats.Wakeups)
		}
		if times.LookupWait.Count() != 0 || times.TLSHandshake.Count() != 0 {
			t.Errorf("waits %v, handshakes %v", times.LookupWait, times.TLSHandshake)
		}
	})
}

// A message that waits for the registry is in the node meanwhile.
func TestTimesOfLookups(t *testing.T) {
	g, reg := parking(t, nil)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
	reg.shut()
	from.send("from", "to", "parked")
	from.n.eventually("it waits", func() bool { return from.n.counters().Parked == 1 && reg.waits() })
	from.n.passes(held)
	reg.pass()
	to.ack(to.gets("from", "to", "parked"), "")
	from.hears(2, codec.CodeAcked)
	stats := from.n.counters()
	if w, r := &stats.Times.LookupWait, &stats.Times.Residence; w.Count() != 1 || w.UpTo(-6) != 0 || r.Count() != 1 || r.UpTo(-6) != 0 {
		t.Errorf("wait %v, residence %v", w, r)
	}

	reg.shut()
	seq := from.send("from", "nobody", "refused")
	from.n.eventually("it waits", reg.waits)
	reg.refuse()
	from.hears(seq, codec.CodeRegistryUnavailable)
	calls := make(map[string]uint64)
	for _, c := range from.n.counters().RegistryCalls {
		if n := c.Time.Count(); n > 0 && c.Failed {
			calls[c.Operation+" failed"] = n
		} else if n > 0 {
			calls[c.Operation] = n
		}
	}
	if calls["lookup"] == 0 || calls["lookup failed"] != 1 || calls["bind"] != 1 || calls["attach"] == 0 {
		t.Errorf("calls %v", calls)
	}
}

func TestTimesOfHandshakes(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	n.joinTLS(s.client)
	stats := n.counters()
	if h := stats.Times.TLSHandshake; h.Count() != 1 || h.Sum() == 0 {
		t.Errorf("handshakes %v", h)
	}
}
