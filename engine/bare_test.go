package engine

import (
	"testing"

	"distmsg/codec"
)

// joinBare starts a client that may give messages back without their content.
func (n *node) joinBare(ids ...string) *client {
	n.t.Helper()
	c := n.dial()
	want := uint64(codec.FeatureMulticast | codec.FeatureShortNotHere)
	if w := c.hello(codec.Hello{Features: want | 1<<9}); w.Features != want {
		n.t.Fatalf("features %d", w.Features)
	}
	c.bind(ids...)
	return c
}

// eachPlace runs a test with sender and receiver on one loop, on two, and on two nodes. next is a
// node for a third client.
func eachPlace(t *testing.T, test func(t *testing.T, from, to *client, next *node)) {
	for name, loops := range map[string]int{"one loop": 1, "two loops": 2} {
		t.Run(name, func(t *testing.T) {
			n := start(t, Config{Loops: loops})
			test(t, n.join("from"), n.joinBare("to"), n)
		})
	}
	acrossNodes(t, func(t *testing.T, g *group, from, _ *client) {
		test(t, from, g.nodes[1].joinBare("to"), g.nodes[0])
	})
}

// When a message comes back without its content, its send ends with the true outcome for its ID.
// The node removes the binding that led to the wrong session (S11, S14).
func TestShortNotHere(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, next *node) {
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		to.notHere(d.Short())
		from.hears(seq, codec.CodeNoRoute)
		from.n.eventually("unbound", func() bool { return from.lookupCode("to") == codec.CodeNoRoute })
		from.hears(from.send("from", "to", "hi"), codec.CodeNoRoute)
		to.silent()

		before := to.n.tokens()
		to.notHere(d.Short())
		to.silent()
		if now := to.n.tokens(); now.forged != before.forged {
			t.Errorf("a second not_here is late, not forged: %+v, then %+v", before, now)
		}
		from.silent()
	})
}

// If another session holds the ID by now, the sender may send again, and the message goes there.
func TestShortNotHereElsewhere(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, next *node) {
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		holder := next.join()
		epoch := holder.bind("to")
		to.kicked("to", epoch)
		to.notHere(d.Short())
		from.hears(seq, codec.CodeUnreachable)
		holder.silent()
		if r := from.lookup("to")[0]; r != (codec.Result{Epoch: epoch}) {
			t.Errorf("%v, want %d: the new binding stands", r, epoch)
		}
		from.exchange("from", holder, "to")
		to.silent()
	})
}

// The same session may hold the ID under a newer epoch, whose deliver the client has not seen yet.
func TestShortNotHereOfOldEpoch(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, _ *node) {
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		epoch := to.bind("to")
		to.notHere(d.Short())
		from.hears(seq, codec.CodeUnreachable)
		if r := from.lookup("to")[0]; r != (codec.Result{Epoch: epoch}) {
			t.Errorf("%v, want %d", r, epoch)
		}
		from.exchange("from", to, "to")
	})
}

// A client may still give back the whole message, which then goes elsewhere. Its content must be
// what was delivered.
func TestShortNotHereInFull(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, next *node) {
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		holder := next.join()
		holder.bind("to")
		to.expect(codec.KindKick)
		to.notHere(d)
		holder.ack(holder.gets("from", "to", "hi"), "")
		from.hears(seq, codec.CodeAcked)
	})
}

// The node has no use for the content of a message without ack, so the content need not come back.
func TestShortNotHereUnacked(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, _ *node) {
		report := from.post("from", "to", "report", codec.FlagReport)
		from.post("from", "to", "plain", 0)
		d1, d2 := to.gets("from", "to", "report"), to.gets("from", "to", "plain")
		to.notHere(d1.Short())
		to.notHere(d2.Short())
		// The node knows this outcome without asking the registry.
		if o := from.outcome(); o.Seq != report || !o.Code.SafeToRetry() {
			t.Errorf("%+v", o)
		}
		to.silent()
		from.silent()
		if s := to.n.counters(); s.Bounced != 2 {
			t.Errorf("%d bounced", s.Bounced)
		}
	})
}

// A client can give back each message of a multicast without its content, and all of them in one
// frame.
func TestShortNotHereMany(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, next *node) {
		to.bind("b", "c")
		first := from.multicast("from", "hi", codec.FlagAck, "to", "b", "c")
		m := to.getsMany("from", "hi")
		if len(m.all) != 3 {
			t.Fatalf("%q", m.ids())
		}
		holder := next.join()
		holder.bind("b")
		to.expect(codec.KindKick)
		to.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &codec.DeliverMany{}, m.all[:2]))
		codes := map[uint64]codec.Code{}
		for range 2 {
			o := from.outcome()
			codes[o.Seq] = o.Code
		}
		if codes[first] != codec.CodeNoRoute || codes[first+1] != codec.CodeUnreachable {
			t.Errorf("%v, want no_route for %d and unreachable for %d", codes, first, first+1)
		}
		to.write(codec.AppendAck(nil, &codec.Ack{Token: m.all[2].Token, Code: codec.CodeAcked}))
		from.hears(first+2, codec.CodeAcked)
	})
}

// Giving messages back in short form needs the feature and a token of the session's own.
func TestShortNotHereForged(t *testing.T) {
	eachPlace(t, func(t *testing.T, from, to *client, next *node) {
		thief := to.n.joinBare("thief")
		old := to.n.join("old")
		for _, receiver := range []*client{to, old} {
			id := map[*client]string{to: "to", old: "old"}[receiver]
			seq := from.send("from", id, "hi")
			d := receiver.gets("from", id, "hi")
			liar := thief
			if receiver == old {
				liar = old // it did not announce this in its hello
			}
			liar.notHere(d.Short())
			if e := liar.fault(codec.FaultBadToken); e.Kind != codec.KindNotHere {
				t.Errorf("%+v", e)
			}
			from.silent()
			receiver.ack(d, "")
			from.hears(seq, codec.CodeAcked)
		}
	})
}
