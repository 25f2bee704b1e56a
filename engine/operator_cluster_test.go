package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/query"
	"distmsg/routing"
)

// missing returns why a node did not answer. It fails the test if it answered.
func missing[T any](t *testing.T, all Asked[T], node string) (why string) {
	t.Helper()
	for _, m := range all.Missing {
		if m.Node == node {
			return m.Why
		}
	}
	t.Fatalf("%s is not missing: %+v", node, all)
	return ""
}

// From any node an operator sees all.
func TestOperatorAsksAll(t *testing.T) {
	g := startGroup(t, 3, 2)
	a := g.nodes[0].join("a")
	g.nodes[1].join("b", "c")
	for _, n := range g.nodes {
		o := n.Operator()
		nodes, err := o.Nodes(asks(t))
		if err != nil || len(nodes.Answers) != 3 || len(nodes.Missing) != 0 {
			t.Fatalf("%+v, %v", nodes, err)
		}
		for _, v := range nodes.Answers {
			if len(v.Links) != 2 || !v.Links[0].Up || !v.Links[1].Up || !v.Links[0].Asked || !v.Links[0].Listed || v.PeerAddr == "" {
				t.Errorf("%+v", v)
			}
		}
		if nodes.Answers[0].Node != n.NodeID() {
			t.Errorf("the first answer is that of %s", nodes.Answers[0].Node)
		}
		sessions, err := o.Sessions(asks(t), SessionQuery{Slowest: 10})
		if err != nil || len(sessions.Answers) != 2 || len(sessions.Missing) != 0 {
			t.Errorf("%+v, %v", sessions, err)
		}
		conns, err := o.Conns(asks(t), 0)
		if err != nil || len(conns.Answers) != 2 {
			t.Errorf("%+v, %v", conns, err)
		}
		ids, err := o.IDs(asks(t), a.sessionID().String(), 0)
		if err != nil || len(ids.Answers) != 1 || ids.Answers[0].Node != "n0" || ids.Answers[0].ID != "a" {
			t.Errorf("%+v, %v", ids, err)
		}
		links, err := o.Links(asks(t))
		if err != nil || len(links.Answers) != 6 {
			t.Errorf("%+v, %v", links, err)
		}
	}
}

// A node that does not answer, one that is gone, and one that is too old are named.
func TestOperatorMissing(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroupWith(t, 3, 1, func(c *Config) { c.LoopGap = patience }, func(e *Engine) {
		if e.NodeID() != "n2" {
			return
		}
		identity := e.cluster.self.Identity
		e.cluster.self.Identity = func() codec.PeerIdentity {
			id := identity()
			id.Flags &^= codec.PeerAnswers
			return id
		}
	})
	g.hub.mu.Lock()
	g.hub.members["n9"] = discovery.Record{ID: "n9", Incarnation: 1, PeerAddr: "127.0.0.1:1", Addr: "127.0.0.1:2"}
	g.hub.tell()
	g.hub.mu.Unlock()
	release := make(chan struct{})
	defer close(release)
	g.nodes[1].loops[0].post(func() { <-release })
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all, err := g.nodes[0].Operator().Nodes(ctx)
	if err != nil || len(all.Answers) != 1 || len(all.Missing) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if why := missing(t, all, "n1"); why != "no answer within the deadline" {
		t.Errorf("n1: %s", why)
	}
	if why := missing(t, all, "n2"); why != query.WhyOld {
		t.Errorf("n2: %s", why)
	}
	if why := missing(t, all, "n9"); why != query.WhyNoLink {
		t.Errorf("n9: %s", why)
	}
	if err := g.nodes[0].Operator().Drain(asks(t), "nobody"); err == nil || !strings.Contains(err.Error(), "no node of this name") {
		t.Errorf("drain of nobody: %v", err)
	}
}

// where asks for one ID.
func where(t *testing.T, n *node, id string) WhereInfo {
	t.Helper()
	all, err := n.Operator().Where(asks(t), []string{id})
	if err != nil || len(all.Answers) != 1 || len(all.Missing) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all.Answers[0]
}

// An operator hears who holds an ID, and whose cache says something else.
func TestOperatorWhere(t *testing.T) {
	g := startGroup(t, 3, 1)
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	a.exchange("a", b, "b") // from now on n0 has a route
	g.nodes[1].settle()
	w := where(t, g.nodes[2], "b")
	if w.State != WhereBound || w.Session != b.sessionID().String() || !slices.Equal(w.Nodes, []string{"n1"}) || w.Disagree || len(w.Beliefs) != 2 {
		t.Errorf("%+v", w)
	}
	if w := where(t, g.nodes[2], "nobody"); w.State != WhereNotBound || w.Disagree || len(w.Beliefs) != 0 {
		t.Errorf("%+v", w)
	}
	remote := g.nodes[0].cluster.remote
	remote.Bind("b", remote.OpenSession(routing.NewSessionID(), ""), w.Epoch+1)
	w = where(t, g.nodes[2], "b")
	if !w.Disagree {
		t.Fatalf("%+v", w)
	}
	for _, v := range w.Beliefs {
		if (v.Node == "n0") != (v.Differs != "") {
			t.Errorf("%+v", v)
		}
	}
	if _, err := g.nodes[0].Operator().Where(asks(t), nil); err == nil {
		t.Error("no error without an ID")
	}
}

// traced is a trace while the receiver answers pings.
func traced(t *testing.T, n *node, from, to string, receiver *client) TraceInfo {
	t.Helper()
	done := make(chan TraceInfo, 1)
	go func() {
		all, err := n.Operator().Trace(asks(t), from, to)
		if err != nil {
			t.Error(err)
		}
		done <- all
	}()
	if receiver != nil {
		for {
			f, err := receiver.read()
			if err != nil {
				t.Fatal(err)
			}
			if f.kind != codec.KindPing {
				continue
			}
			nonce, err := codec.DecodePing(f.body)
			receiver.decoded(err)
			receiver.write(codec.AppendPong(nil, nonce))
			if nonce >= probeNonce {
				break
			}
		}
	}
	return <-done
}

func stepsOf(t TraceInfo) (steps []string) {
	for _, h := range t.Hops {
		steps = append(steps, h.Node+" "+h.Step)
	}
	return steps
}

// A dry run goes the way of a message.
func TestOperatorTrace(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 3, loops)
		g.nodes[0].join("a")
		b, c := g.nodes[1].join("b"), g.nodes[2].join("c")
		g.nodes[0].settle()
		for _, v := range []struct {
			from, to string
			receiver *client
			code     codec.Code
			steps    []string
		}{
			{"a", "b", b, codec.CodeAcked, []string{"n0 sender", "n0 lookup", "n0 registry", "n0 lookup", "n0 link", "n1 receiver", "n1 queue", "n1 connection"}},
			{"a", "b", b, codec.CodeAcked, []string{"n0 sender", "n0 lookup", "n0 link", "n1 receiver", "n1 queue", "n1 connection"}},
			{"b", "b", b, codec.CodeAcked, []string{"n1 sender", "n1 lookup", "n1 queue", "n1 connection"}},
			{"", "c", c, codec.CodeAcked, []string{"n2 sender", "n2 lookup", "n2 queue", "n2 connection"}},
			{"a", "nobody", nil, codec.CodeNoRoute, []string{"n0 sender", "n0 lookup", "n0 registry"}},
		} {
			got := traced(t, g.nodes[2], v.from, v.to, v.receiver)
			if got.Code != v.code.String() || !slices.Equal(stepsOf(got), v.steps) || len(got.Missing) != 0 {
				t.Errorf("%s to %s: %+v", v.from, v.to, got)
			}
		}
		// n0 believes that a session is at n1 that is not.
		id := routing.NewSessionID()
		n := g.nodes[0]
		k := n.cluster.linkTo("n1")
		l := n.loops[k.handle.Loop]
		done := make(chan error, 1)
		l.post(func() {
			done <- k.handlePresence(codec.KindAttached, codec.AppendPresence(nil, codec.KindAttached, id[:], 1)[codec.PrefixLen:])
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		n.cluster.remote.Bind("c", n.cluster.remote.Session(id), 1)
		got := traced(t, g.nodes[2], "a", "c", c)
		want := []string{"n0 sender", "n0 lookup", "n0 link", "n1 receiver", "n0 lookup", "n0 registry", "n0 lookup", "n0 link", "n2 receiver", "n2 queue", "n2 connection"}
		if got.Code != "acked" || !slices.Equal(stepsOf(got), want) || got.Hops[3].Returned != "not_attached" {
			t.Errorf("%+v", got)
		}
	})
}

// A kick ends a binding everywhere, and its client hears it.
func TestOperatorKick(t *testing.T) {
	g := startGroup(t, 3, 1)
	a, b := g.nodes[0].join("a"), g.nodes[1].join()
	epoch := b.bind("b")
	a.exchange("a", b, "b")
	o := g.nodes[2].Operator()
	if err := o.Kick(asks(t), "b"); err != nil {
		t.Fatal(err)
	}
	id, over, err := codec.DecodeKick(b.expect(codec.KindKick))
	if err != nil || string(id) != "b" || over != epoch+1 {
		t.Errorf("kick %q %d, %v; it was bound under %d", id, over, err, epoch)
	}
	for _, n := range g.nodes {
		n.settle()
	}
	if w := where(t, g.nodes[0], "b"); w.State != WhereNotBound || w.Disagree {
		t.Errorf("%+v", w)
	}
	a.hears(a.send("a", "b", "x"), codec.CodeNoRoute)
	if err := o.Kick(asks(t), "b"); !errors.Is(err, ErrNotBound) {
		t.Errorf("the second time: %v", err)
	}
	if again := b.bind("b"); again <= epoch {
		t.Errorf("bound again under %d", again)
	}
}

// hearsDrain expects a drain frame with that many addresses.
func (c *client) hearsDrain(addrs int) (f codec.Drain) {
	c.t.Helper()
	c.decoded(codec.DecodeDrain(c.expect(codec.KindDrain), &f))
	if len(f.Addrs) != addrs {
		c.t.Errorf("%+v", f)
	}
	return f
}

// An operator drains another node, and ends the drain.
func TestOperatorDrain(t *testing.T) {
	g := startGroup(t, 3, 1)
	o, n := g.nodes[0].Operator(), g.nodes[1]
	c, far := n.join("c"), g.nodes[0].join("far")
	state := func() NodeState {
		all, err := o.Nodes(asks(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all.Answers {
			if v.Node == "n1" {
				return v.State
			}
		}
		return ""
	}
	if err := o.Drain(asks(t), "n1"); err != nil {
		t.Fatal(err)
	}
	c.hearsDrain(2)
	if !n.Draining() || state() != NodeDraining {
		t.Error("it does not drain")
	}
	refused := n.dial()
	refused.write(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
	refused.fails(codec.FaultGoingAway)
	if err := o.Undrain(asks(t), "n1"); err != nil {
		t.Fatal(err)
	}
	if n.Draining() || state() != NodeReady {
		t.Error("it still drains")
	}
	n.join("d").exchange("d", c, "c")
	g.nodes[0].eventually("n1 is announced again", func() bool { return len(g.nodes[0].cluster.peers.Members.Addrs()) == 2 })
	far.exchange("far", c, "c")

	// The process waits for the end of a drain, so it is about to stop.
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Drain(ctx) }()
	n.eventually("draining", n.Draining)
	if err := o.Undrain(asks(t), "n1"); err == nil || !strings.Contains(err.Error(), "about to stop") {
		t.Errorf("undrain: %v", err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	if err := o.Undrain(asks(t), "n1"); err != nil || n.Draining() {
		t.Errorf("undrain: %v", err)
	}
}

// A share of the clients is asked to go to other nodes. The node serves the others, and those.
func TestOperatorRebalance(t *testing.T) {
	g := startGroup(t, 2, 2)
	n, o := g.nodes[0], g.nodes[1].Operator()
	var all []*client
	for range 8 {
		all = append(all, n.join())
	}
	moved, err := o.Rebalance(asks(t), "n0", 0.5, 0)
	if err != nil || moved != 4 {
		t.Fatalf("%d, %v", moved, err)
	}
	n.eventually("the move ends", func() bool { return n.rebalance.info().Done })
	if i := n.rebalance.info(); i.Chosen != 4 || i.Asked != 4 {
		t.Errorf("%+v", i)
	}
	n.settle()
	asked := 0
	for _, c := range all {
		for _, f := range c.arrived() {
			var d codec.Drain
			if f.kind != codec.KindDrain || codec.DecodeDrain(f.body, &d) != nil || len(d.Addrs) != 1 || d.Addrs[0] != g.nodes[1].Addr().String() {
				t.Errorf("%s", describe(f))
			}
			asked++
		}
	}
	if asked != 4 || n.Draining() {
		t.Errorf("%d clients were asked to move", asked)
	}
	all[0].bind("x")
	for _, v := range []struct {
		share float64
		over  time.Duration
	}{{-1, 0}, {1.1, 0}, {1, -1}, {1, 2 * longestMove}} {
		if _, err := o.Rebalance(asks(t), "n0", v.share, v.over); err == nil {
			t.Errorf("no error for %+v", v)
		}
	}
	if _, err := o.Rebalance(asks(t), "n0", 1, longestMove); err != nil {
		t.Fatal(err)
	}
	if moved, err = o.Rebalance(asks(t), "n0", 0, 0); err != nil || moved != 0 {
		t.Errorf("%d, %v", moved, err)
	}
}

// An operator watches IDs.
func TestOperatorWatch(t *testing.T) {
	g := startGroup(t, 2, 1)
	a := g.nodes[0].join()
	ctx, stop := context.WithCancel(context.Background())
	events, done := make(chan WatchEvent, 16), make(chan error, 1)
	go func() {
		done <- g.nodes[0].Operator().Watch(ctx, []string{"a"}, func(e WatchEvent) { events <- e })
	}()
	next := func(state WhereState) WatchEvent {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.State == state {
					return e
				}
			case <-time.After(patience):
				t.Fatal("no event")
			}
		}
	}
	next(WhereNotBound)
	epoch := a.bind("a")
	if e := next(WhereBound); e.Epoch != epoch || e.Session != a.sessionID().String() || e.ID != "a" || e.At.IsZero() {
		t.Errorf("%+v", e)
	}
	a.unbind("a", epoch)
	next(WhereNotBound)
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	g.nodes[0].eventually("nobody watches", func() bool { return g.nodes[0].Stats().Watched == 0 })
}

// A client cannot ask what operators ask.
func TestClientsCannotQuery(t *testing.T) {
	g := startGroup(t, 2, 1)
	c := g.nodes[0].join("c")
	for _, b := range [][]byte{
		codec.AppendQuery(nil, &codec.Query{Number: 1, Within: 1000, Verb: []byte(orderDrain), Args: []byte("{}")}),
		codec.AppendQueryPart(nil, &codec.QueryPart{Number: 1, Flags: codec.QueryLast}),
	} {
		c.write(b)
		if e := c.fault(codec.FaultUnknownKind); e.Flags != 0 {
			t.Errorf("%+v", e)
		}
	}
	c.silent()
	if g.nodes[0].Draining() {
		t.Error("it drains")
	}
}
