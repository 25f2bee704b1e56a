package engine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// joinMany is join for a client that knows deliver_many and outcomes.
func (n *node) joinMany(ids ...string) *client {
	n.t.Helper()
	c := n.dial()
	if w := c.hello(codec.Hello{Features: codec.FeatureMulticast | 1<<9}); w.Features != codec.FeatureMulticast {
		n.t.Fatalf("features %d", w.Features)
	}
	for ; len(ids) > 0; ids = ids[min(len(ids), 1024):] {
		c.bind(ids[:min(len(ids), 1024)]...)
	}
	return c
}

// multicast sends and returns the number of the first send.
func (c *client) multicast(from, payload string, flags uint8, to ...string) uint64 {
	c.t.Helper()
	first := c.seq + 1
	c.seq += uint64(len(to))
	c.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: first, From: []byte(from), Flags: flags, Payload: []byte(payload)}, to))
	return first
}

// many is a deliver_many as a test sees it.
type many struct {
	codec.DeliverMany
	all []codec.Recipient
}

func (m *many) ids() string {
	var ids []string
	for _, r := range m.all {
		ids = append(ids, string(r.To))
	}
	return strings.Join(ids, " ")
}

func (c *client) getsMany(from, payload string) *many {
	c.t.Helper()
	m := new(many)
	c.decoded(codec.DecodeDeliverMany(c.expect(codec.KindDeliverMany), codec.KindDeliverMany, 1<<20, &m.DeliverMany))
	walk := m.To
	for r, ok := walk.Next(); ok; r, ok = walk.Next() {
		m.all = append(m.all, r)
	}
	if string(m.From) != from || string(m.Payload) != payload {
		c.t.Fatalf("from %q, payload %.40q", m.From, m.Payload)
	}
	return m
}

func (c *client) ackAll(m *many) {
	c.t.Helper()
	var b []byte
	for _, r := range m.all {
		b = codec.AppendAck(b, &codec.Ack{Token: r.Token, Code: codec.CodeAcked, Reply: r.To})
	}
	c.write(b)
}

// tells collects n outcomes, and how many frames they took.
func (c *client) tells(n int) (all map[uint64]codec.Outcome, frames int) {
	c.t.Helper()
	all = make(map[uint64]codec.Outcome)
	note := func(o codec.Outcome) {
		if _, twice := all[o.Seq]; twice {
			c.t.Errorf("two outcomes of %d", o.Seq)
		}
		o.Reply = append([]byte(nil), o.Reply...)
		all[o.Seq] = o
	}
	for len(all) < n {
		f := c.next()
		frames++
		switch f.kind {
		case codec.KindOutcome:
			var o codec.Outcome
			c.decoded(codec.DecodeOutcome(f.body, &o))
			note(o)
		case codec.KindOutcomes:
			list, err := codec.DecodeOutcomes(f.body)
			c.decoded(err)
			for o, ok := list.Next(); ok; o, ok = list.Next() {
				note(o)
			}
		default:
			c.t.Fatalf("%v: %s", f.kind, describe(f))
		}
	}
	return all, frames
}

// One frame to each connection, and each recipient has its own outcome.
func TestMulticast(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, DefaultTTL: 5 * time.Second})
		from := n.joinMany("from")
		a, b := n.joinMany("a1", "a2", "a3"), n.joinMany("b1", "b2")
		single := n.join("c1", "c2")
		first := from.multicast("from", "hi", codec.FlagAck, "a1", "b1", "nobody", "a2", "c1", "b2", "a3", "c2", "a1")

		m := a.getsMany("from", "hi")
		if m.ids() != "a1 a2 a3 a1" || m.Flags != codec.FlagAck || m.TTL == 0 || m.TTL > 5000 {
			t.Errorf("a gets %q, %+v", m.ids(), m.DeliverMany)
		}
		a.ackAll(m)
		m = b.getsMany("from", "hi")
		b.ackAll(m)
		for _, id := range []string{"c1", "c2"} {
			single.ack(single.gets("from", id, "hi"), id)
		}
		outcomes, _ := from.tells(9)
		for i, id := range strings.Fields("a1 b1 nobody a2 c1 b2 a3 c2 a1") {
			o := outcomes[first+uint64(i)]
			if id == "nobody" {
				if o.Code != codec.CodeNoRoute {
					t.Errorf("nobody: %v", o.Code)
				}
			} else if o.Code != codec.CodeAcked || string(o.Reply) != id {
				t.Errorf("%s: %v %q", id, o.Code, o.Reply)
			}
		}
		from.silent()
		if s := n.counters(); s.Multicasts != 1 || s.MulticastDelivers != 3 || s.Sends != 9 {
			t.Errorf("%+v", s)
		}
	})
}

// Without ack there are no outcomes, but reports of failures where they are wanted.
func TestMulticastWithoutAck(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		from, a := n.joinMany("from"), n.joinMany("a1", "a2")
		from.multicast("from", "x", 0, "a1", "nobody", "a2")
		if m := a.getsMany("from", "x"); m.ids() != "a1 a2" || m.Flags != 0 || len(m.all[0].Token) != 0 {
			t.Errorf("%q %+v", m.ids(), m.DeliverMany)
		}
		first := from.multicast("from", "y", codec.FlagReport, "a1", "nobody", "a2")
		m := a.getsMany("from", "y")
		all, _ := from.tells(1)
		if all[first+1].Code != codec.CodeNoRoute {
			t.Errorf("%+v", all)
		}
		// One session gives up an ID that the node thinks it has.
		a.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &m.DeliverMany, m.all[1:]))
		all, _ = from.tells(1)
		if all[first+2].Code != codec.CodeNoRoute {
			t.Errorf("%+v", all)
		}
		from.silent()
		if s := n.counters(); s.Written != 4 || s.Bounced != 1 || s.Outcomes[codec.CodeNoRoute] != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// Bad multicasts end as sends or connections do.
func TestMulticastRefused(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Loops: 2, MaxMulticast: 3, MaxPayload: 1 << 16, MaxIDs: 10, Hooks: Hooks{
		Send: func(_ string, m *codec.Send) codec.Code {
			if string(m.To) == "secret" {
				return codec.CodeDenied
			}
			return codec.CodeOK
		},
	}})
	from, a := n.joinMany("from"), n.joinMany("a", "b")
	if from.welcome.Limits.MaxMulticast != 3 {
		t.Errorf("%+v", from.welcome.Limits)
	}
	for _, c := range []struct {
		from, payload string
		code          codec.Code
	}{
		{"a", "not mine", codec.CodeDenied}, {"", "from nobody", codec.CodeDenied}, {"from", strings.Repeat("x", 1<<16-100), codec.CodeTooLarge},
	} {
		first := from.multicast(c.from, c.payload, codec.FlagAck, "a", "b")
		all, frames := from.tells(2)
		if all[first].Code != c.code || all[first+1].Code != c.code || frames != 1 {
			t.Errorf("%.20q: %+v in %d frames", c.payload, all, frames)
		}
	}
	first := from.multicast("from", "x", codec.FlagAck, "a", "secret", "b")
	a.ackAll(a.getsMany("from", "x"))
	all, _ := from.tells(3)
	if all[first].Code != codec.CodeAcked || all[first+1].Code != codec.CodeDenied || all[first+2].Code != codec.CodeAcked {
		t.Errorf("%+v", all)
	}
	from.multicast("from", "x", codec.FlagAck)
	from.silent()
	from.multicast("from", "x", codec.FlagAck, "1", "2", "3", "4")
	if e := from.fails(codec.FaultTooMany); e.Kind != codec.KindMulticast {
		t.Errorf("%+v", e)
	}
}

// The outcomes of one multicast are told together: at once when all are there, and every few
// milliseconds before.
func TestMulticastOutcomesTogether(t *testing.T) {
	n := start(t, Config{Loops: 2})
	const receivers = 500
	ids := idList("r", receivers)
	from, to := n.joinMany("from"), n.joinMany(ids...)
	for range 3 {
		from.multicast("from", "x", codec.FlagAck, ids...)
		to.ackAll(to.getsMany("from", "x"))
		if _, frames := from.tells(receivers); frames > 100 {
			t.Errorf("%d outcomes in %d frames", receivers, frames)
		}
	}
	first := from.multicast("from", "x", codec.FlagAck, "r0", "r1")
	m := to.getsMany("from", "x")
	to.write(codec.AppendAck(nil, &codec.Ack{Token: m.all[1].Token, Code: codec.CodeAcked}))
	// though the other one is still to come
	if all, _ := from.tells(1); all[first+1].Code != codec.CodeAcked {
		t.Errorf("%+v", all)
	}
	to.nc.Close()
	if all, _ := from.tells(1); all[first].Code != codec.CodeLost {
		t.Errorf("%+v", all)
	}
}

func idList(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return ids
}

// A thousand IDs over three nodes: one payload over each link, one to each connection, whether
// their places are known or not.
func TestMulticastAcrossNodes(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 3, loops)
		from := g.nodes[0].joinMany("from")
		var servers []*client
		var all []string
		for i, n := range g.nodes {
			for j := range 2 {
				ids := idList(fmt.Sprintf("u%d-%d-", i, j), 1000/6+1)
				servers = append(servers, n.joinMany(ids...))
				all = append(all, ids...)
			}
		}
		for i := range all { // neighbours live far apart
			j := i * 7 % len(all)
			all[i], all[j] = all[j], all[i]
		}
		payload := strings.Repeat("p", 1000)
		for round := range uint64(2) { // the first one finds nothing but what is here
			first := from.multicast("from", payload, codec.FlagAck, all...)
			for _, c := range servers {
				m := c.getsMany("from", payload)
				if len(m.all) != 1000/6+1 {
					t.Errorf("a server gets %d", len(m.all))
				}
				c.ackAll(m)
			}
			outcomes, _ := from.tells(len(all))
			for i, id := range all {
				if o := outcomes[first+uint64(i)]; o.Code != codec.CodeAcked || string(o.Reply) != id {
					t.Fatalf("%s: %v %q", id, o.Code, o.Reply)
				}
			}
			want := []Stats{{MulticastDelivers: 2, MulticastForwards: 2}, {MulticastDelivers: 2}, {MulticastDelivers: 2}}
			for i, n := range g.nodes {
				s := n.counters()
				if s.MulticastDelivers != (round+1)*want[i].MulticastDelivers || s.MulticastForwards != (round+1)*want[i].MulticastForwards ||
					s.MulticastReturns != 0 {
					t.Errorf("round %d, node %d: %d delivers, %d forwards, %d returns", round, i, s.MulticastDelivers, s.MulticastForwards, s.MulticastReturns)
				}
			}
		}
		for _, c := range append(servers, from) {
			c.silent()
		}
		if sends, ended, lost := g.sum(); sends != ended || lost != 0 {
			t.Errorf("%d sends, %d ended, %d lost", sends, ended, lost)
		}
	})
}

// What a session of another node does not hold any more comes back together, and is looked for once
// more.
func TestMulticastReturned(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, _, _ *client) {
		from := g.nodes[0].joinMany("sender")
		old, now := g.nodes[1].joinMany("a", "b", "c", "d"), g.nodes[0].joinMany("e")
		from.multicast("sender", "1", codec.FlagAck, "a", "b", "c", "d") // makes the routes known
		old.ackAll(old.getsMany("sender", "1"))
		from.tells(4)

		// b and c go to another session; d goes to nobody.
		first := from.multicast("sender", "2", codec.FlagAck, "a", "b", "c", "d", "e")
		m := old.getsMany("sender", "2")
		now.ackAll(now.getsMany("sender", "2"))
		now.bind("b", "c")
		old.expect(codec.KindKick)
		old.expect(codec.KindKick)
		old.unbindQuietly(t, g, "d")
		old.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &m.DeliverMany, m.all[1:]))
		old.ackAll(&many{all: m.all[:1]})
		for range 2 {
			d := now.delivered()
			now.ack(d, "moved")
		}
		outcomes, _ := from.tells(5)
		for i, want := range []codec.Code{codec.CodeAcked, codec.CodeAcked, codec.CodeAcked, codec.CodeNoRoute, codec.CodeAcked} {
			if o := outcomes[first+uint64(i)]; o.Code != want {
				t.Errorf("%d: %v, want %v", i, o.Code, want)
			}
		}
		from.silent()
		old.silent()
		if s := g.nodes[0].counters(); s.MulticastReturns != 1 {
			t.Errorf("%d returns", s.MulticastReturns)
		}
	})
}

// A forged return or answer to a multicast is refused like any.
func TestMulticastForged(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Loops: 1})
	from, a, liar := n.joinMany("from"), n.joinMany("a"), n.joinMany("liar")
	first := from.multicast("from", "x", codec.FlagAck, "a")
	m := a.getsMany("from", "x")
	liar.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &m.DeliverMany, m.all))
	liar.fault(codec.FaultBadToken)
	changed := m.DeliverMany
	changed.Payload = []byte("y")
	a.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &changed, m.all))
	a.fault(codec.FaultBadToken)
	a.ackAll(m)
	if all, _ := from.tells(1); all[first].Code != codec.CodeAcked {
		t.Errorf("%+v", all)
	}
}

// Those of a multicast that wait for the registry keep their place among the other messages of the
// connection (S20).
func TestMulticastOrder(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g, reg := parkingOn(t, loops, nil)
		from, busy := g.nodes[0].joinMany("from"), g.nodes[0].join("busy")
		to := g.nodes[1].joinMany("x", "y")
		// As many questions as a node asks at once wait, so that one answer is about both x and y.
		reg.shut()
		const atOnce = 4
		for i := range atOnce {
			busy.post("busy", fmt.Sprint("nobody", i), "", 0)
			busy.n.eventually("a question waits", func() bool { return reg.waiting() == i+1 })
		}
		var frames []byte
		seq := uint64(1)
		for i := range 20 { // in one write, behind the first lookup
			flags := uint8(0)
			if i%3 == 0 {
				frames = append(frames, sendFrame(seq, "from", "x", fmt.Sprint(i), flags, 0)...)
			} else {
				frames = codec.AppendMulticast(frames, &codec.Multicast{Seq: seq, From: []byte("from"), Payload: []byte(fmt.Sprint(i))}, []string{"x", "y"})
			}
			seq += 2
		}
		from.write(frames)
		from.n.eventually("all wait", func() bool { return from.n.counters().Parked == 7+2*13+atOnce })
		reg.pass()
		next := 0
		for next < 20 {
			f := to.next()
			var payload []byte
			switch f.kind {
			case codec.KindDeliver:
				var d codec.Deliver
				to.decoded(codec.DecodeDeliver(f.body, &d))
				payload = d.Payload
			case codec.KindDeliverMany:
				var m codec.DeliverMany
				to.decoded(codec.DecodeDeliverMany(f.body, f.kind, 10, &m))
				payload = m.Payload
			default:
				t.Fatalf("%v", f.kind)
			}
			if string(payload) != fmt.Sprint(next) {
				t.Fatalf("%s came, want %d", payload, next)
			}
			next++
		}
	})
}

// An unknown sender's multicast waits as a whole, and continues or is denied as a whole.
func TestMulticastHeld(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		to := g.nodes[1].joinMany("x", "y")
		home := g.nodes[0].joinMany("from")
		// the same session at another node, which has not heard of its ID
		second := g.nodes[1].dial()
		second.hello(codec.Hello{Session: home.session, Secret: home.secret, Features: codec.FeatureMulticast})
		first := second.multicast("from", "p", codec.FlagAck, "x", "y", "nobody")
		m := to.getsMany("from", "p")
		to.ackAll(m)
		all, _ := second.tells(3)
		if all[first].Code != codec.CodeAcked || all[first+1].Code != codec.CodeAcked || all[first+2].Code != codec.CodeNoRoute {
			t.Errorf("%+v", all)
		}
		first = second.multicast("x", "p", codec.FlagAck, "x", "y")
		if all, _ := second.tells(2); all[first].Code != codec.CodeDenied || all[first+1].Code != codec.CodeDenied {
			t.Errorf("%+v", all)
		}
	})
}

// While the registry does not answer, a multicast's deadline is kept for each of its sends.
func TestMulticastExpires(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1, 1)
	from := g.nodes[0].joinMany("from")
	release := make(chan struct{})
	defer close(release)
	first := from.seq + 1
	from.seq += 3
	to := []string{"p", "q", "r"}
	for _, id := range to {
		g.nodes[0].resolverBusy(id, release)
	}
	from.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: first, From: []byte("from"), Flags: codec.FlagAck, TTL: 50}, to))
	all, _ := from.tells(3)
	for i := range to {
		if all[first+uint64(i)].Code != codec.CodeExpired {
			t.Errorf("%+v", all)
		}
	}
}

// resolverBusy makes the question about an ID one that was asked already, and is not answered
// before the end of the test.
func (n *node) resolverBusy(id string, _ <-chan struct{}) {
	n.dir.Probe().HoldQuestion(id)
}

// The word on a multicast's sender holds for all of it, though its binding may end in the middle.
func TestMulticastSenderUnbound(t *testing.T) {
	g := startGroup(t, 1, 1)
	var table atomic.Pointer[routing.Table]
	n := g.start("unbinds", 1, func(c *Config) {
		c.Hooks.Send = func(_ string, m *codec.Send) codec.Code {
			if r, ok := table.Load().Lookup([]byte("from")); ok && string(m.To) == "b" {
				table.Load().Unbind("from", r.Session, r.Epoch) // as a lane may, at any time
			}
			return codec.CodeOK
		}
	})
	table.Store(n.table)
	from, to := n.joinMany("from"), n.joinMany("a", "b", "c")
	first := from.multicast("from", "x", codec.FlagAck, "a", "b", "c")
	m := to.getsMany("from", "x")
	if m.ids() != "a b c" {
		t.Errorf("%q", m.ids())
	}
	to.ackAll(m)
	all, _ := from.tells(3)
	for i := range uint64(3) {
		if all[first+i].Code != codec.CodeAcked {
			t.Errorf("%d: %v", i, all[first+i].Code)
		}
	}
	from.silent()
	to.silent()
}

// A multicast to nobody waits for nothing.
func TestMulticastToNobodyHeld(t *testing.T) {
	t.Parallel()
	g, reg := parking(t, nil)
	from := g.nodes[0].joinMany("from")
	reg.shut()
	seq := from.send("ghost", "x", "waits")
	from.multicast("ghost", "x", codec.FlagAck)
	if s := g.nodes[0].counters(); s.Sends != 1 || s.Parked != 1 {
		t.Errorf("%d sends, %d parked", s.Sends, s.Parked)
	}
	reg.pass()
	from.hears(seq, codec.CodeDenied)
}

// A client cannot have this node send another one a frame that is too large, and so end their link.
func TestMulticastReturnsManyForged(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		// Frames are small, so that not even a busy machine is at it for as long as a link may be
		// silent.
		g := startGroupWith(t, 2, loops, func(c *Config) { c.MaxPayload, c.MaxIDs = 1<<16, 10 })
		from, liar := g.nodes[0].join("from"), g.nodes[1].joinMany("liar")
		seq := from.send("from", "liar", "x")
		token := liar.gets("from", "liar", "x").Token
		// each takes 28 bytes here, and 33 on its way back
		all := make([]codec.Recipient, g.nodes[1].mostReturned())
		for i := range all {
			all[i] = codec.Recipient{Token: token, To: []byte("?"), Epoch: 1}
		}
		liar.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany,
			&codec.DeliverMany{From: []byte("from"), Flags: codec.FlagAck, Payload: make([]byte, g.nodes[1].maxFrame-29*len(all))}, all))
		liar.silent()
		from.n.settle()
		liar.write(codec.AppendAck(nil, &codec.Ack{Token: token, Code: codec.CodeAcked}))
		from.hears(seq, codec.CodeAcked) // not lost with the link
		if s := g.nodes[0].counters(); s.Links != 1 || s.Faults[codec.FaultFrameTooLarge] != 0 {
			t.Errorf("%d links, faults %v", s.Links, s.Faults)
		}
	})
}
