package engine

import (
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// A send with ack ends with exactly one outcome (S1); these are those that the receiver decides.
func TestOutcomeOfReceiver(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		before := n.counters()
		from.exchange("from", to, "to")

		seq := from.send("from", "to", "no thanks")
		d := to.gets("from", "to", "no thanks")
		if d.Flags != codec.FlagAck || d.TTL == 0 || d.TTL > uint32(n.limits.DefaultTTL) {
			t.Errorf("%+v", d)
		}
		to.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeRejected, Reason: []byte("busy"), Reply: []byte("later")}))
		if o := from.hears(seq, codec.CodeRejected); string(o.Reason) != "busy" || string(o.Reply) != "later" {
			t.Errorf("%q %q", o.Reason, o.Reply)
		}

		// Out of order, and a large reply.
		first, second := from.send("from", "to", "1"), from.send("from", "to", "2")
		d1, d2 := to.gets("from", "to", "1"), to.gets("from", "to", "2")
		reply := strings.Repeat("r", int(n.limits.MaxPayload))
		to.ack(d2, reply)
		if o := from.hears(second, codec.CodeAcked); string(o.Reply) != reply {
			t.Errorf("the reply has %d bytes, want %d", len(o.Reply), len(reply))
		}
		to.ack(d1, "")
		from.hears(first, codec.CodeAcked)
		from.silent()
		to.silent()
		after := n.counters()
		if after.Outcomes[codec.CodeAcked]-before.Outcomes[codec.CodeAcked] != 3 || after.Outcomes[codec.CodeRejected] != 1 || after.Pending != 0 {
			t.Errorf("%+v", after)
		}
	})
}

// What the node decides at once, for all three ways to send.
func TestOutcomeOfNode(t *testing.T) {
	acrossLoops(t, Config{MaxPayload: 100_000}, func(t *testing.T, n *node, from, to *client) {
		detached := n.join("detached")
		detached.nc.Close()
		n.eventually("it is detached", func() bool { return from.lookupCode("detached") == codec.CodeUnreachable })
		for _, c := range []struct {
			name, from, to, payload string
			code                    codec.Code
		}{
			{"nobody", "from", "nobody", "hi", codec.CodeNoRoute},
			{"detached", "from", "detached", "hi", codec.CodeUnreachable},
			{"from is not bound", "stranger", "to", "hi", codec.CodeDenied},
			{"from is another session's", "to", "to", "hi", codec.CodeDenied},
			{"from is empty", "", "to", "hi", codec.CodeDenied},
			{"from is not bound, to neither", "stranger", "nobody", "hi", codec.CodeDenied},
			{"over max_payload", "from", "to", strings.Repeat("x", 100_001), codec.CodeTooLarge},
		} {
			t.Run(c.name, func(t *testing.T) {
				before := n.counters()
				for _, flags := range []uint8{codec.FlagAck, codec.FlagReport, codec.FlagAck | codec.FlagReport} {
					o := from.post(c.from, c.to, c.payload, flags)
					if got := from.hears(o, c.code); c.code == codec.CodeDenied && len(got.Reason) == 0 {
						t.Error("no reason")
					}
				}
				from.post(c.from, c.to, c.payload, 0)
				from.silent()
				to.silent()
				after := n.counters()
				if got := after.Outcomes[c.code] - before.Outcomes[c.code]; got != 4 {
					t.Errorf("%v was counted %d times, want 4", c.code, got)
				}
				if got := after.Sends - before.Sends; got != 4 {
					t.Errorf("%d sends were counted, want 4", got)
				}
			})
		}
	})
}

// Without ack, success is silent.
func TestUnacked(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		before := n.counters()
		for _, flags := range []uint8{0, codec.FlagReport} {
			from.seq++
			from.write(sendFrame(from.seq, "from", "to", "hi", flags, 7777))
			// what it took at the node is subtracted
			if d := to.gets("from", "to", "hi"); d.Flags != flags || d.TTL > 7777 || d.TTL < 2777 {
				t.Errorf("flags %d, ttl %d", d.Flags, d.TTL)
			}
			from.post("from", "to", "hi", flags)
			if d := to.gets("from", "to", "hi"); d.TTL != 0 {
				t.Errorf("ttl %d, want none", d.TTL)
			}
		}
		from.silent()
		if after := n.counters(); after.Written-before.Written != 4 || len(after.Outcomes) != 0 || after.Pending != 0 {
			t.Errorf("%+v", after)
		}
	})
}

// Payloads up to the limit arrive as they were sent, the limit included.
func TestSizes(t *testing.T) {
	acrossLoops(t, Config{MaxPayload: 300_000}, func(t *testing.T, n *node, from, to *client) {
		for _, size := range []int{0, 1, 31, 32, 255, 256, 2000, 65_535, 65_536, 65_537, 131_072, 299_999, 300_000} {
			payload := strings.Repeat("p", size)
			seq := from.send("from", "to", payload)
			to.ack(to.gets("from", "to", payload), "")
			from.hears(seq, codec.CodeAcked)
		}
		from.hears(from.send("from", "to", strings.Repeat("p", 300_001)), codec.CodeTooLarge)
		long := strings.Repeat("i", codec.MaxID)
		to.bind(long)
		from.exchange("from", to, long)
	})
}

// timeout comes at the deadline, not before, and soon after (S1: 50 ms; a busy machine gets more).
func TestTimeout(t *testing.T) {
	long(t)
	t.Parallel()
	acrossLoops(t, Config{DefaultTTL: 1200 * time.Millisecond, MaxTTL: 1500 * time.Millisecond}, func(t *testing.T, n *node, from, to *client) {
		cases := []struct{ ttl, want uint32 }{{1000, 1000}, {0, 1200}, {4_000_000_000, 1500}}
		began := time.Now()
		for i, c := range cases {
			from.write(sendFrame(uint64(i), "from", "to", "hello?", codec.FlagAck, c.ttl))
			if d := to.gets("from", "to", "hello?"); d.TTL > c.want || d.TTL < c.want-500 {
				t.Errorf("ttl %d: the receiver hears %d", c.ttl, d.TTL)
			}
		}
		for i, c := range cases {
			from.hears(uint64(i), codec.CodeTimeout)
			took := time.Since(began)
			if want := time.Duration(c.want) * time.Millisecond; took < want-2*time.Millisecond || took > want+2*time.Second {
				t.Errorf("ttl %d: timeout after %v", c.ttl, took)
			}
		}
		if s := n.counters(); s.Outcomes[codec.CodeTimeout] != 3 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// lost: the receiver's connection ends between delivery and ack (S5).
func TestLost(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		seqs := make(map[uint64]bool)
		for range 100 {
			seqs[from.send("from", "to", "hi")] = true
		}
		for range 100 {
			to.gets("from", "to", "hi")
		}
		to.nc.Close()
		for range 100 {
			o := from.outcome()
			if !seqs[o.Seq] || o.Code != codec.CodeLost {
				t.Fatalf("%d %v", o.Seq, o.Code)
			}
			delete(seqs, o.Seq)
		}
		from.hears(from.send("from", "to", "hi"), codec.CodeUnreachable)
		from.silent()
	})
}

// A sender that leaves has nobody left to answer (S1): its sends are abandoned, and their acks
// late.
func TestAbandoned(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		for range 10 {
			from.send("from", "to", "hi")
		}
		from.nc.Close()
		n.eventually("it is gone", func() bool { return n.Stats().Closed >= 1 && n.Stats().Abandoned == 10 })
		before := n.tokens()
		for range 10 {
			to.ack(to.gets("from", "to", "hi"), "")
		}
		to.silent()
		n.expectTokens(before, 0, 10)
		if s := n.counters(); s.Pending != 0 || s.Outcomes[codec.CodeLost] != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A session that talks to itself and leaves.
func TestAbandonedToSelf(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	c := n.join("me")
	for range 10 {
		c.send("me", "me", "hi")
	}
	for range 10 {
		c.gets("me", "me", "hi")
	}
	c.nc.Close()
	n.eventually("it is gone", func() bool { return n.Stats().Abandoned == 10 })
	if s := n.counters(); s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

// max_in_flight bounds one connection, and an outcome makes room.
func TestInFlight(t *testing.T) {
	acrossLoops(t, Config{MaxInFlight: 5}, func(t *testing.T, n *node, from, to *client) {
		var seqs []uint64
		for range 5 {
			seqs = append(seqs, from.send("from", "to", "hi"))
		}
		over := from.send("from", "to", "too many")
		if o := from.hears(over, codec.CodeOverflow); !strings.Contains(string(o.Reason), "wait for an ack") {
			t.Errorf("reason %q", o.Reason)
		}
		from.post("from", "to", "plain", 0) // is not counted
		var d codec.Deliver
		for range 5 {
			d = to.gets("from", "to", "hi")
		}
		to.gets("from", "to", "plain")
		to.ack(d, "")
		from.hears(seqs[4], codec.CodeAcked)
		seq := from.send("from", "to", "room again")
		to.ack(to.gets("from", "to", "room again"), "")
		from.hears(seq, codec.CodeAcked)
		to.nc.Close()
		for range 4 {
			if o := from.outcome(); o.Code != codec.CodeLost {
				t.Errorf("%v", o.Code)
			}
		}
		for range 5 { // all places are free again
			from.send("from", "from", "me")
		}
		for range 5 {
			from.gets("from", "from", "me")
		}
	})
}

// A message that waited in the mail between two loops until its deadline was over was not written
// (S2).
func TestExpired(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	from, to := n.joinOn(0, "from"), n.joinOn(1, "to")
	blocked, release := make(chan struct{}), make(chan struct{})
	n.loops[1].post(func() { close(blocked); <-release })
	<-blocked
	for i, flags := range []uint8{codec.FlagReport, 0, codec.FlagReport, codec.FlagAck} {
		ttl := uint32(20)
		if i == 2 {
			ttl = 60_000
		}
		if flags == codec.FlagAck {
			ttl = 0 // the wheel of its own loop would be first
		}
		from.write(sendFrame(uint64(i), "from", "to", "x", flags, ttl))
	}
	from.alive()
	began := n.clock()
	n.eventually("it is late", func() bool { return n.clock()-began > 50*time.Millisecond })
	close(release)
	d := to.gets("from", "to", "x")
	if d.TTL == 0 || d.TTL > 59_960 {
		t.Errorf("ttl %d; the time in the mail was not subtracted", d.TTL)
	}
	d = to.gets("from", "to", "x")
	if d.Flags != codec.FlagAck || d.TTL > 59_960 {
		t.Errorf("%+v", d)
	}
	to.ack(d, "")
	heard := map[uint64]codec.Code{}
	for range 2 {
		o := from.outcome()
		heard[o.Seq] = o.Code
	}
	if heard[0] != codec.CodeExpired || heard[3] != codec.CodeAcked {
		t.Errorf("%v", heard)
	}
	from.silent()
	to.silent()
	if s := n.counters(); s.Outcomes[codec.CodeExpired] != 2 || s.Written != 1 {
		t.Errorf("%+v", s)
	}
}

// Deadlines are kept while the receiver's loop stands still, and the message that comes to light
// later does no harm.
func TestTimeoutInMail(t *testing.T) {
	n := start(t, Config{Loops: 2})
	from, to := n.joinOn(0, "from"), n.joinOn(1, "to")
	blocked, release := make(chan struct{}), make(chan struct{})
	n.loops[1].post(func() { close(blocked); <-release })
	<-blocked
	from.write(sendFrame(1, "from", "to", "x", codec.FlagAck, 30))
	if o := from.outcome(); o.Seq != 1 || o.Code.Delivered() == codec.DeliveredYes {
		t.Errorf("%d %v", o.Seq, o.Code)
	}
	close(release)
	to.silent()
	from.silent()
}

// Messages for a connection that ends while they are in the mail.
func TestGoneInMail(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	from, to := n.joinOn(0, "from"), n.joinOn(1, "to")
	l, h := n.loops[1], n.table.Session(to.sessionID()).Handles()[0]
	blocked, release := make(chan struct{}), make(chan struct{})
	l.post(func() {
		close(blocked)
		<-release
		l.conn(h).end() // before the mail is opened
	})
	<-blocked
	for i, flags := range []uint8{codec.FlagAck, codec.FlagReport, 0} {
		from.write(sendFrame(uint64(i), "from", "to", "x", flags, 0))
	}
	from.alive()
	close(release)
	for range 2 {
		if o := from.outcome(); o.Seq > 1 || o.Code != codec.CodeUnreachable && o.Code != codec.CodeLost {
			t.Errorf("%d %v", o.Seq, o.Code)
		}
	}
	from.silent()
	to.ends()
}

// A queue that is full refuses, whichever loop finds out, and what follows does not overtake.
func TestQueueFull(t *testing.T) {
	acrossLoops(t, Config{MaxPayload: 1 << 10, MaxPending: 4 << 10}, func(t *testing.T, n *node, from, to *client) {
		// One segment with far more than the queue takes: it is all read in one iteration.
		var burst []byte
		const sends = 50
		for i := range sends {
			burst = append(burst, sendFrame(uint64(i), "from", "to", strings.Repeat("x", 1000), codec.FlagAck, 0)...)
		}
		burst = append(burst, sendFrame(sends, "from", "to", "", codec.FlagAck, 0)...)
		from.write(burst)
		outcomes := make(map[codec.Code]int)
		n.settle()
		from.write(sendFrame(sends+1, "from", "to", "the end", codec.FlagAck, 0))
		last := -1
		for {
			d := to.delivered()
			to.ack(d, "")
			if string(d.Payload) == "the end" {
				break
			}
		}
		seen := make(map[uint64]bool)
		for range sends + 2 {
			o := from.outcome()
			if seen[o.Seq] {
				t.Errorf("a second outcome of %d", o.Seq)
			}
			seen[o.Seq] = true
			outcomes[o.Code]++
			if o.Code == codec.CodeAcked && o.Seq < sends {
				if int(o.Seq) < last {
					t.Errorf("%d after %d", o.Seq, last)
				}
				last = int(o.Seq)
			}
		}
		if outcomes[codec.CodeOverflow] == 0 || outcomes[codec.CodeAcked] < 2 || len(outcomes) != 2 {
			t.Errorf("%v", outcomes)
		}
	})
}

// After Drain each send ends draining, and each ID of a bind too.
func TestOutcomeDraining(t *testing.T) {
	acrossLoops(t, Config{DrainSpread: 3 * time.Second}, func(t *testing.T, n *node, from, to *client) {
		seq := from.send("from", "to", "before")
		d := to.gets("from", "to", "before")
		drained := make(chan error, 1)
		go func() { drained <- n.Drain(t.Context()) }()
		for _, c := range []*client{from, to} {
			var f codec.Drain
			c.decoded(codec.DecodeDrain(c.expect(codec.KindDrain), &f))
			if f.Spread != 3000 || f.Deadline != 0 || len(f.Addrs) != 0 {
				t.Errorf("%+v", f)
			}
		}
		if !n.Draining() {
			t.Error("not draining")
		}
		from.hears(from.send("from", "to", "after"), codec.CodeDraining)
		from.hears(from.post("from", "to", "after", codec.FlagReport), codec.CodeDraining)
		from.post("from", "to", "after", 0)
		from.alive()
		for _, r := range from.tryBind(codec.PolicyKickOld, withEpochs([]string{"new", "from"})...) {
			if r.Code != codec.CodeDraining {
				t.Errorf("bind: %v", r)
			}
		}
		late := n.dial()
		late.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
		if e := late.fails(codec.FaultGoingAway); !strings.Contains(e.Message, "draining") {
			t.Errorf("%+v", e)
		}
		select {
		case err := <-drained:
			t.Errorf("drained with a send under way: %v", err)
		default:
		}
		to.ack(d, "")
		from.hears(seq, codec.CodeAcked)
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
		if s := n.counters(); s.Outcomes[codec.CodeDraining] != 3 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}
