package directory

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"distmsg/routing"
)

// worked is what lanes have done with parts of requests, call by call.
type worked struct {
	mu    sync.Mutex
	calls []workedCall // guarded by mu
}

type workedCall struct {
	verb Verb
	seqs []uint64 // of the requests, in the order in which they were done
}

func (w *worked) do(v Verb, parts []part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := workedCall{verb: v}
	for _, p := range parts {
		c.seqs = append(c.seqs, p.Seq)
	}
	w.calls = append(w.calls, c)
}

func of(conn uint32) account { return account{conn: routing.Handle{Slot: conn, Gen: 1}} }

// asking is a part of a request with that number, for so many IDs.
func asking(seq uint64, ids int) part { return part{&Request{Seq: seq}, make([]int, ids)} }

// heldLanes are lanes of which those that hold names stand still until go is called.
func heldLanes(t *testing.T, held ...int) (ls *lanes, w *worked, release func()) {
	w = new(worked)
	ls = newLanes(w.do)
	ls.start()
	gate := make(chan struct{})
	for _, i := range held {
		entered := make(chan struct{})
		ls.must(i, func() { close(entered); <-gate })
		<-entered
	}
	t.Cleanup(ls.stop)
	return ls, w, func() { close(gate); ls.stop() }
}

func TestLanesKeepOrder(t *testing.T) {
	const each, posters = 2000, 4
	var next [laneCount][posters]uint64
	var ran atomic.Int64
	ls := newLanes(func(_ Verb, parts []part) {
		for _, p := range parts {
			lane, poster := p.mine[0], p.Conn.Slot
			if next[lane][poster] != p.Seq {
				t.Errorf("lane %d: job %d of poster %d, want %d", lane, p.Seq, poster, next[lane][poster])
			}
			next[lane][poster] = p.Seq + 1
			ran.Add(1)
		}
	})
	ls.start()
	var wg sync.WaitGroup
	for p := range uint32(posters) {
		wg.Go(func() {
			for i := range uint64(each) {
				for lane := range laneCount {
					r := &Request{Seq: i, Conn: of(p).conn}
					if !ls.try(lane, of(p), Bind+Verb(i%2), part{r, []int{lane}}) {
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
	if ls.try(0, of(1), Bind, asking(1, 1)) || ls.must(0, func() {}) || ls.quick(0, func() {}) {
		t.Error("a stopped lane takes jobs")
	}
}

// A lane that stands still does not hold up the others. Of each connection it takes so many jobs,
// and those of one take no room from another; of the node's own it takes all.
func TestLaneIsBounded(t *testing.T) {
	ls, w, release := heldLanes(t, 0)
	other := make(chan struct{})
	ls.must(1, func() { close(other) })
	<-other
	for i := range laneDepth {
		if !ls.try(0, of(1), Lookup, asking(1, 1)) {
			t.Fatalf("full after %d", i)
		}
	}
	if ls.try(0, of(1), Lookup, asking(1, 1)) {
		t.Error("no bound")
	}
	if !ls.try(0, of(2), Lookup, asking(2, 1)) {
		t.Error("another connection finds no room")
	}
	var ran int
	for range laneDepth + 1 {
		if !ls.must(0, func() { ran++ }) {
			t.Fatal("a job of the node's own was refused")
		}
	}
	release()
	done := 0
	for _, c := range w.calls {
		done += len(c.seqs)
	}
	if ran != laneDepth+1 || done != laneDepth+1 {
		t.Errorf("%d and %d jobs ran, want %d", ran, done, laneDepth+1)
	}
}

// Who asks for much waits for it. Who asks for little waits for one turn of the others, however
// much they had asked for before.
func TestLanesTakeTurns(t *testing.T) {
	ls, w, release := heldLanes(t, 0)
	for range 200 {
		for greedy := range uint32(3) {
			ls.try(0, of(10+greedy), Lookup, asking(uint64(10+greedy), joinMost/2))
		}
	}
	ls.try(0, of(1), Lookup, asking(1, 1))
	ls.try(0, of(2), Bind, asking(2, 1))
	ls.quick(0, func() { w.do(0, []part{asking(3, 1)}) })
	release()
	at := func(seq uint64) int {
		return slices.IndexFunc(w.calls, func(c workedCall) bool { return slices.Contains(c.seqs, seq) })
	}
	// The three with much take two calls for their first turns.
	if lookup, bind, own := at(1), at(2), at(3); lookup > 2 || bind > 3 || own != 0 {
		t.Errorf("of %d calls, the lookup is in number %d, the bind in %d, and the node's own job is %d",
			len(w.calls), lookup, bind, own)
	}
}

// What is alike goes to the registry together.
func TestLanesJoin(t *testing.T) {
	ls, w, release := heldLanes(t, 0)
	for conn := range uint32(100) {
		ls.try(0, of(conn), Lookup, asking(uint64(conn), 1))
		ls.try(0, of(conn), Lookup, asking(1000+uint64(conn), 1))
		if conn%2 == 0 {
			ls.try(0, of(conn), Bind, asking(2000+uint64(conn), 1))
		}
		ls.try(0, of(conn), Lookup, asking(3000+uint64(conn), 1))
	}
	release()
	if len(w.calls) != 3 {
		t.Fatalf("%d calls, want 3", len(w.calls))
	}
	for i, want := range []int{250, 50, 50} {
		if got := len(w.calls[i].seqs); got != want {
			t.Errorf("call %d has %d requests, want %d", i, got, want)
		}
	}
}

// Sessions have lanes of their own, and a hello comes before what waits for other sessions, but not
// before what waits for its own.
func TestHelloComesFirst(t *testing.T) {
	ls := newLanes(func(Verb, []part) {})
	ids := make([]routing.SessionID, 0, 100)
	for len(ids) < cap(ids) { // of one lane
		if id := routing.NewSessionID(); ls.ofSession(id) == laneCount {
			ids = append(ids, id)
		}
	}
	var order []string
	note := func(s string) func() { return func() { order = append(order, s) } }
	for _, id := range ids {
		for range 3 {
			ls.inSession(id, note("other"))
		}
	}
	resumed := ids[50]
	ls.inSession(resumed, note("own"))
	ls.tryJoin(resumed, note("hello"))
	ls.tryJoin(routing.NewSessionID(), func() {})
	ls.start()
	ls.stop()
	if len(order) != 302 || order[4] != "hello" || order[3] != "own" {
		t.Errorf("%d jobs, in this order: %q", len(order), order[:min(10, len(order))])
	}
}

// Who says hello all the time does not keep others' sessions from the registry.
func TestHellosLeaveTurns(t *testing.T) {
	ls := newLanes(func(Verb, []part) {})
	var hellos, before int
	ids := make([]routing.SessionID, 0, 10*urgentAtOnce)
	for len(ids) < cap(ids) {
		if id := routing.NewSessionID(); ls.ofSession(id) == laneCount {
			ids = append(ids, id)
			ls.tryJoin(id, func() { hellos++ })
		}
	}
	for id := routing.NewSessionID(); ; id = routing.NewSessionID() {
		if ls.ofSession(id) == laneCount {
			ls.inSession(id, func() { before = hellos })
			break
		}
	}
	ls.start()
	ls.stop()
	if before > urgentAtOnce || hellos != len(ids) {
		t.Errorf("%d of %d hellos came before another session's job", before, hellos)
	}
}

func TestLaneOfKey(t *testing.T) {
	ls := newLanes(nil)
	used := make(map[int]bool)
	for i := range 1000 {
		key := []byte(fmt.Sprint("id ", i))
		lane := ls.of(key)
		if lane < 0 || lane >= laneCount || lane != ls.of([]byte(fmt.Sprint("id ", i))) {
			t.Fatalf("%q is in lane %d", key, lane)
		}
		used[lane] = true
	}
	if len(used) != laneCount {
		t.Errorf("%d lanes are used", len(used))
	}
}
