package engine

import (
	"fmt"
	"strings"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// acrossNodes runs a test with sender and receiver at two nodes.
func acrossNodes(t *testing.T, test func(t *testing.T, g *group, from, to *client)) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		test(t, g, g.nodes[0].join("from"), g.nodes[1].join("to"))
	})
}

// sum applies the rule of Stats to all nodes together: the messages they have sent, and their
// outcomes.
func (g *group) sum() (sends, ended, lost uint64) {
	for _, n := range g.nodes {
		s := n.counters()
		sends += s.Sends
		ended += s.Written + s.Abandoned + uint64(s.Pending+s.Parked)
		for _, v := range s.Outcomes {
			ended += v
		}
		lost += s.Forwarded - s.Returned - s.Received
	}
	return sends, ended, lost
}

// All outcomes of a message to another node, and the counters of all nodes together.
func TestOutcomesAcrossNodes(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		from.exchange("from", to, "to")
		seq := from.send("from", "to", "no thanks")
		d := to.gets("from", "to", "no thanks")
		if d.TTL == 0 || d.TTL > uint32(g.nodes[0].limits.DefaultTTL) || d.Flags != codec.FlagAck {
			t.Errorf("%+v", d)
		}
		to.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeRejected, Reason: []byte("busy"), Reply: []byte("later")}))
		if o := from.hears(seq, codec.CodeRejected); string(o.Reason) != "busy" || string(o.Reply) != "later" {
			t.Errorf("%q %q", o.Reason, o.Reply)
		}
		reply := strings.Repeat("r", int(g.nodes[0].limits.MaxPayload))
		seq = from.send("from", "to", reply)
		to.ack(to.gets("from", "to", reply), reply)
		if o := from.hears(seq, codec.CodeAcked); string(o.Reply) != reply {
			t.Errorf("a reply of %d bytes", len(o.Reply))
		}
		for _, flags := range []uint8{0, codec.FlagReport} {
			from.write(sendFrame(0, "from", "to", "silent", flags, 60_000))
			if d := to.gets("from", "to", "silent"); d.Flags != flags || d.TTL == 0 || d.TTL > 60_000 {
				t.Errorf("%+v", d)
			}
			from.post("from", "nobody", "x", flags)
			if flags != 0 {
				from.hears(from.seq, codec.CodeNoRoute)
			}
		}
		// The session decides which IDs it holds: its not_here ends a message, with ack and
		// without.
		to.unbindQuietly(t, g, "to")
		seq = from.send("from", "to", "with ack")
		to.write(codec.AppendNotHere(nil, ptr(to.gets("from", "to", "with ack"))))
		from.hears(seq, codec.CodeNoRoute)
		from.silent()
		if sends, ended, lost := g.sum(); sends != ended || lost != 0 {
			t.Errorf("%d sends, %d ended, %d lost", sends, ended, lost)
		}
		if s := g.nodes[1].counters(); s.Received != 2 || s.Written != 2 {
			t.Errorf("the receiver's node: %+v", s)
		}
	})
}

func ptr[T any](v T) *T { return &v }

// unbindQuietly removes a binding from the registry without the nodes' knowledge.
func (c *client) unbindQuietly(t *testing.T, g *group, id string) {
	t.Helper()
	found, err := g.registry.Lookup(t.Context(), []string{id})
	if err == nil {
		_, err = g.registry.Unbind(t.Context(), []routing.UnbindOp{{ID: id, Session: c.sessionID(), Epoch: found[0].Binding.Epoch}})
	}
	c.decoded(err)
}

// When the other node loses a connection, exactly the messages delivered to it end lost (S5).
func TestLostAcrossNodes(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		other := g.nodes[1].join("other")
		waiting := make(map[uint64]bool)
		var kept []uint64
		for range 50 {
			waiting[from.send("from", "to", "x")] = true
			kept = append(kept, from.send("from", "other", "x"))
		}
		var delivers []codec.Deliver
		for range 50 {
			to.gets("from", "to", "x")
			delivers = append(delivers, other.gets("from", "other", "x"))
		}
		to.nc.Close()
		for range 50 {
			if o := from.outcome(); !waiting[o.Seq] || o.Code != codec.CodeLost {
				t.Fatalf("%d %v", o.Seq, o.Code)
			}
		}
		for i, seq := range kept {
			other.ack(delivers[i], "")
			from.hears(seq, codec.CodeAcked)
		}
		from.silent()
	})
}

// spreadOver has sessions' messages go to a peer that is no node, and to a real one, whichever the
// hash says: to is attached at both.
func spreadOver(t *testing.T, g *group, to *client) (p *client, ids []string) {
	t.Helper()
	for i := range 32 {
		ids = append(ids, fmt.Sprintf("spread-%d", i))
	}
	to.bind(ids...)
	p = g.nodes[0].linkAs("n9")
	p.attach(to.sessionID())
	return p, ids
}

// Messages under way to a connection that ends go on to where its session is now. Only the messages
// that were delivered to it are lost (S5, S14).
func TestCrossingWithTheEnd(t *testing.T) {
	long(t)
	t.Parallel()
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		p, ids := spreadOver(t, g, to)
		seqs := make(map[uint64]string)
		for _, id := range ids {
			seqs[from.send("from", id, id)] = id
		}
		from.n.eventually("all are on their way", func() bool {
			s := from.n.counters()
			return s.Pending == len(ids) && s.Parked == 0
		})
		there := p.allForwarded()
		for range len(ids) - len(there) {
			to.ack(to.delivered(), "")
		}
		if len(there) < 2 {
			t.Fatalf("the hash sent %d of %d to the peer", len(there), len(ids))
		}
		id := to.sessionID()
		p.write(codec.AppendPresence(nil, codec.KindDetached, id[:], 1))
		p.write(codec.AppendGone(nil, id[:]))
		for _, f := range there[1:] { // they crossed
			p.gives(codec.KindNotAttached, f)
		}
		p.settled() // answers the node's pings
		for range there[1:] {
			d := to.delivered()
			if string(d.Payload) != string(d.To) || string(d.From) != "from" || d.TTL == 0 {
				t.Errorf("came back changed: %+v", d)
			}
			to.ack(d, "")
		}
		for range ids {
			o, want := from.outcome(), codec.CodeAcked
			if seqs[o.Seq] == string(there[0].To) {
				want = codec.CodeLost
			}
			if o.Code != want {
				t.Errorf("%q ended %v, want %v", seqs[o.Seq], o.Code, want)
			}
			delete(seqs, o.Seq)
		}
		p.nc.Close()
	})
}

// An ID has moved: the message comes back, and the node sends it to the new place once, with ack
// and without (S14).
func TestMovedMidFlight(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		p := g.nodes[0].linkAs("n9")
		s := routing.NewSessionID()
		p.attach(s)
		for i, flags := range []uint8{codec.FlagAck, codec.FlagReport, 0} {
			id := fmt.Sprintf("moved-%d", i)
			g.bindFor(id, s)
			from.seq++
			from.write(sendFrame(from.seq, "from", id, "hi", flags, 30_000))
			f := p.forwarded()
			to.bind(id)
			p.gives(codec.KindNotMine, f)
			d := to.gets("from", id, "hi")
			if d.TTL == 0 || d.TTL > 30_000 || d.Flags != flags {
				t.Errorf("%+v", d)
			}
			if flags == codec.FlagAck {
				to.ack(d, "")
				from.hears(from.seq, codec.CodeAcked)
			}
			from.silent()
		}
		p.nc.Close()
	})
}

// The node never retries at the same place, and never tries a third time (S14).
func TestOneRetry(t *testing.T) {
	long(t)
	t.Parallel()
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		p := g.nodes[0].linkAs("n9")
		s := routing.NewSessionID()
		p.attach(s)
		for i, flags := range []uint8{codec.FlagAck, codec.FlagReport} {
			id := fmt.Sprintf("same-%d", i)
			g.bindFor(id, s)
			seq := from.post("from", id, "hi", flags)
			p.gives(codec.KindNotMine, p.forwarded())
			// The registry still names the same session, so the outcome is not no_route.
			from.hears(seq, codec.CodeUnreachable)

			id = fmt.Sprintf("moves-%d", i)
			g.bindFor(id, s)
			seq = from.post("from", id, "hi", flags)
			f := p.forwarded()
			epoch := g.bindFor(id, s)
			p.gives(codec.KindNotMine, f)
			again := p.forwarded()
			if again.Epoch != epoch || string(again.Payload) != "hi" {
				t.Errorf("again: %+v", again)
			}
			g.bindFor(id, s)
			p.gives(codec.KindNotMine, again)
			from.hears(seq, codec.CodeUnreachable) // it is bound all the time
		}
		from.silent()
		p.nc.Close()
	})
}

// A message that its receiver gives back goes on to another node, if that node has the ID by now.
func TestNotHereThenElsewhere(t *testing.T) {
	g := startGroup(t, 2, 2)
	from, old, next := g.nodes[0].join("from"), g.nodes[0].join(), g.nodes[1].join()
	old.bind("x")
	seq := from.send("from", "x", "hi")
	d := old.gets("from", "x", "hi")
	next.bind("x")
	old.expect(codec.KindKick)
	old.write(codec.AppendNotHere(nil, &d))
	next.ack(next.gets("from", "x", "hi"), "")
	from.hears(seq, codec.CodeAcked)
}

// A node does not forward a message that came from another node. It notifies that node that the
// route was wrong.
func TestNeverForwardedTwice(t *testing.T) {
	g := startGroup(t, 2, 2)
	b := g.nodes[1].join("b")
	p := g.nodes[0].linkAs("n9")
	f := codec.Forward{Deliver: codec.Deliver{To: []byte("b"), From: []byte("x"), Epoch: 1, Payload: []byte("hi")}, Session: b.session}
	p.gives(codec.KindForward, f)
	for {
		got := p.next()
		if got.kind == codec.KindNotAttached {
			break
		}
		if got.kind != codec.KindAttached && got.kind != codec.KindAnnounce {
			t.Fatalf("%v", got.kind)
		}
	}
	b.silent()
	if s := g.nodes[1].counters(); s.Received != 0 {
		t.Errorf("%+v", s)
	}
	p.nc.Close()
}

// A session that is attached at both nodes is reached in one hop. It may send from its IDs at both
// nodes, whichever it bound them at (S7).
func TestSpreadSession(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		from, there := g.nodes[0].join("from"), g.nodes[1].join()
		here := g.nodes[0].dial()
		here.hello(there.resume())
		there.bind("both")
		for range 3 {
			from.post("from", "both", "hi", 0)
			here.gets("from", "both", "hi")
		}
		if s := g.nodes[0].counters(); s.Forwarded != 0 || s.Written != 3 {
			t.Errorf("%+v", s)
		}
		for i := range 5 {
			there.bind(fmt.Sprint("own", i))
			here.post(fmt.Sprint("own", i), "from", "first", 0) // held
			here.post("both", "from", "second", 0)
			from.gets(fmt.Sprint("own", i), "from", "first")
			from.gets("both", "from", "second")
		}
		here.hears(here.send("from", "from", "x"), codec.CodeDenied)
	})
}

// Nobody can end another session's message with a made-up link token (S8).
func TestForgedOverLinks(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		evil := to.n.join("evil")
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		from.post("from", "evil", "x", 0)
		x := evil.gets("from", "evil", "x") // so that it has one to give back
		x.Token = d.Token
		evil.write(codec.AppendNotHere(nil, &x))
		evil.fault(codec.FaultBadToken)
		// The receiver's node detects every such token, whatever was changed in it, and asks no
		// other node.
		before := to.n.tokens()
		forge := func(c *client, token []byte) {
			t.Helper()
			c.write(codec.AppendAck(nil, &codec.Ack{Token: token, Code: codec.CodeAcked}))
			c.fault(codec.FaultBadToken)
			forged := d
			forged.Token = token
			c.write(codec.AppendNotHere(nil, &forged))
			c.fault(codec.FaultBadToken)
		}
		forge(evil, d.Token)
		all := changes(d.Token)
		for _, token := range all {
			forge(to, token)
		}
		to.n.expectTokens(before, 2*uint64(1+len(all)), 0)
		to.ack(d, "")
		from.hears(seq, codec.CodeAcked)
		late := from.n.counters().AcksLate
		to.ack(d, "")
		from.n.eventually("late", func() bool { return from.n.counters().AcksLate == late+1 })
		from.silent()
	})
}

// The holder of an ID at another node keeps it against reject-new, and loses it to kick-old.
func TestDuplicateLoginAcrossNodes(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		ids := withEpochs([]string{"to"})
		if r := from.tryBind(codec.PolicyRejectNew, ids...)[0]; r.Code != codec.CodeTaken {
			t.Errorf("reject-new: %v", r)
		}
		epoch := from.bind("to")
		to.kicked("to", epoch)
		to.bind("else")
		seq := to.send("else", "to", "hi")
		from.ack(from.gets("else", "to", "hi"), "")
		to.hears(seq, codec.CodeAcked)
	})
}

// If another node refuses a message, the sender gets the reason, for a message to one ID and to
// many.
func TestRefusedElsewhereWithAReason(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroupWith(t, 2, loops, func(c *Config) {
			c.Hooks.Deliver = func(routing.SessionID, string, *codec.Deliver) codec.Code { return codec.CodeOverflow }
		})
		from := g.nodes[0].join("from")
		g.nodes[1].joinMany("to", "too")
		for _, send := range []func() uint64{
			func() uint64 { return from.send("from", "to", "x") },
			func() uint64 { return from.multicast("from", "x", codec.FlagAck, "to") },
		} {
			if o := from.hears(send(), codec.CodeOverflow); string(o.Reason) != string(reasonHook) {
				t.Errorf("the reason is %q, want %q", o.Reason, reasonHook)
			}
		}
	})
}
