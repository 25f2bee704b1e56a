package engine

import (
	"bytes"
	"testing"

	"distmsg/codec"
)

// taken returns the spans of a node so far.
func (n *node) taken() []Span {
	n.t.Helper()
	n.counters()
	return n.TakeSpans(nil)
}

// A message whose trace is sampled has a span at each of its nodes, and another one has none.
func TestSpans(t *testing.T) {
	g := startGroupWith(t, 2, 2, func(c *Config) { c.Spans = 64 })
	from, near, far := g.nodes[0].joinOn(0, "from"), g.nodes[0].joinOn(0, "near"), g.nodes[1].join("far")
	sampled, not := bytes.Repeat([]byte{7}, codec.TraceLen), bytes.Repeat([]byte{6}, codec.TraceLen)
	for _, trace := range [][]byte{nil, not, sampled} {
		from.traced(trace, codec.FlagReport, "near")
		near.gets("from", "near", "x")
		from.traced(trace, codec.FlagReport, "far")
		far.gets("from", "far", "x")
	}
	here, there := from.n.taken(), far.n.taken()
	if len(here) != 2 || here[0].Forwarded || !here[1].Forwarded || len(there) != 1 || there[0].Forwarded {
		t.Fatalf("%+v at the sender's node, %+v at the other", here, there)
	}
	for _, s := range append(here, there...) {
		if !bytes.Equal(s.Trace[:], sampled) || s.Ended.Before(s.Began) || s.Recipients != 1 {
			t.Errorf("%+v", s)
		}
	}
	if again := from.n.taken(); len(again) != 0 {
		t.Errorf("they are there again: %+v", again)
	}
}

// A message to many has a few spans, and a buffer that is full drops the rest and counts them.
func TestSpansAreBounded(t *testing.T) {
	l := &loop{}
	s := &loopSpans{loop: l, made: make([]span, 0, 2*mostAlike)}
	trace := bytes.Repeat([]byte{1}, codec.TraceLen)
	for range 100 {
		s.note(trace, false, 5)
	}
	if len(s.made) != mostAlike || s.dropped != 0 {
		t.Errorf("%d spans of one message to many, %d dropped", len(s.made), s.dropped)
	}
	for i := range byte(100) {
		trace[0] = i
		s.note(trace, false, 1)
	}
	if len(s.made) != cap(s.made) || s.dropped != 100-mostAlike {
		t.Errorf("%d spans, %d dropped", len(s.made), s.dropped)
	}
	s.end()
	l.pubSpans = make([]span, 3, cap(s.made))
	s.publish()
	if len(l.pubSpans) != cap(s.made) || s.dropped != 100-mostAlike+3 || len(s.made) != 0 {
		t.Errorf("%d published, %d dropped, %d left", len(l.pubSpans), s.dropped, len(s.made))
	}
	off := &loopSpans{loop: l}
	off.note(trace, false, 1)
	off.end()
	if len(off.made) != 0 || off.dropped != 0 {
		t.Errorf("%+v without spans", off)
	}
}
