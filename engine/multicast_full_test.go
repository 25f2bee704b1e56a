package engine

import (
	"distmsg/codec"
	"strings"
	"testing"
	"time"
)

// A multicast takes room where its recipients are, and its sender's lookups are bounded (S21).
func TestMulticastOverflow(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroup(t, 1, 1)
	n := g.start("small", 1, func(c *Config) { c.MaxPayload, c.MaxParked, c.MaxPending = 1<<12, 1<<13, 1<<13 })
	from := n.joinMany("from")
	ids := idList("nobody", 200)
	for _, id := range ids {
		n.resolverBusy(id, nil)
	}
	first := from.multicast("from", strings.Repeat("x", 1000), codec.FlagAck, ids...)
	all, _ := from.tells(1)
	if o := all[first+199]; len(all) < 1 || o.Code != codec.CodeOverflow && o.Code != 0 {
		t.Errorf("%+v", all)
	}
	if s := n.counters(); s.Parked == 0 || s.Parked >= 200 {
		t.Errorf("%d are parked", s.Parked)
	}
	from.nc.Close()
	n.eventually("all are abandoned", func() bool { return n.counters().Pending == 0 })
	for range 1 { // what nobody waits for any more is not kept for ever
		n.dir.Probe().FailQuestions(ids)
	}
	n.eventually("nothing is parked", func() bool { return n.counters().Parked == 0 })
}

// A full connection refuses the whole batch, each with its outcome, and only that.
func TestMulticastToFullQueue(t *testing.T) {
	long(t)
	t.Parallel()
	acrossLoops(t, Config{MaxPayload: 1 << 16, MaxPending: 1 << 18, SlowConsumerTimeout: time.Hour}, func(t *testing.T, n *node, _, _ *client) {
		from, ok := n.joinMany("sender"), n.joinMany("fine")
		slow := n.joinMany("s1", "s2")
		slow.shrink()
		payload := strings.Repeat("x", 1<<15)
		base := from.seq + 1
		told := make(map[uint64]codec.Code)
		batches := make(map[uint64]int) // by their number: how many outcomes tell of a full queue
		hear := func() {
			all, _ := from.tells(1)
			for seq, o := range all {
				want := codec.CodeOverflow
				if (seq-base)%3 == 1 {
					want = codec.CodeAcked
				} else {
					batches[(seq-base)/3]++
				}
				if o.Code != want || told[seq] != 0 {
					t.Fatalf("%d: %v, want %v; before it was told %v", seq-base, o.Code, want, told[seq])
				}
				told[seq] = o.Code
			}
		}
		for len(batches) == 0 {
			first := from.multicast("sender", payload, codec.FlagAck, "s1", "fine", "s2")
			ok.ackAll(ok.getsMany("sender", payload))
			for told[first+1] == 0 { // the word of the full queue may come before it and after it
				hear()
			}
		}
		for batch := range batches {
			for batches[batch] < 2 {
				hear()
			}
		}
		slow.nc.Close()
	})
}

// A client that takes one message at a time gets the payload of a multicast with each: no more of
// them than it has room for (S21).
func TestMulticastSinglyToFullQueue(t *testing.T) {
	const copies = 3000 // 192 MiB for one frame of less than 300 KiB
	payload := strings.Repeat("x", 1<<16)
	ids := make([]string, copies)
	for i := range ids {
		ids[i] = "to"
	}
	flood := func(t *testing.T, from *client, report func() (sends, ended, lost uint64)) {
		first := from.multicast("from", payload, codec.FlagReport, ids...)
		all, _ := from.tells(copies / 2) // far more than what kernels may have taken
		for i := range uint64(copies) {
			if o, told := all[first+i]; told && o.Code != codec.CodeOverflow {
				t.Fatalf("%d: %v", i, o.Code)
			}
		}
		from.n.eventually("the books balance", func() bool { sends, ended, lost := report(); return sends == ended && lost == 0 })
	}
	// room for the frame
	cfg := Config{MaxPayload: 1 << 16, MaxPending: 1 << 19, SlowConsumerTimeout: time.Hour}
	acrossLoops(t, cfg, func(t *testing.T, n *node, from, to *client) {
		to.shrink()
		flood(t, from, (&group{nodes: []*node{n}}).sum)
	})
	t.Run("other node", func(t *testing.T) {
		g := startGroupWith(t, 2, 2, func(c *Config) {
			c.MaxPayload, c.MaxPending, c.SlowConsumerTimeout = cfg.MaxPayload, cfg.MaxPending, cfg.SlowConsumerTimeout
		})
		from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
		from.exchange("from", to, "to") // makes the route known
		to.shrink()
		flood(t, from, g.sum)
	})
}
