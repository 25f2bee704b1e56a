//go:build !race

package engine

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"distmsg/codec"
)

// A message of a multicast costs (almost) no allocation, like any other.
func TestMulticastAllocations(t *testing.T) {
	n := start(t, Config{Loops: 2})
	from := n.joinMany("from")
	var all []string
	for i := range 8 {
		ids := idList(strings.Repeat("x", i+1), 25)
		to := n.joinMany(ids...)
		go io.Copy(io.Discard, to.nc)
		all = append(all, ids...)
	}
	go io.Copy(io.Discard, from.nc)
	frame := codec.AppendMulticast(nil, &codec.Multicast{From: []byte("from"), Payload: make([]byte, 128)}, all)
	run := func(multicasts uint64) {
		want := n.Stats().Written + multicasts*uint64(len(all))
		for range multicasts {
			from.write(frame)
		}
		n.eventually("all are written", func() bool { return n.Stats().Written >= want })
	}
	run(100)               // buffers grow
	const multicasts = 500 // fewer bytes than the credit
	best := 1.0
	for range 3 { // what else goes on in this process only adds to it
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(multicasts)
		runtime.ReadMemStats(&after)
		best = min(best, float64(after.Mallocs-before.Mallocs)/(multicasts*float64(len(all))))
	}
	t.Logf("%.4f allocations per message", best)
	if best > 0.02 {
		t.Errorf("%.4f allocations per message, want at most 0.02", best)
	}
}
