package engine

import (
	"runtime"
	"slices"
	"strconv"
	"testing"

	"distmsg/codec"
)

// names are n different IDs.
func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = prefix + strconv.Itoa(i)
	}
	return ids
}

// watched counts the IDs of an answer that are watched.
func watched(results []codec.Result) (n int) {
	for _, r := range results {
		if r.Code != codec.CodeOverflow {
			n++
		}
	}
	return n
}

// One connection may watch a part of what the node has for all, and leaves room for others. What it
// gives back is free again.
func TestMaxNodeWatched(t *testing.T) {
	const most = 400
	n := start(t, Config{WatchPeriod: never, MaxIDs: most, MaxNodeWatched: most})
	var eyes []*client
	total := 0
	for i := range 20 {
		eye := n.join()
		got := watched(eye.watch.tryAdd(names("id", most)...)) // the same for all: each counts
		if got == 0 || got > most/2 {
			t.Errorf("connection %d watches %d of %d", i, got, most)
		}
		total += got
		eyes = append(eyes, eye)
	}
	if refused := n.Stats().WatchesRefused; total > most || refused != uint64(20*most-total) {
		t.Errorf("%d are watched, %d refused", total, refused)
	}
	eyes[0].watch.remove(names("id", most)...)
	if got := watched(eyes[0].watch.tryAdd(names("id", 5)...)); got != 5 {
		t.Errorf("after an unwatch, there is room for %d, want 5", got)
	}
	for _, eye := range eyes {
		eye.nc.Close()
	}
	n.eventually("all is free again", func() bool {
		watches, ids := n.dir.Probe().Watches()
		return watches == 0 && ids == 0
	})
}

// A watched ID takes little memory.
func TestWatchMemory(t *testing.T) {
	const frame, ids = 50_000, 200_000 // so many that buffers do not count
	n := start(t, Config{WatchPeriod: never, MaxIDs: frame, MaxWatched: ids, MaxNodeWatched: 8 * ids})
	eye := n.join()
	list := names("id", ids)
	before := heapInUse()
	for some := range slices.Chunk(list, frame) {
		eye.watch.add(codec.CodeNoRoute, some...)
	}
	n.settle()
	if each := float64(heapInUse()-before) / ids; each > 200 {
		t.Errorf("a watched ID takes %.0f bytes", each)
	} else {
		t.Logf("%.0f bytes each", each)
	}
	runtime.KeepAlive(list)
}
