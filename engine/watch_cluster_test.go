package engine

import (
	"context"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// counting counts the lookups, and can lose or refuse them.
type counting struct {
	routing.Registry
	questions, names, largest atomic.Int64
	away, unknown             atomic.Bool
	// the registry's answers arrive when it is closed
	slow atomic.Pointer[chan struct{}]
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
	if r := eye.watch.tryAdd("before", "x"); r[0] != (codec.Result{Code: codec.CodeOK, Epoch: before}) || r[1].Code != codec.CodeNoRoute {
		t.Fatalf("%v", r)
	}
	first := a.bind("x")
	eye.watch.told("x", codec.CodeOK, first)
	second := b.bind("x")
	eye.watch.told("x", codec.CodeOK, second)
	b.unbind("x", second)
	eye.watch.told("x", codec.CodeNoRoute, second)

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
	eye.watch.told("before", codec.CodeNoRoute, before)
	eye.silent()
}

// Without polls a node tells at once of what it hears by the way: kicks, lookups, and messages
// that it finds a route for.
func TestWatchHints(t *testing.T) {
	g, _ := startWatching(t, 2, never)
	a, eye, away := g.nodes[0].join("a"), g.nodes[0].join("eye"), g.nodes[1].join()
	epoch := a.bind("kicked")
	eye.watch.add(codec.CodeOK, "kicked")
	eye.watch.add(codec.CodeNoRoute, "looked up", "written to")
	epoch2 := away.bind("kicked")
	a.expect(codec.KindKick)
	if epoch2 <= epoch {
		t.Fatalf("epoch %d after %d", epoch2, epoch)
	}
	eye.watch.told("kicked", codec.CodeOK, epoch2)

	epoch = away.bind("looked up")
	eye.silent()
	a.lookup("looked up")
	eye.watch.told("looked up", codec.CodeOK, epoch)
	away.unbind("looked up", epoch)
	if code := a.lookupCode("looked up"); code != codec.CodeNoRoute {
		t.Fatal(code)
	}
	eye.watch.told("looked up", codec.CodeNoRoute, epoch)

	epoch = away.bind("written to")
	a.exchange("a", away, "written to")
	eye.watch.told("written to", codec.CodeOK, epoch)
	eye.silent()
}

// An answer of the registry that arrives after what happened later does not count.
func TestWatchLateAnswer(t *testing.T) {
	g, reg := startWatching(t, 1, 20*time.Millisecond)
	a, eye := g.nodes[0].join(), g.nodes[0].join()
	eye.watch.add(codec.CodeNoRoute, "x")
	for range 5 {
		slow := make(chan struct{})
		reg.slow.Store(&slow)
		asked := reg.questions.Load()
		eye.n.eventually("a question under way", func() bool { return reg.questions.Load() > asked })
		epoch := a.bind("x")
		eye.watch.told("x", codec.CodeOK, epoch)
		reg.slow.Store(nil)
		close(slow)
		asked = reg.questions.Load()
		eye.n.eventually("more questions", func() bool { return reg.questions.Load() > asked+2 })
		eye.silent()
		a.unbind("x", epoch)
		eye.watch.told("x", codec.CodeNoRoute, epoch)
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
		eye.watch.add(codec.CodeNoRoute, ids...)
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
	eye.watch.told("id-3-3", codec.CodeOK, epoch)
}

// While the registry cannot be asked, or may have lost something, nothing changes; what is known
// here is known all the same (S18).
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
			eye.watch.add(codec.CodeOK, "away", "here")
			trouble(reg, true)
			gone := away.unbind("away", epoch)
			asked := reg.questions.Load()
			g.nodes[0].eventually("polls", func() bool { return reg.questions.Load() > asked+3 })
			eye.silent()
			late := g.nodes[0].join()
			got := late.watch.tryAdd("away", "here", "new")
			want := []codec.Result{{Code: codec.CodeOK, Epoch: epoch}, {Code: codec.CodeOK, Epoch: local}, {Code: codec.CodeRegistryUnavailable}}
			if !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			trouble(reg, false)
			eye.watch.told("away", codec.CodeNoRoute, epoch)
			all := late.watch.changes()
			for len(all) < 2 {
				maps.Copy(all, late.watch.changes())
			}
			if all["away"] != (codec.Result{Code: codec.CodeNoRoute, Epoch: epoch}) || all["new"] != (codec.Result{Code: codec.CodeNoRoute}) {
				t.Errorf("%v (unbind %v)", all, gone)
			}
			eye.silent()
			late.silent()
		})
	}
}

// When a node dies, its IDs are reported as gone after the resume window, and not before.
func TestWatchNodeDies(t *testing.T) {
	long(t)
	t.Parallel()
	g, _ := startWatching(t, 3, 50*time.Millisecond)
	a, eye := g.nodes[2].join(), g.nodes[0].join()
	epoch := a.bind("x")
	eye.watch.add(codec.CodeOK, "x")
	began := time.Now()
	if err := g.nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	eye.watch.told("x", codec.CodeNoRoute, epoch)
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
	r := eye.watch.tryAdd("id-0", "id-1")
	began := time.Now()
	if r[0].Code != codec.CodeOK || r[1].Code != codec.CodeOK {
		t.Fatalf("%v", r)
	}
	// The other one attaches to a node that lives, this one, but nobody has told it of the session.
	if err := reg.Attach(ctx, alive, routing.Presence{Node: "n0", Incarnation: g.nodes[0].Incarnation(), Serial: 1}); err != nil {
		t.Fatal(err)
	}
	eye.watch.told("id-0", codec.CodeNoRoute, r[0].Epoch)
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("told after %v, within the resume window", took)
	}
	// It was not dead, only away for long.
	if err := reg.Attach(ctx, dead, routing.Presence{Node: "n0", Incarnation: g.nodes[0].Incarnation(), Serial: 1}); err != nil {
		t.Fatal(err)
	}
	eye.watch.told("id-0", codec.CodeOK, r[0].Epoch)
	if _, err := reg.EndSession(ctx, routing.EndOp{Session: dead, Force: true}); err != nil {
		t.Fatal(err)
	}
	eye.watch.told("id-0", codec.CodeNoRoute, r[0].Epoch)
	eye.silent()
}
