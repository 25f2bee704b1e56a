package engine

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestLanesKeepOrder(t *testing.T) {
	ls := newLanes()
	ls.start()
	const each, posters = 2000, 4
	var next [laneCount][posters]int
	var ran atomic.Int64
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				for lane := range laneCount {
					if !ls.try(lane, func() {
						if next[lane][p] != i {
							t.Errorf("lane %d: job %d of poster %d after %d", lane, i, p, next[lane][p])
						}
						next[lane][p] = i + 1
						ran.Add(1)
					}) {
						t.Errorf("lane %d is full", lane)
					}
				}
			}
		})
	}
	wg.Wait()
	ls.stop() // what was queued is done first
	if got := ran.Load(); got != each*posters*laneCount {
		t.Errorf("%d jobs ran, want %d", got, each*posters*laneCount)
	}
	if ls.try(0, func() {}) || ls.must(0, func() {}) {
		t.Error("a stopped lane takes jobs")
	}
}

// A lane that stands still does not hold up the others, and takes so many of the clients' jobs, but all of the node's.
func TestLaneIsBounded(t *testing.T) {
	ls := newLanes()
	ls.start()
	entered, hold := make(chan struct{}), make(chan struct{})
	ls.must(0, func() { close(entered); <-hold })
	<-entered
	other := make(chan struct{})
	ls.try(1, func() { close(other) })
	<-other
	var ran int
	job := func() { ran++ }
	for i := range laneDepth {
		if !ls.try(0, job) {
			t.Fatalf("full after %d", i)
		}
	}
	if ls.try(0, job) {
		t.Error("no bound")
	}
	if !ls.must(0, job) {
		t.Error("a job of the node's own was refused")
	}
	close(hold)
	ls.stop()
	if ran != laneDepth+1 {
		t.Errorf("%d jobs ran, want %d", ran, laneDepth+1)
	}
}

func TestLaneOfKey(t *testing.T) {
	ls := newLanes()
	used := make(map[int]bool)
	for i := range 1000 {
		key := []byte(senderID(i))
		lane := ls.of(key)
		if lane < 0 || lane >= laneCount || lane != ls.of([]byte(senderID(i))) {
			t.Fatalf("%q is in lane %d", key, lane)
		}
		used[lane] = true
	}
	if len(used) != laneCount {
		t.Errorf("%d lanes are used", len(used))
	}
}
