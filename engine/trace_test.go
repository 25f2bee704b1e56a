package engine

import (
	"bytes"
	"testing"

	"distmsg/codec"
)

// traced sends a message with a trace to each of the IDs, as one multicast if there are several.
func (c *client) traced(trace []byte, flags uint8, to ...string) {
	c.t.Helper()
	first := c.seq + 1
	c.seq += uint64(len(to))
	if len(to) == 1 {
		c.write(codec.AppendSend(nil, &codec.Send{Seq: first, From: []byte("from"), To: []byte(to[0]), Flags: flags, Payload: []byte("x"), Trace: trace}))
		return
	}
	c.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: first, From: []byte("from"), Flags: flags, Payload: []byte("x"), Trace: trace}, to))
}

// A trace arrives as it was sent, whichever way its message takes.
func TestTraces(t *testing.T) {
	trace := bytes.Repeat([]byte{7}, codec.TraceLen)
	g := startGroup(t, 2, 2)
	from := g.nodes[0].joinOn(0, "from")
	same, other := g.nodes[0].joinOn(0, "same loop"), g.nodes[0].joinOn(1, "other loop")
	far, many := g.nodes[1].join("far"), g.nodes[1].joinMany("many 1", "many 2")
	check := func(c *client, what string, want []byte) codec.Deliver {
		t.Helper()
		d := c.gets("from", what, "x")
		if !bytes.Equal(d.Trace, want) {
			t.Errorf("%s: trace %x, want %x", what, d.Trace, want)
		}
		return d
	}
	for range 2 { // the first ones to the other node wait for the registry
		for _, flags := range []uint8{0, codec.FlagReport} {
			from.traced(trace, flags, "same loop")
			check(same, "same loop", trace)
			from.traced(trace, flags, "other loop")
			check(other, "other loop", trace)
			from.traced(trace, flags, "far")
			check(far, "far", trace)
			from.traced(nil, flags, "far")
			check(far, "far", nil)
			from.traced(trace, flags, "same loop", "other loop", "far", "many 1", "many 2")
			check(same, "same loop", trace)
			check(other, "other loop", trace)
			check(far, "far", trace)
			if m := many.getsMany("from", "x"); !bytes.Equal(m.Trace, trace) {
				t.Errorf("many: trace %x", m.Trace)
			}
		}
	}
}

// A message that comes back has its trace with it when it goes elsewhere.
func TestTraceOfBounced(t *testing.T) {
	trace := bytes.Repeat([]byte{7}, codec.TraceLen)
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		seq := from.seq + 1
		from.traced(trace, codec.FlagAck, "to")
		d := to.delivered()
		next := n.join("to")
		to.write(codec.AppendNotHere(nil, &d))
		again := next.gets("from", "to", "x")
		if !bytes.Equal(again.Trace, trace) {
			t.Errorf("trace %x", again.Trace)
		}
		next.ack(again, "")
		from.hears(seq, codec.CodeAcked)
	})
}
