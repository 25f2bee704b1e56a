package engine

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/peers"
	"distmsg/routing"
)

// tryStart runs one more node of a group and returns how Run ends, if that is soon, or nil when the
// node is ready.
func (g *group) tryStart(id string) error {
	g.t.Helper()
	e, err := New(Config{NodeID: id, Addr: "127.0.0.1:0", Loops: 1, Logger: quiet(), Registry: g.registry,
		Membership: &hubMember{hub: g.hub}, ClusterSecret: []byte("the secret of the test cluster"), PeerAddr: "127.0.0.1:0",
		ResumeWindow: 2 * time.Second})
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-e.Ready():
		cancel()
		return <-done
	}
}

// record adds a node to the membership that says so itself.
func (h *hub) record(r discovery.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members[r.ID] = r
	h.tell()
}

// unlist takes a node out of the membership.
func (h *hub) unlist(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.members, id)
	h.tell()
}

// Of two nodes with one ID the second does not start, and says where the first one is. Its former
// self is none.
func TestTwin(t *testing.T) {
	g := startGroup(t, 1, 1)
	first := g.nodes[0].cluster.peers.Record()
	other := *g
	other.hub = newTwinHub(first)
	err := other.tryStart("n0")
	if err == nil || !strings.Contains(err.Error(), "n0") || !strings.Contains(err.Error(), first.PeerAddr) {
		t.Errorf("the second n0: %v", err)
	}
	gone := newTwinHub(discovery.Record{ID: "n1", Incarnation: 1, Addr: "127.0.0.1:1", PeerAddr: "127.0.0.1:1"})
	other.hub = gone
	if err := other.tryStart("n1"); err != nil {
		t.Errorf("a node whose former self is still listed: %v", err)
	}
}

// newTwinHub is a membership in which a record stands whoever announces the same ID.
func newTwinHub(r discovery.Record) *hub {
	h := newHub()
	h.twin = &r
	return h
}

// A node takes clients when it is linked to all others: until then it is announced as one that does
// not.
func TestJoinsBeforeItServes(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroup(t, 2, 1)
	g.hub.record(discovery.Record{ID: "dead", Incarnation: 1, Addr: "127.0.0.1:1", PeerAddr: "127.0.0.1:1"})
	began := time.Now()
	n := g.start("n2", 1, nil)
	if took := time.Since(began); took < peers.JoinTimeout {
		t.Errorf("it took clients after %v, without a link to every node", took)
	}
	if links := n.Stats().Links; links != 2 {
		t.Errorf("ready with %d links", links)
	}
	if h := n.Health(); len(h) != 1 || !strings.Contains(h[0], `"dead"`) {
		t.Errorf("health: %q", h)
	}
	if !n.Gone(routing.Presence{Node: "n1", Incarnation: 7}) || n.Gone(routing.Presence{Node: "n1", Incarnation: g.nodes[1].Incarnation()}) ||
		!n.Gone(routing.Presence{Node: "unknown"}) || n.Gone(routing.Presence{Node: "dead", Incarnation: 1}) ||
		!n.Gone(routing.Presence{Node: "dead"}) ||
		n.Gone(routing.Presence{Node: "dead", Incarnation: 2}) { // the list may be older
		t.Error("gone or not gone, the wrong way round")
	}
}

// A node whose clients are all in its own process is one of a cluster like any other, except that
// no client is sent to it.
func TestNodeWithoutClients(t *testing.T) {
	g := startGroup(t, 1, 1)
	g.nodes = append(g.nodes, g.start("n1", 1, func(c *Config) { c.Addr = noListener }))
	g.linked(2)
	a := g.nodes[0].join("a")
	if m := a.welcome.Members; len(m) != 1 || m[0].Node != "n0" {
		t.Errorf("the client is told of %v", m)
	}
	if addrs := g.nodes[0].cluster.peers.Members.Addrs(); len(addrs) != 0 {
		t.Errorf("a drain would send clients to %q", addrs)
	}
	g.nodes[1].attach(sdk.Config{Handler: answering}, "b")
	a.hears(a.send("a", "b", "x"), codec.CodeAcked)
}

// Clients hear which nodes there are, when they connect and whenever that changes.
func TestClientsHearOfNodes(t *testing.T) {
	g := startGroup(t, 2, 2)
	c := g.nodes[0].join("c")
	names := func() (all []string) {
		for _, m := range c.welcome.Members {
			all = append(all, m.Node)
		}
		return all
	}
	until := func(want ...string) {
		t.Helper()
		for !slices.Equal(names(), want) {
			f, err := c.read()
			if err == nil && f.kind == codec.KindMembers {
				c.welcome.Members, err = codec.DecodeMembers(f.body)
			}
			if err != nil {
				t.Fatalf("waiting for %v, having %v: %v", want, names(), err)
			}
		}
	}
	until("n0", "n1")
	n := g.start("n2", 1, nil)
	until("n0", "n1", "n2")
	if c.welcome.Members[2].Addr != n.Addr().String() {
		t.Errorf("%v", c.welcome.Members)
	}
	drained := make(chan error, 1)
	go func() { drained <- n.Drain(t.Context()) }()
	until("n0", "n1")
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A draining node sends its clients elsewhere and goes on until they have left (S23); their IDs
// move with them, unbound by nobody.
func TestDrainMoves(t *testing.T) {
	g := startGroup(t, 3, 2)
	old, next := g.nodes[0], g.nodes[1]
	a, b := old.join("a"), g.nodes[2].join("b")
	b.exchange("b", a, "a")
	held := old.holder("a")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- old.Drain(ctx) }()
	var f codec.Drain
	a.decoded(codec.DecodeDrain(a.expect(codec.KindDrain), &f))
	if want := []string{next.Addr().String(), g.nodes[2].Addr().String()}; len(f.Addrs) != 2 || !slices.Contains(f.Addrs, want[0]) || !slices.Contains(f.Addrs, want[1]) {
		t.Errorf("drain to %v, want %v", f.Addrs, want)
	}
	late := old.dial()
	late.write(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
	late.fails(codec.FaultGoingAway)

	moved := next.dial()
	if w := moved.hello(a.resume()); w.Flags&codec.WelcomeResumed == 0 || string(w.Session) != string(a.session) {
		t.Fatalf("not resumed: %+v", w)
	}
	// What was on its way to the old connection is answered there.
	seq := a.send("a", "b", "from the old node")
	b.ack(b.gets("a", "b", "from the old node"), "")
	a.hears(seq, codec.CodeAcked)
	a.write(codec.AppendLeave(nil))
	a.expect(codec.KindLeft)
	for range 3 {
		b.exchange("b", moved, "a")
		moved.exchange("a", b, "b")
	}
	select {
	case err := <-drained:
		t.Fatalf("drained before the old connection was closed: %v", err)
	default:
	}
	a.nc.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if now := next.holder("a"); now != held {
		t.Errorf("bound to %v, before %v", now, held)
	}
	next.eventually("presence", func() bool { return next.presentAt(a.sessionID()) == 1 })
}

// A node that has ended is announced by nobody any more: not by a drain that began a moment before,
// either.
func TestNotAnnouncedBehindItsEnd(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.cluster.peers.Announcer.Announce(t.Context())
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	if len(g.hub.members) != 0 {
		t.Errorf("still listed: %v", g.hub.members)
	}
}

// A second leave costs nothing and is not answered.
func TestLeaveTwice(t *testing.T) {
	n := start(t, Config{})
	c := n.join()
	c.write(codec.AppendLeave(nil))
	c.expect(codec.KindLeft)
	c.write(codec.AppendLeave(nil))
	c.alive()
	n.background.Wait()
	c.alive()
}

// A node need not ask where the IDs of a session are that has moved away from it.
func TestFollowsMovedSessions(t *testing.T) {
	reg := &down{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := &group{t: t, hub: newHub(), registry: reg}
	for _, id := range []string{"n0", "n1"} {
		g.nodes = append(g.nodes, g.start(id, 1, nil))
	}
	g.linked(2)
	a, b := g.nodes[0].join("a"), g.nodes[0].join("b")
	reg.off.Store(true)
	moved := g.nodes[1].dial()
	moved.hello(a.resume())
	g.nodes[0].eventually("news", func() bool {
		s := g.nodes[0].cluster.remote.Session(a.sessionID())
		return s != nil && len(s.Handles()) == 1
	})
	a.write(codec.AppendLeave(nil))
	a.expect(codec.KindLeft)
	b.exchange("b", moved, "a")
	reg.off.Store(false)
	thief := g.nodes[1].join()
	moved.kicked("a", thief.bind("a"))
	for range 3 { // the first comes back from where it was, the others go straight
		b.exchange("b", thief, "a")
	}
}

// A node that was stopped is another one for its peers: links and presence of the old incarnation
// are gone.
func TestFenceInCluster(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: newLossy()}
	for _, id := range []string{"n0", "n1"} {
		g.nodes = append(g.nodes, g.start(id, 2, func(c *Config) { c.LoopGap = testGap; c.ResumeWindow = time.Minute }))
	}
	g.linked(2)
	stopped, other := g.nodes[0], g.nodes[1]
	a, b := stopped.join("a"), other.join("b")
	b.exchange("b", a, "a")
	before := stopped.Incarnation()
	stopped.stall(0, func() {})
	stopped.eventually("incarnation", func() bool { return stopped.Incarnation() != before })
	g.linked(2)
	other.eventually("the new incarnation", func() bool {
		_, ok := porch{other.Engine}.LinkTo(routing.Presence{Node: "n0", Incarnation: stopped.Incarnation()})
		return ok
	})
	other.eventually("presence", func() bool { return other.presentAt(a.sessionID()) == 0 })
	b.hears(b.send("b", "a", "while it is nowhere"), codec.CodeUnreachable)
	again := stopped.dial()
	again.hello(a.resume())
	other.eventually("attached", func() bool { return other.dir.Probe().Attached(a.sessionID()) })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		again.ack(again.delivered(), "")
	}()
	for {
		seq := b.send("b", "a", "when it is back")
		// The last answer is remembered for a moment (S19).
		if o := b.outcome(); o.Seq != seq || o.Code != codec.CodeUnreachable {
			if o.Code != codec.CodeAcked {
				t.Errorf("%+v", o)
			}
			break
		}
	}
	<-answered
}

// After a partition a node does not introduce sessions whose connections may be dead: they may have
// moved.
func TestStaleConnectionsAreNotIntroduced(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroup(t, 2, 2)
	cut, other := g.nodes[0], g.nodes[1]
	silent, lively := cut.join("silent"), cut.join("lively")
	other.eventually("both", func() bool {
		return other.dir.Probe().Attached(silent.sessionID()) && other.dir.Probe().Attached(lively.sessionID())
	})
	began := time.Now()
	for time.Since(began) < linkDead+100*time.Millisecond {
		lively.alive()
		time.Sleep(20 * time.Millisecond) // silence is what this test is about
	}
	cut.cluster.mu.Lock()
	h := cut.cluster.links["n1"].handle
	cut.cluster.mu.Unlock()
	hall{cut.Engine}.Close([]routing.Handle{h}, codec.FaultIdleTimeout, "a partition")
	other.eventually("link down", func() bool { return !other.dir.Probe().Attached(lively.sessionID()) })
	other.eventually("introduced", func() bool { return other.dir.Probe().Attached(lively.sessionID()) })
	cut.settle()
	other.settle()
	if other.dir.Probe().Attached(silent.sessionID()) {
		t.Error("a session was introduced that nobody has heard of")
	}
	// It has moved indeed: what is sent at the node that was cut off goes after it, and not to the
	// old connection.
	moved := other.dial()
	moved.hello(silent.resume())
	cut.eventually("step back", func() bool { return len(cut.table.Session(silent.sessionID()).Handles()) == 0 })
	lively.exchange("lively", moved, "silent")
	silent.alive() // which answers the ping
	cut.eventually("back", func() bool { return len(cut.table.Session(silent.sessionID()).Handles()) == 1 })
	lively.exchange("lively", silent, "silent")
	silent.nc.Close()
	cut.eventually("presence", func() bool { return cut.presentAt(silent.sessionID()) == 1 })
	lively.exchange("lively", moved, "silent")
}

// A session that is attached here and has bound an ID at another node hears that it lost it.
func TestKickAtAnyNode(t *testing.T) {
	g := startGroup(t, 2, 1)
	a := g.nodes[0].join("a")
	second := g.nodes[1].dial()
	second.hello(a.resume())
	thief := g.nodes[1].join()
	epoch := thief.bind("a")
	a.kicked("a", epoch)
	second.kicked("a", epoch)
}

// Requests that have waited for as long as a stop lasts are refused: others may have bound the IDs
// since (S24).
func TestOldRequests(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{LoopGap: testGap})
	c := n.join()
	began := n.clock()
	release := make(chan struct{})
	for i := range directory.Lanes {
		n.dir.Probe().InLane(i, func() { <-release })
	}
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, codec.PolicyKickOld, withEpochs([]string{"x"})))
	n.eventually("a while", func() bool { return n.clock()-began > testGap+100*time.Millisecond })
	close(release)
	if r := c.requested(codec.KindBound); r[0].Code != codec.CodeRegistryUnavailable {
		t.Errorf("%v", r)
	}
	c.bind("x")
}
