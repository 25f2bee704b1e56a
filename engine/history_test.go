package engine

import (
	"testing"
	"time"

	"distmsg/codec"
)

// A node remembers its latest samples, the oldest first, and no more than it has room for.
func TestHistoryIsBounded(t *testing.T) {
	h := new(history)
	for i := range mostSamples + 7 {
		h.add(HistorySample{Sends: uint64(i)})
	}
	for limit, first := range map[int]uint64{mostSamples: 7, 2 * mostSamples: 7, 3: mostSamples + 4} {
		all := h.latest(limit)
		if len(all) != min(limit, mostSamples) || all[0].Sends != first {
			t.Errorf("%d of %d samples, the first of which is %d, want %d", len(all), limit, all[0].Sends, first)
		}
		for i, s := range all {
			if s.Sends != first+uint64(i) {
				t.Fatalf("sample %d is %d", i, s.Sends)
			}
		}
	}
}

// What happened between two readings of the counters is a sample, and any node of the cluster can
// ask for it.
func TestHistory(t *testing.T) {
	g := startGroup(t, 2, 2)
	n := g.nodes[0]
	before := n.history.read()
	a, b := n.join("a"), n.join("b")
	a.exchange("a", b, "b")
	a.hears(a.send("a", "nobody", "x"), codec.CodeNoRoute)
	n.eventually("the counters have both sends and their outcomes", func() bool {
		now := n.history.read()
		return now.sends == 2 && now.ackRoundTrip.Count() == 1 && now.outcomes[codec.CodeNoRoute] == 1
	})
	s := n.history.sample(time.Now(), before, n.history.read())
	if s.Node != "n0" || s.Seconds <= 0 || s.Sends != 2 || s.Outcomes["acked"] != 1 || s.Outcomes["no_route"] != 1 || len(s.Outcomes) != 2 {
		t.Errorf("%+v", s)
	}
	if r := s.AckRoundTrip; r == nil || r.Count != 1 || r.P50Seconds <= 0 || r.P99Seconds != r.P50Seconds {
		t.Errorf("ack round trip: %+v", r)
	}
	if len(s.Peers) != 1 || s.Peers[0] != "n1" {
		t.Errorf("peers: %q", s.Peers)
	}
	if again := n.history.sample(time.Now(), n.history.read(), n.history.read()); again.Sends != 0 || again.Outcomes != nil || again.AckRoundTrip != nil {
		t.Errorf("nothing happened: %+v", again)
	}
	n.history.add(s)
	all, err := g.nodes[1].Operator().History(asks(t), 1)
	if err != nil || len(all.Missing) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, got := range all.Answers { // the samples that the node itself takes may have come, too
		if got.Node == "n0" && got.At.IsZero() {
			t.Errorf("%+v", got)
		}
	}
}
