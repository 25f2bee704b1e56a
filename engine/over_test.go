package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// remembers has a client send to IDs of another node, so that its own node knows the ways there.
func (c *client) remembers(from string, to *client, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		c.exchange(from, to, id)
	}
	for _, id := range ids {
		if _, _, ok := c.n.cluster.way([]byte(id)); !ok {
			c.t.Fatalf("%s does not know the way to %q", c.n.NodeID(), id)
		}
	}
}

// After "unbound" nothing comes for the ID, whatever ways other nodes remember. The client of this
// test would take everything.
func TestNothingComesAfterUnbound(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		epochs := make(map[string]uint64)
		for _, id := range []string{"acked", "posted", "multicast"} {
			epochs[id] = to.bind(id)
		}
		from.remembers("from", to, "acked", "posted", "multicast")
		for id, epoch := range epochs {
			if r := to.unbind(id, epoch); r.Code != codec.CodeOK {
				t.Fatalf("unbind %q: %v", id, r)
			}
		}
		from.hears(from.send("from", "acked", "x"), codec.CodeNoRoute)
		from.hears(from.post("from", "posted", "x", codec.FlagReport), codec.CodeNoRoute)
		from.hears(from.multicast("from", "x", codec.FlagAck, "multicast"), codec.CodeNoRoute)
		to.silent()

		// It may take an ID up again.
		to.bind("acked")
		from.reaches("acked", to)
	})
}

// reaches sends from "from" until the message comes: the node remembers for a moment that the ID
// was not bound (S19).
func (c *client) reaches(id string, to *client) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		seq := c.post("from", id, "again", codec.FlagReport)
		c.n.settle()
		to.n.settle()
		for _, f := range c.arrived() {
			var o codec.Outcome
			c.decoded(codec.DecodeOutcome(f.body, &o))
			if o.Seq != seq || o.Code != codec.CodeNoRoute {
				c.t.Fatalf("%d %v", o.Seq, o.Code)
			}
		}
		for _, f := range to.arrived() {
			if f.kind == codec.KindDeliver {
				return
			}
		}
	}
	c.t.Fatalf("%q is not reached", id)
}

// A session that lost an ID gets nothing for it any more, from nodes that have not heard of that.
func TestNothingComesAfterAKick(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 3, loops)
		from, old, next := g.nodes[0].join("from"), g.nodes[1].join("x", "y"), g.nodes[2].join()
		from.remembers("from", old, "x", "y")
		old.kicked("x", next.bind("x"))
		old.kicked("y", next.bind("y"))
		from.exchange("from", next, "x")
		from.post("from", "y", "posted", 0)
		next.gets("from", "y", "posted")
		old.silent()
	})
}

// A node that has not heard of it forwards a message for a binding that is over: it goes back,
// alone or as a part of a multicast. One for a later binding, which was made at another node, is
// delivered.
func TestForwardsForEndedBindingsGoBack(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 1, loops)
		n := g.nodes[0]
		to, other, p := n.joinMany(), n.join(), n.linkAs("n9")
		back := func(id string, epoch uint64) {
			t.Helper()
			d := codec.Deliver{To: []byte(id), From: []byte("f"), Epoch: epoch, Payload: []byte("hi")}
			p.write(codec.AppendForward(nil, codec.KindForward, &codec.Forward{Deliver: d, Session: to.session}))
			p.answeredWith(codec.KindNotMine)
			p.write(codec.AppendDeliverMany(nil, codec.KindForwardMany, &codec.DeliverMany{From: d.From, Payload: d.Payload},
				[]codec.Recipient{{To: d.To, Epoch: epoch, Session: to.session}}))
			p.answeredWith(codec.KindReturnMany)
			to.silent()
		}
		epoch := to.bind("unbound")
		to.unbind("unbound", epoch)
		back("unbound", epoch)
		back("unbound", epoch-1)

		epoch = to.bind("kicked")
		newer := other.bind("kicked")
		to.kicked("kicked", newer)
		back("kicked", epoch)
		other.unbind("kicked", newer)
		back("kicked", epoch)
		back("kicked", newer)

		later := codec.Deliver{To: []byte("kicked"), From: []byte("f"), Epoch: newer + 1, Payload: []byte("later")}
		p.write(codec.AppendForward(nil, codec.KindForward, &codec.Forward{Deliver: later, Session: to.session}))
		to.gets("f", "kicked", "later")
		p.nc.Close()
	})
}

// answeredWith expects a frame of that kind among those that answer what was written.
func (c *client) answeredWith(kind codec.Kind) {
	c.t.Helper()
	if all := c.arrived(); !slices.ContainsFunc(all, func(f frame) bool { return f.kind == kind }) {
		c.t.Errorf("%d frames came, none of them %v", len(all), kind)
	}
}

// A session is attached at two nodes, and gives an ID back at one of them. The other has it in its
// table, or remembers a way.
func TestNothingComesAfterUnboundElsewhere(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 3, loops)
		from, near, here := g.nodes[0].join("from"), g.nodes[1].join("near"), g.nodes[1].join("x")
		there := g.nodes[2].dial()
		there.hello(here.resume())
		s := here.sessionID()
		from.n.eventually("it is attached at both", func() bool {
			r := from.n.cluster.remote.Session(s)
			return r != nil && len(r.Handles()) == 2
		})
		g.nodes[2].eventually("it is attached elsewhere, too", func() bool { return g.nodes[2].dir.AttachedElsewhere(s) })
		near.exchange("near", here, "x")
		route, _ := g.nodes[1].table.Lookup([]byte("x"))
		from.post("from", "x", "which way", 0)
		from.n.eventually("it knows a way", func() bool { _, _, ok := from.n.cluster.way([]byte("x")); return ok })
		from.n.settle()
		g.nodes[1].settle()
		g.nodes[2].settle()
		here.arrived()
		there.arrived()

		if r := there.unbind("x", route.Epoch); r.Code != codec.CodeOK {
			t.Fatalf("%v", r)
		}
		g.nodes[1].eventually("the other node has heard of it", func() bool {
			_, ok := g.nodes[1].table.Lookup([]byte("x"))
			return !ok
		})
		from.hears(from.send("from", "x", "late"), codec.CodeNoRoute)
		near.hears(near.send("near", "x", "late"), codec.CodeNoRoute)
		near2 := g.nodes[2].join("near2")
		near2.hears(near2.send("near2", "x", "late"), codec.CodeNoRoute)
		here.silent()
		there.silent()
	})
}

// What another loop had on the way for an ID when it was unbound comes before "unbound".
func TestUnboundComesLast(t *testing.T) {
	n := start(t, Config{Loops: 2})
	from, to := n.joinOn(0, "from"), n.joinOn(1)
	epoch := to.bind("to")
	l, h := n.loops[0], n.table.Session(from.sessionID()).Handles()[0]
	looked, gone := make(chan struct{}), make(chan struct{})
	l.post(func() {
		l.conn(h).sender.handle(sendFrame(99, "from", "to", "on its way", codec.FlagAck, 0)[codec.PrefixLen:])
		close(looked)
		<-gone // the iteration lasts: what it has for the other loop is not handed over yet
	})
	<-looked
	to.seq++
	to.write(codec.AppendUnbind(nil, to.seq, withEpochs([]string{"to"}, epoch)))
	n.eventually("it is unbound", func() bool { _, ok := n.table.Lookup([]byte("to")); return !ok })
	close(gone)
	to.ack(to.gets("from", "to", "on its way"), "")
	if r := to.requested(codec.KindUnbound)[0]; r.Code != codec.CodeOK {
		t.Errorf("%v", r)
	}
	from.hears(99, codec.CodeAcked)
}

// A route that is not true any more goes within a period, also if no message takes it; and not
// while the registry does not answer.
func TestRoutesAreChecked(t *testing.T) {
	long(t)
	t.Parallel()
	reg := &down{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := &group{t: t, hub: newHub(), registry: reg}
	for i := range 2 {
		g.nodes = append(g.nodes, g.start(fmt.Sprint("n", i), 1, func(c *Config) { c.VerifyPeriod = time.Second }))
	}
	g.linked(2)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("stays", "goes")
	from.remembers("from", to, "stays", "goes")
	from.n.eventually("it is gone", func() bool {
		found, err := reg.Registry.Lookup(t.Context(), []string{"goes"})
		if err == nil { // again and again: the receiver's node says its bindings again
			_, err = reg.Registry.Unbind(t.Context(), []routing.UnbindOp{{ID: "goes", Session: to.sessionID(), Epoch: found[0].Binding.Epoch}})
		}
		from.decoded(err)
		_, ok := from.n.cluster.remote.Lookup([]byte("goes"))
		return !ok
	})
	if _, ok := from.n.cluster.remote.Lookup([]byte("stays")); !ok {
		t.Error("a route that is true was forgotten")
	}
}
