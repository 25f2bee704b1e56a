package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// multicastFrame is a multicast to n IDs that nobody holds, but for the last.
func multicastFrame(from, last string, n int, payload []byte, flags uint8) []byte {
	m := codec.Multicast{Seq: 1, From: []byte(from), Flags: flags, Payload: payload}
	to := make([][]byte, n)
	for i := range to {
		to[i] = fmt.Appendf(nil, "%s nobody %d", from, i)
	}
	to[n-1] = []byte(last)
	return codec.AppendMulticast(nil, &m, to)
}

// A multicast to many is handled in slices: another connection has its turn in between, and what
// the sender sends next comes behind it.
func TestLongMulticastIsSliced(t *testing.T) {
	const many = 2000
	sent := make(chan struct{})
	h := &laborious{first: func() { <-sent }}
	n := start(t, Config{Hooks: Hooks{Send: h.send}})
	a, b := n.join("a"), n.join("b")
	a.write(multicastFrame("a", "a", many, []byte("many"), 0))
	a.post("a", "a", "behind it", 0)
	b.post("b", "b", "b", 0)
	close(sent)
	b.gets("b", "b", "b")
	a.gets("a", "a", "many")
	a.gets("a", "a", "behind it")
	seen := h.handled()
	if at := slices.Index(seen, "b"); at > many/2 {
		t.Errorf("the loop came to b behind %d recipients", at)
	}
	if last := slices.Index(seen, "behind it"); last < many {
		t.Errorf("the sender's next message came behind %d of %d recipients", last, many)
	}
	if s := n.counters(); s.Sliced == 0 || s.Outcomes[codec.CodeNoRoute] != many-1 || s.Written != 3 {
		t.Errorf("%+v", s)
	}
}

// What is left of a multicast whose sender has gone is accounted for: the books of each test
// balance.
func TestLongMulticastEndsWithItsSender(t *testing.T) {
	const many = 2000
	for _, flags := range []uint8{0, codec.FlagAck} {
		begun, sent := make(chan struct{}), make(chan struct{})
		h := &laborious{first: func() { close(begun); <-sent }}
		n := start(t, Config{Hooks: Hooks{Send: h.send}})
		a := n.join("a")
		a.write(multicastFrame("a", "a", many, nil, flags))
		<-begun
		n.loops[0].post(func() { n.loops[0].conn(n.table.Session(a.sessionID()).Handles()[0]).end() })
		close(sent)
		for err := error(nil); err == nil; {
			_, err = a.read()
		}
		if s := n.counters(); s.Sends != many || s.Abandoned == 0 {
			t.Errorf("flags %d: %+v", flags, s)
		}
	}
}

// To copy a large payload for each of many connections takes long, too.
func TestLargeMulticastIsSliced(t *testing.T) {
	n := start(t, Config{})
	a := n.join("a")
	var to []string
	var all []*client
	for i := range 40 {
		to = append(to, fmt.Sprint("to ", i))
		all = append(all, n.join(to[i]))
	}
	payload := strings.Repeat("x", 1<<19)
	a.multicast("a", payload, 0, to...)
	for i, c := range all {
		c.gets("a", to[i], payload)
	}
	if s := n.counters(); s.Sliced < 2 {
		t.Errorf("%+v", s)
	}
}

// What comes over a link for many is handled in slices as well, and all of it arrives in order.
func TestLongForwardIsSliced(t *testing.T) {
	const many = 1500
	g := startGroupWith(t, 2, 1, func(c *Config) {
		// The node of the receivers: what calls a hook is handled in smaller slices.
		if c.NodeID == "n1" {
			c.Hooks.Deliver = func(routing.SessionID, string, *codec.Deliver) codec.Code { return codec.CodeOK }
		}
	})
	var ids []string
	for i := range many {
		ids = append(ids, fmt.Sprint("id ", i))
	}
	a, b := g.nodes[0].join("a"), g.nodes[1].dial()
	b.hello(codec.Hello{Features: codec.FeatureMulticast})
	for part := range slices.Chunk(ids, 500) {
		b.bind(part...)
	}
	// hears reads what has come for all of them, and returns in which order.
	hears := func() (all []string) {
		for len(all) < many {
			var m codec.DeliverMany
			if f := b.next(); f.kind == codec.KindDeliverMany {
				b.decoded(codec.DecodeDeliverMany(f.body, f.kind, many, &m))
			} else {
				t.Fatal(describe(f))
			}
			for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
				all = append(all, string(r.To))
			}
		}
		return all
	}
	a.multicast("a", "many", 0, ids...)
	// The node asks the registry for a part of them at a time, and it answers when it likes. Now
	// the routes are known.
	hears()
	a.multicast("a", "many", 0, ids...)
	if got := hears(); !slices.Equal(got, ids) {
		t.Errorf("they came in another order: %q", got)
	}
	if s := g.nodes[1].counters(); s.Sliced < 2 || s.Received != 2*many {
		t.Errorf("%+v", s)
	}
}

// What comes back for many is taken back in slices, too, on the loop that it comes to and on the
// one that waits for it. Each of its messages ends once, as it would alone.
func TestLongNotHereManyIsSliced(t *testing.T) {
	const copies = 3000
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		to.write(codec.AppendBye(nil))
		to.ends()
		to = n.joinMany()
		to.bind("to")
		ids := slices.Repeat([]string{"to"}, copies)
		first := from.seq + 1
		from.seq += copies
		from.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: first, From: []byte("from"), Flags: codec.FlagAck, Payload: []byte("x")}, ids))
		var all []codec.Recipient
		var m *many
		for len(all) < copies { // a slow machine makes several frames of it
			m = to.getsMany("from", "x")
			all = append(all, m.all...)
		}
		before := n.counters().Sliced
		to.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &m.DeliverMany, all))
		for i := range uint64(copies) {
			from.hears(first+i, codec.CodeNoRoute)
		}
		from.silent()
		to.silent()
		if got := n.counters().Sliced - before; got < copies*returnCost/sliceWork {
			t.Errorf("%d slices of %d messages, a slice may have %d", got+1, copies, sliceWork/returnCost)
		}
	})
}
