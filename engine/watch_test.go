package engine

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

func (c *client) tryWatch(ids ...string) []codec.Result {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendWatch(nil, c.seq, rawIDs(ids)))
	return c.requested(codec.KindWatched)
}

// watches expects that all are of that code.
func (c *client) watches(code codec.Code, ids ...string) {
	c.t.Helper()
	for i, r := range c.tryWatch(ids...) {
		if r.Code != code {
			c.t.Fatalf("watch %q: %v, want %v", ids[i], r, code)
		}
	}
}

func (c *client) unwatch(ids ...string) {
	c.t.Helper()
	c.write(codec.AppendUnwatch(nil, rawIDs(ids)))
}

// changes reads one changed frame.
func (c *client) changes() map[string]codec.Result {
	c.t.Helper()
	return c.decodeChanges(c.expect(codec.KindChanged))
}

func (c *client) decodeChanges(body []byte) map[string]codec.Result {
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
func (c *client) told(id string, code codec.Code, epoch uint64) {
	c.t.Helper()
	if all := c.changes(); len(all) != 1 || all[id] != (codec.Result{Code: code, Epoch: epoch}) {
		c.t.Fatalf("changed %v, want %q %v %d", all, id, code, epoch)
	}
}

// A node alone tells of everything at once, and of nothing that is no change. No question is needed for it.
func TestWatch(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, WatchPeriod: never, ResumeWindow: time.Second})
		a, b, eye := n.join(), n.join(), n.joinOn(loops-1)
		eye.watches(codec.CodeNoRoute, "x", "other")
		first := a.bind("x")
		eye.told("x", codec.CodeOK, first)
		second := b.bind("x") // a is kicked
		a.expect(codec.KindKick)
		eye.told("x", codec.CodeOK, second)
		if r := a.unbind("x", first); r.Code == codec.CodeOK {
			t.Errorf("%v", r)
		}
		b.unbind("x", second)
		eye.told("x", codec.CodeNoRoute, second)
		if r := b.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, second)...)[0]; r.Epoch != second {
			t.Errorf("%v", r)
		}
		eye.told("x", codec.CodeOK, second) // a re-assert
		b.write(codec.AppendBye(nil))
		b.ends()
		eye.told("x", codec.CodeNoRoute, second)
		a.bind("unwatched")
		eye.silent()

		// Detached, and back in time: no change. Then for good.
		third := a.bind("x")
		eye.told("x", codec.CodeOK, third)
		a.nc.Close()
		n.eventually("detached", func() bool { return len(n.table.Session(a.sessionID()).Handles()) == 0 })
		if r := eye.tryWatch("x")[0]; r != (codec.Result{Code: codec.CodeOK, Epoch: third}) {
			t.Errorf("detached: %v", r)
		}
		again := n.dial()
		again.hello(a.resume())
		eye.silent()
		again.nc.Close()
		eye.told("x", codec.CodeNoRoute, third)

		// One that a session holds no more, as it says to whoever sends to it.
		fourth := b.n.join().bind("x")
		eye.told("x", codec.CodeOK, fourth)
		n.loops[0].post(func() {
			n.loops[0].bounce.disown(n.sessionOf("x"), routing.Handle{Gen: 1 << 30}, []byte("x"), fourth)
			n.loops[0].bounce.releaseDisowned()
		})
		eye.told("x", codec.CodeNoRoute, fourth)
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
	if r := eye.tryWatch(); len(r) != 0 {
		t.Errorf("%v", r)
	}
	epoch := a.bind("x")
	ok, none := codec.Result{Code: codec.CodeOK, Epoch: epoch}, codec.Result{Code: codec.CodeNoRoute}
	bad, over := codec.Result{Code: codec.CodeBadID}, codec.Result{Code: codec.CodeOverflow}
	got := eye.tryWatch("", "x", "y", longID, "x", "z", "too many", "y")
	if want := []codec.Result{bad, ok, none, bad, ok, none, over, none}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	other.watches(codec.CodeNoRoute, "y", "v")
	if s := n.Stats(); s.Watched != 4 {
		t.Errorf("%d are watched", s.Watched)
	}
	eye.unwatch("y", "", longID, "never watched", "y")
	if got := eye.tryWatch("too many", "y", "x"); !slices.Equal(got, []codec.Result{none, over, ok}) {
		t.Errorf("%v", got)
	}
	epoch = a.bind("y")
	other.told("y", codec.CodeOK, epoch)
	eye.silent()
	other.unwatch()
	other.unwatch("y", "v")
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

// counting counts the look-ups, and can lose or refuse them.
type counting struct {
	routing.Registry
	questions, names, largest atomic.Int64
	away, unknown             atomic.Bool
	slow                      atomic.Pointer[chan struct{}] // the registry's answers arrive when it is closed
}

func (r *counting) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	r.questions.Add(1)
	r.names.Add(int64(len(ids)))
	r.largest.Store(max(r.largest.Load(), int64(len(ids)))) // one asks at a time, in this test
	switch {
	case r.away.Load():
		return nil, fmt.Errorf("%w: a test", routing.ErrUnavailable)
	case r.unknown.Load():
		found := make([]routing.LookupResult, len(ids))
		for i := range found {
			found[i].Unknown = true
		}
		return found, nil
	}
	found, err := r.Registry.Lookup(ctx, ids)
	if slow := r.slow.Load(); slow != nil {
		<-*slow
	}
	return found, err
}

// startWatching starts nodes that poll with that period.
func startWatching(t *testing.T, n int, period time.Duration) (*group, *counting) {
	t.Helper()
	reg := &counting{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := &group{t: t, hub: newHub(), registry: reg}
	for i := range n {
		g.nodes = append(g.nodes, g.start(fmt.Sprint("n", i), 2, func(c *Config) { c.WatchPeriod = period }))
	}
	g.linked(n)
	return g, reg
}

// Changes at other nodes are heard of, wherever they happen.
func TestWatchCluster(t *testing.T) {
	g, reg := startWatching(t, 3, 50*time.Millisecond)
	a, b, eye := g.nodes[1].join(), g.nodes[2].join(), g.nodes[0].join()
	before := a.bind("before")
	if r := eye.tryWatch("before", "x"); r[0] != (codec.Result{Code: codec.CodeOK, Epoch: before}) || r[1].Code != codec.CodeNoRoute {
		t.Fatalf("%v", r)
	}
	first := a.bind("x")
	eye.told("x", codec.CodeOK, first)
	second := b.bind("x")
	eye.told("x", codec.CodeOK, second)
	b.unbind("x", second)
	eye.told("x", codec.CodeNoRoute, second)

	// A session that moves is online all the while; one that ends is not.
	moved := g.nodes[2].dial()
	g.nodes[2].settle()
	moved.hello(a.resume())
	moved.kicked("x", second) // repeated
	a.nc.Close()
	asked := reg.questions.Load()
	eye.n.eventually("a few polls", func() bool { return reg.questions.Load() > asked+4 })
	eye.silent()
	moved.write(codec.AppendBye(nil))
	moved.ends()
	eye.told("before", codec.CodeNoRoute, before)
	eye.silent()
}

// Without polls a node tells at once of what it hears by the way: kicks, look-ups, and messages that it finds a route for.
func TestWatchHints(t *testing.T) {
	g, _ := startWatching(t, 2, never)
	a, eye, away := g.nodes[0].join("a"), g.nodes[0].join("eye"), g.nodes[1].join()
	epoch := a.bind("kicked")
	eye.watches(codec.CodeOK, "kicked")
	eye.watches(codec.CodeNoRoute, "looked up", "written to")
	epoch2 := away.bind("kicked")
	a.expect(codec.KindKick)
	if epoch2 <= epoch {
		t.Fatalf("epoch %d after %d", epoch2, epoch)
	}
	eye.told("kicked", codec.CodeOK, epoch2)

	epoch = away.bind("looked up")
	eye.silent()
	a.lookup("looked up")
	eye.told("looked up", codec.CodeOK, epoch)
	away.unbind("looked up", epoch)
	if code := a.lookupCode("looked up"); code != codec.CodeNoRoute {
		t.Fatal(code)
	}
	eye.told("looked up", codec.CodeNoRoute, epoch)

	epoch = away.bind("written to")
	a.exchange("a", away, "written to")
	eye.told("written to", codec.CodeOK, epoch)
	eye.silent()
}

// An answer of the registry that arrives after what happened later does not count.
func TestWatchLateAnswer(t *testing.T) {
	g, reg := startWatching(t, 1, 20*time.Millisecond)
	a, eye := g.nodes[0].join(), g.nodes[0].join()
	eye.watches(codec.CodeNoRoute, "x")
	for range 5 {
		slow := make(chan struct{})
		reg.slow.Store(&slow)
		asked := reg.questions.Load()
		eye.n.eventually("a question under way", func() bool { return reg.questions.Load() > asked })
		epoch := a.bind("x")
		eye.told("x", codec.CodeOK, epoch)
		reg.slow.Store(nil)
		close(slow)
		asked = reg.questions.Load()
		eye.n.eventually("more questions", func() bool { return reg.questions.Load() > asked+2 })
		eye.silent()
		a.unbind("x", epoch)
		eye.told("x", codec.CodeNoRoute, epoch)
	}
}

// IDs are asked for in batches, all of them in every period.
func TestWatchBatches(t *testing.T) {
	long(t)
	t.Parallel()
	g, reg := startWatching(t, 2, time.Second)
	eye := g.nodes[0].join()
	const frames, each = 5, 1000
	for i := range frames {
		ids := make([]string, each)
		for k := range ids {
			ids[k] = fmt.Sprintf("id-%d-%d", i, k)
		}
		eye.watches(codec.CodeNoRoute, ids...)
	}
	reg.largest.Store(0)
	questions, names := reg.questions.Load(), reg.names.Load()
	g.nodes[0].eventually("two rounds", func() bool { return reg.names.Load()-names >= 2*frames*each })
	asked := reg.questions.Load() - questions
	if asked > 2*(frames*each/directory.WatchBatch+1)+6 { // and probes of an idle registry
		t.Errorf("%d questions for two rounds of %d IDs", asked, frames*each)
	}
	if n := reg.largest.Load(); n > directory.WatchBatch {
		t.Errorf("a question of %d IDs", n)
	}
	a := g.nodes[1].join()
	epoch := a.bind("id-3-3")
	eye.told("id-3-3", codec.CodeOK, epoch)
}

// While the registry cannot be asked, or may have lost something, nothing changes; what is known here is known all the same (S18).
func TestWatchRegistryAway(t *testing.T) {
	for name, trouble := range map[string]func(*counting, bool){
		"away":    func(r *counting, on bool) { r.away.Store(on) },
		"unknown": func(r *counting, on bool) { r.unknown.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			g, reg := startWatching(t, 2, 20*time.Millisecond)
			here, away, eye := g.nodes[0].join(), g.nodes[1].join(), g.nodes[0].join()
			epoch := away.bind("away")
			local := here.bind("here")
			eye.watches(codec.CodeOK, "away", "here")
			trouble(reg, true)
			gone := away.unbind("away", epoch)
			asked := reg.questions.Load()
			g.nodes[0].eventually("polls", func() bool { return reg.questions.Load() > asked+3 })
			eye.silent()
			late := g.nodes[0].join()
			got := late.tryWatch("away", "here", "new")
			want := []codec.Result{{Code: codec.CodeOK, Epoch: epoch}, {Code: codec.CodeOK, Epoch: local}, {Code: codec.CodeRegistryUnavailable}}
			if !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			trouble(reg, false)
			eye.told("away", codec.CodeNoRoute, epoch)
			all := late.changes()
			for len(all) < 2 {
				maps.Copy(all, late.changes())
			}
			if all["away"] != (codec.Result{Code: codec.CodeNoRoute, Epoch: epoch}) || all["new"] != (codec.Result{Code: codec.CodeNoRoute}) {
				t.Errorf("%v (unbind %v)", all, gone)
			}
			eye.silent()
			late.silent()
		})
	}
}

// When a node dies, the IDs there are told as gone after the resume window, and not before.
func TestWatchNodeDies(t *testing.T) {
	long(t)
	t.Parallel()
	g, _ := startWatching(t, 3, 50*time.Millisecond)
	a, eye := g.nodes[2].join(), g.nodes[0].join()
	epoch := a.bind("x")
	eye.watches(codec.CodeOK, "x")
	began := time.Now()
	if err := g.nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	eye.told("x", codec.CodeNoRoute, epoch)
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("told after %v, within the resume window", took)
	}
}

// So are those of a node that died without anybody to end its sessions.
func TestWatchOrphan(t *testing.T) {
	long(t)
	t.Parallel()
	g, reg := startWatching(t, 1, 50*time.Millisecond)
	eye := g.nodes[0].join()
	dead, alive := routing.NewSessionID(), routing.NewSessionID()
	ctx := t.Context()
	for i, s := range []routing.SessionID{dead, alive} {
		if err := reg.Attach(ctx, s, routing.Presence{Node: "not listed", Incarnation: 7, Serial: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := reg.Bind(ctx, []routing.BindOp{{ID: fmt.Sprint("id-", i), Session: s}}); err != nil {
			t.Fatal(err)
		}
	}
	r := eye.tryWatch("id-0", "id-1")
	began := time.Now()
	if r[0].Code != codec.CodeOK || r[1].Code != codec.CodeOK {
		t.Fatalf("%v", r)
	}
	// The other one attaches to a node that lives, this one, but nobody has told it of the session.
	if err := reg.Attach(ctx, alive, routing.Presence{Node: "n0", Incarnation: g.nodes[0].Incarnation(), Serial: 1}); err != nil {
		t.Fatal(err)
	}
	eye.told("id-0", codec.CodeNoRoute, r[0].Epoch)
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("told after %v, within the resume window", took)
	}
	// It was not dead, only away for long.
	if err := reg.Attach(ctx, dead, routing.Presence{Node: "n0", Incarnation: g.nodes[0].Incarnation(), Serial: 1}); err != nil {
		t.Fatal(err)
	}
	eye.told("id-0", codec.CodeOK, r[0].Epoch)
	if _, err := reg.EndSession(ctx, routing.EndOp{Session: dead, Force: true}); err != nil {
		t.Fatal(err)
	}
	eye.told("id-0", codec.CodeNoRoute, r[0].Epoch)
	eye.silent()
}

// A client that does not read is told how things stand when it reads again, not what happened meanwhile: what waits for it does not grow.
func TestWatchNotRead(t *testing.T) {
	n := start(t, Config{WatchPeriod: never, MaxPayload: 1 << 16, MaxPending: 1 << 18, SlowConsumerTimeout: time.Minute, MaxIDs: 100})
	by := n.watchOver()
	a, from, eye := n.join("a"), n.join("from"), n.join("eye")
	eye.shrink()
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = senderID(i)
	}
	eye.watches(codec.CodeNoRoute, ids...)
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
		eye.unwatch(ids...)
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
			all := eye.decodeChanges(f.body)
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
		eye.watches(codec.CodeNoRoute, part...)
	}
	for part := range slices.Chunk(ids, 50) {
		a.bind(part...)
	}
	now := make(map[string]codec.Result)
	for len(now) < count {
		maps.Copy(now, eye.changes())
	}
	a.write(codec.AppendBye(nil))
	a.ends()
	for gone := 0; gone < count; {
		for id, r := range eye.changes() {
			if r.Code != codec.CodeNoRoute || r.Epoch != now[id].Epoch {
				t.Fatalf("%q %v after %v", id, r, now[id])
			}
			gone++
		}
	}
	eye.silent()
}

// A stop ends the watches with the connections, and what was known before is not believed any more (S24).
func TestWatchFence(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: &counting{Registry: routing.NewMemory(routing.MemoryConfig{})}}
	n := g.start("n0", 2, func(c *Config) { c.WatchPeriod, c.LoopGap = never, testGap })
	a, eye := n.join("x"), n.join()
	eye.watches(codec.CodeOK, "x")
	n.stall(0, func() {})
	a.fails(codec.FaultFenced)
	eye.fails(codec.FaultFenced)
	n.eventually("the watches end", func() bool { return n.Stats().Watched == 0 })
	g.registry.(*counting).away.Store(true)
	again := n.join()
	r := again.tryWatch("x", "y")
	if r[0].Code != codec.CodeOK || r[1].Code != codec.CodeRegistryUnavailable { // its session may come back within its resume window
		t.Errorf("%v", r)
	}
}

// Whatever happens at once, in the end everybody is told how it ended.
func TestWatchConverges(t *testing.T) {
	g, reg := startWatching(t, 2, 30*time.Millisecond)
	const ids, holders, rounds = 12, 4, 40
	names := make([]string, ids)
	for i := range names {
		names[i] = fmt.Sprint("id-", i)
	}
	var eyes []*InProcess
	var mu sync.Mutex
	heard := make([]map[string]Presence, 4)
	for i := range heard {
		heard[i] = make(map[string]Presence)
		for _, name := range names {
			heard[i][name] = Presence{ID: name, Code: codec.CodeNoRoute}
		}
		s := g.nodes[i%2].inside(InProcessConfig{OnPresence: func(f Presence) {
			mu.Lock()
			defer mu.Unlock()
			if before := heard[i][f.ID]; f.Code == codec.CodeOK && before.Code == codec.CodeOK && f.Epoch <= before.Epoch {
				t.Errorf("%v after %v", f, before)
			}
			heard[i][f.ID] = f
		}})
		eyes = append(eyes, s)
		if _, err := s.Watch(patient(t), names...); err != nil {
			t.Fatal(err)
		}
	}
	var running sync.WaitGroup
	for h := range holders {
		s := g.nodes[h%2].inside(InProcessConfig{})
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
		found, err := reg.Lookup(t.Context(), names) // the end of the last session may still be under way
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range eyes {
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

// In process it is the same.
func TestWatchInProcess(t *testing.T) {
	n := start(t, Config{Loops: 2, WatchPeriod: never, MaxIDs: 2, MaxWatched: 3})
	heard := make(chan Presence, 10)
	s := n.inside(InProcessConfig{OnPresence: func(f Presence) {
		heard <- f
		if f.ID == "c" {
			panic("a bug of the application's")
		}
	}}, "a")
	got, err := s.Watch(patient(t), "a", longID, "b", "", "c", "too many")
	want := []codec.Code{codec.CodeOK, codec.CodeBadID, codec.CodeNoRoute, codec.CodeBadID, codec.CodeNoRoute, codec.CodeOverflow}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v %v", got, err)
	}
	for i, f := range got {
		if f.Code != want[i] || (f.Epoch > 0) != (f.Code == codec.CodeOK) {
			t.Errorf("%.10q: %v, want %v", f.ID, f, want[i])
		}
	}
	c := n.join()
	expect := func(id string, code codec.Code, epoch uint64) {
		t.Helper()
		select {
		case f := <-heard:
			if f != (Presence{id, code, epoch}) {
				t.Errorf("%v, want %q %v %d", f, id, code, epoch)
			}
		case <-time.After(patience):
			t.Fatal("nothing is heard")
		}
	}
	epoch := c.bind("c")
	expect("c", codec.CodeOK, epoch)
	epoch = c.bind("a")
	expect("a", codec.CodeOK, epoch)
	if err := s.Unwatch("a", "c", "never watched", longID); err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(patient(t), "a"); err != nil {
		t.Fatal(err)
	}
	c.expect(codec.KindKick)
	epoch = c.bind("b")
	expect("b", codec.CodeOK, epoch) // and of a nothing
	found, err := s.Lookup(patient(t), "a", "b", "nobody", "", "too many")
	if err != nil || len(found) != 5 {
		t.Fatalf("%v %v", found, err)
	}
	for i, want := range []codec.Code{codec.CodeOK, codec.CodeOK, codec.CodeNoRoute, codec.CodeBadID, codec.CodeNoRoute} {
		if found[i].Code != want {
			t.Errorf("%v, want %v", found[i], want)
		}
	}
	_ = s.Close(t.Context())
	if _, err := s.Watch(patient(t), "a"); err == nil {
		t.Error("watched after the end")
	}
	if err := s.Unwatch("a"); err == nil {
		t.Error("unwatched after the end")
	}
	n.eventually("its watches end", func() bool { return n.Stats().Watched == 0 })
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
	arrived := func() { // what was sent is in the order now, and nothing of it comes in the middle of the next turn
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
			passing.unwatch(some()...)
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
		watcher.watches(codec.CodeNoRoute, "x")
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
