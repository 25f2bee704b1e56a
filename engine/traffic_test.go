package engine

import (
	"strings"
	"testing"

	"distmsg/codec"
)

// Bytes count by loop, by kind of connection and by link.
func TestTraffic(t *testing.T) {
	g := startGroup(t, 2, 2)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
	payload := strings.Repeat("x", 10_000)
	seq := from.send("from", "to", payload)
	to.ack(to.gets("from", "to", payload), "")
	from.hears(seq, codec.CodeAcked)

	stats := from.n.counters()
	var clients, links Traffic
	for i := range stats.PerLoop {
		l := &stats.PerLoop[i]
		clients.BytesIn += l.Clients.BytesIn
		links.BytesOut += l.Links.BytesOut
		if queued := l.Clients.Queued + l.Inside.Queued + l.Links.Queued + l.Unhandled + l.Mail; queued != 0 || l.Inside != (Traffic{}) {
			t.Errorf("loop %d: %+v", i, l)
		}
	}
	if len(stats.PerLoop) != 2 || clients.BytesIn < 10_000 || links.BytesOut < 10_000 {
		t.Errorf("%+v", stats.PerLoop)
	}
	if len(stats.PerLink) != 1 || stats.PerLink[0].Node != to.n.NodeID() || stats.PerLink[0].BytesOut < 10_000 {
		t.Errorf("%+v", stats.PerLink)
	}
	other := to.n.counters()
	if k := other.PerLink; len(k) != 1 || k[0].Node != from.n.NodeID() || k[0].BytesIn < 10_000 || other.BytesIn < 10_000 {
		t.Errorf("%+v", k)
	}
}

func TestLinksOfOneNode(t *testing.T) {
	s := Stats{PerLink: []LinkStats{{"b", Traffic{1, 2, 3}}, {"a", Traffic{}}, {"b", Traffic{10, 20, 30}}}}
	s.sortLinks()
	if len(s.PerLink) != 2 || s.PerLink[0].Node != "a" || s.PerLink[1] != (LinkStats{"b", Traffic{11, 22, 33}}) {
		t.Errorf("%+v", s.PerLink)
	}
}
