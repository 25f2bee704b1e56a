package engine

import (
	"math"
	"testing"

	"distmsg/codec"
)

// A receiver may give a message back as often as it has been delivered any. Its sender hears once.
func TestReportOnce(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, _ *node, from, to *client) { reportOnce(from, to) })
	t.Run("other node", func(t *testing.T) {
		g := startGroup(t, 2, 2)
		reportOnce(g.nodes[0].join("from"), g.nodes[1].join("to"))
	})
}

func reportOnce(from, to *client) {
	from.t.Helper()
	var seqs [5]uint64
	var all [5]codec.Deliver
	for i := range seqs {
		seqs[i] = from.post("from", "to", "hi", codec.FlagReport)
		all[i] = to.gets("from", "to", "hi")
	}
	for range 3 {
		to.notHere(all[0])
	}
	to.notHere(all[1])
	to.silent()
	for _, seq := range seqs[:2] {
		if o := from.outcome(); o.Seq != seq {
			from.t.Fatalf("the outcome of %d, want that of %d", o.Seq, seq)
		}
	}
	to.notHere(all[0]) // more than were delivered would not be believed at all
	to.silent()
	from.silent()
}

// Failures are reported once in whatever order they come, and the memory for them is bounded.
func TestReportsRemembered(t *testing.T) {
	var r reports
	const n = 3 * reportsPerPage
	for i := range uint64(n) {
		if seq := i*7%n + 100; !r.first(seq) { // each once: 7 and n have no common factor
			t.Fatalf("%d counts as told", seq)
		}
	}
	for seq := range uint64(n) {
		if r.first(seq + 100) {
			t.Fatalf("%d is told twice", seq+100)
		}
	}
	r = reports{}
	for i := range uint64(10 * maxReportPages) {
		if seq := i * reportsPerPage; !r.first(seq) || r.first(seq) {
			t.Fatalf("%d is not told once", seq)
		}
		if len(r.pages) > maxReportPages {
			t.Fatalf("%d pages", len(r.pages))
		}
	}
	if r.first(0) {
		t.Error("what is forgotten is told again")
	}
	if !r.first(math.MaxUint64) || r.first(math.MaxUint64) {
		t.Error("the greatest number is not told once")
	}
}
