package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// never is a WatchPeriod for tests in which no poll is to help.
const never = time.Hour

func rawIDs(ids []string) [][]byte {
	list := make([][]byte, len(ids))
	for i, id := range ids {
		list[i] = []byte(id)
	}
	return list
}

// watching is what a client of a test does with its watches.
type watching struct{ c *client }

func (w *watching) tryAdd(ids ...string) []codec.Result {
	c := w.c
	c.t.Helper()
	c.seq++
	c.write(codec.AppendWatch(nil, c.seq, rawIDs(ids)))
	return c.requested(codec.KindWatched)
}

// add expects that all are of that code.
func (w *watching) add(code codec.Code, ids ...string) {
	c := w.c
	c.t.Helper()
	for i, r := range w.tryAdd(ids...) {
		if r.Code != code {
			c.t.Fatalf("watch %q: %v, want %v", ids[i], r, code)
		}
	}
}

func (w *watching) remove(ids ...string) {
	c := w.c
	c.t.Helper()
	c.write(codec.AppendUnwatch(nil, rawIDs(ids)))
}

// changes reads one changed frame.
func (w *watching) changes() map[string]codec.Result {
	c := w.c
	c.t.Helper()
	return w.decode(c.expect(codec.KindChanged))
}

func (w *watching) decode(body []byte) map[string]codec.Result {
	c := w.c
	c.t.Helper()
	list, err := codec.DecodeChanged(body)
	c.decoded(err)
	all := make(map[string]codec.Result)
	for v, ok := list.Next(); ok; v, ok = list.Next() {
		if _, twice := all[string(v.ID)]; twice {
			c.t.Errorf("%q twice in a frame", v.ID)
		}
		all[string(v.ID)] = codec.Result{Code: v.Code, Epoch: v.Epoch}
	}
	return all
}

// told expects a changed frame with that and nothing else.
func (w *watching) told(id string, code codec.Code, epoch uint64) {
	c := w.c
	c.t.Helper()
	if all := w.changes(); len(all) != 1 || all[id] != (codec.Result{Code: code, Epoch: epoch}) {
		c.t.Fatalf("changed %v, want %q %v %d", all, id, code, epoch)
	}
}

// A node alone tells of everything at once, and of nothing that is no change. No question is needed
// for it.
func TestWatch(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, WatchPeriod: never, ResumeWindow: time.Second})
		a, b, eye := n.join(), n.join(), n.joinOn(loops-1)
		eye.watch.add(codec.CodeNoRoute, "x", "other")
		first := a.bind("x")
		eye.watch.told("x", codec.CodeOK, first)
		second := b.bind("x") // a is kicked
		a.expect(codec.KindKick)
		eye.watch.told("x", codec.CodeOK, second)
		if r := a.unbind("x", first); r.Code == codec.CodeOK {
			t.Errorf("%v", r)
		}
		b.unbind("x", second)
		eye.watch.told("x", codec.CodeNoRoute, second)
		if r := b.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, second)...)[0]; r.Epoch != second {
			t.Errorf("%v", r)
		}
		eye.watch.told("x", codec.CodeOK, second) // a re-assert
		b.write(codec.AppendBye(nil))
		b.ends()
		eye.watch.told("x", codec.CodeNoRoute, second)
		a.bind("unwatched")
		eye.silent()

		// Detached, and back in time: no change. Then for good.
		third := a.bind("x")
		eye.watch.told("x", codec.CodeOK, third)
		a.nc.Close()
		n.eventually("detached", func() bool { return len(n.table.Session(a.sessionID()).Handles()) == 0 })
		if r := eye.watch.tryAdd("x")[0]; r != (codec.Result{Code: codec.CodeOK, Epoch: third}) {
			t.Errorf("detached: %v", r)
		}
		again := n.dial()
		again.hello(a.resume())
		eye.silent()
		again.nc.Close()
		eye.watch.told("x", codec.CodeNoRoute, third)

		// One that a session holds no more, as it says to whoever sends to it.
		fourth := b.n.join().bind("x")
		eye.watch.told("x", codec.CodeOK, fourth)
		n.loops[0].post(func() {
			n.loops[0].bounce.disown(n.sessionOf("x"), routing.Handle{Gen: 1 << 30}, []byte("x"), fourth)
			n.loops[0].bounce.releaseDisowned()
		})
		eye.watch.told("x", codec.CodeNoRoute, fourth)
		eye.silent()
	})
}

// sessionOf returns who holds an ID, as the table knows.
func (n *node) sessionOf(id string) *routing.Session {
	r, _ := n.table.Lookup([]byte(id))
	return r.Session
}

// What watch is answered, and what is counted.
func TestWatchAnswers(t *testing.T) {
	n := start(t, Config{WatchPeriod: never, MaxWatched: 3, MaxIDs: 10})
	a, eye, other := n.join(), n.join(), n.join()
	if eye.welcome.Limits.MaxWatched != 3 {
		t.Errorf("max_watched is %d", eye.welcome.Limits.MaxWatched)
	}
	if r := eye.watch.tryAdd(); len(r) != 0 {
		t.Errorf("%v", r)
	}
	epoch := a.bind("x")
	ok, none := codec.Result{Code: codec.CodeOK, Epoch: epoch}, codec.Result{Code: codec.CodeNoRoute}
	bad, over := codec.Result{Code: codec.CodeBadID}, codec.Result{Code: codec.CodeOverflow}
	got := eye.watch.tryAdd("", "x", "y", longID, "x", "z", "too many", "y")
	if want := []codec.Result{bad, ok, none, bad, ok, none, over, none}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	other.watch.add(codec.CodeNoRoute, "y", "v")
	if s := n.Stats(); s.Watched != 4 {
		t.Errorf("%d are watched", s.Watched)
	}
	eye.watch.remove("y", "", longID, "never watched", "y")
	if got := eye.watch.tryAdd("too many", "y", "x"); !slices.Equal(got, []codec.Result{none, over, ok}) {
		t.Errorf("%v", got)
	}
	epoch = a.bind("y")
	other.watch.told("y", codec.CodeOK, epoch)
	eye.silent()
	other.watch.remove()
	other.watch.remove("y", "v")
	other.silent()
	if s := n.Stats(); s.Watched != 3 {
		t.Errorf("%d are watched", s.Watched)
	}
	eye.write(codec.AppendWatch(nil, 1, make([][]byte, 11)))
	eye.fails(codec.FaultTooMany)
	n.eventually("its watches end", func() bool { return n.Stats().Watched == 0 })
	other.write(codec.AppendUnwatch(nil, make([][]byte, 11)))
	other.fails(codec.FaultTooMany)
	a.write(codec.AppendChanged(nil, nil))
	a.fails(codec.FaultUnexpectedKind)
}

// A client that does not read hears the latest state when it reads again, not what happened
// meanwhile: what waits for it does not grow.
func TestWatchNotRead(t *testing.T) {
	n := start(t, Config{WatchPeriod: never, MaxPayload: 1 << 16, MaxPending: 1 << 18, SlowConsumerTimeout: time.Minute, MaxIDs: 100})
	by := n.watchOver()
	a, from, eye := n.join("a"), n.join("from"), n.join("eye")
	eye.shrink()
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = senderID(i)
	}
	eye.watch.add(codec.CodeNoRoute, ids...)
	filler := string(make([]byte, 1<<16))
	for full := false; !full; { // with what is no change
		seq := from.post("from", "eye", filler, codec.FlagReport)
		n.settle()
		for _, f := range from.arrived() {
			var o codec.Outcome
			from.decoded(codec.DecodeOutcome(f.body, &o))
			full = o.Seq == seq && o.Code == codec.CodeOverflow
		}
	}
	const rounds = 50
	var last []codec.Result
	for range rounds {
		last = a.tryBind(codec.PolicyKickOld, withEpochs(ids)...)
	}
	list := n.listOf(eye)
	if waiting := n.waiting(list); waiting > len(ids) {
		t.Errorf("%d changes wait for a client that watches %d IDs", waiting, len(ids))
	}
	// Nor does it when the client forgets what has changed, and watches it anew.
	for i := range 20 {
		eye.watch.remove(ids...)
		n.eventually("forgotten", func() bool { return n.dir.Probe().Answered(list) == 0 })
		eye.write(codec.AppendWatch(nil, uint64(1000+i), rawIDs(ids)))
		n.eventually("watched anew", func() bool { return n.dir.Probe().Answered(list) == len(ids) })
		last = a.tryBind(codec.PolicyKickOld, withEpochs(ids)...)
	}
	if waiting := n.waiting(list); waiting < len(ids) || waiting > 2*len(ids)+directory.WatchBatch+1 {
		t.Errorf("%d changes wait for a client that watches %d IDs", waiting, len(ids))
	}
	by.unharmed()

	changes := 0
	now := make(map[string]codec.Result)
	done := func() bool {
		for i, id := range ids {
			if now[id] != last[i] {
				return false
			}
		}
		return true
	}
	for !done() {
		switch f := eye.next(); f.kind {
		case codec.KindChanged:
			all := eye.watch.decode(f.body)
			changes += len(all)
			maps.Copy(now, all)
		case codec.KindWatched:
			var r codec.Results
			eye.decoded(codec.DecodeResults(f.body, f.kind, &r))
			for i := 0; r.All.Len() > 0; i++ {
				now[ids[i]], _ = r.All.Next()
			}
		}
	}
	if changes > rounds*len(ids)/2 {
		t.Errorf("%d changes of %d IDs were told", changes, len(ids))
	}
}

// listOf returns what a client with one connection watches.
func (n *node) listOf(c *client) *directory.Watches {
	n.t.Helper()
	h := n.table.Session(c.sessionID()).Handles()[0]
	got := make(chan *directory.Watches, 1)
	n.loops[h.Loop].post(func() { got <- n.loops[h.Loop].conn(h).watchList.ids })
	return <-got
}

func (n *node) waiting(list *directory.Watches) int {
	n.settle()
	return n.dir.Probe().Waiting(list)
}

// More changes than go into a few frames come all the same.
func TestWatchMany(t *testing.T) {
	n := start(t, Config{Loops: 2, WatchPeriod: never, MaxIDs: 50})
	a, eye := n.join(), n.join()
	const count = 3000
	ids := make([]string, count)
	for i := range ids {
		ids[i] = senderID(i)
	}
	for part := range slices.Chunk(ids, 50) {
		eye.watch.add(codec.CodeNoRoute, part...)
	}
	for part := range slices.Chunk(ids, 50) {
		a.bind(part...)
	}
	now := make(map[string]codec.Result)
	for len(now) < count {
		maps.Copy(now, eye.watch.changes())
	}
	a.write(codec.AppendBye(nil))
	a.ends()
	for gone := 0; gone < count; {
		for id, r := range eye.watch.changes() {
			if r.Code != codec.CodeNoRoute || r.Epoch != now[id].Epoch {
				t.Fatalf("%q %v after %v", id, r, now[id])
			}
			gone++
		}
	}
	eye.silent()
}

// A stop ends the watches with the connections, and what was known before is not believed any more
// (S24).
func TestWatchFence(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: &counting{Registry: routing.NewMemory(routing.MemoryConfig{})}}
	n := g.start("n0", 2, func(c *Config) { c.WatchPeriod, c.LoopGap = never, testGap })
	a, eye := n.join("x"), n.join()
	eye.watch.add(codec.CodeOK, "x")
	n.stall(0, func() {})
	a.fails(codec.FaultFenced)
	eye.fails(codec.FaultFenced)
	n.eventually("the watches end", func() bool { return n.Stats().Watched == 0 })
	g.registry.(*counting).away.Store(true)
	again := n.join()
	r := again.watch.tryAdd("x", "y")
	// its session may come back within its resume window
	if r[0].Code != codec.CodeOK || r[1].Code != codec.CodeRegistryUnavailable {
		t.Errorf("%v", r)
	}
}

// Whatever happens at once, in the end everybody hears how it ended.
func TestWatchConverges(t *testing.T) {
	g, reg := startWatching(t, 2, 30*time.Millisecond)
	const ids, holders, rounds = 12, 4, 40
	names := make([]string, ids)
	for i := range names {
		names[i] = fmt.Sprint("id-", i)
	}
	var mu sync.Mutex
	heard := make([]map[string]sdk.Presence, 4)
	for i := range heard {
		heard[i] = make(map[string]sdk.Presence)
		for _, name := range names {
			heard[i][name] = sdk.Presence{ID: name, Code: codec.CodeNoRoute}
		}
		s := g.nodes[i%2].attach(sdk.Config{OnPresence: func(changed []sdk.Presence) {
			mu.Lock()
			defer mu.Unlock()
			for _, f := range changed {
				if before := heard[i][f.ID]; f.Code == codec.CodeOK && before.Code == codec.CodeOK && f.Epoch <= before.Epoch {
					t.Errorf("%v after %v", f, before)
				}
				heard[i][f.ID] = f
			}
		}})
		if _, err := s.Watch(patient(t), names...); err != nil {
			t.Fatal(err)
		}
	}
	var running sync.WaitGroup
	for h := range holders {
		s := g.nodes[h%2].attach(sdk.Config{})
		running.Go(func() {
			for range rounds {
				some := names[rand.N(ids):][:1]
				_ = s.Bind(patient(t), some...)
				if rand.N(2) == 0 {
					_ = s.Unbind(patient(t), some...)
				}
			}
			if h == holders-1 {
				_ = s.Close(t.Context())
			}
		})
	}
	running.Wait()
	g.nodes[0].eventually("all are told", func() bool {
		// the end of the last session may still be under way
		found, err := reg.Lookup(t.Context(), names)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range heard {
			for k, name := range names {
				f := heard[i][name]
				if bound := found[k].Binding != (routing.Binding{}); bound != (f.Code == codec.CodeOK) || bound && f.Epoch != found[k].Binding.Epoch {
					return false
				}
			}
		}
		return true
	})
}

// Whatever comes and goes meanwhile: who is watched throughout has his turn in every round.
func TestWatchTurns(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{WatchPeriod: never, MaxIDs: 4000, MaxWatched: 1 << 20})
	office := n.dir.Probe()
	lasting, passing := n.join(), n.join()
	var stay, come []string
	for i := range 1500 {
		stay, come = append(stay, fmt.Sprint("stays ", i)), append(come, fmt.Sprint("passes ", i))
	}
	some := func() []string {
		i := rand.N(len(come))
		return come[i:min(len(come), i+300)]
	}
	for i := range stay { // mixed
		lasting.write(codec.AppendWatch(nil, 1, rawIDs(stay[i:i+1])))
		if i%5 == 0 {
			passing.write(codec.AppendWatch(nil, 1, rawIDs(come[i:i+1])))
		}
	}
	n.eventually("all are watched", func() bool { n.settle(); return n.Stats().Watched == len(stay)+len(come)/5 })
	var pongs atomic.Int64
	go func() { // so that the answers are read
		for _, err := lasting.read(); err == nil; _, err = lasting.read() {
		}
	}()
	go func() {
		for f, err := passing.read(); err == nil; f, err = passing.read() {
			if f.kind == codec.KindPong {
				pongs.Add(1)
			}
		}
	}()
	// what was sent is in the order now, and nothing of it comes in the middle of the next turn
	arrived := func() {
		before := pongs.Load()
		passing.write(codec.AppendPing(nil, 1))
		n.eventually("pong", func() bool { return pongs.Load() > before })
		n.settle()
	}
	for range 30 {
		asked := make(map[string]bool)
		for over := false; !over; {
			for _, id := range office.TakeTurn() {
				asked[id] = true
			}
			passing.watch.remove(some()...)
			arrived()
			passing.write(codec.AppendWatch(nil, 1, rawIDs(some())))
			arrived()
			var misplaced []string
			if misplaced, over = office.WatchOrder(); len(misplaced) > 0 {
				t.Errorf("not in their places: %q", misplaced)
			}
		}
		for _, id := range stay {
			if !asked[id] {
				t.Fatalf("%q had no turn", id)
			}
		}
	}
}

// Who watches an ID that is bound again and again hears of it now and then, and in the end how it
// stands.
func TestRestlessID(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		watcher, restless := n.join(), n.join()
		watcher.watch.add(codec.CodeNoRoute, "x")
		began := time.Now()
		var epoch uint64
		for range 200 {
			epoch = restless.bind("x")
		}
		frames, last := 0, uint64(0)
		for last < epoch {
			all, err := codec.DecodeChanged(watcher.expect(codec.KindChanged))
			watcher.decoded(err)
			frames++
			for v, ok := all.Next(); ok; v, ok = all.Next() {
				last = v.Epoch
			}
		}
		if most := 2 + int(time.Since(began).Milliseconds())/changesPause; frames > most {
			t.Errorf("%d frames, at most %d", frames, most)
		}
	})
}
